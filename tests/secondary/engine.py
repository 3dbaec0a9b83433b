"""The engine of a secondary without a link: sets are handed to it, what it says is read from its outbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enlist import documents
from enlist.reasons import Refused
from enlist.runtime.controller import Controller, Outcome
from enlist.v1 import document_pb2 as pb
from enlist_secondary.documents import Documents
from enlist_secondary.handlers.interface import HandlerFailed, TaskOutcome
from enlist_secondary.outbox import Outbox
from enlist_secondary.policies import Policies
from enlist_secondary.tasks import Tasks
from tests.secondary.origins import Line, Primary, Times, Wish, bodies, said
from tests.support import waiting

HALF = {"half": "of something"}


async def soon(condition: Callable[[], object], what: str = "the condition", within: float = 20.0) -> None:
    """As `waiting.eventually`, and looked at more often: nothing here takes longer than a write to the disk."""
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.0005)
    await waiting.eventually(condition, within, what)


class Gate:
    """Where a handler waits until it is let through, if it is closed."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def __call__(self) -> None:
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


@dataclass
class Governed:
    """A handler of policies, and what it governs: both outlive the daemon."""

    restores: bool = True
    in_force: dict[str, Any] | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    fails: Callable[[str, Any], BaseException | None] = lambda _call, _settings: None
    change: str | None = None
    looks: int = 0
    gate: Gate = field(default_factory=Gate)
    look_gate: Gate = field(default_factory=Gate)

    async def apply(self, settings: dict[str, Any]) -> None:
        await self._do("apply", settings)

    async def revert(self, settings: dict[str, Any] | None) -> None:
        await self._do("revert", settings)

    async def _do(self, call: str, settings: dict[str, Any] | None) -> None:
        self.calls.append((call, settings))
        before, self.in_force = self.in_force, HALF
        await self.gate()
        failure = self.fails(call, settings)
        if failure is not None:
            if self.restores and isinstance(failure, HandlerFailed):
                self.in_force = before
            raise failure
        self.in_force, self.change = settings, None

    async def changed(self) -> str | None:
        self.looks += 1
        await self.look_gate()
        return self.change

    def refuse(self, *texts: str) -> None:
        """From now on settings with these texts fail; with none, everything does."""
        self.fails = lambda _, settings: HandlerFailed("No.") if not texts or (settings or {}).get("text") in texts else None

    def accept(self) -> None:
        """From now on nothing fails."""
        self.fails = lambda _call, _settings: None


@dataclass
class Worker:
    """A handler of tasks that notes what it was asked to do."""

    calls: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    outcome: Callable[[dict[str, Any]], TaskOutcome] = lambda _: TaskOutcome("succeeded", 0, b"done", "")
    gate: Gate = field(default_factory=Gate)
    at_once: int = 0

    async def run(self, args: dict[str, Any], limit: float) -> TaskOutcome:
        self.calls.append((args, limit))
        try:
            await self.gate()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        outcome = self.outcome(args)
        self.ended.append(outcome.state)
        return outcome


class Looks:
    """The controllers of an engine: what they looked at, and when they will again."""

    def __init__(self, *controllers: Controller[str]) -> None:
        self.keys: list[str] = []
        """What was looked at, in its order."""
        self.begun = False
        self._controllers = controllers
        for each in controllers:
            self._note(each)

    def _note(self, controller: Controller[str]) -> None:
        reconcile = controller._reconcile

        async def noted(keys: Sequence[str]) -> Mapping[str, Outcome]:
            self.begun = True
            self.keys.extend(keys)
            return await reconcile(keys)

        controller._reconcile = noted

    def wake(self) -> None:
        """Time has passed, which nobody but the tests tells them."""
        for each in self._controllers:
            each._wake.set()

    @property
    def busy(self) -> bool:
        """Whether they have anything to do, or have yet to begin."""
        return not self.begun or any(each.busy for each in self._controllers)

    @property
    def rest(self) -> float | None:
        """For how many seconds they have nothing to do; None for ever."""
        dues = [each.first_due - each._clock() for each in self._controllers if each.first_due is not None]
        return min(dues, default=None)


class Server:
    """The engine over a folder, as one run of the daemon has it."""

    def __init__(
        self,
        folder: Path,
        origins: Sequence[Primary],
        policies: Mapping[str, Governed],
        tasks: Mapping[str, Worker],
        times: Times,
        at_once: int = 4,
    ) -> None:
        self.held = Documents(folder / "documents", [each.origin for each in origins])
        self.outbox = Outbox(lambda: None)
        self.policies = Policies(
            folder / "policies",
            self.held,
            policies,
            self.outbox,
            times.clock,
            drift_seconds=10.0,
            elapsed=times.stopwatch,
        )
        self.policies_looks = Looks(self.policies._sets, self.policies._kinds)
        self.tasks = Tasks(folder / "tasks", self.held, tasks, self.outbox, times.clock, at_once)
        self.tasks_looks = Looks(self.tasks._controller)
        self.line = Line(self.held)
        self._times = times
        self._governed = policies.values()
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """As the daemon does."""
        self.held.load()
        self.policies.load()
        self.tasks.load()
        self.policies.say_all()
        self.tasks.say_all()
        self.line = Line(self.held)
        self._running = [asyncio.create_task(self.policies.run()), asyncio.create_task(self.tasks.run())]

    async def stop(self) -> list[BaseException]:
        """As the daemon does; what the engines raised."""
        for task in self._running:
            task.cancel()
        ended = await asyncio.gather(*self._running, return_exceptions=True)
        return [each for each in ended if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError)]

    async def send(self, primary: Primary, *wishes: Wish) -> None:
        """An honest primary's next set arrives whole."""
        self.line.bring(primary.sign(wishes), bodies(wishes))
        await self.held.save()
        self.look()

    def look(self) -> None:
        """Something may have changed."""
        self.policies.look()
        self.tasks.look()

    async def pass_by(self, seconds: float) -> None:
        """Time passes, and the engine does what has become due."""
        self._times.pass_by(seconds)
        self.wake()
        await self.settled()

    def wake(self) -> None:
        """Both engines look once more: the one what is due, the other what is wanted."""
        self.policies_looks.wake()
        self.tasks.look()

    async def settled(self) -> None:
        """Waits until both engines rest; handlers of policies may still wait at their gates."""
        await soon(lambda: len(self.policies.busy) == self._at_gates() and self.rests, what="rest")

    async def done(self) -> None:
        """Waits until there is nothing to do."""
        await soon(lambda: not self.policies.busy and self.rests, what="the end")

    def _at_gates(self) -> int:
        return sum(each.gate.waiting + each.look_gate.waiting for each in self._governed)

    @property
    def rests(self) -> bool:
        """Whether neither engine has anything to do, or one has ended."""
        dead = any(task.done() for task in self._running)
        return dead or (self.policies_looks.begun and not self.tasks_looks.busy)

    def report(self, kind: str = "motd") -> pb.Report | None:
        """The report on a policy."""
        return self.outbox.last(documents.POLICY + kind)

    def run_report(self, id: str, kind: str = "update") -> pb.Report | None:
        """The report on a run."""
        return self.outbox.last(documents.TASK + kind, id)

    def word(self, kind: str = "motd") -> dict[str, Any] | None:
        """What is said of a policy."""
        report = self.report(kind)
        return said(report) if report is not None else None

    def state(self, kind: str = "motd") -> str:
        """In one word."""
        return str((self.word(kind) or {}).get("state", ""))

    def of_run(self, id: str, kind: str = "update") -> str:
        """How a run is said to fare."""
        report = self.run_report(id, kind)
        return str(said(report)["state"]) if report is not None else ""

    async def until(self, state: str, kind: str = "motd") -> dict[str, Any]:
        """Waits until a policy is said to fare so, and everything rests."""
        await soon(lambda: self.state(kind) == state, what=f"{kind} {state}")
        await self.done()
        word = self.word(kind)
        assert word is not None
        return word


@dataclass
class Machine:
    """What outlives the daemon: the folder, what handlers govern, and time."""

    folder: Path
    times: Times = field(default_factory=Times)
    primary: Primary = field(default_factory=Primary)
    upper: list[Primary] = field(default_factory=list)
    motd: Governed = field(default_factory=Governed)
    ntp: Governed = field(default_factory=Governed)
    worker: Worker = field(default_factory=Worker)
    configured: tuple[str, ...] = ("motd", "ntp", "update")
    at_once: int = 4

    def server(self) -> Server:
        """One that was not started yet."""
        policies = {kind: each for kind, each in {"motd": self.motd, "ntp": self.ntp}.items() if kind in self.configured}
        tasks = {"update": self.worker} if "update" in self.configured else {}
        return Server(self.folder, [*self.upper, self.primary], policies, tasks, self.times, self.at_once)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """The daemon, from its start to its stop."""
        server = self.server()
        server.start()
        try:
            await server.settled()
            yield server
        finally:
            assert await server.stop() == []

    @asynccontextmanager
    async def holding(self, *wishes: Wish) -> AsyncIterator[Server]:
        """The daemon with these policies in force, the one of `motd` among them."""
        async with self.running() as server:
            await server.send(self.primary, *wishes)
            await server.until("applied")
            yield server


async def refused(call: Coroutine[Any, Any, object]) -> Refused:
    """The refusal that comes of it."""
    try:
        await call
    except Refused as refusal:
        return refusal
    raise AssertionError("it was not refused")
