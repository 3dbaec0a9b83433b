"""The authority: the key that is the primary's identity, and everything it signs."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enlist import ancestry, certificates, documents
from enlist.certificates import CLOCK_TOLERANCE, Authority
from enlist_primary.authority.set_signer import SetSigner

DAY = 86400
AUTHORITY_LIFETIME = 10 * 365 * DAY
LEAF_LIFETIME = 30 * DAY
"""Seconds for which a certificate, a secondary's or the primary's own, is good."""

_CHALLENGE_LABEL = b"enlist-challenge-key-v1"


class Signer:
    """Signs in the name of the authority. The private key stays in here and out of the repr."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.authority = Authority(certificate, certificates.spki(key.public_key()))
        self._leaves = _leaves(certificate)
        self.challenge_secret = self._derive(_CHALLENGE_LABEL)
        self.sets = SetSigner(partial(documents.sign, key), self.authority.primary_id, secrets.token_bytes)
        """Signs desired sets."""

    def __repr__(self) -> str:
        return f"Signer({self.authority.fingerprint})"

    def _derive(self, label: bytes) -> bytes:
        """A secret that every primary holding this authority's key derives alike."""
        scalar = self._key.private_numbers().private_value.to_bytes(32, "big")
        mac = hmac.HMAC(scalar, hashes.SHA256())
        mac.update(label)
        return mac.finalize()

    def statement(self, leaf_der: bytes) -> bytes:
        """The authority's word that it serves this certificate."""
        return certificates.sign_statement(self._key, leaf_der)

    def sign_consent(self, consent: bytes) -> bytes:
        """This primary's word on which primary it stands under."""
        return ancestry.sign_consent(self._key, consent)

    def cross_certificate(self, lower: Authority, account: str, server_id: str, not_before: int) -> bytes:
        """The certificate (DER) over a child's authority, for this server of this account; see `ancestry.cross_certificate`."""
        return ancestry.cross_certificate(self._key, self.authority, lower, account, server_id, not_before)

    def issue_secondary(self, key: ec.EllipticCurvePublicKey, account: str, server_id: str, lifetime: int, now: int) -> bytes:
        """A secondary's certificate (DER): an X.509-SVID with the one SAN that names it."""
        name = certificates.spiffe_id(self.authority.stable_name, account, server_id)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = self._leaf(key, lifetime, now, [x509.UniformResourceIdentifier(name)], usages)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def issue_server(self, key: ec.EllipticCurvePublicKey, addresses: Sequence[str], lifetime: int, now: int) -> x509.Certificate:
        """The primary's own server certificate: its stable name and its addresses."""
        sans = [x509.DNSName(self.authority.stable_name), *(_general_name(each) for each in addresses)]
        return self._leaf(key, lifetime, now, sans, [ExtendedKeyUsageOID.SERVER_AUTH]).sign(self._key, hashes.SHA256())

    def _leaf(
        self,
        key: ec.EllipticCurvePublicKey,
        lifetime: int,
        now: int,
        sans: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
    ) -> x509.CertificateBuilder:
        begin = datetime.fromtimestamp(now - CLOCK_TOLERANCE, UTC)
        return (
            self._leaves.public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(datetime.fromtimestamp(now + lifetime, UTC))
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(sans), critical=True)  # RFC 5280, 4.1.2.6: where the subject is empty
        )


def _leaves(issuer: x509.Certificate) -> x509.CertificateBuilder:
    """What all certificates below this authority have in common, put together once."""
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
    )


def new_authority(key: ec.EllipticCurvePrivateKey, now: int) -> x509.Certificate:
    """The self-signed certificate of a new primary's first authority: its key is the primary's id."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Enlist authority")])
    public = key.public_key()
    begin = datetime.fromtimestamp(now - CLOCK_TOLERANCE, UTC)
    uri = certificates.authority_uri(certificates.fingerprint(certificates.spki(public)))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(seconds=AUTHORITY_LIFETIME))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
