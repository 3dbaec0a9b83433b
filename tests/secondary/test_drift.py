"""What somebody changed behind our back is said, and put back where the policy says so."""

from __future__ import annotations

from enlist_secondary import policies as engine
from tests.secondary.engine import Machine, soon
from tests.secondary.motd import A, B, word
from tests.secondary.origins import policy


async def test_what_somebody_changed_is_said_and_what_he_restored_too(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        machine.motd.change = "Somebody\nwas here."
        await server.pass_by(10)
        told = word(machine, "changed_locally", (5,), (5,), "Somebody\\x0awas here.")
        assert await server.until("changed_locally") == told
        machine.motd.change = None
        await server.pass_by(10)
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
        assert machine.motd.calls == [("apply", A)]


async def test_what_was_changed_while_the_daemon_was_down_is_noticed(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    machine.motd.change = "Somebody was here."
    async with machine.running() as server:
        await server.until("changed_locally")


async def test_a_policy_that_says_so_is_put_back(machine: Machine) -> None:
    async with machine.holding(policy(5, A, put_back=True)) as server:
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await soon(lambda: len(machine.motd.calls) == 2)
        put = await server.until("applied")
        assert put == word(machine, "applied", (5,), (5,), "Put back after this: Somebody was here.")
        await server.pass_by(10)
        assert len(machine.motd.calls) == 2


async def test_putting_back_that_fails_is_said_and_tried_again_in_a_while(machine: Machine) -> None:
    async with machine.holding(policy(5, A, put_back=True)) as server:
        machine.motd.change = "Somebody was here."
        machine.motd.refuse()
        await server.pass_by(10)
        told = await server.until("changed_locally")
        assert told["message"] == "Somebody was here. Putting it back failed: No."
        await server.pass_by(engine.GO_BACK_SECONDS - 1)
        assert len(machine.motd.calls) == 2
        machine.motd.accept()
        await server.pass_by(11)
        await server.until("applied")


async def test_putting_back_gives_a_change_that_waits_no_new_time(machine: Machine) -> None:
    async with machine.holding(policy(6, B, confirm=60, put_back=True)) as server:
        await server.pass_by(40)
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await soon(lambda: len(machine.motd.calls) == 2)
        await server.done()
        await server.pass_by(10)
        await server.until("rolled_back")


async def test_what_changed_while_a_newer_policy_came_is_not_put_back(machine: Machine) -> None:
    async with machine.holding(policy(5, A, put_back=True)) as server:
        machine.motd.look_gate.close()
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await soon(lambda: machine.motd.look_gate.waiting)
        await server.send(machine.primary, policy(6, B, put_back=True))
        await server.settled()
        machine.motd.look_gate.open()
        await soon(lambda: machine.motd.in_force == B)
        await server.done()
        assert machine.motd.calls == [("apply", A), ("apply", B)]


async def test_a_handler_that_cannot_tell_changes_nothing(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")

        async def broken() -> str | None:
            raise OSError("no")

        machine.motd.changed = broken  # type: ignore[method-assign]  # this handler's alone
        await server.pass_by(10)
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
