"""How many bytes may be on their way: little on a slow line, so that liveness and small sets pass beside them.

gRPC ends a connection whose ping is not answered in time, and a ping waits behind the data that is queued. On a line of 64 kbit/s a
single message of 1 MiB lost its connection after 8 s; pieces of 8 KiB, two on their way, arrived.
"""

from __future__ import annotations

PIECE = 8 * 1024
"""Bytes of a body in one piece, at most."""
SMALLEST = 2 * PIECE
LARGEST = 32 * PIECE
REMEMBERED = 64
"""Messages of which the size is known until they are answered, at most: more than outboxes have on their way."""
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


class MessagePace:
    """How much the messages of an outbox carry: half the window, which is a piece at first.

    On a quick line the messages of one change grow it so far that the next change needs only a few.
    """

    def __init__(self) -> None:
        """Nothing is known of the line."""
        self._pace = Pace()
        self._sent: dict[int, tuple[int, float]] = {}

    @property
    def bytes(self) -> int:
        """What goes into one message, unless one value alone is longer."""
        return self._pace.window // 2

    def sent(self, sequence: int, size: int, now: float) -> None:
        """A message of so many bytes begins its way. `now` is in seconds of a clock that is never set."""
        self._sent[sequence] = (size, now)
        if len(self._sent) > REMEMBERED:  # a peer that answers nothing
            del self._sent[next(iter(self._sent))]

    def answered(self, sequence: int, taken: bool, waited_for: bool, now: float) -> None:
        """It was taken for good, or there was no room for it.

        Where nothing waits for an acknowledgement, it may come late: that says nothing of the line.
        """
        size, begun = self._sent.pop(sequence, (0, now))
        if taken and (waited_for or now - begun < _SLOW):
            self._pace.acknowledged(size, now - begun)
