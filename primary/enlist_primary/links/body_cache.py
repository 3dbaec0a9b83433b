"""The bodies that were sent lately, as they travel."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from enlist.link.pace import PIECE
from enlist.v1 import hierarchy_pb2 as pb

CACHE_BYTES = 32 * 1024 * 1024
"""Bytes of bodies kept in memory, at most."""


class PreparedBody(NamedTuple):
    """A body in pieces, each serialised as it travels behind any set."""

    size: int
    pieces: tuple[bytes, ...]


def prepare(digest: bytes, body: bytes) -> PreparedBody:
    """A body as it travels."""
    size = len(body)
    pieces = [
        pb.BodyPiece(digest=digest, offset=offset, data=body[offset : offset + PIECE], size=size)
        for offset in range(0, max(size, 1), PIECE)
    ]
    return PreparedBody(size, tuple(pb.FromPrimary(pieces=[piece]).SerializeToString() for piece in pieces))


class BodyCache:
    """Bodies by digest. Over the limit, the least recently used go first; the newest stays, however large it is."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        """`limit` is in bytes of all bodies together."""
        self._limit = limit
        self._size = 0
        self._bodies: OrderedDict[bytes, PreparedBody] = OrderedDict()

    def get(self, digest: bytes) -> PreparedBody | None:
        """The body, if it is here; it counts as used now."""
        found = self._bodies.get(digest)
        if found is not None:
            self._bodies.move_to_end(digest)
        return found

    def put(self, digest: bytes, body: PreparedBody) -> None:
        """Keeps a body. It may be here already: two accounts can have loaded the same one."""
        before = self._bodies.pop(digest, None)
        self._size += body.size - (before.size if before is not None else 0)
        self._bodies[digest] = body
        while self._size > self._limit and len(self._bodies) > 1:
            _, oldest = self._bodies.popitem(last=False)
            self._size -= oldest.size
