"""Tasks at this server: each run is begun once, ever, and its outcome is kept until nobody can ask for it again.

That a run is being begun is on the disk before its handler starts. So a crash in the middle leaves an interrupted run, never one
that runs twice; and a run past its deadline is refused, so that one whose record is gone cannot come back either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from enlist import documents, names
from enlist.documents import Item, ItemVersion
from enlist.reasons import Refused
from enlist.runtime import files
from enlist.runtime.controller import Again, Backoff, Controller, Pauses, each, retry
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.v1 import document_pb2 as pb
from enlist_secondary.calling import UNFORESEEN, answer
from enlist_secondary.checks import Clock
from enlist_secondary.documents import Document, Documents, origin_items
from enlist_secondary.handlers.interface import NO_EXIT_CODE, TaskHandler, TaskOutcome, sentence
from enlist_secondary.outbox import Outbox
from enlist_secondary.retrying import AGAIN_SECONDS

AT_ONCE = 4
"""Runs that go on at the same time, at most."""
UNSETTLED_SECONDS = 30 * 86400
"""Seconds for which an outcome is reported that does not arrive."""
KEPT_SECONDS = 7 * 86400
"""Seconds after its deadline for which a run is remembered, so that a clock set back does not bring it back."""

_RUNS = "runs"
RUNNING, INTERRUPTED = "running", "interrupted"
_UNKNOWN = ItemVersion(0, "")
_LOG = Log("enlist.secondary")


@dataclass(frozen=True)
class Run:
    """A run as it is kept. Times are Unix seconds by this server's clock; the deadline is by the primary's."""

    id: str
    kind: str
    origin: str
    version: ItemVersion
    deadline: int
    state: str
    at: int
    message: str = ""
    exit_code: int = NO_EXIT_CODE
    output: bytes = b""
    settled: bool = False
    """Whether its outcome has arrived at the primary that ordered it: until then it is reported with every link."""

    @property
    def ended(self) -> bool:
        """Whether there is an outcome."""
        return self.state != RUNNING

    @property
    def damaged(self) -> bool:
        """Whether its record could not be read: that it was begun is all that is known."""
        return self.version == _UNKNOWN


@dataclass(frozen=True)
class Order:
    """What a task's document says."""

    run: str
    kind: str
    args: dict[str, Any]
    deadline: int
    below: bool = False
    """Whether it is for the servers below a middle server too, which get what that gets."""
    only: str = ""
    """If it is for one of those alone, and not for the middle server: which one, by the ids on the way down from its origin."""


def order(document: Document) -> Order:
    """Reads a task's document; ValueError if it does not say what its item in the signed set says."""
    try:
        said = msgspec.json.decode(document.body, type=Order)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if said.run != document.item.name or documents.TASK + said.kind != document.item.kind:
        raise ValueError("It says something else than the set that names it.")
    return said


class Tasks:
    """All runs of one enrolment. `run` works until cancelled; `look` tells it that other sets may hold."""

    def __init__(
        self,
        folder: Path,
        held: Documents,
        handlers: Mapping[str, TaskHandler],
        outbox: Outbox,
        now: Clock,
        at_once: int = AT_ONCE,
    ) -> None:
        """`now` is this server's clock; `ahead` is set to how far it is before the primary's."""
        self._folder = folder
        self._held = held
        self._handlers = handlers
        self._outbox = outbox
        self._now = now
        self._places = asyncio.Semaphore(at_once)
        self.ahead = 0.0
        self._runs: dict[str, Run] = {}
        self._others: set[str] = set()  # runs that came here and are for others
        self._going: dict[str, tuple[str, asyncio.Task[None]]] = {}  # with the origin
        self._problem = ""
        again = Backoff(AGAIN_SECONDS, AGAIN_SECONDS)
        # No deadline: it waits for the disk alone.
        self._controller = Controller[str](_RUNS, each(self._look), backoff=again)

    def load(self) -> None:
        """Reads the runs. One that was under way when this server stopped is interrupted, and stays so."""
        files.make_folder(self._folder)
        for path in files.entries(self._folder):
            run = _read(path, int(self._now())) if path.suffix == ".json" else None
            if run is not None and run.state == RUNNING:
                run = replace(run, state=INTERRUPTED, at=int(self._now()), message="This server stopped in the middle of it.")
                with suppress(Refused):  # what stands there says the same to whoever loads it
                    self._write(run)
            if run is not None:
                self._runs[run.id] = run

    def look(self) -> None:
        """Other sets may hold now."""
        self._controller.mark(_RUNS)

    def say_all(self) -> None:
        """Puts the outcomes that have not arrived in the outbox: after a start, before the first link."""
        for run in self._runs.values():
            if run.ended and not run.settled and not run.damaged:
                self._outbox.put(report(run))

    def settle(self, said: pb.Report) -> None:
        """The primary that ordered a run has written this down of it."""
        run = self._runs.get(said.name)
        if run is not None and report(run) == said:
            self.settle_run(said.name)

    def settle_run(self, id: str) -> None:
        """The outcome of a run has arrived at the primary that ordered it. A crash may forget that; then it is reported again."""
        run = self._runs.get(id)
        if run is not None and run.ended and not run.settled:
            self._runs[id] = replace(run, settled=True)
            self._controller.mark(_RUNS)

    def runs(self) -> list[Run]:
        """What is known of every run, the newest last."""
        return sorted(self._runs.values(), key=lambda run: (run.at, run.id))

    @property
    def going(self) -> frozenset[str]:
        """The runs that go on or wait for a place."""
        return frozenset(self._going)

    # --- What is wanted -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; what runs then is interrupted."""
        self._controller.mark(_RUNS)
        try:
            await self._controller.run()
        finally:
            going = [task for _, task in self._going.values()]
            for task in going:
                if not task.cancelling():
                    task.cancel()
            await asyncio.gather(*going, return_exceptions=True)

    async def _look(self, _: str) -> Again:
        """Begins what is new, stops what is not wanted any more, forgets what cannot come back."""
        try:
            new = await self._held.all(documents.TASK, self._is_new)
            there = self._there()
        except Refused as refused:  # what goes on goes on
            if self._problem != refused.message:
                self._problem = refused.message
                _LOG.warning("tasks cannot be read", reason=refused.reason, problem=refused.message)
            return AGAIN_SECONDS
        self._problem = ""
        self._stop(there)
        self._others &= there.keys()
        for document in new:
            if there.get(document.item.name) == (document.origin, document.item) and self._concerns(document):
                self._begin(document)
        return AGAIN_SECONDS if await self._remember(there) else None

    def _is_new(self, item: Item) -> bool:
        return not any(item.name in known for known in (self._runs, self._going, self._others))

    def _concerns(self, document: Document) -> bool:
        """Whether a task is for this server: not one from further up for the middle server alone, nor one for another one below."""
        concerns = own = document.origin == self._held.own
        with suppress(ValueError):  # one of the own primary's that cannot be read is told of
            said = order(document)
            concerns = said.only == self._held.way(document.origin) if said.only else own or said.below
        if not concerns:
            self._others.add(document.item.name)
        return concerns

    def _there(self) -> dict[str, tuple[str, Item]]:
        """The runs that are wanted, by id. If two origins speak of one id, a run that was begun is that of whoever began it."""
        there: dict[str, tuple[str, Item]] = {}
        for origin, item in self._held.items(documents.TASK):
            run = self._runs.get(item.name)
            if run is None or run.damaged or run.origin == origin:
                there.setdefault(item.name, (origin, item))
        return there

    def _stop(self, there: Mapping[str, tuple[str, Item]]) -> None:
        """Does not wait for the end: others are not to be held up, and a second cancellation would disturb the first."""
        for id, (origin, task) in self._going.items():
            if (id not in there or there[id][0] != origin) and not task.cancelling():
                task.cancel()

    async def _remember(self, there: Mapping[str, tuple[str, Item]]) -> bool:
        """Tells of the runs that are wanted; lets go of the others, by and by. Whether some of that is still to be done."""
        undone = False
        for id in list(self._runs):
            run = self._runs[id]  # only now: it may have ended while another one's record was written
            if id in there:
                self._note(_recognized(run, *there[id]) if run.damaged else run)
                continue
            if self._unheard(run):
                self._note(run)
                continue
            self._outbox.forget(documents.TASK + run.kind, run.id)
            try:
                await self._let_go(run)
            except Refused as refused:
                _LOG.warning("the record of a run was not removed", run=run.id, reason=refused.reason, problem=refused.message)
                undone = True
        return undone

    def _unheard(self, run: Run) -> bool:
        """Whether the primary that ordered it has yet to hear of its outcome, though it does not want it any more."""
        return run.ended and not run.settled and not run.damaged and run.at > self._now() - UNSETTLED_SECONDS

    async def _let_go(self, run: Run) -> None:
        """Of a run that nobody asks about, only that it was is kept, and that no longer than it could come back."""
        if run.id in self._going:
            return
        # By both clocks: a primary in the middle could set its own ahead, have this forgotten, and bring the run back.
        if run.deadline < min(self._now(), self._primary_now()) - KEPT_SECONDS:
            await to_the_end(files.remove, self._path(run.id))
            del self._runs[run.id]
        elif run.output:
            short = replace(run, output=b"")
            await to_the_end(self._write, short)
            self._runs[run.id] = replace(self._runs[run.id], output=b"")  # it may have been settled meanwhile

    def _primary_now(self) -> float:
        return self._now() - self.ahead

    # --- Runs -----------------------------------------------------------------------------------------------------------------

    def _begin(self, document: Document) -> None:
        item, now = document.item, int(self._primary_now())
        if item.name not in self._going:
            kind = item.kind.removeprefix(documents.TASK)
            run = Run(item.name, kind, document.origin, item.version, now, RUNNING, int(self._now()))
            task = asyncio.create_task(self._go(run, document))
            self._going[run.id] = document.origin, task
            task.add_done_callback(lambda task: self._gone(run, task))

    def _gone(self, run: Run, task: asyncio.Task[None]) -> None:
        del self._going[run.id]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.fault("a run met something unforeseen", error, run=run.id)
            if self._runs.get(run.id, run).state == RUNNING:  # or it would be begun again, and again
                self._note(_ended(run, _failure(UNFORESEEN), int(self._now())))
        self._controller.mark(_RUNS)  # it may be wanted again after all, or be nobody's any more

    async def _go(self, run: Run, document: Document) -> None:
        await self._end(*await self._outcome(run, document))

    async def _outcome(self, run: Run, document: Document) -> tuple[Run, TaskOutcome]:
        try:
            said = order(document)
        except ValueError as error:  # its primary signed it, and shall hear of it
            _LOG.warning("a task cannot be read", run=run.id, problem=str(error))
            return run, _failure(sentence(f"Its document cannot be read. {error}"))
        run = replace(run, deadline=said.deadline)
        handler = self._handlers.get(run.kind)
        if handler is None:
            return run, TaskOutcome("unsupported", NO_EXIT_CODE, b"", "This server has no handler for it.")
        return run, await self._in_turn(run, handler, said.args)

    async def _in_turn(self, run: Run, handler: TaskHandler, args: dict[str, Any]) -> TaskOutcome:
        """Waits for a place, and for the disk."""

        async def attempt() -> TaskOutcome:
            async with self._places:
                return await self._do(run, handler, args)

        return await retry(attempt, _told_once("a task is not begun yet", run), _pauses())

    async def _do(self, run: Run, handler: TaskHandler, args: dict[str, Any]) -> TaskOutcome:
        """Does it, if there is time left. Refused if it could not be written down that it begins: then it was not begun."""
        # The own primary's clock counts for its own runs; for those from further up, whichever is ahead.
        now = self._primary_now() if run.origin == self._held.own else max(self._now(), self._primary_now())
        left = run.deadline - now
        if left <= 0:
            return TaskOutcome("timed_out", NO_EXIT_CODE, b"", "Its deadline had passed before it could begin.")
        begun = replace(run, at=int(self._now()))
        try:
            await to_the_end(self._write, begun)
            self._note(begun)
            _LOG.info("task begun", run=run.id, kind=run.kind)
            return await self._handled(run, answer(handler.run(args, left)))
        except asyncio.CancelledError:
            await self._interrupted(begun)
            raise

    async def _handled(self, run: Run, call: Awaitable[TaskOutcome]) -> TaskOutcome:
        try:
            return await call
        except Exception as error:
            _LOG.fault("a task's handler failed", error, run=run.id)
            return _failure(UNFORESEEN)

    async def _interrupted(self, begun: Run) -> None:
        stopped = replace(begun, state=INTERRUPTED, at=int(self._now()), message="It was stopped.")
        self._note(stopped)
        with suppress(Refused):  # what stands there says the same to whoever loads it
            await to_the_end(self._write, stopped)

    async def _end(self, run: Run, outcome: TaskOutcome) -> None:
        """Tells and keeps how it ended. Should this server stop before the disk takes it, the run will count as interrupted."""
        ended = _ended(self._runs.get(run.id, run), outcome, int(self._now()))
        _LOG.info("task ended", run=ended.id, kind=ended.kind, state=ended.state, exit_code=ended.exit_code)
        self._note(ended)
        write = partial(to_the_end, self._write, ended)
        await retry(write, _told_once("a task's outcome was not kept", run), _pauses())

    def _note(self, run: Run) -> None:
        self._runs[run.id] = run
        self._outbox.put(report(run))

    def _write(self, run: Run) -> None:
        files.write(self._path(run.id), msgspec.json.encode(run))

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.json"


def _told_once(event: str, run: Run) -> Callable[[Exception], Awaitable[None]]:
    """Logs the first refusal of a series. What is no refusal ends it: nobody knows then whether a run has begun."""
    told = False

    async def on_failure(error: Exception) -> None:
        nonlocal told
        if not isinstance(error, Refused):
            raise error
        if not told:
            _LOG.warning(event, run=run.id, reason=error.reason, problem=error.message)
        told = True

    return on_failure


def _pauses() -> Pauses:
    return Pauses(Backoff(AGAIN_SECONDS, AGAIN_SECONDS))


def _failure(message: str) -> TaskOutcome:
    return TaskOutcome("failed", NO_EXIT_CODE, b"", message)


def _ended(run: Run, outcome: TaskOutcome, now: int) -> Run:
    ended = replace(run, state=outcome.state, at=now, message=outcome.message)
    return replace(ended, exit_code=outcome.exit_code, output=outcome.output)


def report(run: Run) -> pb.Report:
    """A run as the primary hears of it."""
    state = pb.TaskState.Value(f"TASK_STATE_{run.state.upper()}")
    told = pb.Report(kind=documents.TASK + run.kind, name=run.id, task_state=state, message=run.message)
    told.time.seconds = run.at
    told.exit_code = run.exit_code
    told.output = run.output
    if not run.damaged:
        told.observed_items.extend(origin_items({run.origin: (run.version,)}))
    return told


def read_all(folder: Path) -> list[Run]:
    """The runs in a folder, for whoever only looks."""
    found: list[Run] = []
    for path in files.entries(folder):
        with suppress(FileNotFoundError):  # the daemon may have removed it meanwhile
            if path.suffix == ".json" and (run := _read(path, 0)) is not None:
                found.append(run)
    return found


def _read(path: Path, now: int) -> Run | None:
    """A run; of one that cannot be read nobody knows whether it had begun, so it counts as interrupted."""
    try:
        return msgspec.json.decode(files.read(path), type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        _LOG.warning("the record of a run cannot be read", path=path, problem=str(error))
    return Run(path.stem, "", "", _UNKNOWN, now, INTERRUPTED, now, "Its record cannot be read.") if names.is_id(path.stem) else None


def _recognized(run: Run, origin: str, item: Item) -> Run:
    """A run whose record could not be read, after what its item says of it."""
    return replace(run, kind=item.kind.removeprefix(documents.TASK), origin=origin, version=item.version)
