"""Attacks rows 30 and 31: more registrations than an administrator can look at; clients that are silent, or never finish.

Scaled down: what holds for hundreds with caps of tens holds for 100,000 with caps of hundreds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from enlist import channel
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.v1 import registration_pb2, server_pb2
from enlist_primary.config import Limits
from enlist_primary.links import link as link_module
from enlist_primary.rpc import access, listeners
from tests.attacks.world import World, populated, server_name
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, Stubs, refused_by, stubs
from tests.support.links import open_link
from tests.support.relay import relay
from tests.support.waiting import eventually

PER_ACCOUNT, PER_ADDRESS = 30, 12
LIMITS = Limits(pending_per_account=PER_ACCOUNT, pending_per_address=PER_ADDRESS, attempts_per_minute=100_000)
HANDSHAKE_SECONDS = 0.6


@pytest.fixture
async def capped(tmp_path: Path) -> AsyncIterator[World]:
    """A primary of its own with small caps; its victim is looked after as everywhere."""
    async with populated(tmp_path, limits=LIMITS) as world:
        yield world
        await world.assert_unharmed()
        world.assert_nothing_leaked()


async def flood(world: World, stub: Stubs, count: int, api_key: str = "", leave: bool = False) -> list[Reason]:
    """This many servers, each with a key of its own, ask to join (and may take it back); what they were refused for."""
    refused: list[Reason] = []

    async def one() -> None:
        asker = world.asker("flood")
        try:
            await asker.register(stub, api_key)
            if leave:
                claim, proof = await asker.claim(stub, "Leave")
                await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
        except grpc.aio.AioRpcError as error:
            refused.append(channel.refusal(error).reason)

    for _ in range(count // 30):
        await asyncio.gather(*[one() for _ in range(30)])
    return refused


async def pending(world: World) -> int:
    """How many servers wait."""
    return sum(server.state == server_pb2.SERVER_STATE_PENDING for server in await world.servers())


# --- Row 30 --------------------------------------------------------------------------------------------------------------------


async def test_a_flood_from_one_address_fills_its_cap_and_no_more(capped: World) -> None:
    """Another address may still ask; so may who has an API key, up to the account's cap; the journal does not grow."""
    head = await capped.head()
    async with capped.running.stranger() as stub:
        assert set(await flood(capped, stub, 150)) == {Reason.TOO_MANY_PENDING}
        assert await pending(capped) == PER_ADDRESS
        assert await capped.refusals(ACCOUNT, Reason.TOO_MANY_PENDING) == 150 - PER_ADDRESS

        pin = await capped.running.pin(capped.running.api)
        async with relay(capped.running.api, source="127.0.0.77") as between, dial(between.address, pin) as on:
            assert (await capped.asker("neighbour").register(stubs(on))).state == server_pb2.SERVER_STATE_PENDING

        api_key = await capped.api_key()
        head += 1
        assert set(await flood(capped, stub, 60, api_key)) == {Reason.TOO_MANY_PENDING}
        assert await pending(capped) == PER_ACCOUNT
    assert await capped.head() == head


async def test_a_flood_of_requests_taken_back_at_once_does_not_fill_the_database(capped: World) -> None:
    """Else a stranger would ask, leave, and ask again with a new key, for ever; each time a row stays."""
    head, before = await capped.head(), len(await capped.servers())
    async with capped.running.stranger() as stub:
        assert set(await flood(capped, stub, 120, leave=True)) == {Reason.TOO_MANY_PENDING}
    assert len(await capped.servers()) - before <= PER_ADDRESS + 30  # as many as asked at the same time
    assert await capped.head() == head


async def test_a_flood_of_refused_requests_leaves_no_more_than_counters(capped: World) -> None:
    """Whatever accounts a stranger makes up: the rows are as many as there are accounts and reasons."""
    before = await capped.tables()
    async with capped.running.stranger() as stub:
        for n in range(60):
            asker = capped.asker(account=f"made-up-{n}.example")
            await refused_by(asker.register(stub, "enl_aaaaaaaaaa_" + "a" * 32))
            claim, _ = await asker.claim(stub, "Leave")
            request = registration_pb2.LeaveRequest(claim=claim, proof=server_pb2.Proof())
            assert (await refused_by(stub.registration.Leave(request))).reason is Reason.PROOF_INVALID
    assert await capped.refusals(".", Reason.ACCOUNT_UNKNOWN) == 60
    assert await capped.refusals(".", Reason.PROOF_INVALID) == 60
    assert not capped.running.primary.broken.is_set()
    assert await capped.tables() == before


async def test_an_open_link_and_the_administrator_do_not_feel_a_flood(capped: World) -> None:
    """While hundreds ask, a decision takes effect at the link it is about; it does not wait for the flood to end."""

    async def flood_begun() -> bool:
        return await pending(capped) > 0

    asker, id = await capped.trusted("to be suspended")
    async with asker.at_ssl_port() as trusted, capped.running.stranger() as stub:
        link = await open_link(trusted, asker)
        flooding = asyncio.create_task(flood(capped, stub, 600))
        await eventually(flood_begun, what="the flood")
        await capped.decide("Suspend", id)
        assert (await refused_by(link.read())).reason is Reason.SERVER_SUSPENDED
        assert not flooding.done()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_names_that_a_flood_takes_are_not_the_victim_s(capped: World) -> None:
    """An administrator who names the victim's id means the victim, whatever the flood is called."""
    async with capped.running.stranger() as stub:
        for _ in range(PER_ADDRESS):
            await capped.asker(capped.victim_id).register(stub)
    server = await capped.running.server(capped.victim_id)
    assert server.name == server_name(capped.victim_id)
    assert server.display_name == "victim"


# --- Row 31 --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A primary that waits half a second where others wait ten, or thirty."""
    monkeypatch.setitem(listeners.SERVER_OPTIONS, "grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000))
    async with populated(tmp_path) as world:
        with monkeypatch.context() as patch:  # not while accounts are made: a disk may be slower
            patch.setattr(access, "UNARY_TIMEOUT", HANDSHAKE_SECONDS)
            yield world
        await world.assert_unharmed()
        world.assert_nothing_leaked()


def client_hello() -> bytes:
    """How TLS begins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("port", ["ssl", "api"])
@pytest.mark.parametrize("said", ["nothing", "half a greeting", "a greeting and no more", "a greeting, byte by byte"])
async def test_who_connects_and_does_not_shake_hands_is_let_go(impatient: World, port: str, said: str) -> None:
    address, hello = getattr(impatient.running, port), client_hello()
    count = 40
    streams = [await asyncio.open_connection(address.host, address.port) for _ in range(count)]
    for _, writer in streams:
        writer.write(
            {"nothing": b"", "half a greeting": hello[: len(hello) // 2], "a greeting and no more": hello}.get(said, hello[:1])
        )

    async with impatient.running.stranger() as stub:  # others are served meanwhile
        await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL), timeout=5)

    async def shed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        position = 1
        try:
            while True:
                try:
                    if await asyncio.wait_for(reader.read(65536), 0.1) == b"":
                        return
                except TimeoutError:
                    if said.endswith("byte by byte"):
                        writer.write(hello[position : position + 1])
                        position += 1
        except ConnectionError:
            return

    async with asyncio.timeout(10 * HANDSHAKE_SECONDS):
        await asyncio.gather(*[shed(*stream) for stream in streams])
    for _, writer in streams:
        writer.transport.abort()


@pytest.mark.parametrize("method", ["RegistrationService/Register", "RegistrationService/AwaitAuthorization"])
async def test_a_request_that_never_comes_to_its_end_is_refused_and_its_slot_is_free_again(impatient: World, method: str) -> None:
    """The RPC begins, its message does not come: gRPC itself would hold it for as long as the connection lasts."""
    tasks = len(asyncio.all_tasks())
    async with dial(impatient.running.api, await impatient.running.pin(impatient.running.api)) as on:
        calls: list[Any] = [on.stream_stream(f"/enlist.v1.{method}")() for _ in range(90)]
        await eventually(lambda: len(asyncio.all_tasks()) > tasks + 90, what="the slots to be taken")
        async with impatient.running.stranger() as stub:
            await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL), timeout=5)
        async with asyncio.timeout(20):
            refused: list[Refused] = await asyncio.gather(*[refused_by(call.read()) for call in calls])
        assert {each.reason for each in refused} == {Reason.TIMED_OUT}
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2, what="the slots to be free")


async def test_a_stranger_learns_that_it_may_not_call_before_its_message_is_read(impatient: World) -> None:
    """What it would have sent is not waited for, and not parsed."""
    async with dial(impatient.running.api, await impatient.running.pin(impatient.running.api)) as on:
        call: Any = on.stream_unary("/enlist.v1.TrustService/InviteServers")()
        assert (await refused_by(call)).reason is Reason.NOT_LOGGED_ON


async def test_a_link_that_never_says_hello_is_closed(impatient: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "HELLO_TIMEOUT", 0.3)
    asker, id = await impatient.trusted("silent")
    async with asker.at_ssl_port() as stub:
        stream: Any = stub.hierarchy.Connect()
        assert (await stream.read()).challenge
        assert (await refused_by(stream.read())).reason is Reason.TIMED_OUT
    assert not (await impatient.running.server(id)).connected


async def test_a_server_waits_on_four_streams_at_most(impatient: World) -> None:
    """Streams cost memory for as long as an administrator takes: days."""
    asker, _ = await impatient.pending("patient")
    async with impatient.running.stranger() as stub:
        waits: list[Any] = []
        outcomes: list[Reason | None] = []
        for _ in range(6):
            claim, proof = await asker.claim(stub, "AwaitAuthorization")
            wait = stub.registration.AwaitAuthorization(registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof))
            waits.append(wait)
            try:
                await wait.read()
                outcomes.append(None)
            except grpc.aio.AioRpcError as error:
                outcomes.append(channel.refusal(error).reason)
        assert outcomes == [None] * 4 + [Reason.OVERLOADED] * 2
        for wait in waits:
            wait.cancel()
