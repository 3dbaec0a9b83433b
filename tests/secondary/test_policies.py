"""Policies at a server: put in force, kept so, told. Attacks rows 36 and 38; faults rows 2, 7, 9."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1.document_pb2 import Report
from enlist_secondary import policies as engine
from tests.secondary.disks import Crash, Disk
from tests.secondary.engine import HALF, Machine, Server, soon
from tests.secondary.origins import START, Primary, policy, window, wish

A, B, C = {"text": "a"}, {"text": "b"}, {"text": "c"}
CLOSED = "0 3 * * *"
"""START is 08:00 UTC: a window that opens at 3 is closed for 19 hours."""
OPENS_IN = 19 * 3600


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def meant(machine: Machine, *revisions: int) -> dict[str, tuple[int, ...]]:
    return {machine.primary.name: revisions} if revisions else {}


def word(machine: Machine, state: str, of: tuple[int, ...], running: tuple[int, ...], message: str = "") -> dict[str, Any]:
    return {"state": state, "meant": meant(machine, *of), "running": meant(machine, *running), "message": message}


def test_the_windows_of_these_tests_are_closed(machine: Machine) -> None:
    assert START % 86400 == 8 * 3600


# --- In force -----------------------------------------------------------------------------------------------------------------


async def test_a_policy_is_put_in_force_and_told(machine: Machine) -> None:
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
        assert server.word() == word(machine, "received", (5,), ())
        machine.motd.gate.open()
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
        assert machine.motd.calls == [("apply", A)]


async def test_that_a_handler_begins_is_on_the_disk_before_it_does(machine: Machine) -> None:
    """Faults row 2."""
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
        text = (machine.folder / "policies" / "motd.json").read_text()
        assert '"uncertain":true' in text
        machine.motd.gate.open()
        await server.until("applied")
        assert '"uncertain":false' in (machine.folder / "policies" / "motd.json").read_text()


async def test_after_a_restart_nothing_is_done_again_and_everything_is_told_again(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    async with machine.running() as server:
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
    assert machine.motd.calls == [("apply", A)]


async def test_layers_of_upper_origins_come_first_and_a_report_means_all_of_them(machine: Machine) -> None:
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, {"text": "low", "more": 1}), policy(9, {"more": 2}, name="Sites"))
        await server.until("applied")
        await server.send(top, policy(3, {"text": "high"}, locks=("/text",)))
        await soon(lambda: (server.word() or {})["meant"].get(top.name) == (3,))
        await server.done()
        assert machine.motd.in_force == {"text": "high", "more": 2}
        both = {top.name: (3,), machine.primary.name: (5, 9)}
        assert server.word() == {"state": "applied", "meant": both, "running": both, "message": ""}


async def test_kinds_do_not_wait_for_one_another(machine: Machine) -> None:
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A), policy(6, B, kind="ntp"))
        await soon(lambda: server.state("ntp") == "applied" and server.state() == "received")
        machine.motd.gate.open()
        await server.until("applied")


async def test_a_set_that_comes_while_a_handler_runs_is_in_force_afterwards(machine: Machine) -> None:
    """And no report claims newer revisions for older settings."""
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
        await server.send(machine.primary, policy(6, B))
        await server.send(machine.primary, policy(7, C))
        await server.settled()
        assert server.word() == word(machine, "received", (5,), ())
        words: list[list[int]] = []
        put = server.outbox.put

        def noted(report: Report) -> None:
            words.append(list(report.meant[0].revisions))
            put(report)

        server.outbox.put = noted  # type: ignore[method-assign]  # noted on its way
        machine.motd.gate.open()
        await soon(lambda: machine.motd.in_force == C)
        assert await server.until("applied") == word(machine, "applied", (7,), (7,))
        assert machine.motd.calls == [("apply", A), ("apply", C)]
        assert words == [[5], [7], [7]]


async def test_the_same_settings_under_other_revisions_need_no_handler(machine: Machine) -> None:
    """The report must mean the new revisions, or the primary would wait for ever."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        await server.send(machine.primary, policy(8, {}), policy(9, A, name="Sites"))
        await soon(lambda: (server.word() or {})["meant"] == meant(machine, 8, 9))
        await server.done()
        assert server.word() == word(machine, "applied", (8, 9), (8, 9))
        assert machine.motd.calls == [("apply", A)]


async def test_other_settings_under_the_same_revision_are_put_in_force(machine: Machine) -> None:
    """A restored primary gives numbers again that it gave before. Before, nothing was done, and the old settings were reported."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.primary.epoch, machine.primary.number = 2, 4
        await server.send(machine.primary, policy(5, B))
        await soon(lambda: machine.motd.in_force == B)
        await server.until("applied")


async def test_a_restored_primary_does_not_confirm_what_another_decision_of_the_same_number_began(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
        machine.primary.epoch, machine.primary.number = 2, 5
        await server.send(machine.primary, policy(6, C), window(7, CLOSED))
        await server.until("received")
        await server.pass_by(60)
        await soon(lambda: machine.motd.in_force == A)


async def test_locks_that_cease_to_hold_are_noticed(machine: Machine) -> None:
    """The primary above went, and left what it had set to be changed."""
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        await server.send(top, policy(3, {"text": "high"}, locks=("/text",)))
        await server.send(machine.primary, policy(5, {"text": "low"}))
        await server.until("applied")
        assert machine.motd.in_force == {"text": "high"}
        server.held.stand([top.origin, machine.primary.origin], frozenset({top.name}))
        server.look()
        await soon(lambda: machine.motd.in_force == {"text": "low"})
        await server.until("applied")


async def test_settings_that_only_look_the_same_are_put_in_force(machine: Machine) -> None:
    """1 and true are equal to Python alone."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, {"a": 1}))
        await server.until("applied")
        await server.send(machine.primary, policy(6, {"a": True}))
        await soon(lambda: len(machine.motd.calls) == 2)


async def test_a_layer_that_cannot_be_read_fails_its_kind_and_no_other(machine: Machine) -> None:
    """Attacks row 37: what a primary signs may still be nonsense."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        broken = wish("policy/motd", "/", 6, b'{"settings": [' + b"[" * 100_000)
        await server.send(machine.primary, broken, policy(7, B, kind="ntp"))
        await server.until("applied", "ntp")
        failed = await server.until("failed")
        assert failed["meant"] == meant(machine, 6)
        assert failed["running"] == meant(machine, 5)
        assert failed["message"]
        assert machine.motd.in_force == A
        await server.send(machine.primary, policy(8, B))
        await server.until("applied")


# --- Failing ------------------------------------------------------------------------------------------------------------------


async def test_what_fails_leaves_the_last_good_one_in_force(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse("b")
        await server.send(machine.primary, policy(6, B))
        assert await server.until("failed") == word(machine, "failed", (6,), (5,), "No.")
        assert machine.motd.in_force == A
        assert machine.motd.calls == [("apply", A), ("apply", B)]
        await server.pass_by(3600)
        assert len(machine.motd.calls) == 2, "what failed is not tried again for nothing"


async def test_a_handler_that_cannot_be_sure_is_made_to_go_back(machine: Machine) -> None:
    machine.motd.restores = False
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse("b")
        await server.send(machine.primary, policy(6, B))
        assert await server.until("failed") == word(machine, "failed", (6,), (5,), "No.")
        assert machine.motd.calls[-1] == ("revert", A)
        assert machine.motd.in_force == A


async def test_where_nothing_was_in_force_there_is_nothing_to_go_back_to(machine: Machine) -> None:
    machine.motd.restores = False
    machine.motd.refuse("a")
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        assert await server.until("failed") == word(machine, "failed", (5,), (), "No.")
        assert machine.motd.calls == [("apply", A)]


async def test_going_back_is_tried_until_it_succeeds(machine: Machine) -> None:
    machine.motd.restores = False
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse()
        await server.send(machine.primary, policy(6, B))
        failed = await server.until("failed")
        assert failed["message"] == "No. Going back failed: No."
        await server.pass_by(engine.GO_BACK_SECONDS - 1)
        assert len(machine.motd.calls) == 3
        machine.motd.accept()
        await server.pass_by(2)
        await soon(lambda: machine.motd.in_force == A)
        await server.done()
        assert server.word() == word(machine, "failed", (6,), (5,), "No.")


async def test_going_back_that_failed_is_tried_again_after_a_restart(machine: Machine) -> None:
    machine.motd.restores = False
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse()
        await server.send(machine.primary, policy(6, B))
        await server.until("failed")
    machine.motd.refuse("b")
    async with machine.running() as server:
        await soon(lambda: machine.motd.in_force == A)
        assert await server.until("failed") == word(machine, "failed", (6,), (5,), "No.")


async def test_after_a_failure_the_same_settings_are_put_in_force_again(machine: Machine) -> None:
    """A handler that failed is not believed to have left what was there, whatever it says."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse("b")
        await server.send(machine.primary, policy(6, B))
        await server.until("failed")
        await server.send(machine.primary, policy(7, A))
        await server.until("applied")
        assert machine.motd.calls[-1] == ("apply", A)


async def test_what_failed_is_tried_once_more_after_a_restart(machine: Machine) -> None:
    """The owner may have mended the handler."""
    machine.motd.refuse("a")
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("failed")
    async with machine.running() as server:
        await soon(lambda: len(machine.motd.calls) == 2)
        assert await server.until("failed") == word(machine, "failed", (5,), (), "No.")
    machine.motd.accept()
    async with machine.running() as server:
        await server.until("applied")


@pytest.mark.parametrize("error", [ValueError("x"), Refused(Reason.FILE_FAILED, "x"), asyncio.CancelledError()], ids=repr)
async def test_a_handler_that_raises_something_unforeseen_has_failed(machine: Machine, error: BaseException) -> None:
    """Before, it was called again and again without a pause."""
    machine.motd.restores = False
    machine.motd.fails = lambda call, _: error if call == "apply" else None
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        failed = await server.until("failed")
        assert "unforeseen" in failed["message"]
        assert machine.motd.calls == [("apply", A)]
        await server.send(machine.primary, policy(6, B, kind="ntp"))
        await server.until("applied", "ntp")


# --- Ending -------------------------------------------------------------------------------------------------------------------


async def test_when_no_layer_speaks_of_it_any_more_what_was_there_before_comes_back(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        await server.send(machine.primary)
        await soon(lambda: server.word() is None)
        assert machine.motd.calls == [("apply", A), ("revert", None)]
        assert list((machine.folder / "policies").iterdir()) == []
    async with machine.running() as server:
        await server.done()
        assert server.word() is None


async def test_a_policy_that_never_was_in_force_ends_without_its_handler(machine: Machine) -> None:
    machine.motd.refuse()
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("failed")
        await server.send(machine.primary)
        await soon(lambda: server.word() is None)
        assert machine.motd.calls == [("apply", A)]


async def test_a_policy_removed_while_its_handler_runs_is_taken_back_afterwards(machine: Machine) -> None:
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
        await server.send(machine.primary)
        await server.settled()
        machine.motd.gate.open()
        await soon(lambda: server.word() is None)
        assert machine.motd.calls == [("apply", A), ("revert", None)]
        assert machine.motd.in_force is None


async def test_an_end_that_fails_is_tried_until_it_succeeds(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.refuse()
        await server.send(machine.primary)
        await soon(lambda: machine.motd.calls[-1] == ("revert", None))
        await server.done()
        await server.pass_by(engine.GO_BACK_SECONDS - 1)
        assert len(machine.motd.calls) == 2
    async with machine.running() as server:
        await soon(lambda: len(machine.motd.calls) == 3)
        await server.done()
        machine.motd.accept()
        await server.pass_by(engine.GO_BACK_SECONDS + 1)
        await soon(lambda: machine.motd.in_force is None)
        await server.done()
        assert list((machine.folder / "policies").iterdir()) == []


async def test_a_policy_that_comes_back_while_it_is_ended_is_put_in_force_anew(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.gate.close()
        await server.send(machine.primary)
        await soon(lambda: machine.motd.gate.waiting)
    # The daemon was stopped in the middle of that.
    machine.motd.gate.open()
    server = machine.server()
    server.held.load()
    again = [policy(5, A)]
    server.held.receive(machine.primary.sign(again), [again[0].body])
    await server.held.save()
    async with machine.running() as server:
        await soon(lambda: machine.motd.in_force == A)
        await server.until("applied")


# --- Handlers come and go -------------------------------------------------------------------------------------------------------


async def test_a_kind_without_a_handler_is_told_to_be_unsupported(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A, kind="dns"), policy(6, A, kind="ntp"))
        told = await server.until("unsupported", "dns")
        assert told == word(machine, "unsupported", (5,), (), engine.UNSUPPORTED)
        await server.until("applied", "ntp")


async def test_a_handler_that_the_owner_removed_leaves_its_policy_and_says_so(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    machine.configured = ("ntp",)
    async with machine.running() as server:
        assert await server.until("unsupported") == word(machine, "unsupported", (5,), (5,), engine.UNSUPPORTED)
        await server.send(machine.primary, policy(6, B))
        await soon(lambda: (server.word() or {})["meant"] == meant(machine, 6))
    assert machine.motd.in_force == A


async def test_a_handler_that_came_back_is_called_even_for_the_same_settings(machine: Machine) -> None:
    """It may do something else now."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    machine.configured = ()
    async with machine.running() as server:
        await server.until("unsupported")
    machine.configured = ("motd",)
    async with machine.running() as server:
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
    assert machine.motd.calls == [("apply", A), ("apply", A)]


async def test_a_policy_whose_handler_is_gone_ends_without_it(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    machine.configured = ()
    with caplog.at_level(logging.WARNING):
        async with machine.running() as server:
            await server.until("unsupported")
            await server.send(machine.primary)
            await soon(lambda: server.word() is None)
    assert "stays" in caplog.text


# --- To be confirmed ------------------------------------------------------------------------------------------------------------


async def provisional(server: Server, machine: Machine) -> None:
    """A is in force for good, B waits to be confirmed for 60 s."""
    await server.send(machine.primary, policy(5, A))
    await server.until("applied")
    await server.send(machine.primary, policy(6, B, confirm=60))
    await soon(lambda: (server.word() or {})["running"] == meant(machine, 6))
    await server.done()


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
    async with machine.running() as server:
        await server.send(machine.primary, policy(6, B, confirm=60))
        await server.until("applied")
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
        begun = counted(server)
        await server.pass_by(3600)
        assert len(begun) == 1
    machine.configured = ("motd",)
    async with machine.running() as server:
        await soon(lambda: ("revert", A) in machine.motd.calls)


# --- Maintenance windows --------------------------------------------------------------------------------------------------------


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
        rests = counted(server)
        server.policies._wake.set()
        await server.done()
        assert rests == [engine.CLOCK_SECONDS]
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
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        await server.send(machine.primary, policy(7, A), window(6, CLOSED))
        await soon(lambda: (server.word() or {})["meant"] == meant(machine, 7))
        assert (await server.until("applied"))["running"] == meant(machine, 7)


async def test_the_end_of_a_policy_waits_for_the_window_too(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
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
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await server.until("changed_locally")
        await server.send(machine.primary, policy(7, A), window(6, CLOSED))
        await server.until("received")
        await server.pass_by(OPENS_IN)
        await server.until("applied")
        assert machine.motd.calls == [("apply", A), ("apply", A)]


# --- Changed locally ------------------------------------------------------------------------------------------------------------


async def test_what_somebody_changed_is_said_and_what_he_restored_too(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
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
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A, put_back=True))
        await server.until("applied")
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await soon(lambda: len(machine.motd.calls) == 2)
        put = await server.until("applied")
        assert put == word(machine, "applied", (5,), (5,), "Put back after this: Somebody was here.")
        await server.pass_by(10)
        assert len(machine.motd.calls) == 2


async def test_putting_back_that_fails_is_said_and_tried_again_in_a_while(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A, put_back=True))
        await server.until("applied")
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
    async with machine.running() as server:
        await server.send(machine.primary, policy(6, B, confirm=60, put_back=True))
        await server.until("applied")
        await server.pass_by(40)
        machine.motd.change = "Somebody was here."
        await server.pass_by(10)
        await soon(lambda: len(machine.motd.calls) == 2)
        await server.done()
        await server.pass_by(10)
        await server.until("rolled_back")


async def test_what_changed_while_a_newer_policy_came_is_not_put_back(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A, put_back=True))
        await server.until("applied")
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


# --- The disk, crashes, stops -----------------------------------------------------------------------------------------------------


async def test_on_a_full_disk_nothing_is_begun_and_it_is_said_and_tried_again(machine: Machine, disk: Disk) -> None:
    """Faults row 7."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        disk.full = lambda path: path.name == "motd.json"
        await server.send(machine.primary, policy(6, B))
        told = await server.until("received")
        assert told["meant"] == meant(machine, 6)
        assert "no space is left" in told["message"]
        await server.pass_by(engine.AGAIN_SECONDS + 1)
        assert machine.motd.in_force == A
        disk.full = lambda _: False
        await server.pass_by(engine.AGAIN_SECONDS + 1)
        await server.until("applied")
        assert machine.motd.in_force == B


async def test_on_a_disk_that_has_filled_up_meanwhile_the_outcome_is_told_and_written_later(machine: Machine, disk: Disk) -> None:
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
        disk.full = lambda path: path.name == "motd.json"
        machine.motd.gate.open()
        await server.until("applied")
        disk.full = lambda _: False
        await server.pass_by(engine.AGAIN_SECONDS + 1)
        await server.done()
        assert '"applied"' in (machine.folder / "policies" / "motd.json").read_text()
        assert machine.motd.calls == [("apply", A)]


@pytest.mark.parametrize("then", ["the same", "another", "none"])
async def test_a_stop_in_the_middle_of_a_handler_is_made_good_after_the_restart(machine: Machine, then: str) -> None:
    """Faults row 2: half of something is in force; it is done again, replaced, or taken back."""
    async with machine.running() as server:
        machine.motd.gate.close()
        await server.send(machine.primary, policy(5, A))
        await soon(lambda: machine.motd.gate.waiting)
    assert machine.motd.in_force == HALF
    machine.motd.gate.open()
    if then != "the same":
        server = machine.server()
        server.held.load()
        wishes = [policy(6, B)] if then == "another" else []
        server.held.receive(machine.primary.sign(wishes), [each.body for each in wishes])
        await server.held.save()
    async with machine.running() as server:
        wanted = {"the same": A, "another": B, "none": None}[then]
        await soon(lambda: machine.motd.in_force == wanted)
        await server.done()
        assert server.state() == ("" if then == "none" else "applied")


async def test_what_was_half_done_is_taken_back_where_the_window_has_closed_meanwhile(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), window(4, "30 7 * * *"))
        await server.until("applied")
        machine.motd.gate.close()
        await server.send(machine.primary, policy(6, B), window(4, "30 7 * * *"))
        await soon(lambda: machine.motd.gate.waiting)
    machine.motd.gate.open()
    machine.times.pass_by(3600)
    async with machine.running() as server:
        await soon(lambda: machine.motd.in_force == A)
        assert "opens at" in (await server.until("received"))["message"]


STORY: list[tuple[list[Any], float]] = [
    ([policy(5, A)], 0),
    ([policy(6, B, confirm=60)], 30),
    ([policy(6, B)], 60),
    ([policy(7, C, confirm=60)], 61),
    ([], 0),
    ([policy(8, A, put_back=True)], 11),
]
"""What a primary may want in an hour, and the seconds that pass then."""

TOLD = [("apply", A), ("apply", B), ("apply", C), ("revert", B), ("revert", None), ("apply", A), ("apply", A)]


async def tell(machine: Machine, chapters: list[tuple[list[Any], float]], disk: Disk | None = None) -> None:
    for wishes, seconds in chapters:
        async with machine.running() as server:
            await server.send(machine.primary, *wishes)
            await server.done()
            machine.motd.change = "Somebody was here." if seconds == 11 else None
            await server.pass_by(seconds)
            await server.done()
        if disk is not None and disk.dead:
            raise Crash


async def test_the_story_without_a_crash(machine: Machine) -> None:
    await tell(machine, STORY)
    assert machine.motd.calls == TOLD


@pytest.mark.parametrize(("restores", "after"), [(False, False), (True, True)])
async def test_wherever_the_daemon_dies_the_story_ends_the_same(tmp_path: Path, disk: Disk, restores: bool, after: bool) -> None:
    """Faults row 2: at every operation on files, before or after it."""
    operation, died = 0, True
    while died:
        machine = Machine(tmp_path / str(operation))
        machine.motd.restores = restores
        died = await dying(machine, disk, operation, after)
        assert machine.motd.in_force == A, operation
        allowed = {call for call, _ in [(str(each), 0) for each in TOLD]} | {str(("revert", A))}
        assert {str(each) for each in machine.motd.calls} <= allowed, operation
        operation += 1
    assert operation > 20


async def dying(machine: Machine, disk: Disk, operation: int, after: bool) -> bool:
    """Tells the story with a death at this operation; whether there was one."""
    disk.live()
    disk.dies_at, disk.after = operation, after
    rest = list(STORY)
    while rest:
        try:
            await tell(machine, rest[:1], disk)
            rest.pop(0)
        except Crash:
            disk.live()
    died = disk.dies_at is None
    disk.dies_at = None
    return died


async def test_a_record_that_cannot_be_read_is_made_good_by_the_handler(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    (machine.folder / "policies" / "motd.json").write_bytes(b"{")
    async with machine.running() as server:
        await server.until("applied")
        assert machine.motd.calls == [("apply", A), ("apply", A)]
    (machine.folder / "policies" / "motd.json").write_bytes(b"\xff")
    server = machine.server()
    server.held.load()
    server.held.receive(machine.primary.sign([]), [])
    await server.held.save()
    async with machine.running() as server:
        await soon(lambda: machine.motd.in_force is None)


async def test_a_damaged_set_takes_nothing_back(machine: Machine) -> None:
    """Faults row 9. Before, everything was reverted."""
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
    (machine.folder / "documents" / f"{machine.primary.name}.set").write_bytes(b"nonsense")
    async with machine.running() as server:
        await server.done()
        assert await server.until("applied") == word(machine, "applied", (5,), (5,))
        await server.send(machine.primary, policy(6, B))
        await soon(lambda: machine.motd.in_force == B)
        await server.done()
    assert machine.motd.calls == [("apply", A), ("apply", B)]


async def test_a_damaged_set_keeps_nothing_from_being_rolled_back(machine: Machine) -> None:
    async with machine.running() as server:
        await provisional(server, machine)
    (machine.folder / "documents" / f"{machine.primary.name}.set").write_bytes(b"nonsense")
    async with machine.running() as server:
        await server.pass_by(60)
        await server.until("rolled_back")


async def test_a_set_that_cannot_be_read_now_is_read_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A))
        await server.until("applied")
        read = server.held.all

        async def refuse(*_: object) -> Any:
            raise Refused(Reason.FILE_FAILED, "input/output error.")

        monkeypatch.setattr(server.held, "all", refuse)
        await server.send(machine.primary, policy(6, B))
        await server.done()
        assert machine.motd.in_force == A
        monkeypatch.setattr(server.held, "all", read)
        await server.pass_by(engine.AGAIN_SECONDS + 1)
        await soon(lambda: machine.motd.in_force == B)


# --- At rest --------------------------------------------------------------------------------------------------------------------


def counted(server: Server) -> list[float | None]:
    """How often the engine looks what is to be done, and how long it then rests."""
    rests: list[float | None] = []
    rest = server.policies._rest

    async def noted(seconds: float | None) -> None:
        rests.append(seconds)
        await rest(seconds)

    server.policies._rest = noted  # type: ignore[method-assign]  # noted on its way
    return rests


async def test_with_nothing_to_do_it_sleeps_without_end(machine: Machine) -> None:
    server = machine.server()
    rests = counted(server)
    server.start()
    await server.settled()
    assert rests == [None]
    assert await server.stop() == []


async def test_with_policies_in_force_it_wakes_for_the_look_at_what_was_changed_alone(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A), policy(6, A, kind="ntp"))
        await server.until("applied")
        await server.until("applied", "ntp")
        await server.pass_by(10)
        rests = counted(server)
        looks = machine.motd.looks
        server.policies._wake.set()
        await server.done()
        assert rests == [10.0]
        assert machine.motd.looks == looks


@pytest.mark.parametrize("trouble", ["fails", "no way back", "full disk", "closed window", "unsupported", "cannot be read"])
async def test_in_no_trouble_does_it_spin(machine: Machine, disk: Disk, trouble: str) -> None:
    """Without time passing there is an end to what it does."""
    machine.motd.restores = False
    async with machine.running() as server:
        await server.send(machine.primary, policy(5, A, confirm=60))
        await server.until("applied")
        if trouble in ("fails", "no way back"):
            machine.motd.refuse(*(["b"] if trouble == "fails" else []))
        wishes = [policy(6, B, kind="dns" if trouble == "unsupported" else "motd")]
        if trouble == "full disk":
            disk.full = lambda path: path.name == "motd.json"
        if trouble == "closed window":
            wishes.append(window(7, CLOSED))
        if trouble == "cannot be read":
            wishes = [wish("policy/motd", "/", 6, b"nonsense")]
        rests = counted(server)
        await server.send(machine.primary, *wishes)
        await server.done()
        assert 0 < len(rests) <= 8
        last = rests[-1]
        assert last is None or last >= 5.0
