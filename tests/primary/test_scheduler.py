"""The scheduler: when it looks, how long it sleeps, and what a storage that says no leads to: `links.scheduler`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.controllers import tasks as module
from enlist_primary.controllers.tasks import LONGEST_SLEEP, RETRY_SECONDS, Scheduler, scene
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reach
from enlist_primary.ingest.observations import Observations
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.links.registry import Hub
from enlist_primary.operations import tasks
from enlist_primary.operations.tasks import Scene
from enlist_primary.store import tasks as rows
from enlist_primary.store.tasks import Agenda
from tests.support.waiting import eventually

NOW = 1_800_000_000
ACME, BETA = "acme.example", "beta.example"


class Desk:
    """A database that is only answers: what is due, and what was asked to be done about it."""

    def __init__(self) -> None:
        self.now = float(NOW)
        self.agenda = Agenda([], [], None)
        self.looked: list[int] = []
        self.done: list[tuple[str, str, str]] = []
        self.refuse: set[str] = set()
        self.deaf = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self, query: Callable[..., Any], now: int) -> Agenda:
        """The agenda, or a no."""
        assert query is rows.agenda
        self.looked.append(now)
        if self.deaf:
            self.deaf -= 1
            raise Refused(Reason.OVERLOADED, "Try again.")
        return self.agenda

    async def write(self, account: str, operation: Callable[..., Any], *args: Any) -> None:
        """Notes what was to be done; of a refused one, nothing is done."""
        words = {tasks.begin_due: "begin", tasks.end_run: "end"}
        if args[1] in self.refuse:
            raise Refused(Reason.OVERLOADED, "Try again.")
        assert (account, args[-1]) == (args[0], int(self.now))
        self.done.append((words[operation], account, args[1]))

    def changed(self) -> Awaitable[None]:
        """See `Database.changed`."""
        return asyncio.shield(self._changed)

    def commit(self) -> None:
        """Somebody wrote something."""
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()


def scheduler(desk: Desk) -> Scheduler:
    """The scheduler of this desk."""
    return Scheduler(desk, lambda account: Scene(lambda id: True, lambda id: None), lambda: "a" * 10, lambda: desk.now)  # type: ignore[arg-type]  # of a database, it needs these


@asynccontextmanager
async def keeping(desk: Desk) -> AsyncIterator[None]:
    """It runs while the context lasts."""
    running = asyncio.create_task(scheduler(desk).run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("following", "wait"),
    [(None, LONGEST_SLEEP), (NOW + 7, 7.0), (NOW + 86400, LONGEST_SLEEP), (NOW, 0.0), (NOW - 5, 0.0)],
)
async def test_it_sleeps_until_something_may_be_due(following: int | None, wait: float) -> None:
    desk = Desk()
    desk.agenda = Agenda([], [], following)
    assert await scheduler(desk).look() == wait


async def test_it_does_all_that_is_due() -> None:
    desk = Desk()
    desk.agenda = Agenda([(ACME, "one"), (BETA, "two")], [(ACME, "run")], None)
    await scheduler(desk).look()
    assert desk.done == [("begin", ACME, "one"), ("begin", BETA, "two"), ("end", ACME, "run")]


async def test_what_cannot_be_done_keeps_nothing_else_from_being_done_and_is_tried_again() -> None:
    desk = Desk()
    desk.agenda = Agenda([(ACME, "stuck"), (BETA, "two")], [(ACME, "run")], None)
    desk.refuse = {"stuck"}
    assert await scheduler(desk).look() == RETRY_SECONDS
    assert desk.done == [("begin", BETA, "two"), ("end", ACME, "run")]
    desk.refuse = set()
    assert await scheduler(desk).look() == LONGEST_SLEEP


async def test_a_storage_that_cannot_be_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    desk = Desk()
    desk.deaf = 3
    desk.agenda = Agenda([(ACME, "one")], [], None)
    async with keeping(desk):
        await eventually(lambda: desk.done)
    assert len(desk.looked) == 4


async def test_it_looks_after_each_commit_and_not_in_between() -> None:
    desk = Desk()
    async with keeping(desk):
        await eventually(lambda: len(desk.looked) == 1)
        desk.agenda = Agenda([(ACME, "one")], [], None)
        desk.commit()
        await eventually(lambda: desk.done == [("begin", ACME, "one")])
        desk.agenda = Agenda([], [], None)
        desk.commit()
        await eventually(lambda: len(desk.looked) >= 3)
    assert len(desk.looked) == 3


async def test_a_commit_made_while_it_looks_is_not_missed() -> None:
    desk = Desk()

    class Late(Desk):
        async def read(self, query: Callable[..., Any], now: int) -> Agenda:
            agenda = await super().read(query, now)
            if len(self.looked) == 1:
                self.agenda = Agenda([(ACME, "one")], [], None)
                self.commit()
            return agenda

    desk = Late()
    async with keeping(desk):
        await eventually(lambda: desk.done)


async def test_the_time_of_the_next_task_wakes_it_by_itself() -> None:
    desk = Desk()
    desk.agenda = Agenda([], [], NOW + 1)
    desk.now = NOW + 0.9
    async with keeping(desk):
        await eventually(lambda: len(desk.looked) == 1)
        desk.now, desk.agenda = float(NOW + 1), Agenda([(ACME, "one")], [], None)
        await eventually(lambda: desk.done)


async def test_the_scene_is_what_is_seen_now() -> None:
    hub, observations = Hub(), Observations(None)  # type: ignore[arg-type]  # nothing is written
    nobody: Any = None  # nothing is written
    reach = Reach(hub, observations, Descendants(nobody, StatusReports(nobody), ""), NOW)
    seen = scene(reach, ACME)
    assert (seen.connected("one"), seen.kinds("one")) == (False, None)
    hub.open(ACME, "one", NOW)
    observations.connected(ACME, "one", "192.0.2.1", "1.0", NOW, kinds="policy/chrony task/restart")
    observations.connected(ACME, "two", "192.0.2.1", "1.0", NOW, kinds="")
    assert (seen.connected("one"), seen.kinds("one")) == (True, ["policy/chrony", "task/restart"])
    assert seen.kinds("two") == []
    assert scene(reach, BETA).kinds("one") is None
