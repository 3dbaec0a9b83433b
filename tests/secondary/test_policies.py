"""Policies at a server: put in force, kept so, told. Attacks rows 36 and 38; faults rows 2, 7, 9."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1.document_pb2 import ItemVersion, OriginItems, Report
from enlist_secondary import policies as engine
from tests.secondary.disks import Disk
from tests.secondary.engine import Machine, Server, soon
from tests.secondary.motd import CLOSED, A, B, C, meant, provisional, word
from tests.secondary.origins import Line, Primary, Wish, bodies, policy, window, wish

# --- In force -------------------------------------------------------------------------------------------------------------------


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
    async with machine.holding(policy(5, {"text": "low", "more": 1}), policy(9, {"more": 2}, name="Sites")) as server:
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
            words.append([item.revision for item in report.observed_items[0].items])
            put(report)

        server.outbox.put = noted  # type: ignore[method-assign]  # noted on its way
        machine.motd.gate.open()
        await soon(lambda: machine.motd.in_force == C)
        assert await server.until("applied") == word(machine, "applied", (7,), (7,))
        assert machine.motd.calls == [("apply", A), ("apply", C)]
        assert words == [[5], [7], [7]]


async def test_the_same_settings_under_other_revisions_need_no_handler(machine: Machine) -> None:
    """The report must mean the new revisions, or the primary would wait for ever."""
    async with machine.holding(policy(5, A)) as server:
        await server.send(machine.primary, policy(8, {}), policy(9, A, name="Sites"))
        await soon(lambda: (server.word() or {})["meant"] == meant(machine, 8, 9))
        await server.done()
        assert server.word() == word(machine, "applied", (8, 9), (8, 9))
        assert machine.motd.calls == [("apply", A)]


async def test_other_settings_under_the_same_revision_are_put_in_force(machine: Machine) -> None:
    """A restored primary gives numbers again that it gave before. Before, nothing was done, and the old settings were reported."""
    async with machine.holding(policy(5, A)) as server:
        machine.primary.epoch, machine.primary.number = 2, 4
        await server.send(machine.primary, policy(5, B))
        await soon(lambda: machine.motd.in_force == B)
        await server.until("applied")


async def test_another_body_under_the_same_revision_is_reported_by_its_digest(machine: Machine) -> None:
    """Also where it comes to the same settings: or the primary could not tell which of the two is in force."""
    async with machine.running() as server:
        for each in (policy(5, A), policy(5, A, locks=("/text",)), policy(5, B)):
            await server.send(machine.primary, each)
            await soon(partial(_applied, server, machine.primary, each))
        machine.motd.refuse()
        await server.send(machine.primary, policy(5, C))
        await server.until("failed")
        report = server.report()
        assert report is not None
        assert list(report.observed_items) == _named(machine.primary, policy(5, C))
        assert list(report.applied_items) == _named(machine.primary, policy(5, B))
    assert machine.motd.calls[:2] == [("apply", A), ("apply", B)]


def _named(primary: Primary, wish: Wish) -> list[OriginItems]:
    return [OriginItems(origin=primary.name, items=[ItemVersion(revision=wish.item.revision, digest=wish.item.digest)])]


def _applied(server: Server, primary: Primary, wish: Wish) -> bool:
    report, named = server.report(), _named(primary, wish)
    return report is not None and list(report.observed_items) == list(report.applied_items) == named


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
    async with machine.holding(policy(5, {"a": 1})) as server:
        await server.send(machine.primary, policy(6, {"a": True}))
        await soon(lambda: len(machine.motd.calls) == 2)


async def test_a_layer_that_cannot_be_read_fails_its_kind_and_no_other(machine: Machine) -> None:
    """Attacks row 37: what a primary signs may still be nonsense."""
    async with machine.holding(policy(5, A)) as server:
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


# --- Failing --------------------------------------------------------------------------------------------------------------------


async def test_what_fails_leaves_the_last_good_one_in_force(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        machine.motd.refuse("b")
        await server.send(machine.primary, policy(6, B))
        assert await server.until("failed") == word(machine, "failed", (6,), (5,), "No.")
        assert machine.motd.in_force == A
        assert machine.motd.calls == [("apply", A), ("apply", B)]
        await server.pass_by(3600)
        assert len(machine.motd.calls) == 2, "what failed is not tried again for nothing"


async def test_a_handler_that_cannot_be_sure_is_made_to_go_back(machine: Machine) -> None:
    machine.motd.restores = False
    async with machine.holding(policy(5, A)) as server:
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
    async with machine.holding(policy(5, A)) as server:
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
    async with machine.holding(policy(5, A)) as server:
        machine.motd.refuse()
        await server.send(machine.primary, policy(6, B))
        await server.until("failed")
    machine.motd.refuse("b")
    async with machine.running() as server:
        await soon(lambda: machine.motd.in_force == A)
        assert await server.until("failed") == word(machine, "failed", (6,), (5,), "No.")


async def test_after_a_failure_the_same_settings_are_put_in_force_again(machine: Machine) -> None:
    """A handler that failed is not believed to have left what was there, whatever it says."""
    async with machine.holding(policy(5, A)) as server:
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


# --- Ending ---------------------------------------------------------------------------------------------------------------------


async def test_when_no_layer_speaks_of_it_any_more_what_was_there_before_comes_back(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
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
    async with machine.holding(policy(5, A)) as server:
        machine.motd.refuse()
        await server.send(machine.primary)
        await soon(lambda: machine.motd.calls[-1] == ("revert", None))
        await server.done()
        left = word(machine, "failed", (), (5,), "It could not be ended: No.")
        assert server.word() == left
        await server.pass_by(engine.GO_BACK_SECONDS - 1)
        assert len(machine.motd.calls) == 2
    async with machine.running() as server:
        assert server.word() == left
        await soon(lambda: len(machine.motd.calls) == 3)
        await server.done()
        machine.motd.accept()
        await server.pass_by(engine.GO_BACK_SECONDS + 1)
        await soon(lambda: machine.motd.in_force is None)
        await server.done()
        assert server.word() == {"state": "unspecified", "meant": {}, "running": {}, "message": ""}
        assert list((machine.folder / "policies").iterdir()) == []


async def test_what_could_not_be_ended_and_is_wanted_again_is_put_in_force(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        machine.motd.refuse()
        await server.send(machine.primary)
        await server.until("failed")
        machine.motd.accept()
        await server.send(machine.primary, policy(6, A))
        assert await server.until("applied") == word(machine, "applied", (6,), (6,))
        assert machine.motd.calls == [("apply", A), ("revert", None), ("apply", A)]


async def test_a_policy_that_comes_back_while_it_is_ended_is_put_in_force_anew(machine: Machine) -> None:
    async with machine.holding(policy(5, A)) as server:
        machine.motd.gate.close()
        await server.send(machine.primary)
        await soon(lambda: machine.motd.gate.waiting)
    # The daemon was stopped in the middle of that.
    machine.motd.gate.open()
    server = machine.server()
    server.held.load()
    again = [policy(5, A)]
    Line(server.held).bring(machine.primary.sign(again), bodies(again))
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


# --- At rest --------------------------------------------------------------------------------------------------------------------


async def test_with_nothing_to_do_it_sleeps_without_end(machine: Machine) -> None:
    server = machine.server()
    server.start()
    await server.settled()
    assert server.policies_looks.keys == ["sets"]
    assert server.policies_looks.rest is None
    assert await server.stop() == []


async def test_with_policies_in_force_it_wakes_for_the_look_at_what_was_changed_alone(machine: Machine) -> None:
    async with machine.holding(policy(5, A), policy(6, A, kind="ntp")) as server:
        await server.until("applied", "ntp")
        await server.pass_by(10)
        looks = machine.motd.looks
        server.wake()
        await server.done()
        assert server.policies_looks.rest == 10.0
        assert machine.motd.looks == looks


@pytest.mark.parametrize("trouble", ["fails", "no way back", "full disk", "closed window", "unsupported", "cannot be read"])
async def test_in_no_trouble_does_it_spin(machine: Machine, disk: Disk, trouble: str) -> None:
    """Without time passing there is an end to what it does."""
    machine.motd.restores = False
    async with machine.holding(policy(5, A, confirm=60)) as server:
        if trouble in ("fails", "no way back"):
            machine.motd.refuse(*(["b"] if trouble == "fails" else []))
        wishes = [policy(6, B, kind="dns" if trouble == "unsupported" else "motd")]
        if trouble == "full disk":
            disk.full = lambda path: path.name == "motd.json"
        if trouble == "closed window":
            wishes.append(window(7, CLOSED))
        if trouble == "cannot be read":
            wishes = [wish("policy/motd", "/", 6, b"nonsense")]
        server.policies_looks.keys.clear()
        await server.send(machine.primary, *wishes)
        await server.done()
        assert 0 < len(server.policies_looks.keys) <= 8
        rest = server.policies_looks.rest
        assert rest is None or rest >= 5.0
