"""Attacks rows 2, 33 and 34: unknown enum values, messages, methods and paths; bombs; more malformed messages than workers."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc.aio
import pytest

from enlist import channel
from enlist.reasons import Reason
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, trust_pb2
from enlist_primary.rpc import access
from enlist_primary.rpc.listeners import MESSAGE_LIMIT
from enlist_primary.rpc.registration import REQUEST_LIMIT
from tests.attacks.world import World
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, refused_by
from tests.support.links import open_link


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused here has been heard: nothing more needs to be waited for."""
    monkeypatch.setattr(access, "HEAR_OUT_TIMEOUT", 0.2)


REGISTRATION = "/enlist.v1.RegistrationService"
GARBAGE = (b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x08", b"{}", b"\x00", b"\x7b")


async def raw(on: grpc.aio.Channel, method: str, data: bytes, **more: Any) -> Any:
    """A unary call whose bytes are ours to choose."""
    call: Any = on.unary_unary(method)
    return await call(data, timeout=10, **more)


async def answers(world: World) -> None:
    """The primary serves the next caller, and nothing was a surprise to it."""
    async with world.running.stranger() as stub:
        request = registration_pb2.ValidateRequest(account_domain=ACCOUNT)
        assert (await stub.registration.Validate(request, timeout=5)).admission == registration_pb2.ADMISSION_ASK
    assert not [record for record in world.logged if record.levelno >= logging.ERROR]


@pytest.fixture
async def on(world: World) -> Any:
    """A bare channel to the API port."""
    async with dial(world.running.api, await world.running.pin(world.running.api)) as on:
        yield on


# --- Row 2 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 3, 99, -1, 2**31 - 1])
async def test_an_unknown_kind_of_api_key_is_refused(world: World, kind: Any) -> None:
    before = await world.tables()
    request = account_pb2.CreateApiKeyRequest(parent=f"accounts/{ACCOUNT}", kind=kind)
    refused = await refused_by(world.running.admin.accounts.CreateApiKey(request))
    assert refused.reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before


@pytest.mark.parametrize(
    "method",
    [
        *("/enlist.v1.TrustService/TrustEverybody", "/enlist.v1.TrustService/", "/enlist.v1.TrustService", "/", "//", "NoSlash"),
        *(
            "/enlist.v1.trustservice/authorizeserver",
            "/enlist.v1.TrustService/AuthorizeServer/",
            "//enlist.v1.TrustService/AuthorizeServer",
        ),
        *("/enlist.v2.TrustService/AuthorizeServer", "/enlist.v1.TrustService/%41uthorizeServer", "/../admin.sock"),
    ],
)
async def test_a_method_that_is_not_there_is_not_found_whoever_asks(world: World, on: grpc.aio.Channel, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await raw(on, method, b"", metadata=(("authorization", f"Bearer {world.running.owner_token}"),))
    assert raised.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
    await answers(world)


async def test_a_link_that_begins_with_an_unknown_message_is_refused(world: World) -> None:
    asker, _ = await world.trusted()
    for message in (hierarchy_pb2.FromSecondary(), hierarchy_pb2.FromSecondary.FromString(b"\x7a\x02hi")):
        async with asker.at_ssl_port() as stub:
            stream: Any = stub.hierarchy.Connect()
            assert (await stream.read()).challenge
            await stream.write(message)
            assert (await refused_by(stream.read())).reason is Reason.LINK_VIOLATION


async def test_an_unknown_message_on_an_open_link_is_passed_over(world: World) -> None:
    asker, id = await world.trusted()
    async with asker.at_ssl_port() as stub:
        link = await open_link(stub, asker)
        for message in (hierarchy_pb2.FromSecondary(), hierarchy_pb2.FromSecondary.FromString(b"\x7a\x02hi")):
            await link.stream.write(message)
        assert (await world.running.server(id)).connected
        await link.stream.done_writing()
        assert await link.read() is grpc.aio.EOF
    await answers(world)


@pytest.mark.parametrize("protocol", [0, 1, 3, -1, 2**31 - 1])
async def test_a_link_in_another_protocol_is_refused(world: World, protocol: int) -> None:
    asker, _ = await world.trusted()
    async with asker.at_ssl_port() as stub:
        assert (await refused_by(open_link(stub, asker, protocol=protocol))).reason is Reason.VERSION_INCOMPATIBLE


# --- Row 33 --------------------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """A field that no message knows, in itself, `depth` times: groups, which need no lengths."""
    return b"\x7b" * depth + b"\x7c" * depth


@pytest.mark.parametrize("size", [REQUEST_LIMIT + 1, 300_000, MESSAGE_LIMIT + 1, 5_000_000])
async def test_an_oversized_message_is_refused_under_a_cap(world: World, on: grpc.aio.Channel, size: int) -> None:
    """A document's body fits into a message, but not into what a stranger says; what fits into none is not read to its end."""
    stranger_s = {Reason.INVALID_ARGUMENT} if size <= MESSAGE_LIMIT else set()
    for method, reasons in (
        (f"{REGISTRATION}/Register", stranger_s),
        ("/enlist.v1.TrustService/InviteServers", {Reason.NOT_LOGGED_ON}),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await raw(on, method, b"\x0a" + _varint(size) + bytes(size))
        too_large = size > MESSAGE_LIMIT and raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert too_large or channel.refusal(raised.value).reason in reasons
    await answers(world)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("depth", [50, 100, 5_000, 100_000])
async def test_a_deeply_nested_message_is_read_or_refused_and_hurts_nobody(world: World, on: grpc.aio.Channel, depth: int) -> None:
    bomb = nested(depth)
    inner = registration_pb2.RegisterRequest(registration=bomb).SerializeToString() if depth < 8_000 else bomb
    for data in (bomb, inner):
        assert (await refused_by(raw(on, f"{REGISTRATION}/Register", data))).reason is Reason.INVALID_ARGUMENT
    await answers(world)


@pytest.mark.parametrize("size", [16 * 1024 + 1, 200_000])
async def test_a_registration_that_is_too_large_is_refused_before_it_is_read(world: World, size: int) -> None:
    async with world.running.stranger() as stub:
        request = registration_pb2.RegisterRequest(registration=b"\x12" + _varint(size) + b"a" * size)
        assert (await refused_by(stub.registration.Register(request))).reason is Reason.INVALID_ARGUMENT


async def test_metadata_that_is_too_large_is_refused(world: World, on: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await raw(on, f"{REGISTRATION}/DescribePrimary", b"", metadata=(("x-bomb", "a" * 100_000),))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await answers(world)


async def test_more_invitees_than_the_cap_are_refused_as_a_whole(world: World) -> None:
    before = await world.tables()
    for number in (0, 1001):
        request = trust_pb2.InviteServersRequest(parent=f"accounts/{ACCOUNT}", invitees=[trust_pb2.Invitee()] * number)
        assert (await refused_by(world.running.admin.trust.InviteServers(request))).reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before


async def test_a_group_nested_too_deeply_is_refused(world: World) -> None:
    """A path is put together for every row that shows it: the length of a deep one would grow with the square of its depth."""
    before = await world.tables()
    request = account_pb2.CreateApiKeyRequest(
        parent=f"accounts/{ACCOUNT}", kind=account_pb2.API_KEY_KIND_RESTRICTED, group="/".join("a" * 17)
    )
    assert (await refused_by(world.running.admin.accounts.CreateApiKey(request))).reason is Reason.INVALID_ARGUMENT
    request.group = "/".join(["a"] * 20_000)
    assert (await refused_by(world.running.admin.accounts.CreateApiKey(request))).reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before


# --- Row 34 --------------------------------------------------------------------------------------------------------------------


async def test_after_thousands_of_malformed_messages_the_primary_still_answers(world: World, on: grpc.aio.Channel) -> None:
    """Each is refused for what it is; none is a fault of the primary's, which would fill its log with tracebacks."""
    before, logged = await world.tables(), len(world.logged)

    async def throw(method: str) -> list[Reason]:
        return [(await refused_by(raw(on, method, data))).reason for data in GARBAGE]

    for rpc in ("Register", "AwaitAuthorization", "Leave", "Validate", "DescribePrimary"):
        reasons = await asyncio.gather(*[throw(f"{REGISTRATION}/{rpc}") for _ in range(40)])
        assert {reason for each in reasons for reason in each} == {Reason.INVALID_ARGUMENT}
    assert await world.tables() == before
    assert len(world.logged) == logged
    await answers(world)


async def test_malformed_messages_at_the_ssl_port_leave_open_links_alone(world: World) -> None:
    asker, _ = await world.trusted()
    async with dial(world.running.ssl, await world.running.pin(world.running.ssl), asker.identity()) as on:
        for data in GARBAGE:
            call: Any = on.stream_stream("/enlist.v1.HierarchyService/Connect")()
            assert await call.read() is not grpc.aio.EOF  # the challenge
            await call.write(data)
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
    await answers(world)
