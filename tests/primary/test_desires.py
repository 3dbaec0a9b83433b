"""What links are told: everybody is reckoned anew when the account wants something else, whoever read that first; and bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from enlist.documents import SetVersion
from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Backoff
from enlist_primary.changes.publisher import Changes
from enlist_primary.links.body_cache import BodyCache
from enlist_primary.links.publisher import LINKS_AT_ONCE, Desires
from enlist_primary.links.registry import Hub, Link
from enlist_primary.model.desired import Desired, Layout, Node
from enlist_primary.model.servers import State
from enlist_primary.store import desired as rows
from enlist_primary.store.changes import Position
from enlist_primary.store.servers import Standing
from tests.support.waiting import eventually

ACME, FAR = "acme.example", 2_000_000_000
ROOT = Node("root", None, "/")


def layout(number: int, revision: int) -> Layout:
    """An account with one policy."""
    return Layout(ACME, 1, number, {"root": ROOT}, [("root", "web", revision)], {revision: f"{revision:064x}"})


def linked(hub: Hub, id: str, number: int) -> tuple[Link, list[tuple[Desired, SetVersion]]]:
    """A link that was placed as of this number of the journal, and what it is told from then on."""
    told: list[tuple[Desired, SetVersion]] = []
    link = hub.open(ACME, id, FAR)
    link.group_id, link.number, link.deliver = "root", number, lambda wanted, version: told.append((wanted, version))
    return link, told


def standing(id: str, group_id: str) -> Standing:
    """A trusted server that stands in this group now."""
    return Standing(ACME, id, "", State.TRUSTED, 0, None, group_id)


def revisions(told: list[tuple[Desired, SetVersion]]) -> list[tuple[int, ...]]:
    return [tuple(each.revision for each in wanted.versions("policy/web")) for wanted, _ in told]


class Read:
    """Takes the place of a database: gives what is there to be read next, or refuses. It has no other bodies than these."""

    def __init__(self) -> None:
        self.layouts: list[Layout | Refused] = []
        self.bodies: dict[bytes, bytes] = {}

    async def read(self, query: object, *arguments: object) -> tuple[Layout, dict[bytes, bytes]]:
        """One layout, with new bodies."""
        found = self.layouts.pop(0)
        if isinstance(found, Refused):
            raise found
        return found, self.bodies


def changed(number: int, desired: int, *records: Standing) -> Changes:
    """Decisions up to this number, of which the one of the number `desired` changed what servers need."""
    return Changes(ACME, 100 + number, Position(100 + number, number, desired), records=records)


@asynccontextmanager
async def running(hub: Hub, *layouts: Layout | Refused, bodies: Mapping[bytes, bytes] | None = None) -> AsyncIterator[Desires]:
    """Desires at work that know the account as of 4, with what will be read of it."""
    database: Any = Read()
    database.layouts += layouts
    database.bodies.update(bodies or {})
    mine = Desires(database, hub, Backoff(0.01, 0.01))
    mine._of(ACME).keep(layout(4, 4))
    mine.bring(changed(4, 4))
    await eventually(lambda: not mine._of(ACME).line)
    task = asyncio.create_task(mine.run())
    try:
        yield mine
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_the_account_wants_anew_is_read_once_and_told_to_all_links() -> None:
    hub = Hub()
    _, first = linked(hub, "a", 4)
    _, second = linked(hub, "b", 4)
    async with running(hub, layout(5, 5)) as mine:
        mine.bring(changed(5, 5))
        await eventually(lambda: first and second)
        mine.bring(changed(6, 5))
        assert revisions(first) == revisions(second) == [(5,)]


async def test_a_new_body_is_here_before_the_first_link_asks_for_it() -> None:
    """All of them would wait for it, and none would send anything meanwhile."""
    hub = Hub()
    _, told = linked(hub, "a", 4)
    async with running(hub, layout(5, 5), bodies={b"new": b"12345"}) as mine:
        mine.bring(changed(5, 5))
        await eventually(lambda: told)
        piece = await mine.piece(ACME, b"new", 0)
        assert piece is not None
        assert (piece.length, piece.size) == (5, 5)


async def test_very_many_links_are_told_some_at_a_time_and_all_by_what_was_told_last() -> None:
    hub = Hub()
    links = [linked(hub, str(number), 4) for number in range(3 * LINKS_AT_ONCE)]
    links[-1][0].group_id = "nowhere"
    async with running(hub) as mine:
        mine._of(ACME).keep(layout(5, 5))
        mine.bring(changed(5, 5))
        assert sum(bool(told) for _, told in links) == LINKS_AT_ONCE
        mine._of(ACME).keep(layout(6, 6))
        mine.bring(changed(6, 6, standing(links[-1][0].key[1], "root")))
        await eventually(lambda: all(told for _, told in links))
        assert [revisions(told)[-1] for _, told in links] == [(6,)] * len(links)
        assert revisions(links[-1][1]) == [(6,)], "its group of then with what was wanted before is nothing that ever was"


async def test_whatever_ails_one_link_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    links = [linked(hub, str(number), 4) for number in range(2 * LINKS_AT_ONCE)]

    def fails(wanted: Desired, version: SetVersion) -> None:
        raise ValueError(wanted, version)

    links[-2][0].deliver = fails
    async with running(hub) as mine:
        mine._of(ACME).keep(layout(5, 5))
        mine.bring(changed(5, 5))
        await eventually(lambda: links[-1][1])


async def test_a_layout_that_the_storage_refused_is_read_again() -> None:
    hub = Hub()
    _, told = linked(hub, "a", 4)
    async with running(hub, Refused(Reason.OVERLOADED, "Try again."), layout(5, 5)) as mine:
        mine.bring(changed(5, 5))
        await eventually(lambda: told)
        assert revisions(told) == [(5,)]


async def test_a_layout_that_was_read_too_early_is_read_again() -> None:
    """A decision fell while it was read."""
    hub = Hub()
    _, told = linked(hub, "a", 4)
    async with running(hub, layout(5, 5), layout(6, 6)) as mine:
        mine.bring(changed(6, 6))
        await eventually(lambda: told)
        assert revisions(told) == [(6,)]


async def test_a_server_that_moved_is_told_even_if_its_account_wants_nothing_else() -> None:
    hub = Hub()
    link, told = linked(hub, "a", 4)
    link.group_id = "nowhere"
    _, other = linked(hub, "b", 4)
    async with running(hub) as mine:
        mine.bring(changed(5, 4, standing("a", "root")))
        assert revisions(told) == [(4,)]
        assert other == []


async def test_a_layout_that_an_opening_link_read_first_reaches_all_other_links() -> None:
    """The tail finds the layout known already, and nobody reads one."""
    hub = Hub()
    _, told = linked(hub, "a", 4)
    async with running(hub) as mine:
        mine._of(ACME).keep(layout(5, 5))  # what `snapshot` does for the link that opens
        mine.bring(changed(5, 5))
        assert revisions(told) == [(5,)]
        mine.bring(changed(6, 5))
        assert revisions(told) == [(5,)]


async def test_a_layout_of_a_later_view_is_told_with_the_news_that_lead_there_and_never_under_an_older_stamp() -> None:
    """Else one version could stand for two contents."""
    hub = Hub()
    _, told = linked(hub, "a", 4)
    async with running(hub) as mine:
        mine._of(ACME).keep(layout(7, 7))
        mine.bring(changed(6, 4))
        assert told == []
        mine.bring(changed(7, 7))
        assert revisions(told) == [(7,)]
        assert told[0][1] == SetVersion(1, 7)


async def test_a_link_that_was_placed_by_a_later_view_learns_nothing_from_an_older_one() -> None:
    hub = Hub()
    _, told = linked(hub, "a", 9)
    async with running(hub) as mine:
        mine._of(ACME).keep(layout(8, 8))
        mine.bring(changed(8, 8))
        assert told == []


async def test_links_are_told_once_the_last_page_is_read() -> None:
    """Of a page before it, nobody knows yet which journal number it leads to."""
    hub = Hub()
    link, told = linked(hub, "a", 4)
    link.group_id = "nowhere"
    async with running(hub) as mine:
        mine.bring(Changes(ACME, 104, Position(105, 5, 4), records=(standing("a", "root"),)))
        assert told == []
        mine.bring(changed(5, 4))
        assert revisions(told) == [(4,)]


async def test_an_account_whose_last_link_closed_is_forgotten() -> None:
    hub = Hub()
    link, _ = linked(hub, "a", 4)
    async with running(hub) as mine:
        hub.close(link)
        mine.bring(changed(5, 5))
        assert mine._layout(ACME) is None


class Views:
    """Takes the place of a database whose account has come to this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """What a query finds."""
        await asyncio.sleep(0)  # others begin theirs
        return query(self, *arguments)


async def test_links_that_open_together_read_the_layout_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands, at the start and after each decision."""
    read: list[tuple[int, Layout | None]] = []

    def read_layout(tx: Views, account: str, before: Layout | None) -> Layout:
        read.append((tx.number, before))
        return layout(tx.number, tx.number)

    monkeypatch.setattr(rows, "layout", read_layout)
    monkeypatch.setattr(rows, "place", lambda tx, account: rows.Place(tx.number + 1, tx.number))
    views = Views(4)
    database: Any = views
    mine = Desires(database, Hub())

    async def placed(id: str) -> tuple[SetVersion, tuple[int, ...]]:
        row: Any = SimpleNamespace(id=id, group_id="root")
        found = await mine.snapshot(standing(id, "root"), lambda tx, _: row)
        assert found.row is row
        return found.version, tuple(each.revision for each in found.desired.versions("policy/web"))

    for number in (4, 5):
        views.number = number
        told = await asyncio.gather(*map(placed, "abcdefgh"))
        assert set(told) == {(SetVersion(1, number + 1), (number,))}
    assert await placed("i") == (SetVersion(1, 6), (5,))
    assert [(number, None if before is None else before.number) for number, before in read] == [(4, None), (5, 4)]


class Bodies:
    """Takes the place of a database in which each account has these bodies; `asked` are those that were read."""

    def __init__(self, **bodies: bytes) -> None:
        self._bodies = bodies
        self.asked: list[str] = []

    async def read(self, query: object, account: str, digest: bytes) -> bytes:
        """One body."""
        self.asked.append(digest.decode())
        return self._bodies[digest.decode()]


async def test_a_body_that_two_accounts_load_at_once_counts_once_in_the_cache() -> None:
    """Else the cache would take each such body for two, and in the end keep none but the newest."""
    bodies = Bodies(one=bytes(100), two=bytes(100))
    database: Any = bodies
    mine = Desires(database, Hub(), cache=BodyCache(200))
    both = await asyncio.gather(*(mine.piece(account, b"one", 0) for account in (ACME, "corp.example")))
    assert both[0] == both[1]
    assert bodies.asked == ["one", "one"], "neither account reads what is the other's"
    for digest in (b"two", b"one", b"two"):
        await mine.piece(ACME, digest, 0)
    assert bodies.asked == ["one", "one", "two"]


async def test_the_least_recently_used_body_leaves_the_cache_first() -> None:
    bodies = Bodies(one=bytes(100), two=bytes(100), three=bytes(100))
    database: Any = bodies
    mine = Desires(database, Hub(), cache=BodyCache(200))
    for digest in (b"one", b"two", b"one", b"three", b"one", b"two"):
        await mine.piece(ACME, digest, 0)
    assert bodies.asked == ["one", "two", "three", "two"]
