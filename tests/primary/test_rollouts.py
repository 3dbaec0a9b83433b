"""Rollouts under their controller: how it knows who is connected, and that one rollout holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.controllers.rollouts import LONGEST_REST, Rollouts, rest_after
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.model.fleet import EMPTY
from enlist_primary.model.rollouts import Presence, Rollout
from enlist_primary.operations import rollouts
from enlist_primary.store import rollouts as rows
from enlist_primary.store.changes import Coarse, Position
from enlist_primary.store.database import Database
from enlist_primary.store.observations import Seen
from tests.support import virtual_time

ACME, ID = "acme.example", "aaaaaaaaaa"
T = 1_800_000_000


class NoDatabase:
    """Nothing here is written."""


def nothing_below(database: Any = None) -> Descendants:
    """No middle server."""
    return Descendants(database, "", lambda _: None)


@pytest.mark.parametrize(
    ("seen", "connected", "expected"),
    [
        (Seen(connected_at=T + 5), True, Presence(True, T + 5)),
        (Seen(connected_at=T + 5, disconnected_at=T + 3), True, Presence(True, T + 5)),
        (Seen(), True, Presence(True, T)),  # the link is there a moment before it is written down
        (Seen(connected_at=T + 5, disconnected_at=T + 7), False, Presence(False, T + 7)),
        (Seen(connected_at=T - 50, disconnected_at=T - 9), False, Presence(False, T - 9)),
        (Seen(), False, Presence(False, None)),
    ],
)
async def test_since_when_a_server_is_as_it_is(seen: Seen, connected: bool, expected: Presence) -> None:
    hub, observations = Hub(), Observations(cast(Database, NoDatabase()))
    observations._seen[ACME, ID] = seen
    if connected:
        hub.open(ACME, ID, T + 1000)
    reach = Reachability(hub, observations, nothing_below(), T, "")
    assert reach.view(ACME).of(ID) == expected
    assert reach.view("beta.example").of(ID) == Presence(connected=False, since=None)


class Told:
    """A database that tells what a test says: which rollouts are under way, and when each is due."""

    def __init__(self) -> None:
        self.running: dict[str, list[int]] = {}
        self.dues: dict[tuple[str, int], int | Exception | None] = {}
        self.listed: list[Any] = []
        self.judged: list[tuple[float, str, int]] = []
        self.written: list[tuple[str, int]] = []

    async def read(self, query: Any, *arguments: Any) -> Any:
        """Which rollouts there are, or when one is due."""
        if query is rows.running:
            self.listed += arguments
            return {account: self.running[account] for account in arguments[0] or self.running if account in self.running}
        assert query is rollouts.due
        account, revision = arguments[:2]
        self.judged.append((asyncio.get_running_loop().time(), account, revision))
        due = self.dues.get((account, revision))
        if isinstance(due, Exception):
            raise due
        return due

    async def write(self, account: str, operation: Any, *arguments: Any) -> Rollout | None:
        """Notes a decision, after which nothing is due."""
        assert operation is rollouts.advance
        self.written.append((account, arguments[1]))
        self.dues.pop((account, arguments[1]))
        return None


class Watched:
    """Rollouts in virtual time; steps are made while they are watched."""

    def __init__(self) -> None:
        self.database = Told()
        loop = asyncio.get_running_loop()
        self.rollouts = Rollouts(cast(Database, self.database), lambda _: EMPTY, lambda: T + loop.time())

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """They are watched while the context lasts."""
        await self.rollouts.load()
        task = asyncio.create_task(self.rollouts.run())
        await asyncio.sleep(0.01)
        yield
        task.cancel()
        await asyncio.wait([task])

    def change(self, account: str, *subjects: str) -> None:
        """The tail tells of a change."""
        self.rollouts.on_changes(Changes(account, 1, Position(1, 1, 1), subjects))

    @property
    def judged(self) -> list[tuple[str, int]]:
        """Which rollouts were judged so far."""
        return [(account, revision) for _, account, revision in self.database.judged]


def in_time(steps: Callable[[Watched], Awaitable[None]]) -> None:
    """Runs a test in virtual time."""

    async def main() -> None:
        await steps(Watched())

    virtual_time.run(main())


def test_rollouts_are_judged_at_first_and_after_each_change() -> None:
    async def steps(it: Watched) -> None:
        it.database.running = {ACME: [7, 8]}
        async with it.going_on():
            assert sorted(it.judged) == [(ACME, 7), (ACME, 8)]
            for _ in range(5):  # all within the time in which changes are gathered
                it.change(ACME, Coarse.REPORTS)
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)
            assert sorted(it.judged) == 2 * [(ACME, 7)] + 2 * [(ACME, 8)]
            it.rollouts.on_presence(PresenceChange(ACME, [ID]))
            await asyncio.sleep(1)
            assert len(it.judged) == 6

    in_time(steps)


def test_account_without_a_rollout_costs_no_query() -> None:
    async def steps(it: Watched) -> None:
        async with it.going_on():
            it.change(ACME, Coarse.REPORTS, "servers/aaaaaaaaaa")
            it.rollouts.on_presence(PresenceChange(ACME, [ID]))
            await asyncio.sleep(1)
            assert it.database.listed == [None]
            it.database.running = {ACME: [7]}
            it.change(ACME, "policies/web@group")
            await asyncio.sleep(1)
            assert it.database.listed == [None, [ACME]]
            assert it.judged == [(ACME, 7)]

    in_time(steps)


def test_idle_rollouts_have_no_timer() -> None:
    async def steps(it: Watched) -> None:
        it.database.running = {ACME: [7]}
        await it.rollouts.load()
        await it.rollouts.run()

    with pytest.raises(RuntimeError, match="no timer brings"):
        in_time(steps)


def test_what_is_due_is_decided() -> None:
    async def steps(it: Watched) -> None:
        it.database.running, it.database.dues = {ACME: [7]}, {(ACME, 7): T}
        async with it.going_on():
            assert it.database.written == [(ACME, 7)]

    in_time(steps)


def test_rollout_is_judged_again_when_time_alone_calls_for_it() -> None:
    async def steps(it: Watched) -> None:
        it.database.running, it.database.dues = {ACME: [7]}, {(ACME, 7): T + 100}
        async with it.going_on():
            await asyncio.sleep(99)
            assert it.database.written == []
            await asyncio.sleep(2)
            assert it.database.written == [(ACME, 7)]

    in_time(steps)


@pytest.mark.parametrize("error", [Refused(Reason.OVERLOADED, "busy"), ValueError("a defect")])
def test_failing_rollout_is_backed_off_and_the_others_go_on(error: Exception) -> None:
    async def steps(it: Watched) -> None:
        it.database.running = {ACME: [7, 8], "beta.example": [9]}
        it.database.dues = {(ACME, 7): error, (ACME, 8): T, ("beta.example", 9): T}
        async with it.going_on():
            assert sorted(it.database.written) == [(ACME, 8), ("beta.example", 9)]
            await asyncio.sleep(60)
            assert 4 <= it.judged.count((ACME, 7)) <= 10
            it.database.dues[ACME, 7] = T
            await asyncio.sleep(60)
            assert it.database.written[-1] == (ACME, 7)

    in_time(steps)


def test_rollout_that_is_over_is_judged_no_longer() -> None:
    async def steps(it: Watched) -> None:
        it.database.running = {ACME: [7]}
        async with it.going_on():
            it.database.running = {}
            it.change(ACME, "policies/web@group")
            await asyncio.sleep(1)
            it.change(ACME, Coarse.REPORTS)
            await asyncio.sleep(1)
            assert it.judged == [(ACME, 7)]

    in_time(steps)


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (0.1, 0.5), (10.0, LONGEST_REST)])
def test_long_evaluation_is_followed_by_a_longer_rest(took: float, rest: float) -> None:
    assert rest_after(took) == rest
