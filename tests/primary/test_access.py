"""Who calls, and what becomes of what goes wrong: `rpc.access`, as far as the attacks do not walk it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, hierarchy_pb2, trust_pb2
from enlist_primary.changes.directory import Directory
from enlist_primary.rpc import access
from enlist_primary.rpc.access import Access
from enlist_primary.store import accounts
from tests.support.inprocess import Asker, Running, refused_by, running_primary
from tests.support.waiting import eventually

METHOD = "/enlist.v1.AccountService/ListAccounts"
STREAM = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One primary for this file."""
    async with running_primary(tmp_path_factory.mktemp("access")) as running:
        yield running


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("ipv6:[::ffff:192.0.2.7]:4711", "192.0.2.7"),
        ("ipv6:[fe80::1%eth0]:4711", "fe80::1%eth0"),
    ],
)
def test_the_source_is_the_address_without_port_and_brackets(peer: str, address: str) -> None:
    assert access._address(peer) == address


# --- A certificate's end -------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_ran_out_is_refused_on_a_connection_that_was_open_before(tmp_path: Path) -> None:
    """Attacks row 17: TLS looked at it once, when it was good."""
    moment = [time.time()]
    async with running_primary(tmp_path, clock=lambda: moment[0]) as running, running.stranger() as stub:
        asker = Asker(running)
        await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
        async with asker.at_ssl_port() as trusted:
            renew = await asker.renewal(trusted)
            assert (await trusted.trust.RenewCertificate(renew)).certificate
            moment[0] += 30 * 86400
            assert (await refused_by(trusted.trust.RenewCertificate(renew))).reason is Reason.CERTIFICATE_EXPIRED
            assert (await refused_by(trusted.hierarchy.Connect().read())).reason is Reason.CERTIFICATE_EXPIRED


async def test_a_server_revoked_a_moment_ago_renews_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 18: the directory may be a commit behind; what is issued is asked of the database."""
    asker = Asker(running)
    async with running.stranger() as stub:
        id = (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id
    async with asker.at_ssl_port() as trusted:
        renew = await asker.renewal(trusted)
        assert (await trusted.trust.RenewCertificate(renew)).certificate
        monkeypatch.setattr(Directory, "on_changes", lambda *_: None)  # the change does not reach it
        await running.admin.trust.RevokeServer(trust_pb2.RevokeServerRequest(name=f"accounts/acme.example/servers/{id}"))
        assert (await refused_by(trusted.trust.RenewCertificate(renew))).reason is Reason.SERVER_REVOKED


# --- What goes wrong -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_access(running: Running, path: Path, unary: Any, stream: Any = None) -> AsyncIterator[grpc.aio.Channel]:
    """A server with the primary's access and handlers of the test's own, called by the local administrator."""
    own = running.primary.context
    server = grpc.aio.server(
        interceptors=[Access(running.primary._directory, own.database, own.attempts, own.observations, own.clock)]
    )
    for method, make, handler in (
        (METHOD, grpc.unary_unary_rpc_method_handler, unary),
        (STREAM, grpc.unary_stream_rpc_method_handler, stream or unary),
    ):
        service, rpc = method[1:].split("/")
        server.add_registered_method_handlers(service, {rpc: make(handler, bytes, bytes)})
    server.add_insecure_port(f"unix:{path}/s")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{path}/s") as on:
            yield on
    finally:
        await server.stop(None)


async def call(on: grpc.aio.Channel, method: str = METHOD) -> Refused:
    """The refusal of a call."""
    start: Any = on.unary_unary(method) if method == METHOD else on.unary_stream(method)
    return await refused_by(start(b"x") if method == METHOD else start(b"x").read())


def watch(on: grpc.aio.Channel) -> Any:
    """A stream that was asked for."""
    start: Any = on.unary_stream(STREAM)
    return start(b"x")


async def test_an_rpc_that_takes_too_long_is_given_up_and_its_task_ends(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return b""

    monkeypatch.setattr(access, "UNARY_TIMEOUT", 0.2)
    async with behind_access(running, tmp_path, slow) as on:
        assert (await call(on)).reason is Reason.TIMED_OUT
        await eventually(ended.is_set)


async def test_a_stream_has_no_deadline(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def patient(request: bytes, context: Any) -> None:
        await asyncio.sleep(0.5)
        await context.write(b"still here")

    monkeypatch.setattr(access, "UNARY_TIMEOUT", 0.2)
    async with behind_access(running, tmp_path, patient) as on:
        assert await watch(on).read() == b"still here"


@pytest.mark.parametrize("method", [METHOD, STREAM])
async def test_what_nobody_foresaw_is_a_bland_internal_with_an_id_that_the_log_has_too(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError("detail that is nobody's business")

    async with behind_access(running, tmp_path, fail) as on:
        refused = await call(on, method)
    assert refused.reason is Reason.INTERNAL
    assert "business" not in refused.message
    (record,) = [record for record in caplog.records if record.message == "an RPC failed"]
    assert record.__dict__["fields"]["id"] in refused.message
    assert record.__dict__["fields"]["method"] == method
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_refusal_reaches_the_caller_with_its_reason_and_sentence(running: Running, tmp_path: Path) -> None:
    async def refuse(request: bytes, context: Any) -> bytes:
        raise Refused(Reason.STORAGE_FULL, "The disk is full.")

    async with behind_access(running, tmp_path, refuse) as on:
        for method in (METHOD, STREAM):
            refused = await call(on, method)
            assert (refused.reason, refused.message) == (Reason.STORAGE_FULL, "The disk is full.")


async def test_a_database_that_cannot_do_it_now_is_overloaded_and_not_internal(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> Any:
        raise Refused(Reason.OVERLOADED, "Try again.")

    monkeypatch.setattr(accounts, "listed", busy)
    request = hierarchy_pb2.ListServersRequest(parent="accounts/-")
    assert (await refused_by(running.admin.hierarchy.ListServers(request))).reason is Reason.OVERLOADED


async def test_a_caller_that_hangs_up_ends_its_rpc(running: Running, tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, context: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async with behind_access(running, tmp_path, wait) as on:
        stream = watch(on)
        await eventually(begun.is_set)
        stream.cancel()
        await eventually(ended.is_set)
