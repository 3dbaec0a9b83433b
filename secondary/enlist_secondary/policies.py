"""Policies at this server: what the layers come to, put in force by the owner's handlers, kept so, and reported.

What is known of each kind is written down before a handler begins and after it has ended; after a crash in between, what may be
half done is done again or taken back. A disk that is full keeps new policies from being begun, and holds up nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from enlist import documents
from enlist.reasons import Refused
from enlist.runtime import schedules
from enlist.runtime.controller import Again, Controller, each, run_all
from enlist.runtime.logs import Log
from enlist.runtime.schedules import Window
from enlist.runtime.terminal import moment
from enlist.runtime.threads import to_the_end
from enlist_secondary import policy_records as records
from enlist_secondary.calling import UNFORESEEN, answer
from enlist_secondary.checks import Clock
from enlist_secondary.documents import Documents
from enlist_secondary.handlers.interface import HandlerFailed, PolicyHandler, sentence
from enlist_secondary.outbox import Outbox
from enlist_secondary.policy_records import Record, Step, Wanted
from enlist_secondary.policy_store import PolicyStore
from enlist_secondary.retrying import AGAIN_SECONDS

DRIFT_SECONDS = 10.0
"""Seconds between two looks whether somebody changed locally what a policy governs."""
GO_BACK_SECONDS = 60.0
"""Seconds after which a handler that could not go back, or could not put back, is asked again."""
CLOCK_SECONDS = 60.0
"""Seconds between two looks at the clock, which may have been set, while a maintenance window is waited for."""
SHORTEST_SLEEP = 0.05

UNSUPPORTED = "This server has no handler for it."
_GOING_BACK = " Going back failed: "
_ENDING = "It could not be ended: "
_SETS = "sets"
_LOG = Log("enlist.secondary")


class Policies:
    """All policies of one enrolment. `run` keeps them in force until cancelled; `look` tells it that other sets hold."""

    def __init__(
        self,
        folder: Path,
        held: Documents,
        handlers: Mapping[str, PolicyHandler],
        outbox: Outbox,
        now: Clock,
        drift_seconds: float = DRIFT_SECONDS,
        elapsed: Clock = time.monotonic,
    ) -> None:
        """`now` is the clock, which may be set; `elapsed` counts seconds that went by, whatever is done to the clock."""
        self._held = held
        self._handlers = handlers
        self._now = now
        self._elapsed = elapsed
        self._store = PolicyStore(folder, outbox, now, elapsed)
        self._wanted: dict[str, Wanted] = {}
        self._window: Window | None = None
        self._seen: object = None  # the items that `_wanted` and `_window` were made from; None before the first time
        self._problem = ""
        self._again: set[str] = set()
        self._drift_seconds = drift_seconds
        self._look_at: dict[str, float] = {}
        """When to look whether somebody changed what is in force of a kind, by `elapsed`."""
        self._resting: dict[str, float] = {}
        """For how many seconds a kind rests after what is being done about it."""
        self._stale = True
        """Whether the sets are to be read before anything is done by what they said."""
        self._held_up: set[str] = set()
        """The kinds that wait for that."""
        self._sets = Controller[str]("policy sets", each(self._read_sets), clock=elapsed)
        # One at a time for each handler, which says itself how long it takes: those without one do not wait behind them.
        self._kinds = Controller[str]("policies", each(self._reconcile), at_once=len(handlers) + 1, clock=elapsed)

    def load(self) -> None:
        """Reads the records. What failed before is tried once more: the owner may have mended the handler meanwhile."""
        self._store.load()
        self._again = {kind for kind, record in self._store.all().items() if record.state == records.FAILED}
        self._look_at = dict.fromkeys(self._store.all(), -math.inf)  # something may have been changed while this server was down

    def look(self) -> None:
        """Other sets may hold now."""
        self._stale = True
        self._sets.mark(_SETS)

    def say_all(self) -> None:
        """Puts the word on every kind in the outbox: after a start, before the first link."""
        self._store.say_all()

    def records(self) -> dict[str, Record]:
        """What is known of every kind."""
        return self._store.all()

    @property
    def busy(self) -> frozenset[str]:
        """The kinds that are being worked on, or are about to be; and the sets, while they are read."""
        return self._sets.busy | self._kinds.busy

    # --- When something is to be done -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; handlers that run then are cancelled too."""
        self.look()
        for kind in self._store.all():
            self._kinds.mark(kind)
        await run_all([self._sets, self._kinds])

    async def _read_sets(self, _: str) -> Again:
        """What cannot be read changes nothing: what holds, holds on."""
        try:
            await self._read_changed()
        except Refused as refused:
            if self._problem != refused.message:
                self._problem = refused.message
                _LOG.warning("policies cannot be read", reason=refused.reason, problem=refused.message)
            return AGAIN_SECONDS
        except Exception as error:
            _LOG.fault("policies cannot be read", error)
            return AGAIN_SECONDS
        finally:
            self._stale = False
            for kind in self._held_up:
                self._kinds.mark(kind)
            self._held_up.clear()
        self._problem = ""
        return None

    async def _read_changed(self) -> None:
        kinds = (documents.POLICY, documents.WINDOW)
        if (self._held.unlocked, self._held.items(kinds)) == self._seen:
            return
        unlocked = self._held.unlocked
        found = await self._held.all(kinds)
        self._wanted = await to_the_end(records.wanted, found)
        self._seen = unlocked, [(document.origin, document.item) for document in found]
        try:
            self._window = records.window(found)
        except (Refused, ValueError) as error:  # it holds nothing up
            self._window = None
            _LOG.warning("a maintenance window cannot be read", problem=str(error))
        for kind in {**self._wanted, **self._store.all()}:  # those that rest too: what they waited for may be over
            self._kinds.mark(kind)

    async def _reconcile(self, kind: str) -> Again:
        """Does what is to be done for a kind. In how many seconds it is to be looked at again; None for never."""
        if self._stale:
            self._held_up.add(kind)
            return None
        try:
            return await self._do_next(kind)
        except Refused as refused:
            _LOG.warning("a policy waits", kind=kind, reason=refused.reason, problem=refused.message)
        except Exception as error:
            _LOG.fault("a policy could not be worked on", error, kind=kind)
            self._store.postpone(kind, self._elapsed() + AGAIN_SECONDS)
        self._resting.pop(kind, None)
        return self._until(kind, self._elapsed() + AGAIN_SECONDS)

    async def _do_next(self, kind: str) -> Again:
        if kind not in self._wanted and kind not in self._store.all():
            return None
        elapsed, opens = self._elapsed(), self._opens()
        step = self._step(kind, opens is None)
        look_at = self._next_look(kind, elapsed)
        work = self._work(kind, step, opens, look_at <= elapsed)
        if work is not None:
            await work
            rests = self._resting.pop(kind, 0.0)
            return self._until(kind, self._elapsed() + rests) if rests else 0.0
        due = look_at
        if step is Step.WAIT and opens is not None:
            due = min(due, elapsed + min(opens - self._now(), CLOCK_SECONDS))
        return self._until(kind, due)

    def _next_look(self, kind: str, elapsed: float) -> float:
        """When to look whether what is in force was changed, by `elapsed`."""
        if self._watched(kind):
            return self._look_at.setdefault(kind, elapsed + self._drift_seconds)
        self._look_at.pop(kind, None)
        return math.inf

    def _until(self, kind: str, due: float) -> Again:
        """The seconds until then, by `elapsed`, or until what waits to be confirmed is to be taken back, if that is earlier."""
        due = min(due, self._store.expires(kind) if kind in self._handlers else math.inf)
        return max(due - self._elapsed(), SHORTEST_SLEEP) if due < math.inf else None

    def _rests(self, kind: str, seconds: float) -> None:
        self._resting[kind] = seconds

    def _opens(self) -> int | None:
        """When the maintenance window opens, Unix seconds; None if it is open, or there is none."""
        now = int(self._now())
        try:
            opens = schedules.opens(self._window, now) if self._window is not None else now
        except Refused:  # by a clock that no calendar reaches: it holds nothing up
            return None
        return opens if opens > now else None

    # --- What is to be done ---------------------------------------------------------------------------------------------------

    def _step(self, kind: str, window_open: bool) -> Step:
        step = records.next_step(
            self._wanted.get(kind),
            self._store.get(kind),
            handled=kind in self._handlers,
            expired=self._store.left(kind) <= 0,
            window_open=window_open,
            again=kind in self._again,
        )
        # Before the sets were read for the first time, nothing is known of what is wanted.
        return Step.NOTHING if self._seen is None and step is not Step.ROLL_BACK else step

    def _work(self, kind: str, step: Step, opens: int | None, drift: bool) -> Coroutine[Any, Any, None] | None:
        """The coroutine that does it; also what is due besides, where there is nothing else to do."""
        record, want = self._store.get(kind), self._wanted.get(kind)
        match step:
            case Step.END:
                return self._end(kind, record)
            case Step.ROLL_BACK:
                return self._roll_back(kind, record)
            case Step.GO_BACK:
                return self._go_back(kind, record)
        work = self._forward(want, record, step, opens) if want is not None else None
        if work is None and kind in self._store.unwritten:
            work = self._store.write(kind, record)
        if work is None and drift and want is not None and self._watched(kind):
            self._look_at[kind] = self._elapsed() + self._drift_seconds
            work = self._watch(want, record)
        return work

    def _forward(self, want: Wanted, record: Record, step: Step, opens: int | None) -> Coroutine[Any, Any, None] | None:
        kind, now = want.kind, int(self._now())
        match step:
            case Step.APPLY:
                return self._apply(want, record)
            case Step.ADOPT:
                self._again.discard(kind)
                return self._store.note(kind, records.in_force(want, record, now, self._store.left(kind)))
            case Step.CONFIRM:
                return self._store.note(kind, replace(record, provisional=None))
            case Step.SAY_UNSUPPORTED:
                doubtful = record.doubtful or record.touched  # another handler may come, that does something else
                told = replace(records.about(want, record, now, records.UNSUPPORTED, UNSUPPORTED), doubtful=doubtful)
                return self._store.note(kind, told)
            case Step.SAY_UNREADABLE:
                self._again.discard(kind)
                _LOG.warning("a policy cannot be read", kind=kind, problem=want.problem)
                return self._store.note(kind, records.about(want, record, now, records.FAILED, sentence(want.problem)))
            case Step.WAIT if opens is not None:
                waits = records.about(want, record, now, records.RECEIVED, f"Its maintenance window opens at {moment(opens)}.")
                return self._store.note(kind, waits) if replace(waits, at=record.at) != record else None
        return None

    def _watched(self, kind: str) -> bool:
        """Whether what it governs is looked at now and then."""
        state = self._store.get(kind).state
        return kind in self._handlers and kind in self._wanted and state in (records.APPLIED, records.CHANGED_LOCALLY)

    # --- Doing it -------------------------------------------------------------------------------------------------------------

    async def _apply(self, want: Wanted, record: Record) -> None:
        kind, store = want.kind, self._store
        trying = replace(records.about(want, record, int(self._now()), records.RECEIVED), uncertain=True)
        try:
            await store.write(kind, trying)
        except Refused as refused:  # nothing is begun that could not be written down
            store.know(kind, replace(trying, message=sentence(refused.message), uncertain=record.uncertain))
            raise
        store.know(kind, trying)
        self._again.discard(kind)
        problem = await self._tried(kind, self._handlers[kind].apply(want.settings))
        if problem:
            await self._failed(kind, record, trying, problem)
        else:
            await store.note(kind, records.in_force(want, trying, int(self._now()), store.left(kind)))

    async def _failed(self, kind: str, before: Record, trying: Record, problem: str) -> None:
        """What was in force before is put in force again, where the handler cannot be sure that it still is."""
        _LOG.warning("a policy failed", kind=kind, problem=problem)
        failed = replace(trying, state=records.FAILED, message=problem, at=int(self._now()), uncertain=False, doubtful=True)
        nothing_before = before.running.settings is None
        if not before.uncertain and (nothing_before or self._handlers[kind].restores):
            await self._store.note(kind, failed)
        else:
            await self._go_back(kind, failed)

    async def _roll_back(self, kind: str, record: Record) -> None:
        _LOG.warning("a policy was not confirmed in time, and is rolled back", kind=kind)
        await self._go_back(kind, records.rolled_back(record, int(self._now())))

    async def _go_back(self, kind: str, record: Record) -> None:
        """Has the handler put in force what runs according to the record; then what that says is so."""
        half_done = replace(record, uncertain=True)
        await self._store.write_if_possible(kind, half_done)
        problem = await self._tried(kind, self._handlers[kind].revert(record.running.settings))
        message = record.message.partition(_GOING_BACK)[0]
        if problem:
            _LOG.warning("going back failed", kind=kind, problem=problem)
            self._rests(kind, GO_BACK_SECONDS)
            await self._store.note(kind, replace(half_done, message=sentence(f"{message}{_GOING_BACK}{problem}")))
        else:
            await self._store.note(kind, replace(record, message=message, uncertain=False, doubtful=False))

    async def _watch(self, want: Wanted, record: Record) -> None:
        """Notices what was changed behind the policy's back; puts it back if the policy says so."""
        kind, now = want.kind, int(self._now())
        change = await self._changed(kind)
        latest = self._wanted.get(kind)
        if latest is None or latest.content != want.content:
            return  # meanwhile there is something else to do
        if change is None:
            if record.state == records.CHANGED_LOCALLY:
                await self._store.note(kind, replace(record, state=records.APPLIED, message="", at=now, doubtful=False))
            return
        if record.state != records.CHANGED_LOCALLY or not record.message.startswith(change):
            _LOG.warning("changed locally", kind=kind, change=change)
            record = replace(record, state=records.CHANGED_LOCALLY, message=change, at=now, doubtful=True)
            await self._store.note(kind, record)
            latest = self._wanted.get(kind)
        if want.put_back and latest is not None and latest.content == want.content:
            await self._put_back(want, record, change)

    async def _put_back(self, want: Wanted, record: Record, change: str) -> None:
        kind = want.kind
        problem = await self._tried(kind, self._handlers[kind].apply(want.settings))
        if problem:
            self._rests(kind, GO_BACK_SECONDS)
            await self._store.note(kind, replace(record, message=sentence(f"{change} Putting it back failed: {problem}")))
        else:
            message = sentence(f"Put back after this: {change}")
            put = replace(record, state=records.APPLIED, message=message, at=int(self._now()), doubtful=False)
            await self._store.note(kind, put)

    async def _end(self, kind: str, record: Record) -> None:
        """No policy of this kind is left: restore the original."""
        if record.touched and kind not in self._handlers:
            _LOG.warning("a policy ended, and what it put in force stays: this server has no handler for it any more", kind=kind)
        elif record.touched:
            half_done = replace(record, uncertain=True)  # should the policy come back, it is put in force anew
            self._store.know(kind, half_done)
            await self._store.write_if_possible(kind, half_done)
            problem = await self._tried(kind, self._handlers[kind].revert(None))
            if problem:
                _LOG.warning("a policy could not be ended", kind=kind, problem=problem)
                self._rests(kind, GO_BACK_SECONDS)
                await self._store.note(kind, records.remnant(half_done, int(self._now()), sentence(f"{_ENDING}{problem}")))
                return
        await self._store.forget(kind)
        self._again.discard(kind)

    async def _tried(self, kind: str, call: Awaitable[None]) -> str:
        """What went wrong in a handler, as a sentence; empty if nothing did."""
        try:
            await answer(call)
        except HandlerFailed as failed:
            return failed.message or UNFORESEEN
        except Exception as error:
            _LOG.fault("a handler failed in a way that nobody foresaw", error, kind=kind)
            return UNFORESEEN
        return ""

    async def _changed(self, kind: str) -> str | None:
        try:
            change = await answer(self._handlers[kind].changed())
        except Exception as error:
            _LOG.warning("a handler cannot tell whether something was changed locally", kind=kind, problem=str(error))
            return None
        return None if change is None else sentence(change)
