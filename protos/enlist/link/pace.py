"""How many bytes of bodies may be on their way: little on a slow line, so that liveness and small sets pass beside them.

gRPC ends a connection whose ping is not answered in time, and a ping waits behind the data that is queued. On a line of 64 kbit/s a
single message of 1 MiB lost its connection after 8 s; pieces of 8 KiB, two on their way, arrived.
"""

from __future__ import annotations

PIECE = 8 * 1024
"""Bytes of a body in one piece, at most."""
SMALLEST = 2 * PIECE
LARGEST = 32 * PIECE
_QUICK = 0.3
_SLOW = 1.0


def travels(length: int, size: int) -> bool:
    """Whether a piece of this length is sent of a body of this size: an empty piece travels only of an empty body."""
    return length > 0 or size == 0


class Pace:
    """The window of one link. It grows while acknowledgements come quickly, and falls back to two pieces when they do not."""

    def __init__(self) -> None:
        self.window = SMALLEST

    def acknowledged(self, bytes_taken: int, seconds: float) -> None:
        """So many bytes were acknowledged, so many seconds after the last of them was sent."""
        if seconds <= _QUICK:
            self.window = min(self.window + bytes_taken, LARGEST)
        elif seconds >= _SLOW:
            self.window = SMALLEST
