"""The authority's key and certificate as files."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary.authority.signer import Signer, new_authority
from enlist_primary.datafolder import DataFolder


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS #8 PEM, not encrypted: the file's mode guards it."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def create(folder: DataFolder, now: int) -> Signer:
    """Makes a new authority and writes it down."""
    key = certificates.new_key()
    certificate = new_authority(key, now)
    files.write(folder.authority_key, private_pem(key))
    files.write(folder.authority_certificate, certificates.pem(certificate))
    return Signer(key, certificate)


def load(folder: DataFolder) -> Signer:
    """Reads the authority; refused if the files are open to others, missing, or do not belong together."""
    try:
        key = serialization.load_pem_private_key(files.read(folder.authority_key, secret=True), None)
        certificate = certificates.load_pem(files.read(folder.authority_certificate))
    except FileNotFoundError:
        raise Refused(Reason.CONFIG_MISSING, f"{folder.path} holds no authority. Make one with: enlist-primary init") from None
    except (ValueError, TypeError):
        raise _unfit(folder) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unfit(folder)
    if certificates.spki(key.public_key()) != certificates.spki(certificates.key_of(certificate)):
        raise _unfit(folder)
    return Signer(key, certificate)


def _unfit(folder: DataFolder) -> Refused:
    return Refused(Reason.CONFIG_INVALID, f"The authority's key and certificate in {folder.path} are damaged. Restore a backup.")
