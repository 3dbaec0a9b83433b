"""Merkle trees: one signature over a root covers every leaf (RFC 9162, section 2.1, with SHA-256)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
LEVELS = 16
"""Levels above the leaves, at most."""


def leaf(entry: bytes) -> bytes:
    """The hash of an entry. It can be taken for no other node's: their prefixes differ."""
    return hashlib.sha256(b"\0" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """The tree over at least one and at most 2^16 leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Each is the hash that `leaf` gives."""
        self._levels: list[Sequence[bytes]] = [leaves]
        while len(below := self._levels[-1]) > 1:
            pairs = [_node(below[place], below[place + 1]) for place in range(0, len(below) - 1, 2)]
            self._levels.append(pairs + [below[-1]] * (len(below) % 2))  # one without a partner goes up as it is

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """What is to be signed."""
        return self._levels[-1][0]

    def path(self, index: int) -> list[bytes]:
        """The hashes that lead from a leaf to the root."""
        found: list[bytes] = []
        for level in self._levels[:-1]:
            partner = index ^ 1
            if partner < len(level):
                found.append(level[partner])
            index >>= 1
        return found


def root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root to which a path leads from a leaf; None if no tree of this size has such a path (section 2.1.3.2)."""
    if not 0 <= index < size <= 1 << LEVELS or any(len(each) != HASH_BYTES for each in path):
        return None
    found, last = leaf, size - 1
    for partner in path:
        if last == 0:
            return None
        while not index & 1 and index == last:  # it had no partner on this level
            index >>= 1
            last >>= 1
        found = _node(partner, found) if index & 1 else _node(found, partner)
        index >>= 1
        last >>= 1
    return found if last == 0 else None
