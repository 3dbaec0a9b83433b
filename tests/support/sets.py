"""Signed sets, as tests make and change them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from enlist.v1.document_pb2 import SignedSet
from enlist_primary.authority.set_signer import SetSigner
from enlist_primary.authority.signer import Signer


def signed_alone(sign: Callable[[bytes], bytes], origin: str, desired_set: bytes) -> SignedSet:
    """A set under a signature of its own."""
    return SetSigner(sign, origin, secrets.token_bytes).add("", lambda: desired_set, len(desired_set))()


def signed_by(signer: Signer, desired_set: bytes) -> SignedSet:
    """A set that a primary signs, also where a test has put something else in the place of `sets.add`."""
    return SetSigner.add(signer.sets, "", lambda: desired_set, len(desired_set))()


def altered(signed: SignedSet, **fields: Any) -> SignedSet:
    """The set with other fields."""
    found = SignedSet()
    found.CopyFrom(signed)
    found.MergeFrom(SignedSet(**fields))
    return found
