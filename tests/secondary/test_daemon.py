"""The daemon: it follows its configuration, and a different primary takes over only once that one has authorized."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.controller import Backoff
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, trust_pb2
from enlist_secondary import api_key, daemon, keeper, report, state
from enlist_secondary import config as configs
from enlist_secondary.daemon import Daemon
from tests.support.inprocess import ACCOUNT, Running, running_primary
from tests.support.ports import free_port
from tests.support.pretender import new_signer
from tests.support.secondaries import Secondary, set_up, written
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "POLL", 0.02)
    monkeypatch.setattr(keeper, "BACKOFF", Backoff(0.02, 0.2))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_primary(tmp_path / "first") as primary:
        yield primary


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_primary(tmp_path / "second") as primary:
        yield primary


@pytest.fixture
async def secondary(tmp_path: Path, running: Running) -> Secondary:
    return set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))


@asynccontextmanager
async def daemon_of(secondary: Secondary) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Daemon(secondary.path, configs.load(secondary.path), Dialer(), time.time).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def stage(secondary: Secondary, other: Running) -> Secondary:
    """What the wizard writes for a different primary."""
    aside = written(secondary.path.parent, other.api, other.authority, enrolment="other")
    aside.path.replace(configs.next_path(secondary.path))
    files.write(secondary.path, configs.render(secondary.config).encode())
    return Secondary(secondary.path, aside.config)


async def decide(running: Running, decision: str, server_id: str) -> None:
    name = names.resource("accounts", ACCOUNT, "servers", server_id)
    await getattr(running.admin.trust, f"{decision}Server")(getattr(trust_pb2, f"{decision}ServerRequest")(name=name))


async def raised(task: asyncio.Task[None]) -> Refused:
    with pytest.raises(Refused) as caught:
        async with asyncio.timeout(20):
            await asyncio.shield(task)
    return caught.value


async def test_a_link_that_a_killed_daemon_left_written_down_is_not_shown_as_open(tmp_path: Path) -> None:
    """Faults row 2: nothing answers, so nothing but the start itself can tell."""
    secondary = written(tmp_path / "one", names.Address("127.0.0.1", free_port()), new_signer().authority)
    state.change(secondary.config.folder, lambda known: known.linked("Head", "one", "abcdefghij", 60))
    async with daemon_of(secondary):
        await eventually(lambda: not secondary.state.connected, 5, "the link written down as closed")


# --- The configuration --------------------------------------------------------------------------------------------------------


async def test_a_changed_configuration_counts_at_once(secondary: Secondary, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def links() -> int:
        return [record.getMessage() for record in caplog.records].count("link open")

    async with daemon_of(secondary):
        await secondary.connects()
        changed = msgspec.structs.replace(secondary.config, server_address="print.acme.example")
        files.write(secondary.path, configs.render(changed).encode())
        await eventually(lambda: links() == 2)


@pytest.mark.parametrize("content", [b"", b"primary = 3", None], ids=["empty", "wrong", "missing"])
async def test_a_damaged_configuration_leaves_the_link_alone(secondary: Secondary, content: bytes | None) -> None:
    async with daemon_of(secondary) as task:
        opened = (await secondary.connects()).connected_at
        if content is None:
            files.remove(secondary.path)
        else:
            files.write(secondary.path, content)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await eventually(lambda: task.done() or not secondary.state.connected)
        assert secondary.state.connected_at == opened


async def test_another_data_folder_counts_only_after_a_restart(secondary: Secondary) -> None:
    """Its lock is another, and another daemon may hold it."""
    async with daemon_of(secondary):
        await secondary.connects()
        moved = msgspec.structs.replace(secondary.config, data=str(secondary.path.parent / "elsewhere"))
        files.write(secondary.path, configs.render(moved).encode())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await eventually(lambda: not secondary.state.connected)
    assert not moved.data_folder.exists()


# --- Another address ----------------------------------------------------------------------------------------------------------


def point(secondary: Secondary, address: names.Address) -> Secondary:
    """A person writes another address into the configuration, and nothing else."""
    changed = msgspec.structs.replace(secondary.config, primary=str(address))
    files.write(secondary.path, configs.render(changed).encode())
    return Secondary(secondary.path, changed)


@pytest.mark.parametrize("when", ["stopped", "running"])
async def test_a_different_primary_at_the_address_written_by_hand_is_a_hard_stop_and_an_alarm(
    secondary: Secondary, other: Running, when: str
) -> None:
    """Attacks row 22: the address that is configured counts, not the SSL port remembered of another, be it on the same host."""
    async with daemon_of(secondary):
        await secondary.connects()
        if when == "running":
            point(secondary, other.api)
            await eventually(lambda: secondary.state.alarms, what="the alarm")
    point(secondary, other.api)
    async with daemon_of(secondary):
        await eventually(lambda: secondary.state.last_problem, what="the problem")
        (alarm,) = secondary.state.alarms
        assert (alarm.address, alarm.fingerprint) == (str(other.api), other.authority.fingerprint)
        assert not secondary.state.connected
    problem = secondary.state.last_problem
    assert problem is not None
    assert problem.reason == Reason.IDENTITY_CHANGED
    assert "accepted there" not in problem.message


@pytest.mark.parametrize("when", ["stopped", "running"])
async def test_another_address_of_the_same_primary_is_met_and_linked_to(
    secondary: Secondary, running: Running, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    moved = names.Address("localhost", running.api.port)
    async with daemon_of(secondary):
        await secondary.connects()
        if when == "running":
            point(secondary, moved)
            await eventually(lambda: secondary.state.met_at == str(moved))
            await secondary.connects()
    point(secondary, moved)
    caplog.clear()
    async with daemon_of(secondary):
        await secondary.connects()
    assert (secondary.state.met_at, secondary.state.alarms) == (str(moved), ())
    opened = [record for record in caplog.records if record.getMessage() == "link open"]
    assert [getattr(record, "fields", {}).get("address") for record in opened] == [names.Address("localhost", running.ssl.port)]


# --- A different primary ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "while"])
async def test_a_different_primary_takes_over_once_it_has_authorized(
    secondary: Secondary, other: Running, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    staged = stage(secondary, other) if when == "before" else None
    async with daemon_of(secondary):
        await secondary.connects()
        staged = staged or stage(secondary, other)
        await staged.becomes("pending")
        assert secondary.state.connected
        told = report.status(secondary.path)
        assert told.staged is not None
        assert (told.primary, told.staged.state) == (secondary.config.primary, "pending")
        await other.authorize(staged.state.server_id)
        await staged.connects()
    assert configs.load(secondary.path) == staged.config
    assert configs.load(configs.backup_path(secondary.path)) == secondary.config
    assert not configs.next_path(secondary.path).exists()
    assert staged.identity.fingerprint != secondary.identity.fingerprint
    (left,) = (record for record in caplog.records if "still lists this server" in record.message)
    assert vars(left)["fields"] == {"primary": secondary.config.primary, "server": secondary.state.server_id}


async def test_a_different_primary_that_refuses_changes_nothing(secondary: Secondary, other: Running) -> None:
    async with daemon_of(secondary) as task:
        await secondary.connects()
        staged = stage(secondary, other)
        await staged.becomes("pending")
        await decide(other, "Deny", staged.state.server_id)
        await staged.becomes("denied")
        assert secondary.state.connected
        assert not task.done()
        assert configs.load(secondary.path) == secondary.config


async def test_a_server_that_was_revoked_still_awaits_the_different_primary(
    running: Running, secondary: Secondary, other: Running
) -> None:
    async with daemon_of(secondary) as task:
        await secondary.connects()
        staged = stage(secondary, other)
        await staged.becomes("pending")
        await decide(running, "Revoke", secondary.state.server_id)
        await secondary.becomes("revoked")
        assert not task.done()
        await other.authorize(staged.state.server_id)
        await staged.connects()


async def test_when_both_primaries_refuse_it_ends(running: Running, secondary: Secondary, other: Running) -> None:
    async with daemon_of(secondary) as task:
        await secondary.connects()
        staged = stage(secondary, other)
        await staged.becomes("pending")
        await decide(running, "Revoke", secondary.state.server_id)
        await secondary.becomes("revoked")
        await decide(other, "Deny", staged.state.server_id)
        assert (await raised(task)).reason is Reason.SERVER_REVOKED


async def test_a_different_primary_that_was_given_up_in_time_leaves_nothing_to_hope_for(
    running: Running, secondary: Secondary, other: Running
) -> None:
    async with daemon_of(secondary) as task:
        await secondary.connects()
        staged = stage(secondary, other)
        await staged.becomes("pending")
        await decide(running, "Remove", secondary.state.server_id)
        await secondary.becomes("removed")
        files.remove(configs.next_path(secondary.path))
        assert (await raised(task)).reason is Reason.SERVER_REMOVED


async def test_a_damaged_staged_configuration_is_passed_over(secondary: Secondary) -> None:
    files.write(configs.next_path(secondary.path), b"primary = 3")
    async with daemon_of(secondary) as task:
        await secondary.connects()
        assert not task.done()


# --- The end ------------------------------------------------------------------------------------------------------------------


async def test_a_final_no_ends_the_daemon_and_it_does_not_ask_again(running: Running, secondary: Secondary) -> None:
    async with daemon_of(secondary) as task:
        await secondary.connects()
        await decide(running, "Remove", secondary.state.server_id)
        assert (await raised(task)).reason is Reason.SERVER_REMOVED
    async with daemon_of(secondary) as task:
        assert (await raised(task)).reason is Reason.SERVER_REMOVED
    assert api_key.load(secondary.config.folder) == ""


async def test_what_was_asked_by_the_wizard_is_awaited_by_the_daemon(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "pending", running)
    async with daemon_of(secondary):
        await running.authorize((await secondary.becomes("pending")).server_id)
        await secondary.connects()
    assert not state.load(secondary.config.folder).connected
