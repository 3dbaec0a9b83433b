"""A primary that stops, and one as a process: `app`, `serving`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enlist import certificates
from enlist.names import Address
from enlist.reasons import Reason
from enlist.v1 import account_pb2, registration_pb2, server_pb2
from enlist_primary import app
from enlist_primary.config import Config
from enlist_primary.controllers import housekeeping
from enlist_primary.datafolder import DataFolder
from enlist_primary.founding import found
from enlist_primary.rpc.health import Health
from tests.support.dialling import dial, served
from tests.support.inprocess import ACCOUNT, Asker, refused_by, running_primary, serving, stubs
from tests.support.links import open_link
from tests.support.ports import free_port
from tests.support.processes import Daemon, PrimaryProcess, command, primary_process, run
from tests.support.waiting import eventually, wait_for

# --- Stopping ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def founded(tmp_path: Path) -> tuple[DataFolder, Config]:
    """A data folder with the account `acme.example`."""
    folder, config = DataFolder(tmp_path / "primary"), Config("Primary", "127.0.0.1", ssl_port=0, api_port=0)
    await found(folder, config, int(time.time()))
    async with serving(folder, config) as running:
        await running.admin.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain=ACCOUNT))
    return folder, config


async def test_whoever_is_connected_or_waits_is_told_that_the_primary_stops(founded: tuple[DataFolder, Config]) -> None:
    """And may come back: the reason says so, so nobody takes it for a decision."""
    async with serving(*founded) as running:
        trusted, waiting = Asker(running), Asker(running)
        stranger = dial(running.api, await running.pin(running.api))
        stub = stubs(stranger)
        id = (await trusted.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id
        await waiting.register(stub)
        at_ssl_port = dial(running.ssl, await running.pin(running.ssl), trusted.identity())
        link = await open_link(stubs(at_ssl_port), trusted)
        claim, proof = await waiting.claim(stub, "AwaitAuthorization")
        request = registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)
        wait = aiter(stub.registration.AwaitAuthorization(request))
        assert (await anext(wait)).state == server_pb2.SERVER_STATE_PENDING
        ends = asyncio.gather(refused_by(link.read()), refused_by(anext(wait)))
        await asyncio.sleep(0)
        admin_socket = running.folder.admin_socket
        assert admin_socket.exists()
    for refused in await ends:
        assert refused.reason is Reason.SHUTTING_DOWN
        assert refused.retry
    await asyncio.gather(stranger.close(), at_ssl_port.close())
    assert not admin_socket.exists()
    async with serving(*founded) as running:
        server = await running.server(id)
        assert not server.connected
        assert server.connected_time.seconds > 0  # the last observations were written on the way out
        assert server.state == server_pb2.SERVER_STATE_TRUSTED


async def test_a_stop_leaves_no_task_behind(founded: tuple[DataFolder, Config]) -> None:
    before = asyncio.all_tasks()
    async with serving(*founded):
        assert len(asyncio.all_tasks()) > len(before)
    await eventually(lambda: not {task for task in asyncio.all_tasks() - before if not task.done()}, what="all tasks to be gone")


async def test_a_task_that_fails_is_logged_and_ends_the_primary(
    founded: tuple[DataFolder, Config], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A primary that no longer sweeps, or follows its journals, would go on and be wrong."""

    async def fail(self: housekeeping.Housekeeping) -> None:
        raise RuntimeError("the housekeeping broke")

    monkeypatch.setattr(housekeeping.Housekeeping, "run", fail)
    async with serving(*founded) as running:
        await eventually(running.primary.broken.is_set)
    assert "a task of the primary failed" in caplog.text


async def test_requests_and_invitations_past_their_time_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [time.time()]
    monkeypatch.setattr(housekeeping, "SWEEP_SECONDS", 0.05)
    async with running_primary(tmp_path, clock=lambda: moment[0]) as running, running.stranger() as stub:
        asker = Asker(running)
        await asker.register(stub)
        claim, proof = await asker.claim(stub, "AwaitAuthorization")
        request = registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)
        wait = aiter(stub.registration.AwaitAuthorization(request))
        assert (await anext(wait)).state == server_pb2.SERVER_STATE_PENDING
        moment[0] += 7 * 86400
        assert (await anext(wait)).state == server_pb2.SERVER_STATE_EXPIRED  # told by the sweep: nobody asked


# --- As a process --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrimaryProcess]:
    """A primary that runs."""
    with primary_process(tmp_path_factory.mktemp("process")) as process:
        yield process


def leaf(process: PrimaryProcess) -> bytes:
    """What is served at the SSL port."""
    return asyncio.run(served(Address(process.host, process.ssl_port)))


def test_readiness_is_one_line_with_name_ports_and_fingerprint(process: PrimaryProcess) -> None:
    ready = f'info primary ready name="Test Primary" ssl_port={process.ssl_port} api_port={process.api_port} '
    assert f"{ready}fingerprint={process.fingerprint}" in process.log


def test_a_data_folder_in_use_is_not_served_twice(process: PrimaryProcess) -> None:
    done = run("enlist-primary", "--data", str(process.data), "serve", expect=1)
    assert done.stderr.splitlines()[-1].startswith("FOLDER_IN_USE: Another enlist-primary works in ")
    assert process.json("status")["name"] == "Test Primary"


def test_a_port_in_use_is_named_by_the_command(process: PrimaryProcess, tmp_path: Path) -> None:
    ports = ["--ssl-port", str(free_port()), "--api-port", str(process.api_port)]
    data = str(tmp_path / "other")
    run("enlist-primary", "--data", data, "init", "--name", "Other", "--listen", "127.0.0.1", *ports)
    done = run("enlist-primary", "--data", data, "serve", expect=1)
    assert f"PORT_IN_USE: The API port, {process.api_port}, is in use by another program." in done.stderr


def test_sighup_renews_the_certificates_and_nothing_else(process: PrimaryProcess) -> None:
    before = leaf(process)
    assert leaf(process) == before
    renewed = process.log.count("server certificates renewed")
    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: process.log.count("server certificates renewed") > renewed, what="the renewal")
    after = leaf(process)
    assert after != before
    assert certificates.begins_at(certificates.load(after)) >= certificates.begins_at(certificates.load(before))
    assert process.returncode is None


def test_a_malformed_configuration_is_named_with_file_line_and_key(process: PrimaryProcess, tmp_path: Path) -> None:
    data = tmp_path / "primary"
    data.mkdir(mode=0o700)
    (data / "primary.toml").write_text('format = 2\nname = "Primary"\nssl_port = "13000"\n')
    (data / "primary.toml").chmod(0o600)
    done = run("enlist-primary", "--data", str(data), "serve", expect=1)
    assert done.stderr == f"CONFIG_INVALID: {data}/primary.toml: line 3: ssl_port: expected a whole number, got text in quotes.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0_and_it_comes_back(process: PrimaryProcess, number: int) -> None:
    process.do("account", "set", "acme.example", "--contact", f"signal {number}")
    assert process.end(number) == 0
    assert process.log.rstrip().endswith("info primary stopping")
    assert not (process.data / "run" / "admin.sock").exists()
    done = process.do("status", expect=1)
    assert done.stderr.startswith("NOT_RUNNING: ")
    with sqlite3.connect(f"file:{process.data}/enlist.db?mode=ro", uri=True) as database:  # the log was emptied into the file
        assert database.execute("SELECT contact FROM account WHERE domain = 'acme.example'").fetchone() == (f"signal {number}",)
    database.close()
    process.start()
    assert process.json("account", "show", "acme.example")["contact"] == f"signal {number}"


def test_a_killed_one_leaves_a_socket_that_does_not_hinder_the_next(process: PrimaryProcess) -> None:
    process.end(signal.SIGKILL)
    assert (process.data / "run" / "admin.sock").exists()
    assert process.do("status", expect=1).stderr.startswith("NOT_RUNNING: ")
    process.start()
    assert process.json("journal", "verify")[0]["sound"] is True


def test_it_says_ready_to_systemd(tmp_path: Path) -> None:
    """sd_notify(3): once it serves, and once it stops."""
    data, address = str(tmp_path / "primary"), str(tmp_path / "notify")
    ports = ["--ssl-port", str(free_port()), "--api-port", str(free_port())]
    run("enlist-primary", "--data", data, "init", "--name", "Notified", "--listen", "127.0.0.1", *ports)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        daemon = Daemon(tmp_path / "log", *command("enlist-primary", "--data", data, "serve"))
        daemon.start({"NOTIFY_SOCKET": address})
        try:
            assert systemd.recv(100) == b"READY=1"
            assert json.loads(run("enlist-primary", "--data", data, "status", "--json").stdout)["name"] == "Notified"
            assert daemon.end() == 0
            assert systemd.recv(100) == b"STOPPING=1"
        finally:
            daemon.close()


async def test_a_stranger_who_never_reads_the_health_keeps_no_primary_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpc_health waits for each who watches; links end before that, or a revoked server would keep its own meanwhile."""

    async def never(_: object) -> None:
        ended.append(running.primary.context.hub._closing)
        await asyncio.Event().wait()

    ended: list[bool] = []
    monkeypatch.setattr(Health, "enter_graceful_shutdown", never)
    monkeypatch.setattr(app, "HEALTH_TIMEOUT", 0.05)
    async with asyncio.timeout(30), running_primary(tmp_path) as running:
        pass
    assert ended == [True]
