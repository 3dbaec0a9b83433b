"""Rollouts of a real database under their controller: one that cannot be judged holds up no other. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from enlist.runtime.schedules import Window
from enlist_primary.controllers.rollouts import Rollouts
from enlist_primary.store import rollouts as rows
from tests.primary.operations.desk import ACME, BETA, Desk
from tests.primary.operations.fleet import STAGES, Fleet
from tests.support import virtual_time

ZONE = "Europe/Lisbon"


class DeskDatabase:
    """The database of a desk, asked as the primary asks it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """See `Database.read`."""
        return query(self._desk.tx, *arguments)

    async def write(self, account: str, operation: Callable[..., Any], *arguments: Any) -> Any:
        """See `Database.write`."""
        return self._desk.do(operation, *arguments)


def zone_gone(name: str) -> ZoneInfo:
    """The time zones of a machine that was updated."""
    if name == ZONE:
        raise KeyError(name)
    return ZoneInfo(name)


def test_rollout_whose_time_zone_is_gone_stops_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(desk, "Sites", "Labs")
    desk.set_window("Sites", Window("0 3 * * *", 3600, ZONE))
    stuck = [fleet.server(f"s{number}", "Sites") for number in range(2)]
    well = [fleet.server(f"l{number}", "Labs") for number in range(2)]
    other = [fleet.server(f"b{number}", account=BETA) for number in range(2)]
    refused = fleet.set("Sites", {"a": 1}, stages=STAGES).revision
    begun = [(ACME, fleet.set("Labs", {"a": 1}, stages=STAGES).revision)]
    begun.append((BETA, fleet.set("/", {"a": 1}, stages=STAGES, account=BETA).revision))
    for server in stuck:
        fleet.say(server, "received", "waits for its maintenance window")
    for server in [*well, *other]:
        fleet.say(server)
    monkeypatch.setattr("enlist.runtime.schedules.ZoneInfo", zone_gone)

    async def main() -> None:
        database: Any = DeskDatabase(desk)
        views = fleet.view
        controller = Rollouts(database, lambda _: views, lambda: desk.now)
        await controller.load()
        running = asyncio.create_task(controller.run())
        await asyncio.sleep(10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(main())
    assert [stage(desk, *key) for key in begun] == [2, 2]
    assert stage(desk, ACME, refused) == 1
    assert {record.__dict__["fields"]["reason"] for record in caplog.records} == {"SCHEDULE_INVALID"}


def stage(desk: Desk, account: str, revision: int) -> int:
    """The stage of a rollout."""
    rollout = rows.find(desk.tx, account, revision)
    assert rollout is not None
    return rollout.stage
