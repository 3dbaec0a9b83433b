"""Policies that are rolled back unless they are confirmed in time. Faults row 9."""

from __future__ import annotations

import pytest

from enlist_secondary import policies as engine
from tests.secondary.disks import Disk
from tests.secondary.engine import Machine, soon
from tests.secondary.motd import CLOSED, OPENS_IN, A, B, C, meant, provisional, word
from tests.secondary.origins import policy, window

ROLLED_BACK = "It was not confirmed in time."


async def test_what_is_not_confirmed_in_time_is_rolled_back(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(59)
        assert machine.motd.in_force == B
        await server.pass_by(1)
        assert await server.until("rolled_back") == word(machine, "rolled_back", (6,), (5,), ROLLED_BACK)
        assert machine.motd.calls[-1] == ("revert", A)
        await server.pass_by(3600)
        assert machine.motd.in_force == A, "it is not tried again"
    async with machine.running() as server:
        assert await server.until("rolled_back") == word(machine, "rolled_back", (6,), (5,), ROLLED_BACK)
        assert machine.motd.in_force == A


async def test_what_is_confirmed_in_time_stays(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(59)
        await server.send(machine.primary, policy(6, B))
        await server.done()
        await server.pass_by(3600)
    async with machine.running() as server:
        await server.pass_by(3600)
        assert await server.until("applied") == word(machine, "applied", (6,), (6,))
    assert machine.motd.calls == [("apply", A), ("apply", B)]


async def test_a_confirmation_that_is_here_at_the_last_moment_counts(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        machine.times.pass_by(60)
        await server.send(machine.primary, policy(6, B))
        await server.done()
        await server.pass_by(60)
        assert server.state() == "applied"
    assert machine.motd.in_force == B


async def test_a_confirmation_that_comes_while_it_is_rolled_back_puts_it_in_force_again(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        machine.motd.gate.close()
        await server.pass_by(60)
        await soon(lambda: machine.motd.gate.waiting)
        await server.send(machine.primary, policy(6, B))
        machine.motd.gate.open()
        await soon(lambda: server.state() == "applied" and machine.motd.in_force == B)
        assert await server.until("applied") == word(machine, "applied", (6,), (6,))


async def test_what_was_rolled_back_and_is_made_final_later_is_put_in_force(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(61)
        await server.until("rolled_back")
        await server.send(machine.primary, policy(6, B))
        assert await server.until("applied") == word(machine, "applied", (6,), (6,))
        await server.pass_by(3600)
        assert machine.motd.in_force == B


async def test_the_first_policy_is_rolled_back_to_none(machine: Machine) -> None:
    async with machine.holding(policy(6, B, confirm=60)) as server:
        await server.pass_by(60)
        assert await server.until("rolled_back") == word(machine, "rolled_back", (6,), (), ROLLED_BACK)
        assert machine.motd.calls == [("apply", B), ("revert", None)]


async def test_it_is_rolled_back_also_if_the_daemon_was_down_at_that_moment(machine: Machine) -> None:
    """Faults row 9."""
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(30)
    machine.times.pass_by(31)
    async with machine.running() as server:
        await server.until("rolled_back")
        assert machine.motd.in_force == A


async def test_a_restart_gives_no_new_time(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(30)
    async with machine.running() as server:
        await server.pass_by(29)
        assert server.state() == "applied"
        await server.pass_by(1)
        await server.until("rolled_back")


@pytest.mark.parametrize("by", [-86400, 86400])
async def test_a_clock_that_is_set_while_we_run_changes_nothing(machine: Machine, by: int) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        machine.times.now += by
        await server.pass_by(59)
        assert server.state() == "applied"
        await server.pass_by(1)
        await server.until("rolled_back")


async def test_a_clock_that_was_set_back_while_we_were_down_gives_no_more_than_the_time_that_was_given(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
    machine.times.now -= 86400
    async with machine.running() as server:
        await server.pass_by(60)
        await server.until("rolled_back")


async def test_a_second_change_on_top_of_one_that_waits_goes_back_to_what_was_good_for_good(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(50)
        await server.send(machine.primary, policy(7, C, confirm=60))
        await soon(lambda: machine.motd.in_force == C)
        await server.done()
        await server.pass_by(59)
        assert server.state() == "applied", "the second one has its own time"
        await server.pass_by(1)
        assert await server.until("rolled_back") == word(machine, "rolled_back", (7,), (5,), ROLLED_BACK)
        assert machine.motd.in_force == A


async def test_a_change_that_fails_on_top_of_one_that_waits_takes_it_neither_back_nor_confirms_it(machine: Machine) -> None:
    """Before, a final change that failed made the one that waited final."""
    machine.motd.refuse("c")
    async with machine.running() as server:
        await provisional(server, machine)
        await server.send(machine.primary, policy(7, C))
        assert await server.until("failed") == word(machine, "failed", (7,), (6,), "No.")
        assert machine.motd.in_force == B
        await server.pass_by(60)
        await soon(lambda: machine.motd.in_force == A)
        await server.done()
        told = "No. What was in force was not confirmed in time."
        assert server.word() == word(machine, "failed", (7,), (5,), told)


async def test_a_change_that_waits_for_its_window_does_not_confirm_the_one_in_force(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.send(machine.primary, policy(7, C), window(8, CLOSED))
        waits = await server.until("received")
        await server.pass_by(60)
        await soon(lambda: machine.motd.in_force == A)
        await server.done()
        assert server.word() == {**waits, "running": meant(machine, 5)}
        await server.pass_by(OPENS_IN)
        await server.until("applied")
        assert machine.motd.in_force == C


async def test_what_is_confirmed_beside_a_new_change_is_what_that_goes_back_to(machine: Machine) -> None:
    """One layer becomes final as another is tried."""
    async with machine.running() as server:
        await provisional(server, machine)
        await server.send(machine.primary, policy(6, B), policy(7, C, name="Sites", confirm=60))
        await soon(lambda: machine.motd.in_force == C)
        await server.done()
        await server.pass_by(60)
        assert await server.until("rolled_back") == word(machine, "rolled_back", (6, 7), (6,), ROLLED_BACK)
        assert machine.motd.in_force == B


async def test_a_change_of_another_layer_gives_the_one_that_waits_no_new_time(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(50)
        await server.send(machine.primary, policy(6, B, confirm=60), policy(7, {"more": 1}, name="Sites"))
        await soon(lambda: machine.motd.in_force == {**B, "more": 1})
        await server.done()
        await server.pass_by(10)
        await server.until("rolled_back")
        assert machine.motd.in_force == A


async def test_a_policy_that_is_withdrawn_in_time_is_replaced_and_not_rolled_back(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.send(machine.primary, policy(7, A))
        await soon(lambda: machine.motd.in_force == A)
        await server.pass_by(3600)
        assert await server.until("applied") == word(machine, "applied", (7,), (7,))


async def test_a_rollback_that_fails_is_said_and_tried_again(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        machine.motd.refuse()
        await server.pass_by(60)
        told = await server.until("rolled_back")
        assert told["message"] == f"{ROLLED_BACK} Going back failed: No."
    async with machine.running() as server:
        await soon(lambda: machine.motd.calls[3:] == [("revert", A)])
        await server.done()
        machine.motd.accept()
        await server.pass_by(engine.GO_BACK_SECONDS)
        await soon(lambda: machine.motd.in_force == A)
        assert await server.until("rolled_back") == word(machine, "rolled_back", (6,), (5,), ROLLED_BACK)


async def test_a_rollback_needs_no_disk(machine: Machine, disk: Disk) -> None:
    """Faults row 7."""
    async with machine.running() as server:
        await provisional(server, machine)
        disk.full = lambda _: True
        await server.pass_by(60)
        await server.until("rolled_back")
        assert machine.motd.in_force == A


async def test_a_rollback_does_not_wait_behind_what_is_tried_again_later(machine: Machine, disk: Disk) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        await server.pass_by(55)
        disk.full = lambda path: path.name == "motd.json"
        await server.send(machine.primary, policy(7, C))
        await server.until("received")
        await server.pass_by(5)
        await soon(lambda: machine.motd.in_force == A)
        await server.done()


async def test_without_a_handler_nothing_is_rolled_back_and_nothing_spins(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
    machine.configured = ()
    async with machine.running() as server:
        await server.until("unsupported")
        server.policies_looks.keys.clear()
        await server.pass_by(3600)
        assert server.policies_looks.keys == []
    machine.configured = ("motd",)
    async with machine.running() as server:
        await soon(lambda: ("revert", A) in machine.motd.calls)
