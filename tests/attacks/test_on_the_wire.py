"""Attacks row 21: old TLS, no TLS, an old protocol; and nothing readable on the wire."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from pathlib import Path

import grpc.aio
import pytest

from enlist.channel import PROTOCOL
from enlist.names import Address
from enlist.reasons import Reason
from enlist.v1 import account_pb2, registration_pb2
from tests.attacks.world import World, bearer
from tests.support.dialling import dial
from tests.support.inprocess import refused_by, stubs
from tests.support.links import open_link
from tests.support.relay import relay

PORTS = ["ssl", "api"]


async def handshake(address: Address, context: ssl.SSLContext) -> str:
    """Which TLS was agreed on, or why there is none."""
    try:
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except (ssl.SSLError, ConnectionError) as error:
        return f"none: {error}"
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return str(tls.version())


@pytest.mark.parametrize("port", PORTS)
async def test_nothing_below_tls_1_2_is_spoken(world: World, port: str, tmp_path: Path) -> None:
    """An old client is turned away though it is as willing as OpenSSL lets it be, and holds the victim's own certificate."""
    identity, files = world.victim.identity(), (tmp_path / "certificate.pem", tmp_path / "key.pem")
    files[0].write_bytes(identity.certificate_pem)
    files[1].write_bytes(identity.key_pem)
    spoken = {}
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(*files)
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that old TLS is old is the point
            context.minimum_version = context.maximum_version = version
        spoken[version.name] = await handshake(getattr(world.running, port), context)
    assert (spoken.pop("TLSv1_2"), spoken.pop("TLSv1_3")) == ("TLSv1.2", "TLSv1.3")
    assert all(outcome.startswith("none:") and "NO_PROTOCOLS_AVAILABLE" not in outcome for outcome in spoken.values()), spoken


@pytest.mark.parametrize("port", PORTS)
async def test_a_client_without_tls_is_not_answered(world: World, port: str) -> None:
    address = getattr(world.running, port)
    async with grpc.aio.insecure_channel(str(address), options=[("grpc.enable_http_proxy", 0)]) as on:
        call = stubs(on).registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL), timeout=5)
        assert (await refused_by(call)).reason in (Reason.UNREACHABLE, Reason.TIMED_OUT)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: primary\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x80\x2e\x01\x00\x02",
        b"\0" * 64,
    ],
)
async def test_plaintext_gets_nothing_but_a_tls_alert(world: World, port: str, hello: bytes) -> None:
    address = getattr(world.running, port)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(hello)
    try:
        answer = await asyncio.wait_for(reader.read(), 15)
    except ConnectionResetError:
        answer = b""
    finally:
        writer.transport.abort()
    assert answer == b"" or answer[0] == 21, answer  # an alert record (RFC 8446, 5.1)
    assert b"HTTP" not in answer
    assert world.running.authority.stable_name.encode() not in answer


async def test_nothing_of_an_enrolment_is_readable_on_the_wire(world: World) -> None:
    """No API key, no name, no account, no certificate - only the name in the TLS greeting, which is a fingerprint."""
    asker, api_key = world.asker("whispered-name"), await world.full_api_key()
    pin = await world.running.pin(world.running.api)
    async with relay(world.running.api) as between, dial(between.address, pin) as on:
        enrolment = await asker.register(stubs(on), api_key)
        assert len(between.seen) > 1000
        enrolling = bytes(between.seen)
    pin = await world.running.pin(world.running.ssl)
    async with relay(world.running.ssl) as between, dial(between.address, pin, asker.identity()) as on:
        await open_link(stubs(on), asker)
        linking = bytes(between.seen)
    secrets = (api_key, api_key.split("_")[2], "whispered-name", "acme.example", enrolment.server_id, "Test Primary", "enlist.v1")
    for wire in (enrolling, linking):
        readable = [secret for secret in secrets if secret.encode() in wire]
        assert not readable
        assert asker.public_key not in wire
        assert asker.certificate not in wire


async def test_a_token_is_not_readable_on_the_wire(world: World) -> None:
    pin, token = await world.running.pin(world.running.api), world.running.owner_token
    async with relay(world.running.api) as between, dial(between.address, pin) as on:
        listed = await stubs(on).accounts.ListAccounts(account_pb2.ListAccountsRequest(), metadata=bearer(token))
        assert listed.accounts
        assert token.encode() not in between.seen
        assert b"authorization" not in between.seen
