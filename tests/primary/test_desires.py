"""What links are told: everybody is reckoned anew when the account wants something else, whoever read that first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enlist.documents import Stamp
from enlist_primary.links.desires import Desires
from enlist_primary.links.feed import News
from enlist_primary.links.hub import Hub, Link
from enlist_primary.model.desired import Desired, Layout, Node

ACME, FAR = "acme.example", 2_000_000_000
ROOT = Node("root", None, "/")


def layout(number: int, revision: int) -> Layout:
    """An account with one policy."""
    return Layout(ACME, 1, number, {"root": ROOT}, [("root", "web", revision)], {revision: f"{revision:064x}"})


def linked(hub: Hub, id: str, number: int) -> tuple[Link, list[tuple[Desired, Stamp]]]:
    """A link that was placed as of this number of the journal, and what it is told from then on."""
    told: list[tuple[Desired, Stamp]] = []
    link = hub.open(ACME, id, FAR)
    link.group_id, link.number, link.deliver = "root", number, lambda wanted, stamp: told.append((wanted, stamp))
    return link, told


def revisions(told: list[tuple[Desired, Stamp]]) -> list[tuple[int, ...]]:
    return [wanted.revisions("policy/web") for wanted, _ in told]


def desires(hub: Hub) -> Desires:
    database: Any = None  # nothing is read
    return Desires(database, hub)


async def test_a_layout_that_an_opening_link_read_first_reaches_all_other_links() -> None:
    """The feed finds the layout known already, and brings none."""
    hub = Hub()
    mine = desires(hub)
    _, told = linked(hub, "a", 4)
    mine.bring(News(ACME, 4, False, (), (), layout(4, 4)))
    told.clear()
    mine._keep(layout(5, 5))  # what `placed` does for the link that opens
    mine.bring(News(ACME, 5, False, (), ()))
    assert revisions(told) == [(5,)]
    mine.bring(News(ACME, 6, False, (), ()))
    assert revisions(told) == [(5,)]


async def test_a_layout_of_a_later_view_is_told_with_the_news_that_lead_there_and_never_under_an_older_stamp() -> None:
    """Else one stamp could stand for two contents."""
    hub = Hub()
    mine = desires(hub)
    _, told = linked(hub, "a", 4)
    mine._keep(layout(7, 7))
    mine.bring(News(ACME, 6, False, (), ()))
    assert told == []
    mine.bring(News(ACME, 7, False, (), ()))
    assert revisions(told) == [(7,)]
    assert told[0][1] == Stamp(1, 7)


async def test_a_link_that_was_placed_by_a_later_view_learns_nothing_from_an_older_one() -> None:
    hub = Hub()
    mine = desires(hub)
    link, told = linked(hub, "a", 9)
    mine.bring(News(ACME, 8, False, (), (), layout(8, 8)))
    assert told == []
    assert replace(layout(8, 8)).number < link.number
