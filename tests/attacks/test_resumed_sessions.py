"""Attacks row 59: a TLS session ticket without the key. No link, no renewal, no displacement.

Python's `ssl` resumes a session only within one `SSLContext`. So the first handshake is made with the server's certificate and key;
then the context gets a certificate and a key of somebody else, and the session is resumed. The primary's TLS shows the server's
certificate again, and nobody at this end holds its key. gRPC speaks over that connection through a byte bridge.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from enlist import certificates, proofs
from enlist.channel import PROTOCOL
from enlist.link.ends import CONNECT
from enlist.names import Address
from enlist.reasons import Reason
from enlist.v1 import hierarchy_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.authority import keys
from tests.attacks.world import World
from tests.support.inprocess import Asker, Stubs, refused_by, stubs
from tests.support.pretender import new_signer

TIMEOUT = 10.0
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Wire:
    """A TLS connection of the attacker's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext, session: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self._in, self._out, session=session)

    async def _until(self, step: Any) -> Any:
        """Does a step of TLS, and what bytes it needs to go on."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionError("the primary closed the connection") from None
                self._in.write(data)
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            self._writer.write(self._out.read())

    async def shake_hands(self) -> None:
        """Raises what TLS, or the primary, has against it."""
        await self._until(self.tls.do_handshake)

    async def read(self) -> bytes:
        """What comes next."""
        data: bytes = await self._until(lambda: self.tls.read(65536))
        return data

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self.tls.write(data)
        self._flush()

    async def close(self) -> None:
        """Hangs up."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def connect(address: Address, tls: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Wire:
    """A connection whose handshake is over."""
    wire = Wire(*await asyncio.open_connection(*address), tls, session)
    try:
        async with asyncio.timeout(TIMEOUT):
            await wire.shake_hands()
    except BaseException:
        await wire.close()
        raise
    return wire


class Thief:
    """Somebody who has a ticket of the victim's session, and a certificate and a key that nobody here knows."""

    def __init__(self, world: World, folder: Path, version: ssl.TLSVersion) -> None:
        self.world = world
        self.key = certificates.new_key()
        self.reused: list[bool] = []
        self.session: ssl.SSLSession | None = None
        self._folder = folder
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        self.tls.minimum_version = self.tls.maximum_version = version
        self.tls.set_alpn_protocols(["h2"])

    def load(self, certificate: bytes, key: bytes) -> None:
        """From now on this is what the context would prove."""
        path = self._folder / "both.pem"
        path.write_bytes(certificate + key)
        self.tls.load_cert_chain(path)
        path.unlink()

    async def steal(self, victim: Asker) -> None:
        """The victim's own handshake, of which the ticket stays here. Its key does not."""
        identity = victim.identity()
        self.load(identity.certificate_pem, identity.key_pem)
        wire = await connect(self.world.running.ssl, self.tls)
        await wire.read()  # what the primary says first; the tickets of TLS 1.3 come with it
        self.session = wire.tls.session
        await wire.close()
        stranger = new_signer().issue_secondary(self.key.public_key(), "acme.example", "a" * 10, 3600, 0)
        self.load(certificates.pem(certificates.load(stranger)), keys.private_pem(self.key))

    @asynccontextmanager
    async def stubs(self) -> AsyncIterator[Stubs]:
        """Stubs over connections that resume the victim's session."""
        bridges: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            bridges.add(asyncio.create_task(self._bridge(reader, writer)))

        path = self._folder / "thief.sock"
        server = await asyncio.start_unix_server(begin, path)
        try:
            async with grpc.aio.insecure_channel(f"unix:{path}") as on:
                yield stubs(on)
        finally:
            server.close()
            for bridge in bridges:
                bridge.cancel()
            await asyncio.gather(*bridges, return_exceptions=True)

    async def _bridge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await connect(self.world.running.ssl, self.tls, self.session)
        self.reused.append(bool(wire.tls.session_reused))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_up(reader, wire))
                group.create_task(_down(wire, writer))
        finally:
            writer.close()
            await wire.close()


async def _up(reader: asyncio.StreamReader, wire: Wire) -> None:
    while data := await reader.read(65536):
        wire.write(data)


async def _down(wire: Wire, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await wire.read():
            writer.write(data)
    writer.close()


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
async def thief(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Thief]:
    """The thief of the victim's session; afterwards nothing was decided, and the victim's link is the one that was open."""
    made = Thief(world, tmp_path, request.param)
    await made.steal(world.victim)
    link = world.running.primary.context.hub.find("acme.example", world.victim_id)
    before = await world.tables()
    yield made
    assert made.reused == [True]
    assert await world.tables() == before
    assert world.running.primary.context.hub.find("acme.example", world.victim_id) is link


async def challenge(stub: Stubs) -> bytes:
    """A fresh challenge."""
    return (await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))).challenge


async def test_ticket_without_the_key_opens_no_link(thief: Thief) -> None:
    """The primary sees the victim's certificate; the hello must prove its key."""
    async with thief.stubs() as stub:
        stream: Any = stub.hierarchy.Connect()
        asked = (await stream.read()).challenge
        said = hierarchy_pb2.Hello(protocol=PROTOCOL, version="0.1.0").SerializeToString()
        signature = proofs.sign(thief.key, CONNECT, asked, thief.world.running.authority.public_key, said)
        hello = hierarchy_pb2.SignedHello(hello=said, signature=signature)
        await stream.write(hierarchy_pb2.FromSecondary(hello=hello))
        refused = await refused_by(_to_the_end(stream))
    assert refused.reason is Reason.PROOF_INVALID


async def _to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_ticket_without_the_key_renews_nothing(thief: Thief) -> None:
    """Neither with another key's proof, nor with none, nor with one that the victim made for something else."""
    authority = thief.world.running.authority.public_key
    async with thief.stubs() as stub:
        asked = await challenge(stub)
        other = proofs.sign(thief.key, "RenewCertificate", asked, authority, b"")
        overheard = proofs.sign(thief.world.victim.key, CONNECT, asked, authority, b"")
        for signature in (other, overheard, b""):
            proof = server_pb2.Proof(challenge=asked, signature=signature)
            call = stub.trust.RenewCertificate(trust_pb2.RenewCertificateRequest(proof=proof))
            assert (await refused_by(call)).reason is Reason.PROOF_INVALID
        call = stub.trust.RenewCertificate(trust_pb2.RenewCertificateRequest())
        assert (await refused_by(call)).reason is Reason.PROOF_INVALID


async def test_thief_s_own_certificate_passes_no_handshake(thief: Thief) -> None:
    """So what the other tests show is the ticket's doing."""
    async with thief.stubs() as stub:
        assert await challenge(stub)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await first_bytes(thief)


async def first_bytes(thief: Thief) -> bytes:
    """What the primary says to the thief's own certificate."""
    wire = await connect(thief.world.running.ssl, thief.tls)
    try:
        return await wire.read()
    finally:
        await wire.close()
