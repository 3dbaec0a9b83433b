"""Who stands above a primary: both ends of each step must have said so, and nothing else counts."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from enlist import ancestry, certificates, channel
from enlist.certificates import Authority
from enlist.documents import Origin, SetVersion
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2 as pb
from enlist_primary.authority.keys import private_pem
from enlist_primary.authority.signer import Signer, new_authority
from enlist_primary.rpc.health import Health
from tests.support.dialling import dial
from tests.support.means import need

NOW = 1_795_000_000
ACCOUNT = "corp.example"


@dataclass(frozen=True)
class Primary:
    """A primary's key and authority."""

    key: ec.EllipticCurvePrivateKey
    authority: Authority

    @property
    def signer(self) -> Signer:
        """Its signer."""
        return Signer(self.key, self.authority.certificate)


def primary() -> Primary:
    key = certificates.new_key()
    certificate = new_authority(key, NOW)
    return Primary(key, Authority(certificate, certificates.spki(key.public_key())))


def step(lower: Primary, upper: Primary, server: str = "aaaaaaaaaa", number: int = 7, name: str = "Head office") -> pb.Ancestor:
    """An honest step from one primary up to another."""
    consent = pb.Consent(parent_primary_id=upper.authority.primary_id, epoch=1, number=number, state=pb.ANCESTOR_STATE_PRESENT)
    said = consent.SerializeToString()
    return pb.Ancestor(
        primary_name=name,
        authority_certificate=certificates.der(upper.authority.certificate),
        cross_certificate=upper.signer.cross_certificate(lower.authority, ACCOUNT, server, NOW),
        consent=said,
        consent_signature=lower.signer.sign_consent(said),
    )


def refusal(ancestors: list[pb.Ancestor], own: Primary) -> Refused:
    with pytest.raises(Refused) as caught:
        ancestry.verify(pb.Ancestry(ancestors=ancestors), own.authority)
    return caught.value


def test_each_step_up_names_whom_the_upper_primarys_sets_are_made_out_for() -> None:
    low, middle, top = primary(), primary(), primary()
    found = ancestry.verify(pb.Ancestry(ancestors=[step(low, middle), step(middle, top, "bbbbbbbbbb")]), low.authority)
    assert [each.authority.fingerprint for each in found] == [middle.authority.fingerprint, top.authority.fingerprint]
    assert [each.origin for each in found] == [
        Origin(middle.authority.public_key, ACCOUNT, "aaaaaaaaaa"),
        Origin(top.authority.public_key, ACCOUNT, "bbbbbbbbbb"),
    ]
    assert found[0].version == SetVersion(1, 7)


def test_nobody_stands_above_a_primary_that_names_nobody() -> None:
    assert ancestry.verify(pb.Ancestry(), primary().authority) == []


def test_a_middle_primary_cannot_invent_one_above_its_own() -> None:
    """Attacks row 24: its locks would overrule those of the primary that really stands above."""
    low, middle, invented = primary(), primary(), primary()
    forged = step(middle, invented)
    forged.consent_signature = invented.signer.sign_consent(forged.consent)  # the middle primary's own upper one never said so
    assert refusal([step(low, middle), forged], low).reason is Reason.SET_INVALID


def test_a_primary_cannot_claim_servers_below_one_that_never_consented() -> None:
    low, greedy, other = primary(), primary(), primary()
    claim = step(low, greedy)
    elsewhere = step(low, other)
    claim.consent, claim.consent_signature = elsewhere.consent, elsewhere.consent_signature
    assert refusal([claim], low).reason is Reason.SET_INVALID


def test_a_sibling_is_no_ancestor() -> None:
    """Attacks row 46: what the upper primary certified is another one's key."""
    low, sibling, upper = primary(), primary(), primary()
    stolen = step(low, upper)
    stolen.cross_certificate = upper.signer.cross_certificate(sibling.authority, ACCOUNT, "aaaaaaaaaa", NOW)
    assert refusal([stolen], low).reason is Reason.SET_INVALID


@pytest.mark.parametrize("state", [pb.ANCESTOR_STATE_UNSPECIFIED, 17])
def test_a_word_that_this_version_does_not_know_counts_for_nothing(state: int) -> None:
    low, upper = primary(), primary()
    odd = step(low, upper)
    consent = pb.Consent(parent_primary_id=upper.authority.primary_id, epoch=1, number=1, state=state)  # type: ignore[arg-type]  # on purpose
    odd.consent = consent.SerializeToString()
    odd.consent_signature = low.signer.sign_consent(odd.consent)
    assert refusal([odd], low).reason is Reason.SET_INVALID


def test_a_primary_above_itself_is_refused_as_a_loop() -> None:
    low, upper = primary(), primary()
    assert refusal([step(low, upper), step(upper, low)], low).reason is Reason.WOULD_LOOP


def test_more_levels_than_there_may_be_are_refused() -> None:
    chain = [primary() for _ in range(ancestry.LEVELS + 2)]
    steps = [step(low, up) for low, up in pairwise(chain)]
    assert len(ancestry.verify(pb.Ancestry(ancestors=steps[:-1]), chain[0].authority)) == ancestry.LEVELS
    assert refusal(steps, chain[0]).reason is Reason.SET_INVALID


def test_ancestry_that_could_not_be_read_again_is_refused() -> None:
    """Attacks row 51: names are not signed. The file that keeps it would be too large, and count as damaged."""
    low, upper = primary(), primary()
    one = step(low, upper)
    one.primary_name = "x" * ancestry.ANCESTRY_LIMIT
    assert refusal([one], low).reason is Reason.SET_INVALID


@pytest.mark.parametrize("field", ["authority_certificate", "cross_certificate", "consent", "consent_signature"])
@pytest.mark.parametrize("spoil", [lambda _: b"", lambda data: data[:-1], lambda data: b"\x30" + data, lambda _: b"\xff" * 4000])
def test_whatever_is_spoilt_on_the_way_is_refused(field: str, spoil: Callable[[bytes], bytes]) -> None:
    low, upper = primary(), primary()
    spoilt = step(low, upper)
    setattr(spoilt, field, spoil(getattr(spoilt, field)))
    refusal([spoilt], low)


def test_a_cross_certificate_constrained_to_more_than_its_own_trust_domain_is_refused() -> None:
    """Attacks row 48."""
    low, other, upper = primary(), primary(), primary()
    wide = step(low, upper)
    pretended = Authority(low.authority.certificate, low.authority.public_key)
    certificate = upper.signer.cross_certificate(other.authority, ACCOUNT, "aaaaaaaaaa", NOW)
    assert pretended.stable_name != other.authority.stable_name
    wide.cross_certificate = certificate
    assert refusal([wide], low).reason is Reason.SET_INVALID


@pytest.mark.parametrize(("domain", "good"), [("own", True), ("other", False)])
def test_an_identity_of_another_trust_domain_minted_below_is_refused_by_a_standard_verifier(
    tmp_path: Path, domain: str, good: bool
) -> None:
    """Attacks row 48: the name constraint in the cross-certificate is one that OpenSSL enforces (RFC 5280, 4.2.1.10)."""
    need(shutil.which("openssl") is not None, "openssl is not installed")
    low, other, upper = primary(), primary(), primary()
    cross = upper.signer.cross_certificate(low.authority, ACCOUNT, "aaaaaaaaaa", NOW)
    trust_domain = low.authority.stable_name if domain == "own" else other.authority.stable_name
    leaf = _minted(low, trust_domain)
    (tmp_path / "top.pem").write_bytes(certificates.pem(upper.authority.certificate))
    (tmp_path / "cross.pem").write_bytes(certificates.pem(certificates.load(cross)))
    (tmp_path / "leaf.pem").write_bytes(certificates.pem(leaf))
    command = ["openssl", "verify", "-attime", str(NOW + 10), "-CAfile", "top.pem", "-untrusted", "cross.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode == 0) is good, done.stdout + done.stderr
    if not good:
        assert "permitted subtree" in done.stdout + done.stderr


def _minted(issuer: Primary, trust_domain: str) -> x509.Certificate:
    """A leaf that a primary makes out for a server of some trust domain."""
    authority = Authority(issuer.authority.certificate, issuer.authority.public_key)
    key = certificates.new_key().public_key()
    honest = Signer(issuer.key, authority.certificate)

    class Elsewhere(Authority):
        @property
        def stable_name(self) -> str:
            return trust_domain

    honest.authority = Elsewhere(authority.certificate, authority.public_key)
    return certificates.load(honest.issue_secondary(key, ACCOUNT, "cccccccccc", 3600, NOW))


@pytest.mark.parametrize("in_dns_name", [True, False])
async def test_a_lower_primarys_leaf_made_out_to_the_upper_primary_is_not_taken_for_it(in_dns_name: bool) -> None:
    """Attacks row 20: the chain up to the upper authority is good, and gRPC alone would take it; our check and our pin do not."""
    lower, upper = primary(), primary()
    honest_key, forged_key = certificates.new_key(), certificates.new_key()
    honest = upper.signer.issue_server(honest_key.public_key(), ["127.0.0.1"], 86400, int(time.time()))
    forged = _forged(lower, upper, forged_key, in_dns_name)
    assert not certificates.is_server_leaf_of(forged, upper.authority, int(time.time()))
    assert certificates.is_server_leaf_of(honest, upper.authority, int(time.time()))
    cross = certificates.load(upper.signer.cross_certificate(lower.authority, ACCOUNT, "aaaaaaaaaa", int(time.time())))
    chain = certificates.pem(forged) + certificates.pem(cross)
    async with _serving(private_pem(forged_key), chain) as port:
        async with dial(Address("127.0.0.1", port), channel.pin(honest)) as dialled:
            stub: Any = health_pb2_grpc.HealthStub(dialled)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def _forged(issuer: Primary, victim: Primary, key: ec.EllipticCurvePrivateKey, in_dns_name: bool) -> x509.Certificate:
    """A server certificate by the lower authority that names the upper primary, as a DNS name or as its common name."""
    name = victim.authority.stable_name
    subject = [] if in_dns_name else [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    if in_dns_name:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


@asynccontextmanager
async def _serving(key: bytes, chain: bytes) -> AsyncIterator[int]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
