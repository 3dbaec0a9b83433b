"""The directory by itself: callers share reads, reads are bounded, and an older view never replaces a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.changes import directory as module
from enlist_primary.changes.directory import Directory
from enlist_primary.changes.publisher import Changes
from enlist_primary.model.servers import State
from enlist_primary.store import servers
from enlist_primary.store.changes import Position
from enlist_primary.store.servers import Standing
from tests.primary.refusals import refused
from tests.support.waiting import eventually

ACME, KEY = "acme.example", "key"
CALLERS = 500


def record(id: str, state: State = State.TRUSTED) -> Standing:
    """A server in a state."""
    return Standing(ACME, id, KEY, state, 0, None)


class Table:
    """Takes the place of a database that holds servers: its look-ups wait for leave, and are counted."""

    def __init__(self, *records: Standing) -> None:
        self.records = {each.id: each for each in records}
        self.change = 1
        self.reads: list[int] = []
        self.leave = asyncio.Event()
        self.leave.set()
        self.refusal: Refused | None = None

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """All records; or a look-up of some."""
        if query is servers.standings:
            return list(self.records.values())
        (wanted,) = arguments
        self.reads.append(len(wanted))
        ids = [id for _, id in wanted]
        view = self.change, ids, [self.records[id] for id in ids if id in self.records]
        await self.leave.wait()
        if self.refusal is not None:
            raise self.refusal
        return {ACME: view}


@asynccontextmanager
async def directory(table: Any) -> AsyncIterator[Directory]:
    """A directory at work that has loaded what is there."""
    own = Directory(table)
    await own.load()
    task = asyncio.create_task(own.run())
    try:
        yield own
    finally:
        task.cancel()
        await asyncio.wait([task])


def page(change: int, *records: Standing, reload: bool = False) -> Changes:
    """Changes of these servers, read in this view."""
    subjects = [f"servers/{each.id}" for each in records]
    return Changes(ACME, change, Position(change, 0, 0), subjects, records, reload)


async def test_while_the_tail_is_stuck_five_hundred_callers_share_two_reads() -> None:
    """A reconnect storm must not feed itself: what one read finds, it finds for all who asked before it began."""
    table = Table(*(record(str(n)) for n in range(CALLERS)))
    async with directory(table) as own:
        own.behind = True
        table.leave.clear()
        first = asyncio.create_task(own.find(ACME, "0", KEY))
        await eventually(lambda: table.reads == [1])
        storm = [asyncio.create_task(own.find(ACME, str(n), KEY)) for n in range(CALLERS)]
        storm += [asyncio.create_task(own.find(ACME, "7", KEY)) for _ in range(CALLERS)]
        await asyncio.sleep(0)
        table.leave.set()
        async with asyncio.timeout(20):
            found = await asyncio.gather(first, *storm)
        assert [each.id for each in found[1 : CALLERS + 1] if each] == [str(n) for n in range(CALLERS)]
        assert table.reads == [1, CALLERS]


async def test_a_read_that_began_before_the_question_does_not_answer_it() -> None:
    """Else a server revoked between the two would still be trusted."""
    table = Table(record("one"))
    async with directory(table) as own:
        own.behind = True
        table.leave.clear()
        early = asyncio.create_task(own.find(ACME, "one", KEY))
        await eventually(lambda: table.reads)
        table.records["one"] = record("one", State.REVOKED)
        table.change = 2
        late = asyncio.create_task(own.find(ACME, "one", KEY))
        await asyncio.sleep(0)
        table.leave.set()
        found = [await early, await late]
        assert [each.state for each in found if each] == [State.TRUSTED, State.REVOKED]


async def test_memory_answers_while_the_tail_keeps_up() -> None:
    table = Table(record("one"))
    async with directory(table) as own:
        assert await own.find(ACME, "one", KEY) == record("one")
        assert await own.find(ACME, "one", "another") is None
        assert table.reads == []
        assert await own.find(ACME, "nobody", KEY) is None
        assert table.reads == [1]


async def test_an_older_view_never_replaces_a_newer_one() -> None:
    """A look-up is slow, and the tail reads a revocation meanwhile."""
    table = Table()
    async with directory(table) as own:
        table.records["one"] = record("one")
        table.leave.clear()
        looking = asyncio.create_task(own.find(ACME, "one", KEY))
        await eventually(lambda: table.reads)
        own.on_changes(page(2, record("one", State.REVOKED)))
        table.leave.set()
        await looking
        table.records["one"] = record("one", State.REVOKED)
        found = await own.find(ACME, "one", KEY)
        assert found is not None
        assert found.state is State.REVOKED


async def test_a_page_that_reloads_an_account_drops_what_it_does_not_name() -> None:
    table = Table(record("one"), record("gone"))
    async with directory(table) as own:
        del table.records["gone"]
        own.on_changes(page(9, record("one"), reload=True))
        assert await own.find(ACME, "gone", KEY) is None
        assert await own.find(ACME, "one", KEY) == record("one")


@pytest.mark.parametrize("trouble", [Reason.OVERLOADED, Reason.TIMED_OUT])
async def test_a_database_that_does_not_answer_is_a_refusal_for_all_callers(
    monkeypatch: pytest.MonkeyPatch, trouble: Reason
) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.05)
    table = Table(record("one"))
    async with directory(table) as own:
        own.behind = True
        if trouble is Reason.OVERLOADED:
            table.refusal = Refused(Reason.OVERLOADED, "Try again.")
        else:
            table.leave.clear()
        async with asyncio.timeout(20):
            found = await asyncio.gather(*(own.find(ACME, "one", KEY) for _ in range(5)), return_exceptions=True)
        assert [each.reason for each in found if isinstance(each, Refused)] == [trouble] * 5
        assert len({id(each) for each in found}) == 5, "each caller raises one of its own"


async def test_more_callers_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WANTED", 3)
    table = Table()
    async with directory(table) as own:
        table.leave.clear()
        waiting = [asyncio.create_task(own.find(ACME, "first", KEY))]
        await eventually(lambda: table.reads)
        waiting += [asyncio.create_task(own.find(ACME, str(n), KEY)) for n in range(3)]
        await asyncio.sleep(0)
        with refused(Reason.OVERLOADED):
            await own.find(ACME, "one too many", KEY)
        table.leave.set()
        assert await asyncio.gather(*waiting) == [None] * 4


async def test_callers_that_wait_when_it_stops_are_refused() -> None:
    table = Table()
    async with directory(table) as own:
        table.leave.clear()
        waiting = [asyncio.create_task(own.find(ACME, "first", KEY))]
        await eventually(lambda: table.reads)
        waiting.append(asyncio.create_task(own.find(ACME, "second", KEY)))
        await asyncio.sleep(0)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [each.reason for each in found if isinstance(each, Refused)] == [Reason.SHUTTING_DOWN] * 2
    with refused(Reason.SHUTTING_DOWN):
        await own.find(ACME, "third", KEY)
