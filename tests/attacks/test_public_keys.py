"""Attacks rows 4, 6 and 7: keys that come with a name or a wish, prove nothing, are weak, or huge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from enlist import certificates, proofs
from enlist.channel import PROTOCOL
from enlist.reasons import Reason
from enlist.v1 import registration_pb2, server_pb2
from enlist_primary.authority.signer import Signer, new_authority
from tests.attacks.world import World
from tests.support.der import diffie_hellman
from tests.support.inprocess import ACCOUNT, Asker, refused_by


def spki(key: Any) -> bytes:
    """Any key's SubjectPublicKeyInfo, DER."""
    public: bytes = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public


async def send(world: World, asker: Asker, public_key: bytes, **proof: Any) -> registration_pb2.Enrolment:
    """Registers with this key; the proof is sound unless its parts are given."""
    async with world.running.stranger() as stub:
        registration = registration_pb2.Registration(
            account_domain=ACCOUNT, display_name=asker.name, public_key=public_key, version="0.1.0"
        ).SerializeToString()
        made = await asker.proof(stub, proof.pop("rpc", "Register"), proof.pop("signed", registration))
        for field, value in proof.items():
            setattr(made, field, value)
        return await stub.registration.Register(registration_pb2.RegisterRequest(registration=registration, proof=made))


# --- Rows 4 and 6 --------------------------------------------------------------------------------------------------------------


async def test_a_key_that_comes_with_names_and_extensions_is_refused(world: World) -> None:
    """A certification request or a certificate, for whatever name, a wildcard, a CA: only a bare key is taken."""
    asker, before = world.asker("ambitious"), await world.tables()
    authority, now = world.running.authority, int(time.time())
    names = x509.SubjectAlternativeName([x509.DNSName(each) for each in (authority.stable_name, "*.acme.example", "localhost")])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    request = request.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for ambitious in (
        request.sign(asker.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER),
        certificates.der(new_authority(asker.key, now)),
        Signer(asker.key, authority.certificate).issue_secondary(asker.key.public_key(), ACCOUNT, world.victim_id, 3600, now),
    ):
        assert (await refused_by(send(world, asker, ambitious))).reason is Reason.KEY_UNSUITABLE
    assert await world.tables() == before


async def test_whatever_a_server_calls_itself_its_certificate_names_it_alone(world: World) -> None:
    """Another server's name, and the primary's for an address: exactly its own SAN, no CA, no key usage but a signature."""
    authority, asker = world.running.authority, world.asker("victim")
    registration = registration_pb2.Registration(
        account_domain=ACCOUNT,
        display_name="victim",
        server_address=authority.stable_name,
        api_key=await world.full_api_key(),
        public_key=asker.public_key,
    ).SerializeToString()
    async with world.running.stranger() as stub:
        proof = await asker.proof(stub, "Register", registration)
        await stub.registration.Register(registration_pb2.RegisterRequest(registration=registration, proof=proof))
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
    refused = await refused_by(send(world, world.asker(), spki(make())))
    assert refused.reason is Reason.KEY_UNSUITABLE
    assert await world.tables() == before


@pytest.mark.parametrize(
    ("public_key", "reason"),
    [
        (b"", Reason.KEY_UNSUITABLE),
        (b"\x30\x80\x00\x00", Reason.KEY_UNSUITABLE),
        (os.urandom(400), Reason.KEY_UNSUITABLE),
        (b"-----BEGIN PUBLIC KEY-----\n", Reason.KEY_UNSUITABLE),
        (b"\x30" * 12_000, Reason.KEY_UNSUITABLE),
        (bytes(16 * 1024 + 1), Reason.INVALID_ARGUMENT),  # the registration around it is too large already
    ],
)
async def test_what_is_no_key_or_a_huge_one_is_refused(world: World, public_key: bytes, reason: Reason) -> None:
    before, heads = await world.tables(), await world.head()
    assert (await refused_by(send(world, world.asker(), public_key))).reason is reason
    assert await world.tables() == before
    assert await world.head() == heads


async def test_a_registration_that_its_own_key_did_not_sign_is_refused(world: World) -> None:
    """Bad proof of possession: somebody else's key, signed for with one's own."""
    asker, before = world.asker(), await world.refusals(ACCOUNT, Reason.PROOF_INVALID)
    assert (await refused_by(send(world, asker, spki(certificates.new_key())))).reason is Reason.PROOF_INVALID
    assert await world.refusals(ACCOUNT, Reason.PROOF_INVALID) == before + 1


@pytest.mark.parametrize("rpc", ["Register", "AwaitAuthorization", "Leave"])
async def test_a_key_written_in_another_way_is_refused(world: World, rpc: str) -> None:
    """A compressed point (RFC 5480, 2.2): one key has one way to be written, and so one fingerprint and one row."""
    asker = world.asker("squeezed")
    public, x962 = asker.key.public_key(), serialization.Encoding.X962
    point = public.public_bytes(x962, serialization.PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert serialization.load_der_public_key(head + point) == public
    asker.public_key = head + point
    async with world.running.stranger() as stub:
        claim, proof = await asker.claim(stub, rpc)
        calls: dict[str, Callable[[], Any]] = {
            "Register": lambda: asker.register(stub),
            "AwaitAuthorization": lambda: asker.fetch(stub),
            "Leave": lambda: stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof)),
        }
        assert (await refused_by(calls[rpc]())).reason is Reason.KEY_UNSUITABLE


async def test_a_proof_for_something_else_is_refused(world: World) -> None:
    asker, before = world.asker(), await world.tables()
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
        assert (await refused_by(send(world, asker, asker.public_key, **wrong))).reason is Reason.PROOF_INVALID, wrong
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
            account_domain=ACCOUNT, display_name="late", public_key=asker.public_key
        ).SerializeToString()
        signature = proofs.sign(asker.key, "Register", challenge, own.authority.public_key, registration)
        proof = server_pb2.Proof(challenge=challenge, signature=signature)
        async with world.running.stranger() as stub:
            request = registration_pb2.RegisterRequest(registration=registration, proof=proof)
            assert (await refused_by(stub.registration.Register(request))).reason is reason


async def test_a_proof_made_for_another_primary_is_refused(world: World) -> None:
    """A rogue primary that a server was lured to cannot pass the server's proof on to the real one."""
    asker = world.asker()
    async with world.running.stranger() as stub:
        described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))
    registration = registration_pb2.Registration(
        account_domain=ACCOUNT, display_name="lured", public_key=asker.public_key
    ).SerializeToString()
    rogue = certificates.spki(certificates.new_key().public_key())
    signature = proofs.sign(asker.key, "Register", described.challenge, rogue, registration)
    proof = server_pb2.Proof(challenge=described.challenge, signature=signature)
    async with world.running.stranger() as stub:
        request = registration_pb2.RegisterRequest(registration=registration, proof=proof)
        assert (await refused_by(stub.registration.Register(request))).reason is Reason.PROOF_INVALID


async def test_what_is_refused_costs_little(world: World) -> None:
    """A bad request is not worth more of the primary's time than a good one."""

    async def cost(public_key: bytes) -> float:
        asker, times = world.asker(), []
        for _ in range(15):
            begin = time.process_time()
            with pytest.raises(grpc.aio.AioRpcError):
                await send(world, asker, public_key)
            times.append(time.process_time() - begin)
        return sorted(times)[len(times) // 2]

    good = await cost(spki(certificates.new_key()))  # refused too: its proof is another key's
    for public_key in (spki(rsa.generate_private_key(65537, 4096)), diffie_hellman(), b"\x30" * 16_000):
        assert await cost(public_key) < 3 * good + 0.005
