"""Who this server is: a key made for one primary's authority, and the certificate that carries it through TLS.

A key is made after its authority was accepted and never changes; only its certificate is replaced. Another primary id means another
enrolment folder with another key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates
from enlist.certificates import Authority
from enlist.channel import ClientIdentity
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.logs import Log

MACHINE_ID = Path("/etc/machine-id")

_KEY, _CERTIFICATE, _AUTHORITY, _MACHINE = "server.key", "certificate.pem", "authority.pem", "machine-id"
_LOG = Log("enlist.secondary")


@dataclass(frozen=True)
class Identity:
    """This server's key, the authority it was made for, and its certificate if it holds one. The key stays out of the repr."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    authority: Authority
    certificate: x509.Certificate | None = None

    def __repr__(self) -> str:
        return f"Identity(fingerprint={self.fingerprint})"

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return certificates.spki(self.key.public_key())

    @property
    def fingerprint(self) -> str:
        """The identity itself: SHA-256 of the public key, 64 lower-case hex digits."""
        return certificates.fingerprint(self.public_key)

    @property
    def server_id(self) -> str:
        """The id by which the primary knows this server; empty before there is a certificate."""
        named = certificates.server_identity(self.certificate) if self.certificate else None
        return named.server_id if named else ""

    def comparison_code(self, account: str) -> str:
        """What two people compare: reckoned here, not taken from the primary."""
        return certificates.comparison_code(self.authority.primary_id, self.public_key, account)

    def usable(self, now: int) -> bool:
        """Whether a certificate is held that is good at `now` (Unix seconds)."""
        return self.certificate is not None and certificates.valid_at(self.certificate, now)

    def client(self) -> ClientIdentity:
        """The key and its certificate for mutual TLS; there must be a certificate."""
        if self.certificate is None:
            raise Refused(Reason.SERVER_PENDING, "This server holds no certificate yet.")
        return ClientIdentity(certificates.pem(self.certificate), _pem(self.key))

    def keep(self, certificate: x509.Certificate, account: str) -> Identity:
        """Replaces the certificate in one step, once it is sure to be the authority's, for this key, in this account."""
        certificates.check_own(certificate, self.authority, self.public_key, account)
        files.write(self.folder / _CERTIFICATE, certificates.pem(certificate))
        return replace(self, certificate=certificate)


def make(folder: Path, authority: Authority, machine_id: Path = MACHINE_ID) -> Identity:
    """Makes this server's key for an accepted authority, or returns the one that is there for the same primary id.

    The key is written last: whatever a crash leaves behind without it is written again. A daemon and a wizard that make one at the
    same time get the same one. Refuses with IDENTITY_CHANGED if a key for another primary is there.
    """
    there = load(folder)
    if there is None:
        files.make_folder(folder.parent)
        files.make_folder(folder)
        with files.turn(folder / _KEY):
            there = load(folder) or _made(folder, authority, machine_id)
    if there.authority.primary_id != authority.primary_id:
        raise Refused(Reason.IDENTITY_CHANGED, f"The key in {folder} was made for another primary.")
    return there


def _made(folder: Path, authority: Authority, machine_id: Path) -> Identity:
    files.remove(folder / _CERTIFICATE)
    files.write(folder / _AUTHORITY, certificates.pem(authority.certificate))
    files.write(folder / _MACHINE, _machine(machine_id).encode() + b"\n")
    key = certificates.new_key()
    files.write(folder / _KEY, _pem(key))
    return Identity(folder, key, authority)


def load(folder: Path) -> Identity | None:
    """The identity in an enrolment's folder, or None before one was made. What is damaged is refused with CONFIG_INVALID.

    A certificate that does not fit the key is not used and stays where it is: the primary gives out another.
    """
    try:
        key_pem = files.read(folder / _KEY, secret=True)
    except FileNotFoundError:
        return None
    identity = Identity(folder, _read_key(folder / _KEY, key_pem), _read_authority(folder / _AUTHORITY))
    return replace(identity, certificate=_read_certificate(identity))


def reset(folder: Path) -> None:
    """Forgets key, certificate, state and API key, so that the next start makes a new identity. The key goes first."""
    for name in (_KEY, _CERTIFICATE, _AUTHORITY, _MACHINE, "state.json", "api-key"):
        files.remove(folder / name)


def check_machine(folder: Path, machine_id: Path = MACHINE_ID) -> None:
    """Refuses with IDENTITY_COPIED if the key was made on another machine; without machine ids nothing is compared."""
    try:
        made_on = files.read(folder / _MACHINE).decode(errors="replace").strip()
    except FileNotFoundError:
        return
    here = _machine(machine_id)
    if made_on and here and made_on != here:
        raise Refused(
            Reason.IDENTITY_COPIED,
            f"{folder} was made on another machine, and two servers must not share one identity. If this is a copy, run "
            "enlist-secondary reset-identity; it will then ask the primary to be let in under a new key.",
        )


def _machine(machine_id: Path) -> str:
    try:
        return hashlib.sha256(machine_id.read_bytes().strip()).hexdigest()
    except OSError:
        return ""


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _read_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise Refused(Reason.CONFIG_INVALID, f"{path} does not hold this server's key; run enlist-secondary reset-identity.")


def _read_authority(path: Path) -> Authority:
    content = _content(path)
    try:
        return certificates.read_authority(certificates.der(certificates.load_pem(content)))
    except Refused:
        message = f"{path} does not hold the primary's authority; run enlist-secondary reset-identity."
        raise Refused(Reason.CONFIG_INVALID, message) from None


def _read_certificate(identity: Identity) -> x509.Certificate | None:
    path = identity.folder / _CERTIFICATE
    content = _content(path)
    certificate = _fitting(content, identity)
    if content and certificate is None:
        _LOG.warning("certificate ignored: it does not fit the key", path=path)
    return certificate


def _fitting(pem: bytes, identity: Identity) -> x509.Certificate | None:
    try:
        certificate = certificates.load_pem(pem)
        key = certificates.spki(certificates.key_of(certificate))
    except Refused:
        return None
    fits = key == identity.public_key and certificates.issued_by(certificate, identity.authority.certificate)
    return certificate if fits else None


def _content(path: Path) -> bytes:
    """A file's content, or nothing where it is missing; an unsafe file is refused."""
    try:
        return files.read(path)
    except FileNotFoundError:
        return b""
