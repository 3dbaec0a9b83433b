"""Policies over a full disk, crashes and stops. Faults rows 2, 7, 9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_secondary.retrying import AGAIN_SECONDS
from tests.secondary.disks import Crash, Disk
from tests.secondary.engine import HALF, Machine, soon
from tests.secondary.motd import A, B, C, meant, provisional, word
from tests.secondary.origins import Line, bodies, policy, window


async def test_on_a_full_disk_nothing_is_begun_and_it_is_said_and_tried_again(machine: Machine, disk: Disk) -> None:
    """Faults row 7."""
    async with machine.holding(policy(5, A)) as server:
        disk.full = lambda path: path.name == "motd.json"
        await server.send(machine.primary, policy(6, B))
        told = await server.until("received")
        assert told["meant"] == meant(machine, 6)
        assert "no space is left" in told["message"]
        await server.pass_by(AGAIN_SECONDS + 1)
        assert machine.motd.in_force == A
        disk.full = lambda _: False
        await server.pass_by(AGAIN_SECONDS + 1)
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
        await server.pass_by(AGAIN_SECONDS + 1)
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
        Line(server.held).bring(machine.primary.sign(wishes), bodies(wishes))
        await server.held.save()
    async with machine.running() as server:
        wanted = {"the same": A, "another": B, "none": None}[then]
        await soon(lambda: machine.motd.in_force == wanted)
        await server.done()
        assert server.state() == ("" if then == "none" else "applied")


async def test_what_was_half_done_is_taken_back_where_the_window_has_closed_meanwhile(machine: Machine) -> None:
    async with machine.holding(policy(5, A), window(4, "30 7 * * *")) as server:
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
    Line(server.held).bring(machine.primary.sign([]))
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
    async with machine.holding(policy(5, A)) as server:
        read = server.held.all

        async def refuse(*_: object) -> Any:
            raise Refused(Reason.FILE_FAILED, "input/output error.")

        monkeypatch.setattr(server.held, "all", refuse)
        await server.send(machine.primary, policy(6, B))
        await server.done()
        assert machine.motd.in_force == A
        monkeypatch.setattr(server.held, "all", read)
        await server.pass_by(AGAIN_SECONDS + 1)
        await soon(lambda: machine.motd.in_force == B)
