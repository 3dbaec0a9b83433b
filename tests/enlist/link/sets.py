"""Sets for tests of the link: signed like real ones, by keys that are made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates, documents
from enlist.documents import DesiredSet, Item, Origin, SetVersion
from enlist.link.sender import Offer
from enlist.v1 import document_pb2
from tests.support.sets import signed_alone

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


def _who(origin: str, target: str = "") -> Origin:
    who = OWN if origin == ORIGIN else PARENT
    return who._replace(target=target or who.target)


def _signed(origin: str, version: SetVersion, items: tuple[Item, ...], target: str) -> document_pb2.SignedSet:
    key, who = _AUTHORITY_KEY if origin == ORIGIN else _PARENT_KEY, _who(origin, target)
    encoded = documents.encode(who.account, who.target, version, documents.encode_items(items))
    return signed_alone(partial(documents.sign, key), origin, encoded)


def signing(origin: str, version: SetVersion, items: tuple[Item, ...], target: str = "") -> Sign:
    """What signs a set, made out for `target` or else for the server that the origin usually names."""
    return partial(_signed, origin, version, items, target)


def offer(origin: str, version: SetVersion, items: tuple[Item, ...], target: str = "") -> Offer:
    """The set as a sender offers it: those of the parent are exact, as they are handed down."""
    order = tuple(dict.fromkeys(item.digest for item in items))
    sign = signing(origin, version, items, target)
    who = _who(origin, target).target
    return Offer(version, documents.content(items), frozenset(order), sign, origin != ORIGIN, who, order)


def verified(signed: document_pb2.SignedSet, target: str = "") -> DesiredSet:
    """The set, if its origin made it out for `target`."""
    return documents.verify(signed, _who(signed.origin, target))
