"""Who stands above a primary, and how a server knows. Takes bytes, does no I/O.

Each step up is vouched for from both sides. The upper authority certifies the lower one's key (X.509, constrained to the lower
one's trust domain) and names the server that the lower primary's host is in its account: sets made out for that server count below
it. The lower authority signs its consent to stand under the upper one. Without the first, a primary could claim servers of others;
without the second, a primary in the middle could invent one above its own, whose locks would overrule it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from enlist import certificates, names
from enlist.certificates import Authority
from enlist.documents import Origin, SetVersion
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2 as pb

LEVELS = 16
"""Primaries above another one, at most."""
ORIGINS = LEVELS + 1
"""Primaries whose sets count at a server, at most: its own, and those above that one."""
ANCESTRY_LIMIT = 256 * 1024
"""Bytes of an ancestry, at most: what is kept of it must be read again."""
LIFETIME = 10 * 365 * 86400
"""Seconds for which a cross-certificate is made out: as long as an authority's own. What ends it is the upper primary's word."""

_LABEL = b"enlist-consent-v1\0"
_NAME_LIMIT = 253  # characters of an account's domain; ids are shorter
_SIGNATURE = ec.ECDSA(hashes.SHA256())
_LEFT = {"keep": pb.ANCESTOR_STATE_KEPT, "freeze": pb.ANCESTOR_STATE_FROZEN}
_STATES = (pb.ANCESTOR_STATE_PRESENT, pb.ANCESTOR_STATE_KEPT, pb.ANCESTOR_STATE_FROZEN)


class Above(NamedTuple):
    """A primary above, once both ends of the step to it have been verified.

    `version` is that of the consent; `step` says when the cross-certificate begins (Unix seconds): a later one replaces it.
    """

    name: str
    authority: Authority
    origin: Origin
    version: SetVersion
    state: pb.AncestorState.ValueType
    step: int


# --- Made by primaries ------------------------------------------------------------------------------------------------------


def cross_certificate(
    upper_key: ec.EllipticCurvePrivateKey, upper: Authority, lower: Authority, account: str, server_id: str, not_before: int
) -> bytes:
    """The upper authority's certificate (DER) over the lower one's key; `server_id` is the lower primary's host in `account`.

    `not_before` (Unix seconds) must be later than that of every one made over this key before: the newest counts.
    A standard verifier finds nothing good below it but leaves of the lower one's own trust domain (RFC 5280, 4.2.1.10).
    """
    name = certificates.spiffe_id(upper.stable_name, account, server_id)
    key = certificates.load_public_key(lower.public_key)
    domain = x509.NameConstraints([x509.UniformResourceIdentifier(lower.stable_name)], None)
    return (
        x509.CertificateBuilder()
        .subject_name(lower.certificate.subject)
        .issuer_name(upper.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_before + LIFETIME, UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        # All authorities bear one name: only this tells a verifier that the certificate is not its own issuer.
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(upper_key.public_key()), critical=False)
        .add_extension(domain, critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=False)
        .sign(upper_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def is_way(text: str) -> bool:
    """Whether the text may be the ids on the way down to a server, joined by slashes."""
    ids = text.split("/")
    return len(ids) <= LEVELS and all(map(names.is_id, ids))


def left_state(bequest: str) -> pb.AncestorState.ValueType:
    """The state that a step is in once it has ended with this bequest (`keep`, `freeze`); unspecified where nothing stays."""
    return _LEFT.get(bequest, pb.ANCESTOR_STATE_UNSPECIFIED)


def sign_consent(lower_key: ec.EllipticCurvePrivateKey, consent: bytes) -> bytes:
    """The lower authority's signature over a serialised `Consent`."""
    return lower_key.sign(_LABEL + consent, _SIGNATURE)


# --- Verified by everybody --------------------------------------------------------------------------------------------------


def consented(lower: Authority, consent: bytes, signature: bytes) -> pb.Consent:
    """What the lower authority consented to; refused with SET_INVALID if it is not its word."""
    try:
        certificates.load_public_key(lower.public_key).verify(signature, _LABEL + consent, _SIGNATURE)
        found = pb.Consent.FromString(consent)
    except (InvalidSignature, DecodeError):
        raise _invalid("is not the word of the primary below") from None
    if found.state not in _STATES or found.epoch < 1 or found.number < 1:
        raise _invalid("says nothing that this version knows")
    return found


def verify(ancestry: pb.Ancestry, own: Authority) -> list[Above]:
    """The primaries above this authority, the nearest first. Refused: SET_INVALID, and WOULD_LOOP where one comes twice."""
    if len(ancestry.ancestors) > LEVELS:
        raise _invalid(f"has more than {LEVELS} levels")
    if ancestry.ByteSize() > ANCESTRY_LIMIT:  # names are not signed: an intermediate may write there what it likes
        raise _invalid("is too large")
    found: list[Above] = []
    lower, met = own, {own.primary_id}
    for ancestor in ancestry.ancestors:
        above = step(ancestor, lower)
        if above.origin.primary_id in met:
            raise Refused(Reason.WOULD_LOOP, "A primary cannot be its own ancestor.")
        met.add(above.origin.primary_id)
        found.append(above)
        lower = above.authority
    return found


def step(ancestor: pb.Ancestor, lower: Authority) -> Above:
    """One step up from a primary, verified from both sides."""
    consent = consented(lower, ancestor.consent, ancestor.consent_signature)
    upper = certificates.read_authority(ancestor.authority_certificate)
    if consent.parent_primary_id != upper.primary_id:
        raise _invalid("is a word on another primary")
    cross = certificates.load(ancestor.cross_certificate)
    origin = certified(cross, upper, lower)
    version = SetVersion(consent.epoch, consent.number)
    return Above(ancestor.primary_name, upper, origin, version, consent.state, certificates.begins_at(cross))


def certified(cross: x509.Certificate, upper: Authority, lower: Authority) -> Origin:
    """For whom the upper authority's sets are made out below this cross-certificate. Refused with SET_INVALID.

    Its validity is not looked at: what it vouches for ends with the upper primary's sets, or the lower one's consent.
    """
    issued = certificates.issued_by(cross, upper.certificate)
    if not issued or certificates.spki(certificates.key_of(cross)) != lower.public_key:
        raise _invalid("is not certified by the primary above")
    if not _constrained(cross, lower):
        raise _invalid("is certified for more than its own servers")
    names = [each.value for each in _names(cross) if isinstance(each, x509.UniformResourceIdentifier)]
    prefix = f"spiffe://{upper.stable_name}/"
    parts = names[0].removeprefix(prefix).split("/") if len(names) == 1 and names[0].startswith(prefix) else []
    if len(parts) != 2 or not all(0 < len(part) <= _NAME_LIMIT for part in parts):
        raise _invalid("is certified for no server")
    return Origin(upper.public_key, parts[0], parts[1])


def _names(cross: x509.Certificate) -> Sequence[x509.GeneralName]:
    return list(certificates.extension(cross, x509.SubjectAlternativeName) or ())


def _constrained(cross: x509.Certificate, lower: Authority) -> bool:
    constraints = certificates.extension(cross, x509.NameConstraints)
    permitted = list(constraints.permitted_subtrees or ()) if constraints is not None else []
    return [each.value for each in permitted if isinstance(each, x509.UniformResourceIdentifier)] == [lower.stable_name]


def _invalid(what: str) -> Refused:
    return Refused(Reason.SET_INVALID, f"The way up to a primary above {what}; it was not taken.")
