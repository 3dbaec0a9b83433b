"""Sets for tests of the link: signed like real ones, by keys that are made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates, documents
from enlist.documents import DesiredSet, Item, Origin, SetVersion
from enlist.v1 import document_pb2

# Always the same ones, so that a seed names one run.
_AUTHORITY_KEY, KEY, _PARENT_KEY = (ec.derive_private_key(number, ec.SECP256R1()) for number in (11, 12, 13))
AUTHORITY = certificates.spki(_AUTHORITY_KEY.public_key())
SERVER = certificates.spki(KEY.public_key())
PARENT_KEY = certificates.spki(_PARENT_KEY.public_key())
OWN = Origin(AUTHORITY, "acme.example", "abcdefghij")
PARENT = Origin(PARENT_KEY, "head.example", "klmnopqrst")
ORIGIN = certificates.fingerprint(AUTHORITY)
PARENT_ORIGIN = certificates.fingerprint(PARENT_KEY)

Sign = Callable[[], document_pb2.SignedSet]


def _signed(origin: str, version: SetVersion, items: tuple[Item, ...]) -> document_pb2.SignedSet:
    key, who = (_AUTHORITY_KEY, OWN) if origin == ORIGIN else (_PARENT_KEY, PARENT)
    encoded = documents.encode(who.account, who.target, version, documents.encode_items(items))
    return document_pb2.SignedSet(desired_set=encoded, signature=documents.sign(key, encoded), origin=origin)


def signing(origin: str, version: SetVersion, items: tuple[Item, ...]) -> Sign:
    return partial(_signed, origin, version, items)


ORIGINS: dict[str, Callable[[SetVersion, tuple[Item, ...]], Sign]] = {
    each: partial(signing, each) for each in (ORIGIN, PARENT_ORIGIN)
}


def verified(signed: document_pb2.SignedSet) -> DesiredSet:
    return documents.verify(signed, OWN if signed.origin == ORIGIN else PARENT)


def target(origin: str) -> str:
    """For whom the sets of an origin are made out."""
    return (OWN if origin == ORIGIN else PARENT).target
