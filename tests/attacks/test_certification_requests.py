"""Attacks rows 4, 6 and 7: certification requests that name somebody else, ask for more, prove nothing, are weak, or huge."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enlist import certificates, proofs
from enlist.reasons import Reason
from enlist.v1 import registration_pb2
from enlist_primary.authority.signer import Signer, new_authority
from tests.attacks.world import World
from tests.support.inprocess import ACCOUNT, Asker, refused_by

Extension = tuple[x509.ExtensionType, bool]


def request_for(key: Any, subject: str = "", extensions: Sequence[Extension] = ()) -> bytes:
    """A PKCS #10 request with whatever in it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


async def send(world: World, asker: Asker, request: bytes, api_key: str = "", **proof: Any) -> registration_pb2.Enrolment:
    """Registers with this request; the proof is sound unless its parts are given."""
    async with world.running.stranger() as stub:
        registration = registration_pb2.Registration(
            account_domain=ACCOUNT, display_name=asker.name, api_key=api_key, certification_request=request, version="0.1.0"
        ).SerializeToString()
        made = await asker.proof(stub, proof.pop("rpc", "Register"), proof.pop("signed", registration))
        for field, value in proof.items():
            setattr(made, field, value)
        return await stub.registration.Register(registration_pb2.RegisterRequest(registration=registration, proof=made))


# --- Rows 4 and 6 --------------------------------------------------------------------------------------------------------------


async def test_names_and_extensions_that_a_request_asks_for_are_dropped(world: World) -> None:
    """Another server's name, the primary's, a wildcard, a CA that signs certificates: one certificate says nothing of it."""
    asker = world.asker("ambitious")
    authority = world.running.authority
    victim = certificates.spiffe_id(authority.stable_name, ACCOUNT, world.victim_id)
    names = [
        *(x509.DNSName(name) for name in (authority.stable_name, "*.acme.example", "localhost")),
        x509.UniformResourceIdentifier(victim),
    ]
    usage = x509.KeyUsage(True, True, True, True, True, True, True, False, False)
    asked: list[Extension] = [
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.CODE_SIGNING]), False),
        (x509.NameConstraints([x509.DNSName("example")], None), True),
    ]
    await send(world, asker, request_for(asker.key, "victim", asked), await world.full_api_key())
    async with world.running.stranger() as stub:
        enrolment = await asker.fetch(stub)

    leaf = certificates.load(enrolment.certificate)
    own = certificates.spiffe_id(authority.stable_name, ACCOUNT, enrolment.server_id)
    extensions = {each.oid: each.value for each in leaf.extensions}
    assert list(leaf.subject) == []
    assert list(extensions.pop(x509.SubjectAlternativeName.oid)) == [x509.UniformResourceIdentifier(own)]
    assert extensions.pop(x509.BasicConstraints.oid) == x509.BasicConstraints(ca=False, path_length=None)
    assert extensions.pop(x509.KeyUsage.oid) == x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    usages = extensions.pop(x509.ExtendedKeyUsage.oid)
    assert set(usages) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert extensions.keys() == {x509.AuthorityKeyIdentifier.oid}
    assert not certificates.is_server_leaf_of(leaf, authority, int(time.time()))
    assert certificates.spki(certificates.key_of(leaf)) == asker.public_key
    assert enrolment.server_id != world.victim_id
    assert enrolment.display_name == "ambitious"


# --- Row 7 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda curve=curve: ec.generate_private_key(curve())
            for curve in (ec.SECP224R1, ec.SECP256K1, ec.SECP384R1, ec.SECP521R1)
        ),
        *(lambda size=size: rsa.generate_private_key(65537, size) for size in (1024, 2048)),
        lambda: dsa.generate_private_key(1024),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
async def test_any_key_but_one_on_p256_is_refused(world: World, make: Any) -> None:
    before = await world.tables()
    refused = await refused_by(send(world, world.asker(), request_for(make())))
    assert refused.reason is Reason.KEY_UNSUITABLE
    assert await world.tables() == before


async def test_a_key_is_judged_before_its_signature_is_computed() -> None:
    """Verifying with a huge key costs more than everything else: a wrong signature of one must not get that far."""
    request = bytearray(request_for(rsa.generate_private_key(65537, 2048)))
    request[-1] ^= 1
    with pytest.raises(Exception, match="P-256") as raised:
        certificates.key_of_request(bytes(request))
    assert getattr(raised.value, "reason", None) is Reason.KEY_UNSUITABLE


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"", Reason.KEY_UNSUITABLE),
        (b"\x30\x80\x00\x00", Reason.KEY_UNSUITABLE),
        (os.urandom(400), Reason.KEY_UNSUITABLE),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", Reason.KEY_UNSUITABLE),
        (b"\x30" * 12_000, Reason.KEY_UNSUITABLE),
        (bytes(16 * 1024 + 1), Reason.INVALID_ARGUMENT),  # the registration around it is too large already
    ],
)
async def test_what_is_no_request_or_a_huge_one_is_refused(world: World, request_bytes: bytes, reason: Reason) -> None:
    before, heads = await world.tables(), await world.head()
    assert (await refused_by(send(world, world.asker(), request_bytes))).reason is reason
    assert await world.tables() == before
    assert await world.head() == heads


async def test_a_request_that_its_own_key_did_not_sign_is_refused(world: World) -> None:
    asker = world.asker()
    request = bytearray(request_for(asker.key))
    request[-1] ^= 1
    before = await world.refusals(ACCOUNT, Reason.PROOF_INVALID)
    assert (await refused_by(send(world, asker, bytes(request)))).reason is Reason.PROOF_INVALID
    assert await world.refusals(ACCOUNT, Reason.PROOF_INVALID) == before + 1


async def test_a_proof_for_something_else_is_refused(world: World) -> None:
    asker, before = world.asker(), await world.tables()
    request = request_for(asker.key)
    for wrong in (
        {"rpc": "Leave"},
        {"rpc": "AwaitAuthorization"},
        {"signed": b"something else"},
        {"signature": b""},
        {"signature": os.urandom(70)},
        {"challenge": b""},
        {"challenge": os.urandom(56)},
        {"challenge": bytes(56)},
    ):
        assert (await refused_by(send(world, asker, request, **wrong))).reason is Reason.PROOF_INVALID, wrong
    assert await world.tables() == before


async def test_a_challenge_of_another_primary_or_of_yesterday_is_refused(world: World) -> None:
    asker, now = world.asker(), int(time.time())
    own, key = world.running.primary.context.signer, certificates.new_key()
    other = Signer(key, new_authority(key, now))
    for secret, moment, reason in (
        (other.challenge_secret, now, Reason.PROOF_INVALID),
        (own.challenge_secret, now - proofs.CHALLENGE_LIFETIME - 2, Reason.CHALLENGE_EXPIRED),
        (own.challenge_secret, now + 60, Reason.CHALLENGE_EXPIRED),
        (own.challenge_secret, 2**62, Reason.CHALLENGE_EXPIRED),
    ):
        challenge = proofs.new_challenge(secret, moment, os.urandom)
        registration = registration_pb2.Registration(
            account_domain=ACCOUNT, display_name="late", certification_request=request_for(asker.key)
        ).SerializeToString()
        signature = proofs.sign(asker.key, "Register", challenge, own.authority.public_key, registration)
        proof = registration_pb2.Proof(challenge=challenge, signature=signature)
        async with world.running.stranger() as stub:
            request = registration_pb2.RegisterRequest(registration=registration, proof=proof)
            assert (await refused_by(stub.registration.Register(request))).reason is reason


async def test_a_proof_made_for_another_primary_is_refused(world: World) -> None:
    """A rogue primary that a server was lured to cannot pass the server's proof on to the real one."""
    asker = world.asker()
    async with world.running.stranger() as stub:
        described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=1))
    registration = registration_pb2.Registration(
        account_domain=ACCOUNT, display_name="lured", certification_request=request_for(asker.key)
    ).SerializeToString()
    rogue = certificates.spki(certificates.new_key().public_key())
    signature = proofs.sign(asker.key, "Register", described.challenge, rogue, registration)
    proof = registration_pb2.Proof(challenge=described.challenge, signature=signature)
    async with world.running.stranger() as stub:
        request = registration_pb2.RegisterRequest(registration=registration, proof=proof)
        assert (await refused_by(stub.registration.Register(request))).reason is Reason.PROOF_INVALID


async def test_what_is_refused_costs_little(world: World) -> None:
    """A bad request is not worth more of the primary's time than a good one."""

    async def cost(request: bytes) -> float:
        asker, times = world.asker(), []
        for _ in range(15):
            begin = time.process_time()
            with pytest.raises(grpc.aio.AioRpcError):
                await send(world, asker, request)
            times.append(time.process_time() - begin)
        return sorted(times)[len(times) // 2]

    good = await cost(request_for(certificates.new_key()))  # refused too: its proof is another key's
    for request in (request_for(rsa.generate_private_key(65537, 4096)), b"\x30" * 16_000):
        assert await cost(request) < 3 * good + 0.005
