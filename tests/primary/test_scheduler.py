"""Task schedules: when tasks and runs are looked at, and what follows when the storage refuses: `controllers.tasks`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.changes.publisher import Changes
from enlist_primary.controllers.tasks import LONGEST_SLEEP, RUNS, Scheduler
from enlist_primary.model.fleet import EMPTY
from enlist_primary.operations import tasks
from enlist_primary.store import tasks as rows
from enlist_primary.store.changes import Coarse, Position
from enlist_primary.store.tasks import Schedule
from tests.support import virtual_time

NOW = 1_800_000_000
ACME, BETA = "acme.example", "beta.example"


class Desk:
    """A database that is only answers, and the scheduler that asks it."""

    def __init__(self) -> None:
        self.planned: dict[tuple[str, str], int] = {}
        self.runs: dict[tuple[str, str], int] = {}
        self.done: list[tuple[str, str, str]] = []
        self.looks: list[float] = []
        self.reads: list[str] = []
        self.refused: dict[str, Exception] = {}
        self.refused_reads = 0
        loop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = lambda: NOW + loop.time()
        self.scheduler = Scheduler(self, lambda _: EMPTY, lambda: "a" * 10, lambda: self.clock())  # type: ignore[arg-type]  # of a database, it needs these

    # --- The database -----------------------------------------------------------------------------------------------------------

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """What is planned, and what is under way."""
        self.reads.append(query.__name__)
        if query is rows.planning:
            return sorted({account for account, _ in self.planned})
        if query is rows.open_run_ids:
            return {account: [id for at, id in self.runs if at == account] for account, _ in self.runs}
        if self.refused_reads:
            self.refused_reads -= 1
            raise Refused(Reason.OVERLOADED, "Try again.")
        if query is rows.schedules:
            self.looks.append(asyncio.get_running_loop().time())
            return {account: self._schedule(account, arguments[1]) for account in arguments[0]}
        return query(self, *arguments)

    def _schedule(self, account: str, now: int) -> Schedule:
        times = {id: time for (at, id), time in self.planned.items() if at == account}
        later = [time for time in times.values() if time > now]
        return Schedule(tuple(id for id, time in times.items() if time <= now), min(later, default=None))

    async def write(self, account: str, operation: Callable[..., Any], *arguments: Any) -> None:
        """Notes what was to be done; of a refused one, nothing is done."""
        if error := self.refused.get(arguments[1]):
            raise error
        assert (account, arguments[-1]) == (arguments[0], int(self.clock()))
        begins = operation is tasks.begin_due
        self.done.append(("begin" if begins else "end", account, arguments[1]))
        (self.planned if begins else self.runs).pop((account, arguments[1]))
        self.change(account)

    # --- What happens -----------------------------------------------------------------------------------------------------------

    def change(self, account: str, *subjects: str) -> None:
        """The tail tells of a change: that of a task, if nothing else is said."""
        self.scheduler.on_changes(Changes(account, 1, Position(1, 1, 1), subjects or ("tasks/one",)))

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """The scheduler runs while the context lasts."""
        await self.scheduler.load()
        running = asyncio.create_task(self.scheduler.run())
        await asyncio.sleep(0.01)
        yield
        running.cancel()
        await asyncio.wait([running])


def in_time(monkeypatch: pytest.MonkeyPatch, steps: Callable[[Desk], Awaitable[None]]) -> None:
    """Runs a test in virtual time; when runs are due, its desk says."""

    def due(desk: Desk, account: str, run_id: str, now: int) -> int | None:
        if error := desk.refused.get(f"judge {run_id}"):
            raise error
        found = desk.runs.get((account, run_id))
        return found if found is None else max(found, now)

    async def main() -> None:
        await steps(Desk())

    monkeypatch.setattr(rows, "run_due", due)
    virtual_time.run(main())


def test_all_that_is_due_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        desk.planned = {(ACME, "one"): NOW, (BETA, "two"): NOW - 5}
        desk.runs = {(ACME, "run"): NOW}
        async with desk.going_on():
            await asyncio.sleep(1)
            assert sorted(desk.done) == [("begin", ACME, "one"), ("begin", BETA, "two"), ("end", ACME, "run")]

    in_time(monkeypatch, steps)


def test_time_alone_brings_a_task_and_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        desk.planned, desk.runs = {(ACME, "one"): NOW + 7}, {(ACME, "run"): NOW + 500}
        async with desk.going_on():
            await asyncio.sleep(6.5)
            assert desk.done == []
            await asyncio.sleep(1)
            assert desk.done == [("begin", ACME, "one")]
            await asyncio.sleep(491)
            assert len(desk.done) == 1
            await asyncio.sleep(2)
            assert desk.done[1:] == [("end", ACME, "run")]

    in_time(monkeypatch, steps)


def test_planned_task_is_looked_at_in_between_for_a_clock_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        desk.planned = {(ACME, "one"): NOW + 86400}
        async with desk.going_on():
            await asyncio.sleep(1)
            desk.clock = lambda: NOW + 86400.0
            await asyncio.sleep(LONGEST_SLEEP)
            assert desk.done == [("begin", ACME, "one")]

    in_time(monkeypatch, steps)


@pytest.mark.parametrize("error", [Refused(Reason.OVERLOADED, "Try again."), ValueError("a defect")])
def test_what_cannot_be_done_holds_up_nothing_and_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def steps(desk: Desk) -> None:
        desk.planned = {(ACME, "stuck"): NOW, (ACME, "one"): NOW, (BETA, "two"): NOW}
        desk.runs = {(ACME, "run"): NOW, (ACME, "hung"): NOW, (ACME, "odd"): NOW}
        desk.refused = {"stuck": error, "hung": error, "judge odd": error}
        async with desk.going_on():
            await asyncio.sleep(0.5)
            assert sorted(desk.done) == [("begin", ACME, "one"), ("begin", BETA, "two"), ("end", ACME, "run")]
            desk.refused = {}
            await asyncio.sleep(10)
            assert sorted(desk.done[3:]) == [("begin", ACME, "stuck"), ("end", ACME, "hung"), ("end", ACME, "odd")]

    in_time(monkeypatch, steps)


def test_storage_that_cannot_be_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        desk.planned, desk.runs = {(ACME, "one"): NOW}, {(ACME, "run"): NOW}
        desk.refused_reads = 6
        async with desk.going_on():
            await asyncio.sleep(30)
            assert sorted(desk.done) == [("begin", ACME, "one"), ("end", ACME, "run")]

    in_time(monkeypatch, steps)


def test_tasks_are_looked_at_after_decisions_about_them_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        async with desk.going_on():
            desk.change(ACME, Coarse.REPORTS, "servers/aaaaaaaaaa", "policies/web@group")
            await asyncio.sleep(100)
            assert desk.reads == ["planning", "open_run_ids"]
            desk.planned = {(ACME, "one"): NOW}
            desk.change(ACME)
            await asyncio.sleep(1)
            assert desk.done == [("begin", ACME, "one")]

    in_time(monkeypatch, steps)


def test_reports_about_many_runs_are_weighed_in_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        desk.runs = {(ACME, f"run{number}"): NOW + 500 for number in range(RUNS)}
        async with desk.going_on():
            await asyncio.sleep(1)
            reads = len(desk.reads)
            for _ in range(4):
                desk.change(ACME, Coarse.REPORTS)
                await asyncio.sleep(0.001)
            await asyncio.sleep(1)
            assert desk.done == []
            assert len(desk.reads) == reads + 2  # the first at once, the others together
            desk.runs[ACME, "run7"] = NOW
            desk.change(ACME, Coarse.REPORTS)
            await asyncio.sleep(1)
            assert desk.done == [("end", ACME, "run7")]

    in_time(monkeypatch, steps)


def test_scheduler_with_nothing_planned_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(desk: Desk) -> None:
        await desk.scheduler.load()
        await desk.scheduler.run()

    with pytest.raises(RuntimeError, match="no timer brings"):
        in_time(monkeypatch, steps)
