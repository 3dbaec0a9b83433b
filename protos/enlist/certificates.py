"""Keys, certificates and what is derived from them, as both ends must compute it. Takes bytes and a fixed time, does no I/O.

The exact rules stand in the design's page on trust; the forms are X.509 (RFC 5280) and X.509-SVID (SPIFFE).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID

from enlist.reasons import Reason, Refused

E = TypeVar("E", bound=x509.ExtensionType)

CLOCK_TOLERANCE = 300
"""Seconds by which two clocks may differ before enrolment is refused; certificates are made out this much earlier."""

_STATEMENT_LABEL = b"enlist-leaf-statement-v1\0"
_CODE_LABEL = b"enlist-comparison-code-v1\0"
_SIGNATURE = ec.ECDSA(hashes.SHA256())
_SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""What every SubjectPublicKeyInfo of an uncompressed point on P-256 begins with, in DER (RFC 5480, section 2)."""
_SPKI_LENGTH = len(_SPKI_HEAD) + 65


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key: what every certificate here is made of (gRPC refuses Ed25519 and P-521)."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key's SubjectPublicKeyInfo, DER (RFC 5280, 4.1.2.7)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key: bytes) -> str:
    """The identity a SubjectPublicKeyInfo stands for: its SHA-256, 64 lower-case hex digits."""
    return hashlib.sha256(public_key).hexdigest()


def load_public_key(public_key: bytes) -> ec.EllipticCurvePublicKey:
    """Reads a SubjectPublicKeyInfo (DER); anything but a P-256 key, written as `spki` writes it, is refused.

    A general parser would test a stranger's Diffie-Hellman group before it told its kind: half a minute for two kilobytes.
    Besides, a key that can be written in one way only has one fingerprint.
    """
    if len(public_key) != _SPKI_LENGTH or not public_key.startswith(_SPKI_HEAD):
        raise _unsuitable()
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key[len(_SPKI_HEAD) :])
    except ValueError:  # no point of the curve
        raise _unsuitable() from None


def key_of(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The P-256 key a certificate is made out for; another kind of key is refused before it is looked at, as above."""
    if certificate.public_key_algorithm_oid != PublicKeyAlgorithmOID.EC_PUBLIC_KEY:
        raise _unsuitable()
    try:
        key = certificate.public_key()
    except Exception as error:  # the parser raises several kinds for bytes a stranger chose
        raise _unsuitable() from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _unsuitable()


def _unsuitable() -> Refused:
    return Refused(Reason.KEY_UNSUITABLE, "The key must be an elliptic-curve key on P-256.")


def load(der: bytes) -> x509.Certificate:
    """Reads an X.509 certificate in DER; what cannot be read, or breaks RFC 5280 so that the library warns of it, is refused."""
    return _load(x509.load_der_x509_certificate, der)


def load_pem(pem: bytes) -> x509.Certificate:
    """Reads the first X.509 certificate in PEM text; refuses as `load` does."""
    return _load(x509.load_pem_x509_certificate, pem)


def _load(parse: Callable[[bytes], x509.Certificate], data: bytes) -> x509.Certificate:
    try:
        with warnings.catch_warnings(action="error"):
            return parse(data)
    except Exception as error:  # as above
        raise Refused(Reason.CERTIFICATE_INVALID, "The certificate cannot be read.") from error


def der(certificate: x509.Certificate) -> bytes:
    """The certificate's DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate's PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Authority:
    """A primary's authority as everybody may know it: its certificate and its key's SubjectPublicKeyInfo."""

    certificate: x509.Certificate
    public_key: bytes

    @cached_property
    def fingerprint(self) -> str:
        """The authority's own: what people compare."""
        return fingerprint(self.public_key)

    @cached_property
    def certificate_der(self) -> bytes:
        """The certificate, DER. Encoded once: every answer of DescribePrimary carries it."""
        return der(self.certificate)

    @property
    def primary_id(self) -> str:
        """Which primary this is: the fingerprint of its first authority's key, 64 lower-case hex digits.

        Without a succession chain the key shown is the only one that is proven, so it counts as the first.
        """
        return self.fingerprint

    @property
    def stable_name(self) -> str:
        """The trust domain, which is also the one name every server certificate of this primary bears, whatever its addresses."""
        return trust_domain(self.primary_id)


def trust_domain(primary_id: str) -> str:
    """The SPIFFE trust domain of a primary: half of its id, for a DNS label holds at most 63 characters."""
    return f"{primary_id[:32]}.primary.enlist.internal"


def authority_uri(primary_id: str) -> str:
    """The URI that an authority's certificate bears: the SPIFFE ID of the trust domain itself (X.509-SVID, section 4.1)."""
    return f"spiffe://{trust_domain(primary_id)}"


def read_authority(authority_der: bytes) -> Authority:
    """Reads an authority's certificate: self-signed, a CA, P-256, of the trust domain of its own key. Refused: CERTIFICATE_INVALID.

    That it is *accepted* is for others to decide. Its end is not looked at: an authority is its key, and the server certificates
    that matter end sooner.
    """
    certificate = load(authority_der)
    authority = Authority(certificate, spki(key_of(certificate)))
    if not (_is_ca(certificate) and issued_by(certificate, certificate)):
        raise Refused(Reason.CERTIFICATE_INVALID, "The primary's authority is not a self-signed certificate authority.")
    names = list(extension(certificate, x509.SubjectAlternativeName) or ())
    if names != [x509.UniformResourceIdentifier(authority_uri(authority.primary_id))]:
        raise Refused(Reason.CERTIFICATE_INVALID, "The primary's authority is made out for another primary id than its key's.")
    return authority


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s key signed `certificate` directly, and the names agree."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    """An extension's value; None if there is none, or the extensions of a certificate that a stranger made cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def valid_at(certificate: x509.Certificate, now: int) -> bool:
    """Whether `now` (Unix seconds) lies within the certificate's validity."""
    moment = datetime.fromtimestamp(now, UTC)
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def ends_at(certificate: x509.Certificate) -> int:
    """When the certificate ends, Unix seconds."""
    return int(certificate.not_valid_after_utc.timestamp())


def begins_at(certificate: x509.Certificate) -> int:
    """When the certificate begins, Unix seconds."""
    return int(certificate.not_valid_before_utc.timestamp())


# --- A primary's server certificate -------------------------------------------------------------------------------------------


def is_server_leaf_of(leaf: x509.Certificate, authority: Authority, now: int) -> bool:
    """Whether a served certificate is the authority's own: issued directly by it, not a CA, for servers, bearing exactly its
    stable name among its DNS names (a secondary's certificate, or one of a primary below, does not)."""
    if not issued_by(leaf, authority.certificate) or _is_ca(leaf) or not valid_at(leaf, now):
        return False
    return _serves(leaf) and authority.stable_name in _dns_names(leaf)


def _serves(leaf: x509.Certificate) -> bool:
    usage = extension(leaf, x509.ExtendedKeyUsage)
    return usage is not None and ExtendedKeyUsageOID.SERVER_AUTH in usage


def _dns_names(leaf: x509.Certificate) -> list[str]:
    names = extension(leaf, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.DNSName) if names is not None else []


def channel_name(leaf: x509.Certificate) -> str:
    """A name under which gRPC will accept this exact, pinned leaf: the host check cannot be switched off, only satisfied.

    A leaf that names neither a host nor an address is refused.
    """
    names = extension(leaf, x509.SubjectAlternativeName)
    hosts = names.get_values_for_type(x509.DNSName) if names is not None else []
    addresses = names.get_values_for_type(x509.IPAddress) if names is not None else []
    for name in (*hosts, *addresses):
        return str(name).replace("*", "any", 1)
    raise Refused(Reason.CERTIFICATE_INVALID, "The certificate served names neither a host nor an address.")


def sign_statement(authority_key: ec.EllipticCurvePrivateKey, leaf_der: bytes) -> bytes:
    """The authority's word that it serves this leaf, so that a certificate of the company's CA can stand at the API port."""
    return authority_key.sign(_statement(leaf_der), _SIGNATURE)


def statement_covers(authority: Authority, leaf_der: bytes, statement: bytes) -> bool:
    """Whether the authority itself says that it serves this leaf."""
    try:
        load_public_key(authority.public_key).verify(statement, _statement(leaf_der), _SIGNATURE)
    except InvalidSignature:
        return False
    return True


def answers_for(authority: Authority, leaf: x509.Certificate, statement: bytes, now: int) -> bool:
    """Whether the authority stands behind a certificate served at the API port: its own leaf, or one its statement covers."""
    return is_server_leaf_of(leaf, authority, now) or statement_covers(authority, der(leaf), statement)


def _statement(leaf_der: bytes) -> bytes:
    return _STATEMENT_LABEL + hashlib.sha256(leaf_der).digest()


# --- A secondary's certificate ------------------------------------------------------------------------------------------------


class ServerIdentity(NamedTuple):
    """What a secondary's certificate says in its one URI SAN: `spiffe://<primary>/<account>/<server id>`."""

    account: str
    server_id: str


def spiffe_id(trust_domain: str, account: str, server_id: str) -> str:
    """The SPIFFE ID of a server; the trust domain is the primary's stable name."""
    return f"spiffe://{trust_domain}/{account}/{server_id}"


def server_identity(certificate: x509.Certificate) -> ServerIdentity | None:
    """Whose certificate this is, or None if it is not a secondary's: exactly one SAN, a SPIFFE ID of our form, and no CA."""
    names = list(extension(certificate, x509.SubjectAlternativeName) or ())
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier) or _is_ca(certificate):
        return None
    scheme, _, rest = names[0].value.partition("://")
    parts = rest.split("/")
    return ServerIdentity(parts[1], parts[2]) if scheme == "spiffe" and len(parts) == 3 and all(parts) else None


def check_own(certificate: x509.Certificate, authority: Authority, public_key: bytes, account: str) -> None:
    """Refuses a certificate that a primary should not have sent us: wrong issuer, another key, another account."""
    identity = server_identity(certificate)
    if not issued_by(certificate, authority.certificate):
        raise Refused(Reason.CERTIFICATE_INVALID, "The certificate received was not issued by the primary's authority.")
    if spki(key_of(certificate)) != public_key or identity is None or identity.account != account:
        raise Refused(Reason.CERTIFICATE_INVALID, "The certificate received is made out for somebody else.")


def comparison_code(primary_id: str, server_key: bytes, account: str) -> str:
    """Four groups of five digits that both ends derive from the primary's id, the server's key and the account.

    `server_key` is a SubjectPublicKeyInfo, DER. Another authority of the same primary changes nothing of it.
    """
    digest = hashlib.sha256(_CODE_LABEL)
    for part in (primary_id.encode(), server_key, account.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digits = f"{int.from_bytes(digest.digest(), 'big') % 10**20:020d}"
    return "-".join(digits[i : i + 5] for i in range(0, 20, 5))


def same_code(typed: str, code: str) -> bool:
    """Whether somebody typed this comparison code; spaces and hyphens do not matter."""
    return "".join(c for c in typed if c not in " -") == code.replace("-", "")
