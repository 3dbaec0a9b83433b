"""Tasks at a server: each run is begun once, ever. Faults rows 2, 7, 25, 27; attacks rows 36 and 38."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.v1 import document_pb2 as pb
from enlist_secondary import tasks as engine
from enlist_secondary.documents import Document, origin_items
from enlist_secondary.handlers.interface import TaskOutcome
from enlist_secondary.tasks import order
from tests.secondary.disks import Crash, Disk
from tests.secondary.engine import Machine, Server, soon
from tests.secondary.origins import SERVER, START, Primary, policy, run, run_id, said, wish

ONE, TWO, THREE = run_id(1), run_id(2), run_id(3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AGAIN_SECONDS", 0.01)


async def until(server: Server, id: str, state: str) -> dict[str, Any]:
    """Waits until a run is said to fare so, and its task has ended if it has."""
    await soon(lambda: server.of_run(id) == state, f"{id} {state}, not {server.of_run(id)}")
    if state != "running":
        await soon(lambda: id not in server.tasks.going)
    await server.settled()
    return said(told_of(server, id))


def told_of(server: Server, id: str, kind: str = "update") -> pb.Report:
    """The report on a run."""
    report = server.run_report(id, kind)
    assert report is not None
    return report


def kept(machine: Machine, id: str) -> str:
    """What stands of a run on the disk."""
    path = machine.folder / "tasks" / f"{id}.json"
    return path.read_text() if path.exists() else ""


# --- Once -----------------------------------------------------------------------------------------------------------------------


async def test_a_run_is_begun_and_its_outcome_told(machine: Machine) -> None:
    machine.worker.outcome = lambda _: TaskOutcome("failed", 3, b"it said", "update ended with status 3.")
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5, speed="fast"))
        await until(server, ONE, "failed")
        report = told_of(server, ONE)
        assert (report.exit_code, report.output, report.message) == (3, b"it said", "update ended with status 3.")
        version = run(ONE, 5, speed="fast").item.version
        assert list(report.observed_items) == origin_items({machine.primary.name: (version,)})
        assert report.time.seconds == START
        assert machine.worker.calls == [({"speed": "fast"}, 600.0)]


async def test_that_a_run_begins_is_on_the_disk_before_it_does(machine: Machine) -> None:
    """Faults row 27."""
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        assert '"running"' in kept(machine, ONE)
        assert server.of_run(ONE) == "running"


async def test_a_run_is_not_begun_again_whatever_sets_come(machine: Machine) -> None:
    async with machine.running() as server:
        for wishes in ([run(ONE, 5)], [run(ONE, 5), policy(6, {})], [], [run(ONE, 5)], [run(ONE, 9, deadline=START + 999)]):
            await server.send(machine.primary, *wishes)
            await soon(lambda: not server.tasks.going)
            await server.settled()
        assert await until(server, ONE, "succeeded")
    assert len(machine.worker.calls) == 1


async def test_nor_is_it_after_a_restart_which_tells_its_outcome_again(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
    async with machine.running() as server:
        await until(server, ONE, "succeeded")
        assert told_of(server, ONE).output == b"done"
    assert len(machine.worker.calls) == 1


async def test_no_more_run_at_once_than_there_are_places(machine: Machine) -> None:
    machine.at_once = 2
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, *(run(run_id(number), number + 1) for number in range(5)))
        await soon(lambda: machine.worker.gate.waiting == 2)
        await server.settled()
        assert len(machine.worker.calls) == 2
        machine.worker.gate.open()
        await soon(lambda: len(machine.worker.ended) == 5)


async def test_hundreds_of_runs_are_each_begun_once_and_read_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    reads: list[Path] = []
    read = files.read

    def noted(path: Path, *rest: Any, **more: Any) -> bytes:
        reads.append(path)
        return read(path, *rest, **more)

    monkeypatch.setattr(files, "read", noted)
    async with machine.running() as server:
        wishes = [run(run_id(number), number + 1, number=number) for number in range(300)]
        for some in (100, 200, 300):
            await server.send(machine.primary, *wishes[:some])
        await soon(lambda: len(machine.worker.ended) == 300)
        await soon(lambda: not server.tasks.going)
    assert sorted(args["number"] for args, _ in machine.worker.calls) == list(range(300))
    assert len([path for path in reads if path.parent.name == "bodies"]) <= 300


async def test_a_run_that_ends_while_another_ones_record_is_written_stays_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server knew of it before that must not be told again: the primary would wait until its deadline for an end."""
    written, leave = threading.Event(), threading.Event()
    write = files.write

    def slow(path: Path, content: bytes, *rest: Any) -> None:
        if path.stem == ONE and not json.loads(content)["output"]:
            written.set()
            leave.wait(20)
        write(path, content, *rest)

    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        server.tasks.settle_run(ONE)
        machine.worker.gate.close()
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6))
        await soon(lambda: machine.worker.gate.waiting)
        await server.settled()
        monkeypatch.setattr(files, "write", slow)
        await server.send(machine.primary, run(TWO, 6))
        await soon(written.is_set)
        machine.worker.gate.open()
        await soon(lambda: '"succeeded"' in kept(machine, TWO))
        leave.set()
        await server.settled()
        assert server.of_run(TWO) == "succeeded"


# --- Cancelled ------------------------------------------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_while_it_waits_is_not_begun(machine: Machine) -> None:
    machine.at_once = 1
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6))
        await soon(lambda: machine.worker.gate.waiting)
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: TWO not in server.tasks.going)
        machine.worker.gate.open()
        await until(server, ONE, "succeeded")
        assert kept(machine, TWO) == ""
        await server.send(machine.primary, run(TWO, 6))
        await until(server, TWO, "succeeded")
    assert len(machine.worker.calls) == 2, "what was never begun may be wanted after all"


async def test_a_run_that_is_cancelled_while_it_runs_is_interrupted_and_stays_so(machine: Machine) -> None:
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        await server.send(machine.primary)
        await soon(lambda: machine.worker.ended == ["cancelled"] and not server.tasks.going)
        assert '"interrupted"' in kept(machine, ONE)
        assert (await until(server, ONE, "interrupted"))["message"] == "It was stopped."
        server.tasks.settle_run(ONE)
        await soon(lambda: server.of_run(ONE) == "")
        await server.send(machine.primary, run(ONE, 5))
        assert (await until(server, ONE, "interrupted"))["message"] == "It was stopped."
    assert len(machine.worker.calls) == 1


async def test_a_run_that_takes_its_time_to_stop_holds_up_no_other_and_is_asked_once(machine: Machine) -> None:
    asked = 0
    leave = asyncio.Event()

    async def stubborn(args: dict[str, Any], limit: float) -> TaskOutcome:
        nonlocal asked
        while not leave.is_set():
            try:
                await leave.wait()
            except asyncio.CancelledError:
                asked += 1
        return TaskOutcome("succeeded", 0, b"", "")

    async with machine.running() as server:
        calm, machine.worker.run = machine.worker.run, stubborn  # type: ignore[method-assign]  # this handler's alone
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "running")
        machine.worker.run = calm  # type: ignore[method-assign]  # as before
        await server.send(machine.primary, run(TWO, 6))
        await until(server, TWO, "succeeded")
        await server.send(machine.primary, run(THREE, 7))
        await until(server, THREE, "succeeded")
        assert asked == 1
        leave.set()
        await soon(lambda: not server.tasks.going)


async def test_a_run_that_is_withdrawn_after_its_end_is_forgotten_by_and_by(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        assert "ZG9uZQ" in kept(machine, ONE), "its output"
        server.tasks.settle_run(ONE)
        await server.send(machine.primary)
        await soon(lambda: server.of_run(ONE) == "")
        await server.settled()
        assert "ZG9uZQ" not in kept(machine, ONE)
        assert '"succeeded"' in kept(machine, ONE)
        await server.pass_by(600 + engine.KEPT_SECONDS)
        assert kept(machine, ONE)
        await server.pass_by(2)
        assert kept(machine, ONE) == ""
        machine.times.now = START
        await server.send(machine.primary, run(TWO, 6))
        await until(server, TWO, "succeeded")


async def test_a_clock_set_back_does_not_bring_a_run_back(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        await server.send(machine.primary)
        await server.pass_by(6 * 86400)
    machine.times.now = START
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
    assert len(machine.worker.calls) == 1


async def test_the_record_of_a_run_that_is_wanted_is_kept_however_old_it_is(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        await server.pass_by(30 * 86400)
        assert kept(machine, ONE)


# --- Deadlines ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "ahead", "state"), [
    (START, 0, "timed_out"),
    (START - 1, 0, "timed_out"),
    (START + 1, 0, "succeeded"),
    (START - 100, -200, "timed_out"),
    (START + 100, -200, "timed_out"),
    (START - 100, 200, "succeeded"),
])  # fmt: skip
async def test_deadlines_are_by_the_primarys_clock(machine: Machine, deadline: int, ahead: int, state: str) -> None:
    """A run past its deadline is refused: its record may be gone. `ahead`: how far our clock is before the primary's."""
    async with machine.running() as server:
        server.tasks.ahead = ahead
        await server.send(machine.primary, run(ONE, 5, deadline=deadline))
        await until(server, ONE, state)
    assert [limit for _, limit in machine.worker.calls] == ([] if state == "timed_out" else [deadline - START + ahead])


@pytest.mark.parametrize(("deadline", "ahead", "state"), [
    (START + 100, -200, "timed_out"),
    (START - 100, 200, "timed_out"),
    (START + 100, 200, "succeeded"),
])  # fmt: skip
async def test_a_middle_primary_lends_a_run_from_further_up_no_time(
    machine: Machine, deadline: int, ahead: int, state: str
) -> None:
    """Attacks row 38: by a clock of its own that stands still, it could bring a run that is long over."""
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        server.tasks.ahead = ahead
        await server.send(top, run(ONE, 5, deadline=deadline, below=True))
        await until(server, ONE, state)


async def test_a_deadline_that_passes_while_a_place_is_waited_for_counts(machine: Machine) -> None:
    machine.at_once = 1
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6, deadline=START + 10))
        await soon(lambda: machine.worker.gate.waiting)
        await server.pass_by(10)
        machine.worker.gate.open()
        assert (await until(server, TWO, "timed_out"))["message"] == "Its deadline had passed before it could begin."
    assert len(machine.worker.calls) == 1


@pytest.mark.parametrize("deadline", ["-5", "1e300", "99999999999999999999999"])
async def test_deadlines_that_no_primary_sets_do_no_harm(machine: Machine, deadline: str) -> None:
    body = f'{{"args":{{}},"deadline":{deadline},"kind":"update","run":"{ONE}"}}'.encode()
    async with machine.running() as server:
        await server.send(machine.primary, wish("task/update", ONE, 5, body), run(TWO, 6))
        await until(server, TWO, "succeeded")
        await soon(lambda: server.of_run(ONE) in ("timed_out", "failed", "succeeded"))


# --- What cannot be done ----------------------------------------------------------------------------------------------------------


async def test_a_kind_without_a_handler_is_unsupported_at_once(machine: Machine) -> None:
    """Also while every place is taken."""
    machine.at_once = 1
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6, kind="reboot"))
        await soon(lambda: machine.worker.gate.waiting and server.of_run(TWO, "reboot") == "unsupported")
        assert told_of(server, TWO, "reboot").message == "This server has no handler for it."


@pytest.mark.parametrize(
    "body",
    [
        run(TWO, 5).body,
        run(ONE, 5, kind="reboot").body,
        b"",
        b"[" * 100_000,
        b'{"run": "' + ONE.encode() + b'", "kind": "update", "args": [], "deadline": 1}',
        b"\xff",
    ],
    ids=["another run", "another kind", "nothing", "too deep", "wrong types", "not UTF-8"],
)
async def test_a_document_that_says_something_else_than_its_item_has_failed(machine: Machine, body: bytes) -> None:
    """Attacks row 38. Its primary signed it, and shall hear of it; before, it was logged with every set, and never told."""
    async with machine.running() as server:
        await server.send(machine.primary, wish("task/update", ONE, 5, body), run(THREE, 6))
        assert "cannot be read" in (await until(server, ONE, "failed"))["message"]
        await until(server, THREE, "succeeded")
    async with machine.running() as server:
        await until(server, ONE, "failed")
    assert len(machine.worker.calls) == 1


def test_what_an_order_says(machine: Machine) -> None:
    each = run(ONE, 5, speed="fast")
    said = order(Document("origin", each.item, each.body))
    assert (said.run, said.kind, said.args, said.deadline) == (ONE, "update", {"speed": "fast"}, START + 600)


@pytest.mark.parametrize("error", [ValueError("x"), Refused(Reason.FILE_FAILED, "x"), asyncio.CancelledError()], ids=repr)
async def test_a_handler_that_raises_has_failed_and_is_not_called_again(machine: Machine, error: BaseException) -> None:
    """A Refused among them: it must not be taken for a record that could not be written."""

    def broken(_: dict[str, Any]) -> TaskOutcome:
        raise error

    machine.worker.outcome = broken
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6))
        for id in (ONE, TWO):
            assert "unforeseen" in (await until(server, id, "failed"))["message"]
    assert len(machine.worker.calls) == 2


# --- Outcomes -----------------------------------------------------------------------------------------------------------------


async def test_outcome_is_reported_after_its_document_left_the_set(machine: Machine) -> None:
    """The run ends while the link is down, and its deadline passes at the primary before the server is back."""
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        machine.worker.gate.open()
        await until(server, ONE, "succeeded")
        machine.times.pass_by(86400)
        await server.send(machine.primary)
        report = (await until(server, ONE, "succeeded"), told_of(server, ONE).output)
        assert report[1] == b"done"
    for _ in range(2):
        async with machine.running() as server:
            assert (await until(server, ONE, "succeeded"), told_of(server, ONE).output) == report
    assert len(machine.worker.calls) == 1


@pytest.mark.parametrize("wanted", [True, False])
async def test_outcome_of_a_stopped_daemon_is_reported_until_settled(machine: Machine, wanted: bool) -> None:
    """What was interrupted by the stop is an outcome like any other."""
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
    async with machine.running() as server:
        if not wanted:
            await server.send(machine.primary)
        await until(server, ONE, "interrupted")
        server.tasks.settle_run(ONE)
        await server.settled()
        assert server.of_run(ONE) == ("interrupted" if wanted else "")


async def test_acknowledged_report_settles_only_the_outcome_it_names(machine: Machine) -> None:
    """The acknowledgement of "running" may come after the end."""
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "running")
        begun = told_of(server, ONE)
        machine.worker.gate.open()
        await until(server, ONE, "succeeded")
        await server.send(machine.primary)
        server.tasks.settle(begun)
        await server.settled()
        assert server.of_run(ONE) == "succeeded"
        server.tasks.settle(told_of(server, ONE))
        await soon(lambda: server.of_run(ONE) == "")


async def test_settled_outcome_is_not_reported_after_a_restart(machine: Machine) -> None:
    """Its output is removed from the disk, and that it is settled is written with that."""
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        server.tasks.settle_run(ONE)
        await server.send(machine.primary)
        await soon(lambda: server.of_run(ONE) == "")
        await server.settled()
    async with machine.running() as server:
        assert server.of_run(ONE) == ""


async def test_outcome_that_never_arrives_is_reported_for_thirty_days(machine: Machine) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        await server.send(machine.primary)
        await server.pass_by(engine.UNSETTLED_SECONDS - 1)
        assert server.of_run(ONE) == "succeeded"
        await server.pass_by(1)
        assert server.of_run(ONE) == ""
    async with machine.running() as server:
        assert server.of_run(ONE) == ""


async def test_outcome_of_an_origin_that_is_not_above_any_more_is_kept(machine: Machine) -> None:
    """It may come back: a step is replaced, and its sets are forgotten meanwhile."""
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        await server.send(top, run(ONE, 5, below=True))
        await until(server, ONE, "succeeded")
        server.held.stand([machine.primary.origin])
        server.look()
        await server.settled()
        assert told_of(server, ONE).observed_items[0].origin == top.name


# --- Two origins ------------------------------------------------------------------------------------------------------------------


async def test_one_id_in_two_origins_sets_is_run_once(machine: Machine) -> None:
    """Attacks row 24: whoever stands in the middle may withhold, and gain no more by copying an id."""
    top = Primary()
    machine.upper.append(top)
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(top, run(ONE, 5, who="top", below=True))
        await soon(lambda: machine.worker.gate.waiting)
        await server.send(machine.primary, run(ONE, 6, who="low"))
        await server.settled()
        await server.send(machine.primary)
        await server.settled()
        assert machine.worker.gate.waiting, "it is not stopped by the other's set"
        machine.worker.gate.open()
        await until(server, ONE, "succeeded")
        await server.send(machine.primary, run(ONE, 7, who="low"))
        await server.send(top)
        await server.settled()
        assert told_of(server, ONE).observed_items[0].origin == top.name
        server.tasks.settle_run(ONE)
        await soon(lambda: server.of_run(ONE) == "")
    assert [args for args, _ in machine.worker.calls] == [{"who": "top"}]


async def test_of_two_that_come_together_the_upper_origins_counts(machine: Machine) -> None:
    top = Primary()
    machine.upper.append(top)
    low, high = run(ONE, 6, who="low"), run(ONE, 5, who="top", below=True)
    async with machine.running() as server:
        server.line.bring(machine.primary.sign([low]), [low.body])
        server.line.bring(top.sign([high]), [high.body])
        await server.held.save()
        server.look()
        await until(server, ONE, "succeeded")
        assert told_of(server, ONE).observed_items[0].origin == top.name
    assert [args for args, _ in machine.worker.calls] == [{"who": "top"}]


async def test_a_run_from_further_up_is_for_the_middle_server_unless_it_says_otherwise(machine: Machine) -> None:
    top = Primary()
    machine.upper.append(top)
    async with machine.running() as server:
        await server.send(top, run(ONE, 5), run(TWO, 6, below=True))
        await until(server, TWO, "succeeded")
        assert server.of_run(ONE) == ""
        await server.send(top, run(TWO, 6, below=True))
        await server.settled()
    assert len(machine.worker.calls) == 1


async def test_a_run_for_one_server_below_is_begun_there_alone(machine: Machine) -> None:
    """Also where it is of another level, and not by the middle server itself, which hands it down."""
    top, middle = Primary(target="tttttttttt"), Primary(target="mmmmmmmmmm")
    machine.upper += [top, middle]
    here = f"tttttttttt/mmmmmmmmmm/{SERVER}"
    for_others = [
        "tttttttttt/mmmmmmmmmm",
        "tttttttttt",
        SERVER,
        f"mmmmmmmmmm/{SERVER}",
        f"{here}/aaaaaaaaaa",
        "tttttttttt/mmmmmmmmmm/bbbbbbbbbb",
    ]
    async with machine.running() as server:
        wishes = [run(run_id(10 + number), 5, only=other, below=True) for number, other in enumerate(for_others)]
        await server.send(top, *wishes, run(ONE, 9, only=here))
        await until(server, ONE, "succeeded")
        await server.send(machine.primary, run(TWO, 9, only=f"{SERVER}/bbbbbbbbbb"), run(THREE, 9))
        await until(server, THREE, "succeeded")
        await server.settled()
        assert server.of_run(TWO) == ""
    assert len(machine.worker.calls) == 2


# --- Stops, crashes, the disk -----------------------------------------------------------------------------------------------------


async def test_a_stop_of_the_daemon_interrupts_what_runs_and_it_is_never_begun_again(machine: Machine) -> None:
    """Faults row 27."""
    machine.at_once = 1
    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6))
        await soon(lambda: machine.worker.gate.waiting)
    assert machine.worker.ended == ["cancelled"]
    machine.worker.gate.open()
    async with machine.running() as server:
        assert (await until(server, ONE, "interrupted"))["message"] == "It was stopped."
        await until(server, TWO, "succeeded")
    assert len(machine.worker.calls) == 2, "what only waited is done after the restart"


async def test_a_kill_in_the_middle_leaves_an_interrupted_run(machine: Machine, disk: Disk) -> None:
    """Faults row 27: nothing could be written down."""
    machine.worker.gate.close()
    server = machine.server()
    server.start()
    await server.send(machine.primary, run(ONE, 5))
    await soon(lambda: machine.worker.gate.waiting)
    disk.dead = True
    await server.stop()
    disk.live()
    machine.worker.gate.open()
    machine.times.pass_by(60)
    for _ in range(2):
        async with machine.running() as server:
            told = await until(server, ONE, "interrupted")
            assert told["message"] == "This server stopped in the middle of it."
            assert told_of(server, ONE).time.seconds == START + 60
        machine.times.pass_by(60)
    assert len(machine.worker.calls) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_wherever_the_daemon_dies_no_run_is_begun_twice_and_none_is_lost(tmp_path: Path, disk: Disk, after: bool) -> None:
    """Faults rows 2 and 27."""
    chapters = [[run(ONE, 5, n=1)], [run(ONE, 5, n=1), run(TWO, 6, n=2)], [run(TWO, 6, n=2)], [run(THREE, 7, n=3)]]
    operation, died = 0, True
    while died:
        machine = Machine(tmp_path / str(operation))
        disk.live()
        disk.dies_at, disk.after = operation, after
        ends: dict[str, str] = {}
        rest = list(chapters)
        while rest:
            if await told(machine, rest[0], disk, ends):
                rest.pop(0)
        died, disk.dies_at = disk.dies_at is None, None
        begun = [args["n"] for args, _ in machine.worker.calls]
        assert len(begun) == len(set(begun)), operation
        assert ends.keys() == {ONE, TWO, THREE}
        assert all(ends[run_id(n)] == "succeeded" for n in (1, 2, 3) if n not in begun) or len(begun) < 3
        assert set(ends.values()) <= {"succeeded", "interrupted"}
        operation += 1
    assert operation > 12


async def told(machine: Machine, wishes: list[Any], disk: Disk, ends: dict[str, str]) -> bool:
    """Runs the daemon with this set; whether it lived to tell how all of its runs ended."""
    try:
        async with machine.running() as server:
            await server.send(machine.primary, *wishes)
            ids = [each.item.name for each in wishes]
            await soon(lambda: disk.dead or all(server.of_run(id) in ("succeeded", "interrupted") for id in ids))
            await soon(lambda: disk.dead or not server.tasks.going)
            ends.update({id: server.of_run(id) for id in ids})
    except Crash:
        pass
    except AssertionError:  # what an engine raised as it stopped
        assert disk.dead
    if not disk.dead:
        return True
    disk.live()
    return False


async def test_on_a_full_disk_no_run_is_begun_until_there_is_room(machine: Machine, disk: Disk) -> None:
    """Faults row 7: nothing begins that could not be written down."""
    async with machine.running() as server:
        disk.full = lambda path: path.parent.name == "tasks"
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: sum("tasks" in each for each in disk.done) > 3)
        assert machine.worker.calls == []
        disk.full = lambda _: False
        await until(server, ONE, "succeeded")
    assert len(machine.worker.calls) == 1


async def test_a_run_that_waits_for_the_disk_takes_no_place_and_times_out(machine: Machine, disk: Disk) -> None:
    machine.at_once = 1
    async with machine.running() as server:
        disk.full = lambda path: ONE in path.name
        await server.send(machine.primary, run(ONE, 5), run(TWO, 6))
        await until(server, TWO, "succeeded")
        machine.times.pass_by(600)
        await soon(lambda: server.of_run(ONE) == "timed_out")
        disk.full = lambda _: False
        await until(server, ONE, "timed_out")
        assert '"timed_out"' in kept(machine, ONE)
    assert len(machine.worker.calls) == 1


async def test_an_outcome_that_cannot_be_written_is_told_and_written_later(machine: Machine, disk: Disk) -> None:
    async with machine.running() as server:
        machine.worker.gate.close()
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        disk.full = lambda path: path.parent.name == "tasks"
        machine.worker.gate.open()
        await soon(lambda: server.of_run(ONE) == "succeeded")
        assert '"running"' in kept(machine, ONE)
        disk.full = lambda _: False
        await until(server, ONE, "succeeded")
        assert '"succeeded"' in kept(machine, ONE)


async def test_an_outcome_that_was_never_written_counts_as_interrupted(machine: Machine, disk: Disk) -> None:
    async with machine.running() as server:
        machine.worker.gate.close()
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        disk.full = lambda path: path.parent.name == "tasks"
        machine.worker.gate.open()
        await soon(lambda: server.of_run(ONE) == "succeeded")
    async with machine.running() as server:
        await until(server, ONE, "interrupted")
    assert len(machine.worker.calls) == 1


async def test_a_full_disk_at_the_start_keeps_nothing_from_being_told(machine: Machine, disk: Disk) -> None:
    machine.worker.gate.close()
    server = machine.server()
    server.start()
    await server.send(machine.primary, run(ONE, 5))
    await soon(lambda: machine.worker.gate.waiting)
    disk.full = lambda path: path.parent.name == "tasks"
    await server.stop()
    async with machine.running() as server:
        await until(server, ONE, "interrupted")


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"{}"])
async def test_a_run_whose_record_is_damaged_counts_as_interrupted(machine: Machine, damage: bytes) -> None:
    """Nobody knows whether it had begun."""
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
    (machine.folder / "tasks" / f"{ONE}.json").write_bytes(damage)
    (machine.folder / "tasks" / "something else.json").write_bytes(damage)
    async with machine.running() as server:
        assert (await until(server, ONE, "interrupted"))["message"] == "Its record cannot be read."
        told = told_of(server, ONE).observed_items
        assert list(told) == origin_items({machine.primary.name: (run(ONE, 5).item.version,)})
        server.tasks.settle_run(ONE)
        await server.send(machine.primary)
        await soon(lambda: server.of_run(ONE) == "")
        await server.pass_by(engine.KEPT_SECONDS + 1)
        assert kept(machine, ONE) == ""
    assert len(machine.worker.calls) == 1


async def test_a_set_that_cannot_be_read_stops_no_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults row 25: what is not known is not withdrawn."""

    def refuse(*_: object) -> Any:
        raise Refused(Reason.FILE_FAILED, "input/output error.")

    machine.worker.gate.close()
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await soon(lambda: machine.worker.gate.waiting)
        with monkeypatch.context() as patch:
            patch.setattr(server.held, "items", refuse)
            server.look()
            await server.settled()
            assert machine.worker.gate.waiting
        machine.worker.gate.open()
        await until(server, ONE, "succeeded")


async def test_a_record_that_cannot_be_removed_is_tried_again(machine: Machine, disk: Disk) -> None:
    async with machine.running() as server:
        await server.send(machine.primary, run(ONE, 5))
        await until(server, ONE, "succeeded")
        server.tasks.settle_run(ONE)
        refusals = 0

        def full(path: Path) -> bool:
            nonlocal refusals
            refusals += path.parent.name == "tasks"
            return path.parent.name == "tasks"

        disk.full = full
        await server.send(machine.primary)
        await soon(lambda: refusals > 2)
        disk.full = lambda _: False
        await soon(lambda: "ZG9uZQ" not in kept(machine, ONE))


# --- At rest ----------------------------------------------------------------------------------------------------------------------


async def test_with_nothing_to_do_it_sleeps_without_end(machine: Machine) -> None:
    server = machine.server()
    server.start()
    await server.settled()
    assert server.tasks_looks.keys == ["runs"]
    assert server.tasks_looks.rest is None
    await server.send(machine.primary, run(ONE, 5), run(TWO, 6, kind="reboot"))
    await until(server, ONE, "succeeded")
    await soon(lambda: not server.tasks.going)
    await server.settled()
    assert len(server.tasks_looks.keys) <= 4, "one for the set, one for each end"
    assert await server.stop() == []


async def test_every_task_of_its_own_is_ended_when_it_is_stopped(machine: Machine) -> None:
    machine.worker.gate.close()
    before = asyncio.all_tasks()
    async with machine.running() as server:
        await server.send(machine.primary, *(run(run_id(number), number + 1) for number in range(20)))
        await soon(lambda: machine.worker.gate.waiting == 4)
    assert asyncio.all_tasks() <= before
