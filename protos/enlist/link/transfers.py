"""The bodies on their way over one link: in acknowledged pieces within the window, the one that is soonest whole first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from enlist.link.pace import PIECE, Pace, travels
from enlist.link.phases import violation
from enlist.v1 import hierarchy_pb2 as pb

FLIGHTS = 4096
"""Pieces of which an answer is expected, at most; more than the window lets through."""
REPEATS = 16
"""How often the receiver may ask for a body again before it has got any further."""
_LEAST = 128  # a piece that is shorter counts as so many bytes of the window: its digest travels as well


class PieceOut(NamedTuple):
    """A piece that is to be sent now. `origins` say whose sets name the body."""

    digest: bytes
    offset: int
    origins: tuple[str, ...]


class Whole(NamedTuple):
    """A body that the receiver has acknowledged to the end, and for whose sets that counts."""

    digest: bytes
    origins: tuple[str, ...]


@dataclass
class _Transfer:
    """A body on its way: what the receiver has, and what was sent. `size` is known once a piece was put into a message.

    `origins` says whose sets name it, and from which message on the receiver keeps it for them.
    """

    origins: dict[str, int] = field(default_factory=dict)
    received: int = 0
    sent: int = 0
    size: int | None = None
    repeats: int = 0

    @property
    def left(self) -> int:
        """How many bytes are to be sent; of a body whose size is not known, none: it may be small."""
        return 0 if self.size is None else self.size - self.sent

    @property
    def waits(self) -> bool:
        """Whether some of it was not sent yet."""
        return self.size is None or self.sent < self.size

    @property
    def in_flight(self) -> int:
        """How much of the window it takes up."""
        return max(self.sent - self.received, _LEAST) if self.sent > self.received else 0

    def go_on_at(self, received: int) -> None:
        """The next piece is the one that holds this byte, or the last one: only an answer to a piece makes a body whole."""
        begin = received if self.size is None else min(received, max(self.size - 1, 0))
        self.sent = self.received = begin - begin % PIECE


class _Flight(NamedTuple):
    """A piece on its way: of which transfer, up to where it reaches, and when it was sent."""

    transfer: _Transfer
    end: int
    sent_at: float


class Transfers:
    """The bodies that one link carries. A body is begun for each origin whose set names it."""

    def __init__(self, parts: Iterable[tuple[bytes, int]] = ()) -> None:
        """`parts` says how much the receiver has of which bodies."""
        self._parts = dict(parts)
        self._transfers: dict[bytes, _Transfer] = {}
        self._flights: OrderedDict[tuple[int, bytes], _Flight | None] = OrderedDict()
        """The pieces that were sent, by message and body; None once nothing more depends on the answer."""
        self._forgotten = 0
        """Of messages up to this one, pieces may have been sent that are in `_flights` no more."""
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._transfers)

    # --- What is wanted -------------------------------------------------------------------------------------------------------

    def begin(self, digest: bytes, origin: str, since: int) -> None:
        """This body is to be sent, unless it is on its way already.

        An answer to a message before `since` does not count for this origin: the receiver may forget the body before its set comes.
        """
        transfer = self._transfers.get(digest)
        if transfer is None:
            transfer = self._transfers[digest] = _Transfer()
            transfer.go_on_at(self._parts.pop(digest, 0))
        transfer.origins.setdefault(origin, since)

    def doubt(self, digests: Iterable[bytes], since: int) -> None:
        """The receiver has forgotten these bodies: no answer to a message before this one counts."""
        for digest in digests:
            if (transfer := self._transfers.get(digest)) is not None:
                transfer.origins = dict.fromkeys(transfer.origins, since)

    def end(self, digest: bytes) -> None:
        """This body is not sent any further."""
        self._transfers.pop(digest, None)
        self._forget_answered()

    def end_all(self) -> None:
        """None is sent any further."""
        self._transfers.clear()
        self._forget_answered()

    def keep(self, wanted: Callable[[str, bytes], bool]) -> None:
        """Ends the transfers that no origin wants any more."""
        for digest, transfer in list(self._transfers.items()):
            transfer.origins = {origin: since for origin, since in transfer.origins.items() if wanted(origin, digest)}
            if not transfer.origins:
                self.end(digest)

    # --- Out ------------------------------------------------------------------------------------------------------------------

    def pieces(self) -> list[PieceOut]:
        """What the window lets through. How long a body is becomes known when its first piece is put into a message."""
        found: list[PieceOut] = []
        waiting = [each for each in self._transfers.items() if each[1].waits]
        if not waiting:  # asked after every message
            return found
        left = self._pace.window - sum(each.in_flight for each in self._transfers.values())
        for digest, transfer in sorted(waiting, key=lambda each: each[1].left):
            offset = transfer.sent
            while left > 0 and (transfer.size is None or offset < transfer.size):
                found.append(PieceOut(digest, offset, tuple(transfer.origins)))
                offset += PIECE
                left -= PIECE
                if transfer.size is None:
                    break
        return found

    def sent(self, sequence: int, piece: PieceOut, length: int, size: int, now: float) -> None:
        """A piece was put into a message, or nothing (`length` 0) was left of its body; `now` is a clock that does not jump."""
        transfer, end = self._transfers.get(piece.digest), piece.offset + length
        current = transfer if transfer is not None and transfer.sent == piece.offset else None
        if current is not None:
            current.size = size
            current.sent = end
        if travels(length, size):
            self._flights[sequence, piece.digest] = None if current is None else _Flight(current, end, now)
            self._bound()
        elif current is not None:  # the receiver says that it has all of it: the last piece shows whether that is so
            current.go_on_at(size)

    def _bound(self) -> None:
        """Forgets the oldest piece; one that is not answered is sent again."""
        while len(self._flights) > FLIGHTS:
            key, flight = self._flights.popitem(last=False)
            self._forgotten = key[0]
            if flight is not None:
                flight.transfer.go_on_at(flight.transfer.received)

    def _forget_answered(self) -> None:
        """Once nothing is on its way, no answer matters."""
        if self._flights and not self._transfers:
            self._forgotten = next(reversed(self._flights))[0]
            self._flights.clear()

    # --- In -------------------------------------------------------------------------------------------------------------------

    def acknowledged(self, ack: pb.BodyAck, now: float) -> Whole | None:
        """The receiver has so much of a body; it, if that is all. Refused with LINK_VIOLATION: of what was never sent."""
        key = ack.sequence, ack.digest
        if ack.received < 0 or (key not in self._flights and not 0 < ack.sequence <= self._forgotten):
            raise violation("a body was acknowledged that was never sent")
        flight = self._flights.get(key)
        if flight is None:
            return None
        self._flights[key] = None
        transfer = flight.transfer
        if self._transfers.get(ack.digest) is not transfer:
            return None  # it was given up meanwhile; what was begun anew is answered by itself
        if ack.again:
            self._again(transfer, min(ack.received, flight.end))
        elif ack.whole:
            self._progress(flight, flight.end, now)
            return self._whole(ack, transfer)
        elif ack.received > transfer.sent:  # an earlier link brought more
            transfer.go_on_at(ack.received)
        else:
            self._progress(flight, ack.received, now)
        return None

    def _whole(self, ack: pb.BodyAck, transfer: _Transfer) -> Whole | None:
        """For origins whose sets came later the last piece is sent once more: that is answered when they are there."""
        proved = tuple(origin for origin, since in transfer.origins.items() if since <= ack.sequence)
        transfer.origins = {origin: since for origin, since in transfer.origins.items() if since > ack.sequence}
        if not transfer.origins:
            self.end(ack.digest)
        else:
            transfer.go_on_at(transfer.sent)
            transfer.size = transfer.size or None
        return Whole(ack.digest, proved) if proved else None

    def _again(self, transfer: _Transfer, received: int) -> None:
        """A piece did not fit. Those behind it do not fit either: their answers say nothing new."""
        transfer.repeats += 1
        if transfer.repeats > REPEATS:
            raise violation("a body was asked for again and again")
        for key, flight in self._flights.items():
            if flight is not None and flight.transfer is transfer:
                self._flights[key] = None
        transfer.size = None
        transfer.go_on_at(received)

    def _progress(self, flight: _Flight, received: int, now: float) -> None:
        taken = received - flight.transfer.received
        if taken > 0:
            flight.transfer.received = received
            flight.transfer.repeats = 0
            self._pace.acknowledged(taken, now - flight.sent_at)
