"""What a program wrote: kept in part if it is much, shown by its last lines where it explains a failure."""

from __future__ import annotations

from enlist.outputs import LIMIT, MARK_LIMIT, mark

_HEAD = LIMIT // 2
_LAST_LINES = 5


class Output:
    """Takes any number of bytes and keeps the first half of `LIMIT` and the last."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Takes what was written next."""
        room = _HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        self._total += len(data)
        if len(self._tail) > 4 * LIMIT:  # now and then, not with every byte
            del self._tail[: -(LIMIT - _HEAD)]

    def whole(self) -> bytes:
        """All of it, or its beginning and its end with a line between that says how many bytes were left out."""
        if self._total <= LIMIT:
            return bytes(self._head + self._tail)
        tail = self._tail[-(LIMIT - _HEAD - MARK_LIMIT) :]
        return bytes(self._head + mark(self._total - _HEAD - len(tail)) + tail)


def bounded(data: bytes) -> bytes:
    """The same of what is there already."""
    output = Output()
    output.add(data)
    return output.whole()


def last_lines(output: bytes) -> str:
    """The last lines that say something, as one: programs tell there what they stumbled over."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line][-_LAST_LINES:])
