"""A change on its way to its servers in stages: who has it, when a stage is over, and when it goes no further.

The change is a policy's revision or a run of a task; its journal number names it. Servers stand in an order that this number and
their ids give (`place`), so that no list is needed to know who has it: those whose place is at most `started`. Those at most
`confirmed` have it for good; the others of them, if the change is to be confirmed, go back by themselves unless their stage ends in
time. Neither ever shrinks, so nobody who has it loses it but by a new decision.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from itertools import pairwise
from typing import NamedTuple

from enlist.reasons import Reason, Refused

NONE = ""
"""Before every place."""
ALL = "g"
"""Behind every place: greater than any hex digit."""

PATIENCE = 10 * 60
"""Seconds after which a server that says nothing counts as failed, where no time to confirm was set."""
HEARD = 2
"""Seconds after a link's opening in which its server has said everything again."""
LONGEST_CONFIRM = 7 * 86400
MOST_STAGES = 20
MOST_FAILURES = 1_000_000

_NUMBER = re.compile(r"[1-9][0-9]{0,6}")
_SHARE = re.compile(r"([1-9][0-9]?|100)%")


class RolloutState(StrEnum):
    """Whether there is anything left to decide."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"


@dataclass(frozen=True)
class Stages:
    """What was asked for: `sizes` are numbers of servers and percentages, the last one `100%`; `confirm_seconds` is 0 for never."""

    sizes: tuple[str, ...]
    stop_after: int = 1
    confirm_seconds: int = 0

    @property
    def patience(self) -> int:
        """Seconds that each server gets to put the change in force.

        Less than it has to be confirmed in: a stage is confirmed while whoever put it in force at once still has time to hear so.
        """
        return max(self.confirm_seconds * 3 // 4, 1) if self.confirm_seconds else PATIENCE


@dataclass(frozen=True)
class Rollout:
    """How far a change is. `before` is the revision that servers have until their stage starts, 0 for nothing.

    Of a policy that replaces one whose rollout was not done, it is what that one had before: the newest that everybody had for
    good. `stage` counts from 1 and began at `stage_at`, Unix seconds; `message` says why it stopped.
    """

    account: str
    revision: int
    before: int
    stages: Stages
    state: RolloutState
    stage: int
    started: str
    confirmed: str
    stage_at: int
    message: str = ""

    @property
    def last_stage(self) -> bool:
        """Whether no other stage follows."""
        return self.stage == len(self.stages.sizes)


class Outcome(Enum):
    """What a server's last report makes of the change: `WAITING` if there is none, or none that is final."""

    IN_FORCE = "in force"
    FAILED = "failed"
    WAITING = "waiting"


class Presence(NamedTuple):
    """Whether a server's link is open, and since when it is so, Unix seconds; None if there never was one.

    `opens` is when the maintenance window opens that it waits for: its time counts from then. `refusal` says, for people, why the
    server refuses what is desired there; empty while it does not. `unheard`: it was connected, the link over which another server
    speaks of it was replaced at `since`, and nothing was said of it over the new one: it has the time of one that connected then.
    """

    connected: bool
    since: int | None
    opens: int | None = None
    refusal: str = ""
    unheard: bool = False


Present = Callable[[str], Presence]
"""How a server of an account is connected, by its id."""


@dataclass(frozen=True)
class Tally:
    """Of the servers that have the change and were reachable since it began: how many are where.

    `due` is when time alone will change this, Unix seconds; None if it will not.
    """

    in_force: int
    failed: int
    waiting: int
    due: int | None = None


# --- What is asked for ------------------------------------------------------------------------------------------------------


def parse_stages(sizes: Sequence[str], stop_after: int, confirm_seconds: int) -> Stages:
    """Checks what somebody asked for; refused with INVALID_ARGUMENT. A `stop_after` of 0 counts as 1."""
    if len(sizes) > MOST_STAGES:
        raise _refuse(f"A rollout has at most {MOST_STAGES} stages.")
    steps = [_step(size) for size in sizes]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise _refuse("Each stage is larger than the one before it; numbers of servers come before percentages.")
    if not sizes or sizes[-1] != "100%":
        raise _refuse('The last stage is "100%": stages are given like 1,10%,100%.')
    if not 0 <= stop_after <= MOST_FAILURES:
        raise _refuse("A rollout stops after 1 or more servers failed.")
    if not 0 <= confirm_seconds <= LONGEST_CONFIRM:
        raise _refuse("The time to confirm a stage is at most 7 days.")
    return Stages(tuple(sizes), stop_after or 1, confirm_seconds)


def _step(size: str) -> tuple[bool, int]:
    """A size in the order in which sizes grow: numbers, then percentages."""
    if _NUMBER.fullmatch(size):
        return False, int(size)
    if _SHARE.fullmatch(size):
        return True, int(size[:-1])
    raise _refuse(f'"{size}" is no stage: a stage is a number of servers or a percentage, such as 5 or 10%.')


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, message)


# --- Who has it -------------------------------------------------------------------------------------------------------------


def place(revision: int, server_id: str) -> str:
    """Where a server stands in the order of a change: 64 hex digits, another order for every change.

    One below a middle server (`via/path`) gets what that gets, so it stands where that does.
    """
    server_id = server_id.partition("/")[0]
    return hashlib.sha256(f"{revision}/{server_id}".encode()).hexdigest()


def revision_for(revision: int, rollout: Rollout | None, server_id: str) -> tuple[int, int]:
    """Which revision of a group's policy a server has (0: none), and seconds within which that must be confirmed (0: it is final).

    The one rule for all who need to know: for what is sent, what is counted and what is shown.
    """
    if rollout is None or rollout.revision != revision or rollout.state is RolloutState.DONE:
        return revision, 0
    where = place(revision, server_id)
    if where <= rollout.confirmed:
        return revision, 0
    return (revision, rollout.stages.confirm_seconds) if where <= rollout.started else (rollout.before, 0)


def begin(
    account: str, revision: int, before: int, stages: Stages, reachable_ids: Sequence[str], now: int, ids: Sequence[str] = ()
) -> Rollout:
    """The rollout with its first stage begun. Percentages are of `ids`, all servers it is for; without, of the reachable ones."""
    fresh = Rollout(account, revision, before, stages, RolloutState.RUNNING, 0, NONE, NONE, now)
    return _start(fresh, 1, reachable_ids, ids, now)


def _start(rollout: Rollout, stage: int, reachable_ids: Sequence[str], ids: Sequence[str], now: int) -> Rollout:
    """The stage begun, or begun anew: what has started stays so."""
    size = rollout.stages.sizes[stage - 1]
    boundary = ALL if stage == len(rollout.stages.sizes) else _boundary(rollout.revision, size, reachable_ids, ids)
    return replace(rollout, stage=stage, started=max(rollout.started, boundary), stage_at=now)


def _boundary(revision: int, size: str, reachable_ids: Sequence[str], ids: Sequence[str]) -> str:
    """The last place of a stage: so many of all, but never without a reachable one, or the stage would prove nothing."""
    reachable = [place(revision, id) for id in reachable_ids]
    if not reachable:
        return NONE  # nobody could say how it fares; the stage begins when somebody comes
    places = sorted(place(revision, id) for id in ids) or sorted(reachable)
    return max(places[_number(size, len(places)) - 1], min(reachable))


def _number(size: str, total: int) -> int:
    """How many servers a size is: at least one, at most all; a part of a server counts as a whole one."""
    wanted = -(-total * int(size[:-1]) // 100) if size.endswith("%") else int(size)
    return min(max(wanted, 1), total)


# --- How it goes on ---------------------------------------------------------------------------------------------------------


def count(
    rollout: Rollout,
    begun: int,
    outcomes: Mapping[str, Outcome],
    present: Present,
    now: int,
    patience: int | None = None,
) -> Tally:
    """Counts those who have the change, of all servers it is for. `begun` is when the rollout began.

    Who was not reachable since then is not counted. The stage waits for those it brought the change to, for `patience` seconds (if
    not given, those of the stages); then who has said nothing final counts as failed. Who comes late, or left when its stage was
    over, holds nobody up, but has no more time than that either. That a change is in force which is yet to be confirmed counts only
    while the server is there to say so: the change may be what cut it off, and it may have gone back since.
    """
    patience = rollout.stages.patience if patience is None else patience
    stage_over = rollout.stage_at + patience
    in_force, failed, waiting, dues = 0, 0, 0, []
    for server_id, outcome in outcomes.items():
        where = place(rollout.revision, server_id)
        if where > rollout.started:
            continue
        new = where > rollout.confirmed
        if outcome is Outcome.WAITING and present(server_id).refusal:
            outcome = Outcome.FAILED
        if outcome is Outcome.IN_FORCE and new and rollout.stages.confirm_seconds:
            heard = _heard(rollout, present(server_id))
            if heard is None or now < heard:
                outcome = Outcome.WAITING
                dues += [] if heard is None else [heard]
        in_force += outcome is Outcome.IN_FORCE
        failed += outcome is Outcome.FAILED
        due = _due(rollout, begun, new, present(server_id), patience) if outcome is Outcome.WAITING else None
        if due is not None and due <= now:
            failed += 1
        elif due is not None:
            held_up = new and now < stage_over
            waiting += held_up
            dues.append(stage_over if held_up else due)
    return Tally(in_force, failed, waiting, min(dues, default=None))


def _heard(rollout: Rollout, presence: Presence) -> int | None:
    """From when on a server's word counts on what is yet to be confirmed: a link that opened since the stage began says it again.

    None while there is no link.
    """
    if not presence.connected or presence.since is None:
        return None
    return presence.since if presence.since <= rollout.stage_at else presence.since + HEARD


def _due(rollout: Rollout, begun: int, new: bool, presence: Presence, patience: int) -> int | None:
    """Until when a server that has said nothing final may take; None for one that could not have said anything."""
    there = presence.connected or presence.unheard
    if presence.since is None or not (there or presence.since >= begun):
        return None
    if there:
        return (max(rollout.stage_at, presence.since) if presence.opens is None else presence.opens) + patience
    return (rollout.stage_at if new else presence.since) + patience


def judge(rollout: Rollout, tally: Tally, reachable_ids: Sequence[str], now: int, ids: Sequence[str] = ()) -> Rollout | None:
    """The rollout after the next decision, or None: nothing to decide yet.

    It stops once enough servers failed. Else a stage is over when nobody waits and somebody was there to say so: then what it began
    is confirmed, and the next one begins.
    """
    if rollout.state is not RolloutState.RUNNING:
        return None
    if tally.failed >= rollout.stages.stop_after:
        return replace(rollout, state=RolloutState.STOPPED, message=_why(rollout, tally))
    if tally.waiting:
        return None
    if not tally.in_force + tally.failed:
        anew = _start(rollout, rollout.stage, reachable_ids, ids, now)
        return anew if anew.started != rollout.started else None
    if rollout.last_stage:
        return replace(rollout, state=RolloutState.DONE, confirmed=ALL)
    return _start(replace(rollout, confirmed=rollout.started), rollout.stage + 1, reachable_ids, ids, now)


def _why(rollout: Rollout, tally: Tally) -> str:
    servers = "1 server" if tally.failed == 1 else f"{tally.failed} servers"
    return f"{servers} failed in stage {rollout.stage} of {len(rollout.stages.sizes)}"
