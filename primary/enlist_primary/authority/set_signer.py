"""Desired sets are signed together: one change means thousands, and a signature takes most of what it costs to make one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from enlist import documents, merkle
from enlist.documents import SALT_BYTES
from enlist.v1.document_pb2 import SignedSet

_SECRET_BYTES = 32
TOGETHER = 64
TOGETHER_BYTES = 256 * 1024
"""Sets under one signature, at most, and bytes of them, unless one alone has more: all are hashed in one go."""

Encode = Callable[[], bytes]
"""Gives a serialised set, the same bytes each time: those of very many are not kept until they are sent."""
Sign = Callable[[bytes], bytes]
"""Gives the signature over a root."""


class SetSigner:
    """What is added of one account until one of them is sent is signed together, when that one is."""

    def __init__(self, sign: Sign, origin: str, random_bytes: Callable[[int], bytes]) -> None:
        """`origin` is the primary's id."""
        self._sign = sign
        self._origin = origin
        self._random_bytes = random_bytes
        self._open = self._begin("")

    def add(self, account: str, encode: Encode, size: int) -> Callable[[], SignedSet]:
        """Takes a set of about so many bytes. What is returned gives it with its signature, once it is to be sent."""
        if not self._open.takes(account, size):
            self._open = self._begin(account)
        return self._open.add(encode, size)

    def _begin(self, account: str) -> _Together:
        return _Together(account, self._sign, self._origin, self._random_bytes(_SECRET_BYTES))


class _Waiting(NamedTuple):
    """A set that is not sent yet. With the salt it is no guess to those who get its hash, which are servers of its account."""

    encode: Encode
    salt: bytes

    def leaf(self) -> bytes:
        return documents.leaf(self.salt, self.encode())


class _Together:
    """The sets of one signature."""

    def __init__(self, account: str, sign: Sign, origin: str, secret: bytes) -> None:
        """Of the secret all salts are made: to ask for random bytes for each set would let other threads in between each time."""
        self._account = account
        self._secret = secret
        self._sign = sign
        self._origin = origin
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._signed: tuple[merkle.Tree, bytes] | None = None

    def takes(self, account: str, size: int) -> bool:
        """Whether a set of so many bytes can be added: one of another account cannot, not even its presence is told there."""
        if self._signed is not None or account != self._account:
            return False
        return len(self._waiting) < TOGETHER and self._bytes + size <= TOGETHER_BYTES

    def add(self, encode: Encode, size: int) -> Callable[[], SignedSet]:
        """Takes a set."""
        index = len(self._waiting)
        each = _Waiting(encode, hashlib.sha256(self._secret + bytes([index])).digest()[:SALT_BYTES])
        self._bytes += size
        self._waiting.append(each)
        return partial(self._with_signature, each, index)

    def _with_signature(self, each: _Waiting, index: int) -> SignedSet:
        if self._signed is None:
            tree = merkle.Tree([waiting.leaf() for waiting in self._waiting])
            self._signed = tree, self._sign(tree.root)
            self._waiting = []  # each has its own
        tree, signature = self._signed
        return SignedSet(
            desired_set=each.encode(),
            signature=signature,
            origin=self._origin,
            size=tree.size,
            index=index,
            path=tree.path(index),
            salt=each.salt,
        )
