"""Desired sets are signed together: one change means thousands, and a signature takes most of what it costs to make one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from enlist import merkle
from enlist.v1.document_pb2 import SignedSet

TOGETHER = 64
TOGETHER_BYTES = 256 * 1024
"""Sets under one signature, at most, and bytes of them, unless one alone has more: all are hashed in one go."""

Encode = Callable[[], bytes]
"""Gives a serialised set, the same bytes each time: those of very many are not kept until they are sent."""


class SetSigner:
    """What is added until one of them is sent is signed together, when that one is."""

    def __init__(self, sign: Callable[[bytes], bytes], origin: str) -> None:
        """`sign` gives the signature over a root; `origin` is the primary's id."""
        self._sign = sign
        self._origin = origin
        self._open: _Together | None = None

    def add(self, encode: Encode, size: int) -> Callable[[], SignedSet]:
        """Takes a set of about so many bytes. What is returned gives it with its signature, once it is to be sent."""
        if self._open is None or not self._open.takes(size):
            self._open = _Together(self._sign, self._origin)
        return self._open.add(encode, size)


class _Together:
    """The sets of one signature."""

    def __init__(self, sign: Callable[[bytes], bytes], origin: str) -> None:
        self._sign = sign
        self._origin = origin
        self._waiting: list[Encode] = []
        self._bytes = 0
        self._signed: tuple[merkle.Tree, bytes] | None = None

    def takes(self, size: int) -> bool:
        """Whether a set of so many bytes can be added."""
        return self._signed is None and len(self._waiting) < TOGETHER and self._bytes + size <= TOGETHER_BYTES

    def add(self, encode: Encode, size: int) -> Callable[[], SignedSet]:
        """Takes a set."""
        self._bytes += size
        self._waiting.append(encode)
        return partial(self._with_signature, encode, len(self._waiting) - 1)

    def _with_signature(self, encode: Encode, index: int) -> SignedSet:
        if self._signed is None:
            tree = merkle.Tree([merkle.leaf(each()) for each in self._waiting])
            self._signed = tree, self._sign(tree.root)
            self._waiting = []  # each has its own
        tree, signature = self._signed
        return SignedSet(
            desired_set=encode(),
            signature=signature,
            origin=self._origin,
            size=tree.size,
            index=index,
            path=tree.path(index),
        )
