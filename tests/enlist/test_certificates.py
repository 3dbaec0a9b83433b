"""Certificates: attacks rows 5, 6, 7, 8 and 20, as functions of bytes and a fixed time."""

import ipaddress
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from enlist import certificates
from enlist.certificates import CLOCK_TOLERANCE, ServerIdentity
from enlist.reasons import Reason, Refused
from enlist_primary.authority.signer import Signer, new_authority
from tests.support.der import diffie_hellman, with_key

NOW = 1_795_000_000
DAY = 86400


def signer() -> Signer:
    key = certificates.new_key()
    return Signer(key, new_authority(key, NOW))


PRIMARY, STRANGER = signer(), signer()
KEY = certificates.new_key()
PUBLIC = certificates.spki(KEY.public_key())
SECONDARY = certificates.load(PRIMARY.issue_secondary(KEY.public_key(), "acme.example", "abcdefghij", 30 * DAY, NOW))
SERVER = PRIMARY.issue_server(KEY.public_key(), ["10.0.0.3", "primary.example"], 30 * DAY, NOW)


def leaf(
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    *sans: x509.GeneralName,
    ca: bool = False,
    server: bool = True,
    common_name: str = "",
) -> x509.Certificate:
    """A leaf as an attacker would make it."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    begin = datetime.fromtimestamp(NOW, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def reason_of(refused: pytest.ExceptionInfo[Refused]) -> Reason:
    return refused.value.reason


# --- Keys ---------------------------------------------------------------------------------------------------------------------


UNSUITABLE: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "dsa": dsa.generate_private_key(1024),
}


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_another_kind_of_key_is_refused(kind: str) -> None:
    """Attacks row 7."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    with pytest.raises(Refused) as caught:
        certificates.load_public_key(UNSUITABLE[kind].public_key().public_bytes(serialization.Encoding.DER, spki))
    assert reason_of(caught) is Reason.KEY_UNSUITABLE


@given(st.binary(max_size=300))
def test_bytes_that_are_no_key_or_certificate_are_refused(data: bytes) -> None:
    """Attacks row 7."""
    readers = (certificates.load, certificates.load_pem, certificates.read_authority)
    for read in (certificates.load_public_key, *readers):
        with pytest.raises(Refused):
            read(data)


@example(position=12, flip=1)  # version 4 of X.509
@given(st.integers(0, 2**32), st.integers(1, 255))
def test_an_altered_authority_is_refused_or_names_another_key(position: int, flip: int) -> None:
    der = bytearray(certificates.der(PRIMARY.authority.certificate))
    der[position % len(der)] ^= flip
    try:
        read = certificates.read_authority(bytes(der))
    except Refused:
        return
    # An ECDSA signature has more than one encoding; the identity, the key, must be the same all the same.
    assert read.fingerprint == PRIMARY.authority.fingerprint


# --- The authority and its server certificate ---------------------------------------------------------------------------------


def test_an_authority_is_read_whatever_its_age() -> None:
    der = certificates.der(PRIMARY.authority.certificate)
    authority = certificates.read_authority(der)
    assert authority.fingerprint == PRIMARY.authority.fingerprint == certificates.fingerprint(authority.public_key)
    assert authority.stable_name == f"{authority.fingerprint[:32]}.primary.enlist.internal"


@pytest.mark.parametrize("certificate", [SECONDARY, SERVER, leaf(STRANGER.authority.certificate, KEY, ca=True)])
def test_what_is_not_self_signed_or_no_ca_is_no_authority(certificate: x509.Certificate) -> None:
    """Attacks row 8: a secondary's leaf used as CA."""
    with pytest.raises(Refused) as caught:
        certificates.read_authority(certificates.der(certificate))
    assert reason_of(caught) is Reason.CERTIFICATE_INVALID


def self_signed(*names: x509.GeneralName) -> bytes:
    """What an authority's certificate could be, with these names."""
    honest = PRIMARY.authority.certificate
    builder = (
        x509.CertificateBuilder(honest.issuer, honest.subject, honest.public_key(), honest.serial_number)
        .not_valid_before(honest.not_valid_before_utc)
        .not_valid_after(honest.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return certificates.der(builder.sign(AUTHORITY_KEY, hashes.SHA256()))


def test_authority_certificate_bears_the_uri_of_its_trust_domain() -> None:
    names = certificates.extension(PRIMARY.authority.certificate, x509.SubjectAlternativeName)
    uri = f"spiffe://{PRIMARY.authority.primary_id[:32]}.primary.enlist.internal"
    assert list(names or ()) == [x509.UniformResourceIdentifier(uri)]
    assert PRIMARY.authority.primary_id == PRIMARY.authority.fingerprint
    assert certificates.read_authority(self_signed(*names or ())).primary_id == PRIMARY.authority.primary_id


@pytest.mark.parametrize("which", ["none", "another primary's", "a path besides", "twice", "in a DNS name"])
def test_authority_whose_primary_id_is_not_its_keys_is_refused(which: str) -> None:
    """Without a succession chain, nobody can speak under the id of another primary."""
    own, other = (x509.UniformResourceIdentifier(f"spiffe://{each.authority.stable_name}") for each in (PRIMARY, STRANGER))
    names: dict[str, list[x509.GeneralName]] = {
        "none": [],
        "another primary's": [other],
        "a path besides": [x509.UniformResourceIdentifier(f"{own.value}/x")],
        "twice": [own, other],
        "in a DNS name": [x509.DNSName(own.value)],
    }
    with pytest.raises(Refused) as caught:
        certificates.read_authority(self_signed(*names[which]))
    assert reason_of(caught) is Reason.CERTIFICATE_INVALID


def test_the_primarys_own_server_certificate_is_known() -> None:
    assert certificates.is_server_leaf_of(SERVER, PRIMARY.authority, NOW)


@pytest.mark.parametrize("when", [NOW - CLOCK_TOLERANCE - 1, NOW + 30 * DAY + 1])
def test_outside_its_time_it_is_not(when: int) -> None:
    assert not certificates.is_server_leaf_of(SERVER, PRIMARY.authority, when)


STABLE = PRIMARY.authority.stable_name
LOWER_KEY = certificates.new_key()
LOWER = new_authority(LOWER_KEY, NOW)
AUTHORITY_KEY = PRIMARY._key  # the attacks below need what only the authority itself could sign
NOT_THE_PRIMARY = {
    "a secondary's": SECONDARY,
    "a primary below, under the stable name": leaf(LOWER, LOWER_KEY, x509.DNSName(STABLE)),
    "a primary below, by common name only": leaf(LOWER, LOWER_KEY, common_name=STABLE),
    "by common name only": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, common_name=STABLE),
    "near miss, prefix": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName("a" + STABLE)),
    "near miss, suffix": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName(STABLE + ".example")),
    "near miss, final dot": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName(STABLE + ".")),
    "near miss, capitals": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName(STABLE.upper())),
    "wildcard": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName("*.primary.enlist.internal")),
    "for clients": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName(STABLE), server=False),
    "a CA": leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, x509.DNSName(STABLE), ca=True),
    "the authority itself": PRIMARY.authority.certificate,
    "another primary's": STRANGER.issue_server(KEY.public_key(), [], DAY, NOW),
    "another's, same names": leaf(PRIMARY.authority.certificate, LOWER_KEY, x509.DNSName(STABLE)),
}


@pytest.mark.parametrize("attack", NOT_THE_PRIMARY)
def test_no_other_certificate_passes_as_the_primarys(attack: str) -> None:
    """Attacks rows 5, 8 and 20."""
    assert not certificates.is_server_leaf_of(NOT_THE_PRIMARY[attack], PRIMARY.authority, NOW + 10)


def test_the_authoritys_statement_covers_one_certificate() -> None:
    der, other = certificates.der(SERVER), certificates.der(SECONDARY)
    statement = PRIMARY.statement(der)
    assert certificates.statement_covers(PRIMARY.authority, der, statement)
    assert not certificates.statement_covers(PRIMARY.authority, other, statement)
    assert not certificates.statement_covers(STRANGER.authority, der, statement)
    for garbage in (b"", statement[:-1], b"\0" * 100):
        assert not certificates.statement_covers(PRIMARY.authority, der, garbage)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([x509.DNSName("primary.example"), x509.DNSName("b.example")], "primary.example"),
        ([x509.DNSName("*.example")], "any.example"),
        ([x509.UniformResourceIdentifier("spiffe://a/b/c"), x509.DNSName("a.example")], "a.example"),
    ],
)
def test_a_pinned_certificate_is_met_under_its_own_name(names: list[x509.GeneralName], expected: str) -> None:
    assert certificates.channel_name(leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, *names)) == expected


def test_a_certificate_with_addresses_only_is_met_under_one() -> None:
    address = x509.IPAddress(ipaddress.ip_address("::1"))
    assert certificates.channel_name(leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, address)) == "::1"


@pytest.mark.parametrize("certificate", [SECONDARY, PRIMARY.authority.certificate])
def test_a_certificate_without_a_host_is_refused(certificate: x509.Certificate) -> None:
    with pytest.raises(Refused) as caught:
        certificates.channel_name(certificate)
    assert reason_of(caught) is Reason.CERTIFICATE_INVALID


def with_extensions_nobody_can_read() -> x509.Certificate:
    """A certificate with two subject alternative names: no builder makes one, an attacker does."""
    two = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(PRIMARY.authority.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(NOW, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + DAY, UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(STABLE)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x30\x00"), critical=False)
        .sign(AUTHORITY_KEY, hashes.SHA256())
    )
    der = certificates.der(two).replace(b"\x55\x1d\x63", b"\x55\x1d\x11")
    return certificates.load(der)


def test_a_certificate_whose_extensions_cannot_be_read_is_nobodys() -> None:
    """Attacks row 7: refused, and not by an error nobody foresaw."""
    certificate = with_extensions_nobody_can_read()
    with pytest.raises(x509.DuplicateExtension):
        certificate.extensions  # noqa: B018  # that it is such a certificate
    assert certificates.server_identity(certificate) is None
    assert not certificates.is_server_leaf_of(certificate, PRIMARY.authority, NOW)
    with pytest.raises(Refused):
        certificates.channel_name(certificate)
    with pytest.raises(Refused):
        certificates.read_authority(certificates.der(certificate))


def test_a_certificate_for_a_key_of_another_kind_has_no_identity_here() -> None:
    for key in (ed25519.Ed25519PrivateKey.generate(), *UNSUITABLE.values()):
        name = x509.Name([])
        begin = datetime.fromtimestamp(NOW, UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=1))
        with pytest.raises(Refused) as caught:
            certificates.key_of(builder.sign(KEY, hashes.SHA256()))
        assert reason_of(caught) is Reason.KEY_UNSUITABLE


def test_a_certificate_for_a_diffie_hellman_key_is_refused_before_its_group_is_tested() -> None:
    """Attacks row 7: a stranger in the primary's place shows it to a secondary."""
    good = certificates.der(PRIMARY.authority.certificate)
    bad = with_key(good, PRIMARY.authority.public_key, diffie_hellman())
    assert x509.load_der_x509_certificate(bad).public_key_algorithm_oid.dotted_string == "1.2.840.113549.1.3.1"
    begin = time.process_time()
    with pytest.raises(Refused) as caught:
        certificates.read_authority(bad)
    refusing = time.process_time() - begin
    assert reason_of(caught) is Reason.KEY_UNSUITABLE
    begin = time.process_time()
    for _ in range(20):
        certificates.read_authority(good)
    assert refusing < time.process_time() - begin


# --- A secondary's certificate ------------------------------------------------------------------------------------------------


def test_a_secondarys_certificate_says_who_it_is() -> None:
    assert certificates.server_identity(SECONDARY) == ServerIdentity("acme.example", "abcdefghij")
    certificates.check_own(SECONDARY, PRIMARY.authority, PUBLIC, "acme.example")


URI = x509.UniformResourceIdentifier
NOBODYS = {
    "no names": (),
    "two names": (URI("spiffe://p/acme.example/a"), URI("spiffe://p/acme.example/b")),
    "a host beside it": (URI("spiffe://p/acme.example/a"), x509.DNSName("a.example")),
    "a host": (x509.DNSName("spiffe"),),
    "another scheme": (URI("https://p/acme.example/a"),),
    "too short": (URI("spiffe://p/acme.example"),),
    "too long": (URI("spiffe://p/acme.example/a/b"),),
    "empty parts": (URI("spiffe:///acme.example/a"),),
    "empty account": (URI("spiffe://p//a"),),
}


@pytest.mark.parametrize("names", NOBODYS)
def test_a_certificate_of_another_form_is_no_secondarys(names: str) -> None:
    """Attacks rows 5 and 6: exactly one SAN of exactly our form."""
    assert certificates.server_identity(leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, *NOBODYS[names])) is None


def test_a_ca_is_no_secondary() -> None:
    """Attacks row 6."""
    name = URI("spiffe://p/acme.example/abcdefghij")
    assert certificates.server_identity(leaf(PRIMARY.authority.certificate, AUTHORITY_KEY, name, ca=True)) is None


@pytest.mark.parametrize(
    ("certificate", "account"),
    [
        (certificates.load(STRANGER.issue_secondary(KEY.public_key(), "acme.example", "abcdefghij", DAY, NOW)), "acme.example"),
        (
            certificates.load(PRIMARY.issue_secondary(LOWER_KEY.public_key(), "acme.example", "abcdefghij", DAY, NOW)),
            "acme.example",
        ),
        (SECONDARY, "acme.exampl"),
        (SECONDARY, "other.example"),
        (SERVER, "acme.example"),
    ],
    ids=["another issuer", "another key", "near miss", "another account", "a server's"],
)
def test_a_certificate_that_is_not_ours_is_not_kept(certificate: x509.Certificate, account: str) -> None:
    """Attacks row 47: the secondary's own check of what it receives."""
    with pytest.raises(Refused) as caught:
        certificates.check_own(certificate, PRIMARY.authority, PUBLIC, account)
    assert reason_of(caught) is Reason.CERTIFICATE_INVALID


def test_times_are_whole_seconds() -> None:
    assert certificates.begins_at(SECONDARY) == NOW - CLOCK_TOLERANCE
    assert certificates.ends_at(SECONDARY) == NOW + 30 * DAY
    edges = [NOW - CLOCK_TOLERANCE - 1, NOW - CLOCK_TOLERANCE, NOW + 30 * DAY, NOW + 30 * DAY + 1]
    assert [certificates.valid_at(SECONDARY, edge) for edge in edges] == [False, True, True, False]


# --- The comparison code ------------------------------------------------------------------------------------------------------


def test_the_comparison_code_has_a_fixed_form_and_value() -> None:
    """Both ends, of whatever version, must show the same digits: the value is part of the contract."""
    assert certificates.comparison_code("ab" * 32, b"server", "acme.example") == "86914-67382-82173-80702"


def test_comparison_code_depends_on_primary_key_and_account() -> None:
    codes = {
        certificates.comparison_code(primary, server, account)
        for primary, server, account in [
            ("a", b"b", "c"),
            ("ab", b"", "c"),
            ("a", b"bc", ""),
            ("b", b"a", "c"),
            ("a", b"b", "d"),
        ]
    }
    assert len(codes) == 5


@given(st.text(st.characters(codec="ascii")), st.binary(), st.text(st.characters(codec="utf-8")))
def test_every_comparison_code_is_four_groups_of_five_digits(primary_id: str, server: bytes, account: str) -> None:
    groups = certificates.comparison_code(primary_id, server, account).split("-")
    assert [len(group) for group in groups] == [5] * 4
    assert all(group.isascii() and group.isdigit() for group in groups)


@pytest.mark.parametrize(
    "typed", ["01234-56789-01234-56789", "01234 56789 01234 56789", "01234567890123456789", " 0123456789-0123456789 "]
)
def test_a_code_may_be_typed_with_or_without_hyphens(typed: str) -> None:
    assert certificates.same_code(typed, "01234-56789-01234-56789")


@pytest.mark.parametrize("typed", ["", "01234", "01234-56789-01234-56780", "01234-56789-01234-567890", "٠1234-56789-01234-56789"])
def test_another_code_is_another(typed: str) -> None:
    assert not certificates.same_code(typed, "01234-56789-01234-56789")
