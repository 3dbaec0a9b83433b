"""The staged checks: each failure its own reason and sentence, and nothing told to a stranger (attacks rows 20 to 22)."""

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from enlist import certificates
from enlist.channel import PROTOCOL
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist_secondary import checks
from enlist_secondary.checks import Way
from enlist_secondary.known_primaries import KnownPrimaries
from tests.support.inprocess import ACCOUNT, running_primary
from tests.support.ports import free_port
from tests.support.pretender import Leaf, new_signer, pretending, secondary_leaf, server_leaf

SIGNER, STRANGER = new_signer(), new_signer()


async def refusal(call: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value


def company() -> tuple[x509.Certificate, Leaf]:
    """A company's authority, and a certificate it made out for loopback."""
    issuer, key = new_signer(), certificates.new_key()
    theirs = server_leaf(issuer, "127.0.0.1").certificate
    builder = x509.CertificateBuilder(
        issuer_name=theirs.issuer,
        subject_name=theirs.subject,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=theirs.not_valid_before_utc,
        not_valid_after=theirs.not_valid_after_utc,
    )
    for extension in theirs.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return issuer.authority.certificate, Leaf(builder.sign(issuer._key, hashes.SHA256()), key)


# --- Reaching it --------------------------------------------------------------------------------------------------------------


async def test_a_primary_describes_itself(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running:
        primary = await checks.reach(Dialer(), running.api, time.time)
        assert primary.authority.fingerprint == running.authority.fingerprint
        assert (primary.name, primary.ssl_port) == ("Test Primary", running.ssl.port)
        reached = await checks.reach_ssl_port(Dialer(), primary.ssl_address, primary.authority, time.time)
        assert reached.pin.name == running.authority.stable_name


async def test_the_ssl_port_given_for_the_api_port_is_named_as_the_likely_mistake(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running:
        refused = await refusal(checks.reach(Dialer(), running.ssl, time.time))
        assert refused.reason is Reason.UNREACHABLE
        assert "Is it the API port?" in refused.message


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"oldest_protocol": PROTOCOL + 1, "newest_protocol": PROTOCOL + 1}, Reason.VERSION_INCOMPATIBLE),
        ({"oldest_protocol": 1, "newest_protocol": PROTOCOL - 1}, Reason.VERSION_INCOMPATIBLE),
        ({"authority_certificate": b"garbage"}, Reason.NOT_ENLIST),
        ({"authority_certificate": certificates.der(secondary_leaf(SIGNER).certificate)}, Reason.NOT_ENLIST),
        ({"authority_certificate": certificates.der(STRANGER.authority.certificate)}, Reason.TLS_INTERCEPTED),
        ({"primary_id": STRANGER.authority.primary_id}, Reason.CERTIFICATE_INVALID),
        ({"primary_id": ""}, Reason.CERTIFICATE_INVALID),
    ],
    ids=["newer", "older", "garbage", "a leaf", "intercepted", "the id of another primary", "no id"],
)
async def test_a_primary_that_cannot_be_right_is_refused_and_told_nothing(described: dict[str, Any], reason: Reason) -> None:
    async with pretending(SIGNER) as pretender:
        pretender.described = described
        refused = await refusal(checks.reach(Dialer(), pretender.address, time.time))
        assert refused.reason is reason
        assert pretender.told == []


async def test_a_version_is_named_harmlessly() -> None:
    """Attacks row 41."""
    async with pretending(SIGNER) as pretender:
        pretender.described = {"newest_protocol": 0, "version": "9\x1b[31m"}
        refused = await refusal(checks.reach(Dialer(), pretender.address, time.time))
        assert "Enlist 9\\x1b[31m" in refused.message


@pytest.mark.parametrize("error", [-301, 301, 10**9, 2**40])
async def test_a_clock_that_is_off_is_refused(error: int) -> None:
    async with pretending(SIGNER) as pretender:
        pretender.clock_error = error
        assert (await refusal(checks.reach(Dialer(), pretender.address, time.time))).reason is Reason.CLOCK_SKEW


@pytest.mark.parametrize("error", [-290, 290])
async def test_a_clock_that_is_off_by_a_little_is_forgiven(error: int) -> None:
    async with pretending(SIGNER) as pretender:
        pretender.clock_error = error
        await checks.reach(Dialer(), pretender.address, time.time)


@pytest.mark.parametrize("years", [-1, 1])
async def test_this_servers_own_wrong_clock_is_noticed_before_certificates_fail_for_it(years: int) -> None:
    """Faults row 14: a clear error."""
    async with pretending(SIGNER) as pretender:
        refused = await refusal(checks.reach(Dialer(), pretender.address, lambda: time.time() + years * 365 * 86400))
        assert refused.reason is Reason.CLOCK_SKEW
        assert "clock says" in refused.message


@pytest.mark.parametrize("impostor", ["secondary", "stranger", "company without a statement"])
async def test_a_certificate_the_primary_does_not_answer_for_is_an_interception(impostor: str) -> None:
    """Attacks rows 8, 20 and 21: whoever opens the connection cannot show the real authority's certificate with its own."""
    leaf = {"secondary": secondary_leaf(SIGNER), "stranger": server_leaf(STRANGER), "company without a statement": company()[1]}[
        impostor
    ]
    if impostor == "secondary":
        with pytest.raises(Refused):
            certificates.channel_name(leaf.certificate)
    async with pretending(SIGNER, leaf) as pretender:
        refused = await refusal(checks.reach(Dialer(), pretender.address, time.time))
        assert refused.reason in (Reason.TLS_INTERCEPTED, Reason.CERTIFICATE_INVALID)
        assert pretender.told == []


@pytest.mark.parametrize("statement_of", ["other leaf", "other authority", "garbage"])
async def test_a_statement_over_something_else_does_not_cover_the_certificate(statement_of: str) -> None:
    leaf = company()[1]
    statement = {
        "other leaf": SIGNER.statement(server_leaf(SIGNER).der),
        "other authority": STRANGER.statement(leaf.der),
        "garbage": b"garbage",
    }[statement_of]
    async with pretending(SIGNER, leaf) as pretender:
        pretender.described = {"leaf_statement": statement}
        assert (await refusal(checks.reach(Dialer(), pretender.address, time.time))).reason is Reason.TLS_INTERCEPTED


async def test_a_company_certificate_under_the_authoritys_statement_is_in_order() -> None:
    leaf = company()[1]
    async with pretending(SIGNER, leaf) as pretender:
        pretender.described = {"leaf_statement": SIGNER.statement(leaf.der)}
        primary = await checks.reach(Dialer(), pretender.address, time.time)
        assert primary.authority.fingerprint == SIGNER.authority.fingerprint


# --- The SSL port -------------------------------------------------------------------------------------------------------------


async def test_a_blocked_ssl_port_has_a_reason_of_its_own() -> None:
    address = Address("127.0.0.1", free_port())
    refused = await refusal(checks.reach_ssl_port(Dialer(), address, SIGNER.authority, time.time))
    assert refused.reason is Reason.SSL_PORT_UNREACHABLE
    assert str(address) in refused.message


@pytest.mark.parametrize(
    "leaf", [server_leaf(STRANGER), secondary_leaf(SIGNER), company()[1]], ids=["stranger", "secondary", "company"]
)
async def test_only_the_primarys_own_certificate_is_accepted_at_the_ssl_port(leaf: Leaf) -> None:
    """Attacks rows 8 and 20; a company certificate may be served at the API port only."""
    async with pretending(SIGNER, leaf) as pretender:
        refused = await refusal(checks.reach_ssl_port(Dialer(), pretender.address, SIGNER.authority, time.time))
        assert refused.reason is Reason.TLS_INTERCEPTED


async def test_a_certificate_of_the_primarys_that_ran_out_is_a_matter_of_clocks() -> None:
    leaf = server_leaf(SIGNER, now=time.time() - 100 * 86400)
    async with pretending(SIGNER, leaf) as pretender:
        refused = await refusal(checks.reach_ssl_port(Dialer(), pretender.address, SIGNER.authority, time.time))
        assert refused.reason is Reason.CLOCK_SKEW


# --- Who it is ----------------------------------------------------------------------------------------------------------------


async def vouched(
    pretender: Any, folder: Path, fingerprint: str | None = None, company_ca: str = "none", confirm: str = "auto"
) -> Way | None:
    primary = await checks.reach(Dialer(), pretender.address, time.time)
    return await checks.vouched(Dialer(), primary, KnownPrimaries.load(folder), fingerprint, company_ca, confirm)


async def test_at_first_contact_a_person_must_compare(tmp_path: Path) -> None:
    """Attacks row 22: nobody vouches, so the answer is not yes."""
    async with pretending(SIGNER) as pretender:
        assert await vouched(pretender, tmp_path) is None
        assert await vouched(pretender, tmp_path, company_ca="system") is None


async def test_a_fingerprint_vouches_if_it_is_the_one(tmp_path: Path) -> None:
    async with pretending(SIGNER) as pretender:
        assert await vouched(pretender, tmp_path, SIGNER.authority.fingerprint) is Way.FINGERPRINT
        with pytest.raises(Refused) as caught:
            await vouched(pretender, tmp_path, STRANGER.authority.fingerprint)
        assert caught.value.reason is Reason.IDENTITY_MISMATCH
        assert SIGNER.authority.fingerprint in caught.value.message
        assert pretender.told == []


async def test_a_known_primary_needs_nobody(tmp_path: Path) -> None:
    async with pretending(SIGNER) as pretender:
        KnownPrimaries.load(tmp_path).accept(SIGNER.authority, pretender.address, Way.COMPARED, "jo", 0)
        assert await vouched(pretender, tmp_path, confirm="always") is Way.KNOWN
    async with pretending(SIGNER) as moved:
        assert await vouched(moved, tmp_path) is Way.KNOWN


async def test_another_authority_at_a_known_address_is_a_hard_stop(tmp_path: Path) -> None:
    """Attacks row 22: not even a matching fingerprint talks a stranger in."""
    async with pretending(STRANGER) as pretender:
        KnownPrimaries.load(tmp_path).accept(SIGNER.authority, pretender.address, Way.COMPARED, "jo", 0)
        for fingerprint in (None, STRANGER.authority.fingerprint):
            with pytest.raises(Refused) as caught:
                await vouched(pretender, tmp_path, fingerprint)
            assert caught.value.reason is Reason.IDENTITY_CHANGED
        assert pretender.told == []


async def test_another_authority_that_is_known_elsewhere_is_a_hard_stop_too(tmp_path: Path) -> None:
    """Attacks row 22: an allowlist entry used for another host."""
    async with pretending(STRANGER) as pretender:
        known = KnownPrimaries.load(tmp_path).accept(SIGNER.authority, pretender.address, Way.COMPARED, "jo", 0)
        known.accept(STRANGER.authority, Address("elsewhere.example", 13299), Way.COMPARED, "jo", 0)
        with pytest.raises(Refused) as caught:
            await vouched(pretender, tmp_path)
        assert caught.value.reason is Reason.IDENTITY_CHANGED


async def test_the_companys_authority_vouches_for_exactly_the_served_certificate(tmp_path: Path) -> None:
    authority, leaf = company()
    bundle = tmp_path / "company.pem"
    bundle.write_bytes(certificates.pem(authority))
    async with pretending(SIGNER, leaf) as pretender:
        pretender.described = {"leaf_statement": SIGNER.statement(leaf.der)}
        assert await vouched(pretender, tmp_path, company_ca=str(bundle)) is Way.COMPANY_CA
        assert await vouched(pretender, tmp_path, company_ca=str(bundle), confirm="always") is None
        assert await vouched(pretender, tmp_path, company_ca="none") is None
        assert await vouched(pretender, tmp_path, company_ca="system") is None


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_a_bundle_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "company.pem"
    if content is not None:
        bundle.write_bytes(content)
    async with pretending(SIGNER) as pretender:
        with pytest.raises(Refused) as caught:
            await vouched(pretender, tmp_path, company_ca=str(bundle))
        assert caught.value.reason is Reason.FILE_FAILED
        assert str(bundle) in caught.value.message


# --- What it says -------------------------------------------------------------------------------------------------------------


async def test_account_and_api_key_are_validated(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running:
        primary = await checks.reach(Dialer(), running.api, time.time)
        assert (await checks.validate(Dialer(), primary, ACCOUNT, "")).contact == "ops@acme.example"
        assert (await checks.validate(Dialer(), primary, ACCOUNT, await running.api_key())).group == "/"
        assert (await refusal(checks.validate(Dialer(), primary, "other.example", ""))).reason is Reason.ACCOUNT_UNKNOWN
        assert (await refusal(checks.validate(Dialer(), primary, ACCOUNT, "enl_wrong"))).reason is Reason.API_KEY_INVALID


def test_advice_is_for_known_reasons() -> None:
    assert checks.advice("UNREACHABLE")
    assert checks.advice("A_REASON_OF_A_LATER_VERSION") == ""
