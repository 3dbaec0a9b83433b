"""The task that watches rollouts: how it knows who is connected, and that it does not give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.controllers.rollouts import Rollouts
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.model.rollouts import Presence, Rollout, RolloutState, Stages, begin
from enlist_primary.operations import rollouts
from enlist_primary.store import rollouts as rows
from enlist_primary.store.database import Database
from enlist_primary.store.observations import Seen
from tests.support.waiting import eventually

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


@dataclass
class Told:
    """A database that only tells what is asked of it, and is changed when a test says so."""

    looks: list[Any] = field(default_factory=list)
    written: list[tuple[str, int]] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        self._change = asyncio.get_running_loop().create_future()

    def changed(self) -> Any:
        return asyncio.shield(self._change)

    def change(self) -> None:
        self._change.set_result(None)
        self._change = asyncio.get_running_loop().create_future()

    async def read(self, query: Any, *_: Any) -> Any:
        if query is rows.accounts_running:
            return [ACME]
        assert query is rollouts.look
        self.reads += 1
        answer = self.looks.pop(0) if self.looks else ([], None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def write(self, account: str, operation: Any, *arguments: Any) -> Rollout | None:
        assert operation is rollouts.advance
        self.written.append((account, arguments[1]))
        return None


@pytest.fixture
async def database() -> Told:
    return Told()


@pytest.fixture
async def watching(database: Told, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr("enlist_primary.controllers.rollouts.GATHER_SECONDS", 0.01)
    monkeypatch.setattr("enlist_primary.controllers.rollouts.RETRY_SECONDS", 0.01)
    real = cast(Database, database)
    task = asyncio.create_task(Rollouts(real, Reachability(Hub(), Observations(real), nothing_below(real), T, ""), lambda: T).run())
    yield
    task.cancel()
    await asyncio.wait({task})


READY = begin(ACME, 7, 0, Stages(("1", "100%")), [ID], T)


async def test_it_looks_at_first_and_then_once_after_each_commit(database: Told, watching: None) -> None:
    for looks in range(1, 5):
        await eventually(partial(has_looked, database, looks), what=f"exactly {looks} looks")
        database.change()


def has_looked(database: Told, times: int) -> bool:
    assert database.reads <= times
    return database.reads == times


async def test_it_decides_what_is_ready(database: Told, watching: None) -> None:
    assert READY.state is RolloutState.RUNNING
    database.looks.append(([READY], None))
    database.change()
    await eventually(lambda: database.written == [(ACME, 7)])


async def test_it_looks_again_when_time_alone_calls_for_it(database: Told, watching: None) -> None:
    database.looks += [([], T), ([], T - 5), ([READY], None)]
    database.change()
    await eventually(lambda: database.written == [(ACME, 7)])


async def test_a_refusal_of_the_storage_is_no_end(database: Told, watching: None) -> None:
    database.looks += [Refused(Reason.OVERLOADED, "busy"), ([READY], None)]
    database.change()
    await eventually(lambda: database.written == [(ACME, 7)])
