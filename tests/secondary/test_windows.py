"""Policies wait for their maintenance window, and only where that is sensible."""

from __future__ import annotations

from typing import Any

import pytest

from enlist_secondary import policies as engine
from tests.secondary.engine import Machine, soon
from tests.secondary.motd import CLOSED, OPENS_IN, A, B, meant, provisional
from tests.secondary.origins import START, Primary, policy, window, wish


def test_the_windows_of_these_tests_are_closed(machine: Machine) -> None:
    assert START % 86400 == 8 * 3600


async def test_a_closed_window_is_waited_for_and_said(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(6, CLOSED))
        waits = await server.until("received")
        assert waits["message"] == "Its maintenance window opens at 2027-01-16T03:00:00Z."
        await server.pass_by(OPENS_IN - 1)
        assert machine.motd.calls == []
        await server.pass_by(1)
        await server.until("applied")


async def test_a_window_that_is_open_holds_nothing_up(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(6, "30 7 * * *"))
        await server.until("applied")


@pytest.mark.parametrize("change", [[], [window(7, "0 8 * * *")]], ids=["removed", "changed"])
async def test_a_window_that_changes_while_it_is_waited_for_counts_at_once(machine: Machine, change: list[Any]) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(6, CLOSED))
        await server.until("received")
        await server.send(machine.primary, policy(5, A), *change)
        await server.until("applied")


async def test_a_window_that_is_put_off_while_it_is_waited_for_is_said(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(6, CLOSED))
        await server.until("received")
        await server.send(machine.primary, policy(5, A), window(7, "0 4 * * *"))
        await soon(lambda: "T04:00:00Z" in (server.word() or {})["message"])
        await server.done()
        assert machine.motd.calls == []


async def test_a_clock_that_is_set_opens_the_window(machine: Machine) -> None:
    """It is looked at every minute, not only when the window should open by the clock as it was."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(6, CLOSED))
        await server.until("received")
        assert server.policies_looks.rest == engine.CLOCK_SECONDS
        machine.times.now += OPENS_IN
        await server.pass_by(engine.CLOCK_SECONDS)
        await server.until("applied")


async def test_of_several_windows_the_lowest_origins_counts(machine: Machine) -> None:
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        await server.send(top, window(1, "30 7 * * *"))
        await server.send(machine.primary, policy(5, A), window(6, CLOSED))
        await server.until("received")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"start": 5, "seconds": 60}', b'{"start":"0 0 30 2 *","seconds":60}', b"{}"])
async def test_a_window_that_cannot_be_read_holds_nothing_up(machine: Machine, body: bytes) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), wish("window", "/", 6, body))
        await server.until("applied")


async def test_what_is_in_force_already_needs_no_window(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        await server.send(machine.primary, policy(7, A), window(6, CLOSED))
        await soon(lambda: (server.word() or {})["meant"] == meant(machine, 7))
        assert (await server.until("applied"))["running"] == meant(machine, 7)


async def test_the_end_of_a_policy_waits_for_the_window_too(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        await server.send(machine.primary, window(6, CLOSED))
        await server.done()
        assert machine.motd.in_force == A
        await server.pass_by(OPENS_IN)
        await soon(lambda: machine.motd.in_force is None)


async def test_a_rollback_waits_for_no_window(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.send(machine.primary, policy(6, B, confirm=60), window(6, CLOSED))
        await server.done()
        await server.pass_by(60)
        await server.until("rolled_back")


async def test_what_was_changed_locally_is_not_forgotten_over_a_window(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await server.until("changed_locally")
        await server.send(machine.primary, policy(7, A), window(6, CLOSED))
        await server.until("received")
        await server.pass_by(OPENS_IN)
        await server.until("applied")
        assert machine.motd.calls == [("apply", A), ("apply", A)]
