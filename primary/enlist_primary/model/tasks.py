"""Tasks: what servers shall do once, at a time, or again and again; how a run of one may fare at a server. Pure.

A **task** says what, for whom and when. Each time it fires is a **run**, for the servers that are its targets at that moment; how
the run fares at each of them is a **result**. A result follows the server's words forwards only, and one that has ended is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from enlist import documents, names, values
from enlist.reasons import Reason, Refused
from enlist.runtime import schedules
from enlist_primary.model.rollouts import Rollout, RolloutState, Stages, place

DEADLINE = 600
"""Seconds that a run has, where nobody said."""
LONGEST_DEADLINE = 7 * 86400
FARTHEST = 10 * 365 * 86400
"""Seconds for which a task is planned ahead, at most."""
GRACE = 30
"""Seconds after a run's deadline in which servers may still say how it ended."""
ARGUMENTS_LIMIT = documents.BODY_LIMIT - 512
"""Bytes of arguments: what a document holds, less what a run's document says besides."""

UNREACHED = "The server was not reached in time."
SILENT = "The server did not say in time how it ended."
CANCELLED = "Cancelled."
STOPPED = "The rollout stopped before its stage."
LATE = "Its time was up before all servers had it."


class TaskState(StrEnum):
    """How a run fares at a server."""

    QUEUED = "queued"
    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    UNSUPPORTED = "unsupported"


class Progress(StrEnum):
    """Where a task stands."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


STATES = MappingProxyType({state.value: state for state in TaskState})
ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.TIMED_OUT, TaskState.INTERRUPTED, TaskState.UNSUPPORTED})
OPEN = tuple(state for state in TaskState if state not in ENDED)

TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = MappingProxyType(
    {
        TaskState.QUEUED: frozenset({TaskState.SENT, TaskState.RUNNING}) | ENDED,
        TaskState.SENT: frozenset({TaskState.RUNNING}) | ENDED,
        TaskState.RUNNING: ENDED,
        TaskState.SUCCEEDED: frozenset(),
        TaskState.FAILED: frozenset(),
        TaskState.TIMED_OUT: frozenset(),
        TaskState.INTERRUPTED: frozenset(),
        TaskState.UNSUPPORTED: frozenset(),
    }
)
"""Where a server's word leads from each state. A pair that is not listed changes nothing."""

PRESUMED = frozenset({TaskState.TIMED_OUT, TaskState.INTERRUPTED})
"""States in which the primary ends a result of which the server said no end. The server's own word on how it ended, should it still
come, replaces that, once: it was there."""


def takes(state: TaskState, presumed: bool, word: TaskState) -> bool:
    """Whether a server's word replaces a result; `presumed` says that the primary ended it, not the server."""
    return word in TRANSITIONS[state] or (presumed and state in PRESUMED and word in ENDED)


def before(word: TaskState) -> tuple[TaskState, ...]:
    """The states from which a server's word leads on."""
    return tuple(state for state in TaskState if word in TRANSITIONS[state])


@dataclass(frozen=True)
class Wanted:
    """What somebody asks for: for a group's servers (`group` is its path) or one server, now, at a time, or on a schedule.

    `server_id` is `via/path` for one below a middle server.
    """

    kind: str
    args: bytes = b""
    group: str = ""
    server_id: str = ""
    label: str = ""
    deadline_seconds: int = 0
    time: int | None = None
    schedule: str = ""
    zone: str = ""
    stages: Stages | None = None


@dataclass(frozen=True)
class Task:
    """A task's row. `group` is a path, `server` a name; `args` canonical JSON; times are Unix seconds.

    `revision` is that of its last decision.
    """

    account: str
    id: str
    kind: str
    args: str
    group_id: str | None
    group: str
    server_id: str | None
    label: str
    deadline_seconds: int
    schedule: str
    zone: str
    stages: Stages | None
    next_at: int | None
    state: Progress
    created_at: int
    revision: int
    server: str = ""

    @property
    def over(self) -> bool:
        """Whether no further run will begin."""
        return self.state in (Progress.DONE, Progress.CANCELLED)

    def following(self, now: int) -> int | None:
        """When it runs again after `now`; None for one that runs once, and where its time zone is not known any more."""
        try:
            return schedules.following(self.schedule, self.zone, now) if self.schedule else None
        except Refused:
            return None

    def resting(self) -> Task:
        """The task between two runs, or after its last."""
        return replace(self, state=Progress.DONE if self.next_at is None else Progress.PLANNED)


@dataclass(frozen=True)
class Run:
    """One run. `revision` is the journal number of the decision that began it, `digest` its body's SHA-256 in hex."""

    account: str
    id: str
    task_id: str
    revision: int
    digest: str
    begun_at: int
    deadline_at: int
    ended_at: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Result:
    """How a run fares at a server since `at`. `output` is None while the server has not said how it ended."""

    server_id: str
    name: str
    state: TaskState
    exit_code: int | None
    output: bytes | None
    message: str
    at: int


def checked(wanted: Wanted, now: int) -> Wanted:
    """What is asked for, with defaults put in and `args` in their one form; or a refusal of what could never be done.

    Large arguments take a good part of a second: not in the event loop, nor in the database's one writing thread.
    """
    names.kind(wanted.kind)
    if bool(wanted.group) is bool(wanted.server_id):
        raise _refuse("A task is for a group or for one server.")
    if wanted.label:
        names.label(wanted.label)
        if wanted.server_id:
            raise _refuse("A label chooses among the servers of a group; this task names one server.")
    deadline = wanted.deadline_seconds or DEADLINE
    if not 1 <= deadline <= LONGEST_DEADLINE:
        raise _refuse("The deadline of a task is one second to seven days.")
    if wanted.stages is not None and wanted.stages.confirm_seconds:
        raise _refuse("A task cannot be taken back, so its stages have no time to confirm.")
    _check_time(wanted, now)
    return replace(wanted, args=arguments(wanted.args), deadline_seconds=deadline)


def _check_time(wanted: Wanted, now: int) -> None:
    if wanted.time is not None and wanted.schedule:
        raise _refuse("A task runs at a time or on a schedule, not both.")
    if wanted.zone and not wanted.schedule:
        raise _refuse("A time zone goes with a schedule.")
    if wanted.time is not None and not now <= wanted.time <= now + FARTHEST:
        raise _refuse("The time is past." if wanted.time < now else "A task is planned at most ten years ahead.")
    if wanted.schedule:
        schedules.check(wanted.schedule, wanted.zone)


def arguments(text: bytes) -> bytes:
    """A handler's arguments, a JSON object read as strictly as a policy's settings, in canonical form; `{}` if empty."""
    if len(text) > ARGUMENTS_LIMIT:
        raise _too_large()
    try:
        canonical = values.dumps(values.parse(text or b"{}"))
    except Refused as no:
        sentence = no.message.replace("settings", "arguments")
        raise _refuse(f"The task's arguments were not taken: {sentence}") from None
    if len(canonical) > ARGUMENTS_LIMIT:  # 1e9 is 1000000000.0 in it
        raise _too_large()
    return canonical


def body(run_id: str, kind: str, args: str, deadline_at: int, below: bool, only: str = "") -> bytes:
    """The document of a run, as every server that gets it reads it: canonical JSON, for that is what `args` are already.

    Servers below a middle server get what that gets: `below` says whether it is for them too, `only` (`via/path`) that it is for
    nobody but that one of them.
    """
    deep = "true" if below else "false"
    said = f'"args":{args},"below":{deep},"deadline":{deadline_at},"kind":"{kind}","only":"{only}","run":"{run_id}"'
    return f"{{{said}}}".encode()


def awaited(run: Run, now: int) -> tuple[TaskState, ...]:
    """The states in which something is still to be heard of a run: once its time is up, nothing of servers it was never sent to."""
    return OPEN if now < run.deadline_at else (TaskState.SENT, TaskState.RUNNING)


def over(run: Run, open_ids: frozenset[str], rollout: Rollout | None, now: int) -> bool:
    """Whether a run is to be ended: nobody it has reached is at it any more, and nobody else will get it; or its time is up.

    `open_ids` are the servers at which it is `awaited`.
    """
    if now >= run.deadline_at + GRACE:
        return True
    if rollout is not None and rollout.state is RolloutState.STOPPED:
        return not any(reached(rollout, id) for id in open_ids)
    return not open_ids


def reached(rollout: Rollout | None, server_id: str) -> bool:
    """Whether a run's document is, or was, meant to be at a server: its stage has begun."""
    return rollout is None or rollout.state is RolloutState.DONE or place(rollout.revision, server_id) <= rollout.started


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, message)


def _too_large() -> Refused:
    return Refused(Reason.DOCUMENT_TOO_LARGE, f"The arguments of a task have at most {ARGUMENTS_LIMIT} bytes.")
