"""Attacks rows 8 and 20: a secondary's leaf as a CA or as the primary's, the primary's as a secondary's, a lower primary's leaf."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enlist import certificates
from enlist.channel import ClientIdentity
from enlist.names import Address
from enlist.reasons import Reason
from enlist.v1 import registration_pb2, registration_pb2_grpc
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer, new_authority
from tests.attacks.world import World
from tests.support.dialling import dial, served
from tests.support.inprocess import ACCOUNT, Asker, Stubs, refused_by, stubs
from tests.support.links import open_link

Key = ec.EllipticCurvePrivateKey
BOTH = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


def leaf(
    issuer: x509.Certificate,
    issuer_key: Key,
    key: Key,
    names: list[x509.GeneralName],
    *,
    ca: bool = False,
    common_name: str = "",
    ends: float = 3600,
) -> x509.Certificate:
    """A certificate as an attacker makes it out."""
    now = datetime.now(UTC)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(seconds=ends))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def victim_s_name(world: World) -> x509.GeneralName:
    """The SAN of the victim's own certificate."""
    authority = world.running.authority
    return x509.UniformResourceIdentifier(certificates.spiffe_id(authority.stable_name, ACCOUNT, world.victim_id))


def authority_key(world: World) -> Key:
    """The primary's own private key, for what only a bug there could make out."""
    key = serialization.load_pem_private_key(world.running.folder.authority_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def pem(*chain: x509.Certificate) -> bytes:
    """A chain."""
    return b"".join(map(certificates.pem, chain))


async def refused_at_ssl_port(world: World, chain: bytes, key: Key) -> Reason:
    """What becomes of a link opened with this certificate, and of a renewal: its key signs both."""
    asker = Asker(world.running)
    asker.key = key
    identity = ClientIdentity(chain, keys.private_pem(key))
    async with dial(world.running.ssl, await world.running.pin(world.running.ssl), identity) as on:
        reason = (await refused_by(open_link(stubs(on), asker))).reason
        assert (await refused_by(_renewed(stubs(on), asker))).reason is reason
    return reason


async def _renewed(stub: Stubs, asker: Asker) -> Any:
    return await stub.trust.RenewCertificate(await asker.renewal(stub))


# --- Row 8: at the SSL port ----------------------------------------------------------------------------------------------------


async def test_a_secondary_s_leaf_is_no_ca(world: World) -> None:
    """What it signs in the victim's name is turned away by TLS, with and without the chain."""
    attacker, _ = await world.trusted("attacker")
    own, key = certificates.load(attacker.certificate), certificates.new_key()
    forged = leaf(own, attacker.key, key, [victim_s_name(world)])
    for chain in (pem(forged, own), pem(forged), pem(forged, own, world.running.authority.certificate)):
        assert await refused_at_ssl_port(world, chain, key) is Reason.UNREACHABLE


async def test_a_leaf_that_signed_itself_a_foreign_one_and_an_expired_one_are_turned_away(world: World) -> None:
    now, key = int(time.time()), certificates.new_key()
    stranger = certificates.new_key()
    foreign = new_authority(stranger, now)
    own = world.running.authority.certificate
    name = [victim_s_name(world)]
    for certificate in (
        leaf(own, key, key, name),  # names the authority as its issuer and is not signed by it
        leaf(foreign, stranger, key, name),
        leaf(own, authority_key(world), key, name, ends=-60),
    ):
        assert await refused_at_ssl_port(world, pem(certificate), key) is Reason.UNREACHABLE


async def test_the_primary_s_own_server_certificate_is_no_server_s(world: World) -> None:
    """Nor is the authority's: whoever holds these holds everything anyway, but no code may take them for an account's server."""
    signer, key = keys.load(world.running.folder), certificates.new_key()
    served = signer.issue_server(key.public_key(), ["127.0.0.1"], 3600, int(time.time()))
    assert await refused_at_ssl_port(world, pem(served), key) in (Reason.UNREACHABLE, Reason.CERTIFICATE_INVALID)
    authority = pem(world.running.authority.certificate)
    assert await refused_at_ssl_port(world, authority, authority_key(world)) in (Reason.UNREACHABLE, Reason.CERTIFICATE_INVALID)


@pytest.mark.parametrize(
    "names",
    [
        lambda name: [name, name],
        lambda name: [name, x509.DNSName("acme.example")],
        lambda name: [x509.DNSName(name.value.removeprefix("spiffe://").replace("/", "."))],
        lambda name: [x509.UniformResourceIdentifier(f"{name.value}/")],
        lambda name: [x509.UniformResourceIdentifier(f"{name.value}/x")],
        lambda name: [x509.UniformResourceIdentifier(name.value.replace("spiffe", "https"))],
        lambda name: [x509.UniformResourceIdentifier(name.value.replace(ACCOUNT, ""))],
        lambda name: [x509.UniformResourceIdentifier(name.value.replace(ACCOUNT, "ACME.example"))],
        lambda name: [],
    ],
)
async def test_a_certificate_without_exactly_one_name_of_our_form_is_nobody_s(
    world: World, names: Callable[[Any], list[x509.GeneralName]]
) -> None:
    """Signed by the authority itself, as a bug might: the victim's name among others, or not quite."""
    attacker, _ = await world.trusted("attacker")
    made = leaf(
        world.running.authority.certificate, authority_key(world), attacker.key, names(victim_s_name(world)), common_name="victim"
    )
    reason = await refused_at_ssl_port(world, pem(made), attacker.key)
    assert reason in (Reason.CERTIFICATE_INVALID, Reason.SERVER_UNKNOWN)


async def test_a_ca_certificate_below_the_authority_is_no_server_s(world: World) -> None:
    """A lower primary's own, made out to the victim: a CA is never a server, and what it issues is not the authority's issue."""
    key = certificates.new_key()
    middle = leaf(
        world.running.authority.certificate, authority_key(world), key, [victim_s_name(world)], ca=True, common_name="lower"
    )
    assert await refused_at_ssl_port(world, pem(middle), key) in (Reason.UNREACHABLE, Reason.CERTIFICATE_INVALID)
    below = certificates.new_key()
    issued = leaf(middle, key, below, [victim_s_name(world)])
    assert await refused_at_ssl_port(world, pem(issued, middle), below) in (Reason.UNREACHABLE, Reason.SERVER_UNKNOWN)


# --- Rows 8 and 20: in the primary's place -------------------------------------------------------------------------------------


class Impostor(registration_pb2_grpc.RegistrationServiceServicer):
    """Answers in the primary's place, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    async def Validate(self, request: registration_pb2.ValidateRequest, context: Any) -> registration_pb2.ValidateResponse:
        """Would like to hear an API key."""
        self.told.append(request)
        return registration_pb2.ValidateResponse()


@asynccontextmanager
async def impostor(chain: bytes, key: Key) -> AsyncIterator[tuple[Impostor, Address]]:
    """A server with this certificate at a port of its own."""
    servicer, server = Impostor(), grpc.aio.server()  # type: ignore[abstract]  # one RPC is all it needs
    registration_pb2_grpc.add_RegistrationServiceServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials([(keys.private_pem(key), chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield servicer, Address("127.0.0.1", port)
    finally:
        await server.stop(None)


async def assert_refused_in_the_primary_s_place(world: World, chain: bytes, key: Key) -> None:
    """A channel pinned to the true leaf sends it nothing, and the rule for a leaf that is probed does not accept it."""
    authority, pin = world.running.authority, await world.running.pin(world.running.api)
    request = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=await world.api_key())
    async with impostor(chain, key) as (servicer, address):
        async with dial(address, pin) as on:
            call = stubs(on).registration.Validate(request, timeout=5)
            assert (await refused_by(call)).reason is Reason.UNREACHABLE
        probed = certificates.load(await served(address))
        assert not certificates.is_server_leaf_of(probed, authority, int(time.time()))
        assert not certificates.answers_for(authority, probed, b"", int(time.time()))
    assert not servicer.told


async def test_a_secondary_s_leaf_is_not_taken_for_the_primary_s(world: World) -> None:
    attacker, _ = await world.trusted("attacker")
    await assert_refused_in_the_primary_s_place(world, pem(certificates.load(attacker.certificate)), attacker.key)


def lower_primary(world: World) -> tuple[x509.Certificate, Key]:
    """A primary below ours, whose authority ours has cross-certified (without the name constraint that it should bear)."""
    key = certificates.new_key()
    own = world.running.authority.certificate
    return leaf(own, authority_key(world), key, [], ca=True, common_name="lower authority"), key


@pytest.mark.parametrize("way", ["DNS SAN", "common name only"])
async def test_a_lower_primary_s_leaf_made_out_to_the_upper_one_is_refused(world: World, way: str) -> None:
    """Row 20. gRPC alone, anchored in the authority, would be content with it: that is shown first."""
    middle, middle_key = lower_primary(world)
    stable, key = world.running.authority.stable_name, certificates.new_key()
    names: list[x509.GeneralName] = [x509.DNSName(stable)] if way == "DNS SAN" else []
    forged = leaf(middle, middle_key, key, names, common_name="" if names else stable)
    chain = pem(forged, middle)

    async with impostor(chain, key) as (servicer, address):
        root = pem(world.running.authority.certificate)
        options = [("grpc.ssl_target_name_override", stable), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.secure_channel(str(address), grpc.ssl_channel_credentials(root), options=options) as naive:
            await stubs(naive).registration.Validate(registration_pb2.ValidateRequest(account_domain="harmless.example"))
        assert len(servicer.told) == 1

    await assert_refused_in_the_primary_s_place(world, chain, key)


async def test_another_primary_that_calls_itself_by_ours_is_refused(world: World) -> None:
    """Its authority may put any name into a leaf; only the key decides."""
    key, served = certificates.new_key(), certificates.new_key()
    other = Signer(key, new_authority(key, int(time.time())))
    stable = x509.DNSName(world.running.authority.stable_name)
    forged = leaf(other.authority.certificate, key, served, [stable])
    await assert_refused_in_the_primary_s_place(world, pem(forged), served)
    statement = other.statement(certificates.der(forged))
    assert not certificates.answers_for(world.running.authority, forged, statement, int(time.time()))
