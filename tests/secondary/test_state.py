"""The state: observations that overwrite each other and may be lost."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.v1 import registration_pb2, server_pb2
from enlist_secondary import state
from enlist_secondary.state import State
from tests.support.waiting import eventually

PENDING = registration_pb2.Enrolment(
    server_id="abcdefghij", display_name="one", state=server_pb2.SERVER_STATE_PENDING, contact="ops@acme.example"
)
PENDING.state_time.seconds = 100
PENDING.expire_time.seconds = 200


def test_what_was_told_is_kept(tmp_path: Path) -> None:
    state.change(
        tmp_path, lambda kept: kept.told(PENDING, 110).alarmed("a:1", "", 120).failed(Refused(Reason.TIMED_OUT, "Late."), 130)
    )
    kept = state.load(tmp_path)
    assert (kept.state, kept.since, kept.expires_at, kept.told_at) == ("pending", 100, 200, 110)
    assert (kept.server_id, kept.display_name, kept.contact) == ("abcdefghij", "one", "ops@acme.example")
    assert kept.alarms == (state.Alarm(120, "a:1", ""),)
    assert kept.last_problem == state.Problem("TIMED_OUT", "Late.", 130)


def test_news_end_a_problem_and_an_expiry() -> None:
    trusted = registration_pb2.Enrolment(state=server_pb2.SERVER_STATE_TRUSTED)
    kept = State().told(PENDING, 1).failed(Refused(Reason.TIMED_OUT, ""), 2).told(trusted, 3)
    assert (kept.state, kept.expires_at, kept.last_problem) == ("trusted", None, None)


@pytest.mark.parametrize("value", server_pb2.ServerState.values())
def test_every_state_has_its_name(value: server_pb2.ServerState.ValueType) -> None:
    name = server_pb2.ServerState.Name(value)
    assert f"SERVER_STATE_{state.state_name(value).upper()}" == name


def test_a_state_of_a_later_version_is_told_as_unspecified() -> None:
    assert State().told(registration_pb2.Enrolment(state=99), 1).state == "unspecified"  # type: ignore[arg-type]  # the attack


def test_a_link_that_closes_is_no_longer_open() -> None:
    linked = State().linked("Tower", "one", "abcdefghij", 5)
    assert (linked.state, linked.since, linked.connected, linked.connected_at) == ("trusted", 5, True, 5)
    assert (linked.unlinked(9).connected, linked.unlinked(9).connected_at) == (False, 9)
    assert State().unlinked(9) == State()


def test_an_open_link_does_not_move_the_day_it_was_trusted() -> None:
    trusted = registration_pb2.Enrolment(state=server_pb2.SERVER_STATE_TRUSTED)
    trusted.state_time.seconds = 100
    assert State().told(trusted, 101).linked("Tower", "one", "abcdefghij", 500).since == 100


def test_a_stranger_met_again_is_one_alarm_and_strangers_are_bounded() -> None:
    kept = State()
    for second in range(100):
        kept = kept.alarmed("a:1", "f", second).alarmed(f"b:{second}", "f", second)
    assert len(kept.alarms) == state.ALARM_LIMIT
    assert [alarm.time for alarm in kept.alarms if alarm.address == "a:1"] == [99]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"since": "x"}', b"\xff", b'{"state": "\xff"}', b"[" * 100_000])
def test_a_damaged_state_is_a_fresh_one(tmp_path: Path, damage: bytes) -> None:
    """Faults row 2: it holds observations; what matters is in the key and the certificate."""
    files.write(tmp_path / "state.json", damage)
    assert state.load(tmp_path) == State()


def test_a_state_that_somebody_else_may_have_written_is_a_fresh_one(tmp_path: Path) -> None:
    """It ends no daemon: the link matters more than what was observed of it."""
    (tmp_path / "state.json").write_text('{"state": "trusted"}')
    (tmp_path / "state.json").chmod(0o666)
    assert state.load(tmp_path) == State()


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    files.write(tmp_path / "state.json", b'{"format": 2, "state": "trusted", "later": 1}')
    assert state.load(tmp_path).state == "trusted"


def test_a_full_disk_costs_the_observation_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults row 7."""

    def full(*_: object) -> None:
        raise files.failed(tmp_path, OSError(errno.ENOSPC, "full"))

    monkeypatch.setattr(files, "write", full)
    assert state.change(tmp_path, lambda kept: kept.linked("Tower", "one", "abcdefghij", 1)).connected
    assert state.load(tmp_path) == State()


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    state.change(tmp_path, lambda kept: kept.unlinked(5))
    assert list(tmp_path.iterdir()) == []


def test_no_update_of_two_processes_is_lost(tmp_path: Path) -> None:
    """The daemon, `enlist-secondary leave` and the wizard write one file."""
    program = (
        "import sys, dataclasses, pathlib; from enlist_secondary import state\n"
        "field, folder = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "for _ in range(60):\n"
        "    one_more = lambda kept: dataclasses.replace(kept, **{field: (getattr(kept, field) or 0) + 1})\n"
        "    state.change(folder, one_more, strict=True)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, field, str(tmp_path)]) for field in ("told_at", "since", "ssl_port")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    kept = state.load(tmp_path)
    assert (kept.told_at, kept.since, kept.ssl_port) == (60, 60, 60)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


async def test_the_loop_goes_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        reached.set()
        assert go_on.wait(20)

    monkeypatch.setattr(os, "fsync", slow)
    updating = asyncio.create_task(state.update(tmp_path, lambda kept: kept.alarmed("a:1", "", 5)))
    await eventually(reached.is_set)
    assert not updating.done()
    go_on.set()
    assert (await updating).alarms == state.load(tmp_path).alarms != ()


async def test_a_cancelled_update_is_done_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is stopped still writes its last word, and no earlier word overtakes that."""
    reached, go_on, real = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        reached.set()
        assert go_on.wait(20)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)

    async def linked_then_stopped() -> None:
        try:
            await state.update(tmp_path, lambda kept: kept.linked("Tower", "one", "abcdefghij", 5))
        finally:
            await state.update(tmp_path, lambda kept: kept.unlinked(9))

    stopping = asyncio.create_task(linked_then_stopped())
    await eventually(reached.is_set)
    stopping.cancel()
    go_on.set()
    await asyncio.wait({stopping})
    kept = state.load(tmp_path)
    assert (stopping.cancelled(), kept.state, kept.connected, kept.connected_at) == (True, "trusted", False, 9)


def test_what_a_person_who_leaves_chose_outlives_what_the_daemon_is_told() -> None:
    trusted = registration_pb2.Enrolment(state=server_pb2.SERVER_STATE_TRUSTED)
    departed = registration_pb2.Enrolment(state=server_pb2.SERVER_STATE_DEPARTED)
    assert State(on_leave="freeze").told(trusted, 1).told(departed, 2).bequest == "freeze"


def test_a_link_that_was_only_tried_says_nothing_of_the_daemons() -> None:
    tried = State().admitted("Tower", "one", "abcdefghij", 5)
    assert (tried.state, tried.server_id, tried.connected, tried.connected_at) == ("trusted", "abcdefghij", False, None)
    linked = tried.linked("Tower", "one", "abcdefghij", 6)
    assert linked.admitted("Tower", "one", "abcdefghij", 7).connected
