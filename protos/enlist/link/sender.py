"""The half of a link that wants sets of documents to be held at the other end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from enlist import documents
from enlist.documents import SetVersion
from enlist.link.pace import PIECE, Pace
from enlist.link.phases import violation
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb

REMEMBERED = 4096
"""Sets of this link of which an answer may come late."""
OUTSTANDING = 64
"""Sets of one origin that are sent and not answered, at most; the oldest ones were replaced long ago."""


@dataclass(frozen=True)
class Offer:
    """A set that is wanted at the receiver. `sign` is called when it is sent.

    `exact`: a set that is held in another version is not the same, even if its content is; it may be made out for another server.
    """

    version: SetVersion
    content: bytes
    digests: frozenset[bytes]
    sign: Callable[[], document_pb2.SignedSet]
    exact: bool = False
    target: str = ""
    """For whom the set is made out."""
    order: tuple[bytes, ...] = ()
    """The digests in the order of the items."""


class Held(NamedTuple):
    """A set that the receiver is known to hold."""

    version: SetVersion
    content: bytes
    digests: frozenset[bytes]
    target: str = ""


class Refusal(NamedTuple):
    """Why the receiver does not take a set."""

    version: SetVersion
    reason: str
    message: str


class PieceOut(NamedTuple):
    """A piece that is to be sent now. `origins` say whose sets name the body."""

    digest: bytes
    offset: int
    origins: tuple[str, ...]


@dataclass
class Out:
    """What is to be sent in one message; its pieces are told with `piece_sent` as they are put into it."""

    sequence: int = 0
    desired: document_pb2.SignedSet | None = None
    large_set: pb.LargeSet | None = None
    pieces: list[PieceOut] = field(default_factory=list)
    sent: tuple[str, Offer] | None = None


class _Flight(NamedTuple):
    """A piece on its way: of which transfer, up to where it reaches, and when it was sent."""

    transfer: _Transfer
    end: int
    sent_at: float


class _Large(NamedTuple):
    """A set that goes in pieces, and the bodies that follow it."""

    origin: str
    version: SetVersion
    whole: bytes
    missing: Sequence[bytes]


@dataclass
class _Origin:
    offer: Offer | None = None
    held: Held | None = None
    refusal: Refusal | None = None
    outstanding: list[Held] = field(default_factory=list)
    last_sent: SetVersion | None = None

    @property
    def due(self) -> bool:
        """Whether the offer has to be sent."""
        offer = self.offer
        if offer is None or any(each.version == offer.version for each in self.outstanding):
            return False
        if self.outstanding and self.outstanding[-1].content == offer.content and not offer.exact:
            return False
        if self.refusal is not None and self.refusal.version == offer.version:
            return False
        return not self.same(offer)

    def same(self, offer: Offer) -> bool:
        """Whether the receiver holds just that, and nothing else is on its way."""
        if self.held is None or self.outstanding or self.held.content != offer.content:
            return False
        return self.held.version == offer.version or not offer.exact

    def there(self) -> frozenset[bytes]:
        """Bodies that the receiver keeps whatever of this origin's sets it takes next."""
        found = self.held.digests if self.held is not None else frozenset[bytes]()
        return found.intersection(*(each.digests for each in self.outstanding)) if self.outstanding else found


@dataclass
class _Transfer:
    """A body on its way: what the receiver has, and what was sent."""

    origins: tuple[str, ...]
    received: int = 0
    sent: int = 0
    size: int | None = None

    @property
    def left(self) -> int:
        """How many bytes are to be sent; of a body whose size is not known, none: it may be small."""
        return 0 if self.size is None else self.size - self.sent


class Sender:
    """Brings offers to the receiver: sets at once, bodies in acknowledged pieces beside them. One for each link."""

    def __init__(self, held: Iterable[tuple[str, Held]] = (), parts: Iterable[tuple[bytes, int]] = ()) -> None:
        """`held` and `parts` are what the receiver says that it has: sets by origin, and how much of which other bodies."""
        self._origins: dict[str, _Origin] = {origin: _Origin(held=each) for origin, each in held}
        self._parts = {digest: received - received % PIECE for digest, received in parts}
        self._transfers: OrderedDict[bytes, _Transfer] = OrderedDict()
        self._large: dict[bytes, _Large] = {}
        self._sequence = 0
        self._on_their_way: dict[tuple[int, bytes], _Flight] = {}
        """The pieces that are not answered, by message and body."""
        self._sets: OrderedDict[tuple[str, SetVersion], None] = OrderedDict()
        """The sets that were sent over this link, the newest last."""
        self._complete: set[tuple[str, bytes]] = set()
        """Bodies, by origin, that are whole at the receiver while the newest set of that origin is not."""
        self._pace = Pace()

    # --- What is wanted -------------------------------------------------------------------------------------------------------

    def offer(self, origin: str, offer: Offer) -> None:
        """From now on this is wanted of this origin. What is made out for another server is not held any more."""
        known = self._origins.setdefault(origin, _Origin())
        known.offer = offer
        if known.held is not None and known.held.target != offer.target:
            known.held = None

    def withdraw(self, origin: str) -> None:
        """This origin is not above the receiver any more: the receiver forgets its sets and bodies, and so does this."""
        self._origins.pop(origin, None)
        self._drop_transfers()

    @property
    def origins(self) -> frozenset[str]:
        """The origins of which something is wanted, held or on its way."""
        return frozenset(self._origins)

    def restate(self, held: Iterable[tuple[str, Held]]) -> None:
        """The receiver says anew what it holds: of the others it holds nothing, and what it refused before it may take now."""
        there = dict(held)
        for origin in {*self._origins, *there}:
            known = self._origins.setdefault(origin, _Origin())
            known.held = there.get(origin)
            known.refusal = None
        self._drop_transfers()

    def assume(self, origin: str, held: Held) -> None:
        """The receiver said nothing of this origin, and what it then holds is known."""
        self._origins[origin] = _Origin(held=held)

    def refusal(self, origin: str) -> Refusal | None:
        """Why the receiver does not take what is wanted of this origin; None while it may."""
        known = self._origins.get(origin)
        if known is None or known.offer is None or known.refusal is None:
            return None
        return known.refusal if known.refusal.version == known.offer.version else None

    def target(self, origin: str) -> str | None:
        """For whom what is wanted, or held, of this origin is made out."""
        known = self._origins.get(origin)
        if known is None:
            return None
        return known.offer.target if known.offer is not None else known.held.target if known.held is not None else None

    def held(self, origin: str) -> Held | None:
        """What the receiver has acknowledged of this origin."""
        found = self._origins.get(origin)
        return found.held if found is not None else None

    def behind(self, origin: str) -> bool:
        """Whether what is wanted of this origin differs from what was acknowledged."""
        found = self._origins.get(origin)
        return found is not None and found.offer is not None and not found.same(found.offer)

    def large_set(self, digest: bytes) -> bytes | None:
        """A serialised signed set that travels in pieces."""
        found = self._large.get(digest)
        return None if found is None else found.whole

    # --- Out ------------------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether `next` has something to send."""
        return any(each.due for each in self._origins.values()) or bool(self._next_pieces())

    def next(self) -> Out | None:
        """What is to be sent in the next message: sets before bodies, and of bodies as much as the window lets through."""
        out = self._next_set() or Out()
        out.pieces = self._next_pieces()
        if out.sent is None and not out.pieces:
            return None
        self._sequence += 1
        out.sequence = self._sequence
        return out

    def _next_set(self) -> Out | None:
        for origin, each in self._origins.items():
            if each.due and each.offer is not None:
                return self._set_out(origin, each, each.offer)
        return None

    def _set_out(self, origin: str, known: _Origin, offer: Offer) -> Out:
        signed = offer.sign()
        there = known.there()
        known.outstanding = [
            *known.outstanding[-OUTSTANDING + 1 :],
            Held(offer.version, offer.content, offer.digests, offer.target),
        ]
        known.last_sent = offer.version
        self._sets[origin, offer.version] = None
        if len(self._sets) > REMEMBERED:
            self._sets.popitem(last=False)
        self._drop_transfers()
        missing = [
            each for each in offer.order or tuple(offer.digests) if each not in there and (origin, each) not in self._complete
        ]
        if len(signed.desired_set) > PIECE:
            return Out(large_set=self._begin_large(origin, offer.version, signed, missing), sent=(origin, offer))
        for digest in missing:
            self._begin(digest, origin)
        return Out(desired=signed, sent=(origin, offer))

    def _begin_large(
        self, origin: str, version: SetVersion, signed: document_pb2.SignedSet, missing: Sequence[bytes]
    ) -> pb.LargeSet:
        """The set itself goes in pieces; its bodies after it, for only then the receiver knows that it wants them."""
        whole = signed.SerializeToString()
        digest = documents.digest(whole)
        self._large[digest] = _Large(origin, version, whole, missing)
        self._begin(digest, origin)
        return pb.LargeSet(origin=origin, digest=digest)

    def _begin(self, digest: bytes, origin: str) -> None:
        transfer = self._transfers.get(digest)
        if transfer is None:
            there = self._parts.pop(digest, 0)
            transfer = self._transfers[digest] = _Transfer((), there, there)
        if origin not in transfer.origins:
            transfer.origins = (*transfer.origins, origin)

    def _drop_transfers(self) -> None:
        """Forgets the bodies that no set on its way names."""
        for digest, transfer in list(self._transfers.items()):
            wanted = tuple(origin for origin in transfer.origins if self._names(origin, digest))
            if wanted:
                transfer.origins = wanted
            else:
                self._end(digest)
        self._complete = {(origin, digest) for origin, digest in self._complete if self._names(origin, digest)}

    def _end(self, digest: bytes) -> None:
        self._transfers.pop(digest, None)
        self._large.pop(digest, None)

    def _names(self, origin: str, digest: bytes) -> bool:
        """Whether the newest set on its way of this origin needs the body."""
        known = self._origins.get(origin)
        if known is None or not known.outstanding:
            return False
        newest = known.outstanding[-1]
        if newest.version != known.last_sent:
            return False  # what was sent after it was refused: nothing is asked for until another set is wanted
        large = self._large.get(digest)
        return digest in newest.digests if large is None else large.version == newest.version

    def _next_pieces(self) -> list[PieceOut]:
        """What the window lets through, of the body that is soonest whole first: so a small one passes a large one.

        How long a body is becomes known when its first piece is put into a message.
        """
        if not self._transfers:
            return []
        left = self._pace.window - sum(each.sent - each.received for each in self._transfers.values())
        found: list[PieceOut] = []
        for digest, transfer in sorted(self._transfers.items(), key=lambda each: each[1].left):
            offset = transfer.sent
            while left > 0 and (transfer.size is None or offset < transfer.size):
                found.append(PieceOut(digest, offset, transfer.origins))
                offset += PIECE
                left -= PIECE
                if transfer.size is None:
                    break
        return found

    def piece_sent(self, out: Out, piece: PieceOut, length: int, size: int, now: float) -> None:
        """A piece was put into a message, or nothing (`length` 0) was left of its body; `now` is a clock that does not jump."""
        transfer = self._transfers.get(piece.digest)
        if transfer is None or transfer.sent != piece.offset:
            return
        transfer.size = size
        transfer.sent = piece.offset + length
        if length:
            self._on_their_way[out.sequence, piece.digest] = _Flight(transfer, transfer.sent, now)
        self._end_if_whole(piece.digest, transfer)

    def _end_if_whole(self, digest: bytes, transfer: _Transfer) -> None:
        if transfer.size is None or transfer.received < transfer.size:
            return
        large = self._large.get(digest)
        self._end(digest)
        if large is None:
            self._complete.update((origin, digest) for origin in transfer.origins)
            return
        for each in large.missing:
            self._begin(each, large.origin)

    def body_gone(self, digest: bytes) -> None:
        """There is no such body any more: another set is about to be wanted."""
        self._end(digest)

    # --- In -------------------------------------------------------------------------------------------------------------------

    def on_body_ack(self, ack: pb.BodyAck, now: float) -> None:
        """The receiver has so much of a body. Refused with LINK_VIOLATION: of what was never sent."""
        flight = self._on_their_way.pop((ack.sequence, ack.digest), None)
        if not 0 < ack.sequence <= self._sequence or ack.received < 0:
            raise violation("a body was acknowledged that was never sent")
        if flight is None:
            return  # it was answered before
        if self._transfers.get(ack.digest) is not flight.transfer:
            return  # it was given up meanwhile; what was begun anew is answered by itself
        if ack.received > flight.end and not ack.again:
            self._go_on_at(flight.transfer, ack.received)
        elif ack.again:
            self._go_on_at(flight.transfer, min(ack.received, flight.end))
        else:
            self._progress(flight, flight.end if ack.whole else ack.received, now)
        if ack.whole:
            flight.transfer.size = flight.transfer.received = flight.transfer.sent
        self._end_if_whole(ack.digest, flight.transfer)

    def _go_on_at(self, transfer: _Transfer, received: int) -> None:
        """The receiver has more of the body than was sent over this link, or less than it should."""
        if transfer.size is not None:
            whole = received >= transfer.size
            transfer.sent = transfer.received = transfer.size if whole else received - received % PIECE

    def _progress(self, flight: _Flight, received: int, now: float) -> None:
        taken = received - flight.transfer.received
        if taken > 0:
            flight.transfer.received = received
            self._pace.acknowledged(taken, now - flight.sent_at)

    def on_set_ack(self, ack: pb.SetAck) -> None:
        """The receiver holds a set. Refused with LINK_VIOLATION: of a set that was never sent."""
        version = SetVersion(ack.epoch, ack.number)
        known = self._answered(ack.origin, version)
        for place, sent in enumerate(known.outstanding):
            if sent.version == version:
                known.held = sent
                known.refusal = None
                known.outstanding = known.outstanding[place + 1 :]
                self._drop_transfers()
                return

    def on_set_refused(self, refused: pb.SetRefused) -> None:
        """The receiver does not take a set; it is not sent again over this link. Refused with LINK_VIOLATION as above."""
        version = SetVersion(refused.epoch, refused.number)
        known = self._answered(refused.origin, version)
        if any(sent.version == version for sent in known.outstanding):
            known.outstanding = [sent for sent in known.outstanding if sent.version != version]
            known.refusal = Refusal(version, refused.reason, refused.message)
            self._drop_transfers()

    def _answered(self, origin: str, version: SetVersion) -> _Origin:
        """What is known of an origin of which a set is answered. That set may have been replaced, or withdrawn, meanwhile."""
        if (origin, version) not in self._sets:
            raise violation("a set was answered that was never sent")
        return self._origins.get(origin, _Origin())
