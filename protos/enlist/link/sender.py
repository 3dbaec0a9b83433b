"""The half of a link that wants sets of documents to be held at the other end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from enlist import documents
from enlist.documents import SetVersion
from enlist.link.pace import PIECE
from enlist.link.phases import violation
from enlist.link.receiver import MESSAGE_LIMIT, WAITING
from enlist.link.transfers import PieceOut, Transfers
from enlist.names import PRIMARY_ID_LENGTH
from enlist.reasons import Refused
from enlist.v1 import document_pb2, upstream_pb2
from enlist.v1 import hierarchy_pb2 as pb

REMEMBERED = 4096
"""Sets of this link of which an answer may come late."""
REASON_LIMIT = 64
"""Characters of a reason code, at most."""
OUTSTANDING = 64
"""Sets of one origin that are sent and not answered, at most; the oldest ones were replaced long ago."""


class Offer(NamedTuple):
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


def decode_held(said: document_pb2.Held) -> Held:
    """What counts of it: a receiver that says more keeps nothing more in the sender's memory."""
    digests = frozenset(filter(documents.is_digest, said.digests[: documents.ITEM_LIMIT]))
    content, target = said.content[: documents.DIGEST_BYTES], said.target[:PRIMARY_ID_LENGTH]  # a server's id is shorter
    return Held(SetVersion(said.epoch, said.number), content, digests, target)


class Refusal(NamedTuple):
    """Why the receiver does not take a set."""

    version: SetVersion
    reason: str
    message: str


@dataclass
class Out:
    """What is to be sent in one message; its pieces are told with `piece_sent` as they are put into it."""

    sequence: int = 0
    desired: document_pb2.SignedSet | None = None
    large_set: pb.LargeSet | None = None
    pieces: list[PieceOut] = field(default_factory=list)
    sent: tuple[str, Offer] | None = None


class _Sent(NamedTuple):
    """A set on its way, by the number of its message."""

    sequence: int
    offer: Offer


class _Large(NamedTuple):
    """A set that goes in pieces, by the number of the message that announced it."""

    sequence: int
    whole: bytes


@dataclass
class _Origin:
    offer: Offer | None = None
    held: Held | None = None
    refusal: Refusal | None = None
    outstanding: list[_Sent] = field(default_factory=list)
    newest: int = 0
    """The number of the message that brought the newest set, answered or not."""

    @property
    def travelling(self) -> _Sent | None:
        """The newest set, while it is not answered: its bodies are sent, and those of no other."""
        last = self.outstanding[-1] if self.outstanding else None
        return last if last is not None and last.sequence == self.newest else None  # else a newer one was refused

    @property
    def due(self) -> bool:
        """Whether the offer has to be sent."""
        offer = self.offer
        if offer is None or self.same(offer) or any(each.offer.version == offer.version for each in self.outstanding):
            return False
        travelling = self.travelling
        if travelling is not None and travelling.offer.content == offer.content and not offer.exact:
            return False
        return self.refusal is None or self.refusal.version != offer.version

    def same(self, offer: Offer) -> bool:
        """Whether the receiver holds just that, and nothing else is on its way."""
        if self.held is None or self.outstanding or self.held.content != offer.content:
            return False
        return self.held.version == offer.version or not offer.exact

    @property
    def target(self) -> str | None:
        """For whom what is wanted, or held, is made out."""
        if self.offer is not None:
            return self.offer.target
        return self.held.target if self.held is not None else None

    def there(self) -> frozenset[bytes]:
        """Bodies that the receiver keeps whatever of this origin's sets it takes next."""
        found = self.held.digests if self.held is not None else frozenset[bytes]()
        return found.intersection(*(each.offer.digests for each in self.outstanding))


class Sender:
    """Brings offers to the receiver: sets at once, bodies in acknowledged pieces beside them. One for each link."""

    def __init__(self, held: Iterable[tuple[str, Held]] = (), parts: Iterable[tuple[bytes, int]] = ()) -> None:
        """`held` and `parts` are what the receiver says that it has: sets by origin, and how much of which other bodies."""
        self._origins: dict[str, _Origin] = {origin: _Origin(held=each) for origin, each in held}
        self._transfers = Transfers(parts)
        self._large: dict[bytes, _Large] = {}
        self._sequence = 0
        self._sets: OrderedDict[int, tuple[str, SetVersion]] = OrderedDict()
        """The sets that were sent over this link by the number of their message, the newest last."""
        self._complete: set[tuple[str, bytes]] = set()
        """Bodies, by origin, that are whole at the receiver while the newest set of that origin is not."""

    # --- What is wanted -------------------------------------------------------------------------------------------------------

    def offer(self, origin: str, offer: Offer) -> None:
        """From now on this is wanted of this origin. What is made out for another server does not count any more."""
        known = self._origins.setdefault(origin, _Origin())
        if known.target not in (None, offer.target):
            known = self._origins[origin] = _Origin()
            self._drop_transfers()
        known.offer = offer

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
        self._begin_all_missing()  # what the set held before covered is lacking too

    def assume(self, origin: str, held: Held) -> None:
        """The receiver said nothing of this origin, and what it then holds is known."""
        self._origins[origin] = _Origin(held=held)

    def refusal(self, origin: str) -> Refusal | None:
        """Why the receiver does not take what is wanted of this origin; None while it may."""
        known = self._origins.get(origin)
        if known is None or known.offer is None or known.refusal is None:
            return None
        return known.refusal if known.refusal.version == known.offer.version else None

    def refusals(self) -> dict[str, Refusal]:
        """The same by origin, of all that refuse."""
        return {origin: refusal for origin in self._origins if (refusal := self.refusal(origin)) is not None}

    def target(self, origin: str) -> str | None:
        """For whom what is wanted, or held, of this origin is made out."""
        known = self._origins.get(origin)
        return known.target if known is not None else None

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
        for each in self._origins.values():  # asked after every message: a generator would cost more than what it asks
            if each.due:
                return True
        return bool(self._transfers.pieces())

    def next(self) -> Out | None:
        """What is to be sent in the next message: sets before bodies, and of bodies as much as the window lets through."""
        out = Out(self._sequence + 1)
        for origin, known in self._origins.items():
            if known.due:
                self._put_set(out, origin, known)
                break
        out.pieces = self._transfers.pieces()
        if out.sent is None and not out.pieces:
            return None
        self._sequence = out.sequence
        return out

    def _put_set(self, out: Out, origin: str, known: _Origin) -> None:
        offer = known.offer
        assert offer is not None  # it is due
        signed, sent = offer.sign(), _Sent(out.sequence, offer)
        known.outstanding = [*known.outstanding[-OUTSTANDING + 1 :], sent]
        known.newest = out.sequence
        self._remember(origin, sent)
        out.sent = origin, offer
        if len(signed.desired_set) > PIECE:
            out.large_set = self._begin_large(origin, sent, signed)
        else:
            out.desired = signed
        self._drop_transfers()
        self._begin_missing(origin, out.sequence)

    def _remember(self, origin: str, sent: _Sent) -> None:
        self._sets[sent.sequence] = origin, sent.offer.version
        if len(self._sets) > REMEMBERED:
            self._sets.popitem(last=False)

    def _begin_large(self, origin: str, sent: _Sent, signed: document_pb2.SignedSet) -> pb.LargeSet:
        """The set itself goes in pieces; its bodies after it, for only then the receiver knows that it wants them."""
        whole = signed.SerializeToString()
        digest = documents.digest(whole)
        self._large[digest] = _Large(sent.sequence, whole)
        self._transfers.begin(digest, origin, sent.sequence)
        return pb.LargeSet(origin=origin, digest=digest)

    def _begin_missing(self, origin: str, since: int) -> None:
        """Begins the bodies of the newest set that the receiver lacks; it has that set when this message comes."""
        travelling = self._travelling(origin)
        if travelling is None or self._is_announced(travelling):
            return
        there = self._origins[origin].there()
        for digest in travelling.offer.order or tuple(travelling.offer.digests):
            if digest not in there and (origin, digest) not in self._complete:
                self._transfers.begin(digest, origin, since)

    def _begin_all_missing(self) -> None:
        """The same for every origin, from the next message on."""
        for origin in self._origins:
            self._begin_missing(origin, self._sequence + 1)

    def _drop_transfers(self) -> None:
        """Forgets the bodies that no set on its way names."""
        if not (self._large or self._transfers or self._complete):
            return
        travelling = {each.newest for each in self._origins.values() if each.travelling is not None}
        if not travelling:
            self._large.clear()
            self._transfers.end_all()
            self._complete.clear()
            return
        self._large = {digest: large for digest, large in self._large.items() if large.sequence in travelling}
        self._transfers.keep(self._needs)
        self._complete = {each for each in self._complete if self._names(*each)}

    def _names(self, origin: str, digest: bytes) -> bool:
        """Whether the newest set on its way of this origin names the body."""
        travelling = self._travelling(origin)
        return travelling is not None and digest in travelling.offer.digests

    def _needs(self, origin: str, digest: bytes) -> bool:
        """Whether the body is to be sent now for this origin. Of a set that is only announced, none is: nothing asks for it yet."""
        travelling = self._travelling(origin)
        if travelling is None:
            return False
        large = self._large.get(digest)
        if large is not None:
            return large.sequence == travelling.sequence
        return digest in travelling.offer.digests and not self._is_announced(travelling)

    def _travelling(self, origin: str) -> _Sent | None:
        """The newest set of this origin on its way."""
        known = self._origins.get(origin)
        return None if known is None else known.travelling

    def _is_announced(self, sent: _Sent) -> bool:
        """Whether a set goes in pieces, and is not whole at the receiver."""
        return bool(self._large) and any(large.sequence == sent.sequence for large in self._large.values())

    def piece_sent(self, out: Out, piece: PieceOut, length: int, size: int, now: float) -> None:
        """A piece was put into a message, or nothing (`length` 0) was left of its body; `now` is a clock that does not jump."""
        self._transfers.sent(out.sequence, piece, length, size, now)

    def body_gone(self, digest: bytes, origins: Collection[str]) -> None:
        """These origins have no such body any more: of each, another set is about to be wanted."""
        self._transfers.keep(lambda origin, each: each != digest or origin not in origins)

    # --- In -------------------------------------------------------------------------------------------------------------------

    def on_message(self, message: pb.FromSecondary | upstream_pb2.ToDaemon, now: float) -> None:
        """Takes what a message says of sets and bodies; `now` is a clock that does not jump. Refused with LINK_VIOLATION.

        A refusal from below the receiver is not its own.
        """
        if len(message.body_acks) + len(message.set_acks) + len(message.set_refusals) > WAITING:
            raise violation("a message answers more than can have been sent")
        for body_ack in message.body_acks:
            self.on_body_ack(body_ack, now)
        for set_ack in message.set_acks:
            self.on_set_ack(set_ack)
        for refused in message.set_refusals:
            if not refused.below:
                self.on_set_refused(refused)

    def on_body_ack(self, ack: pb.BodyAck, now: float) -> None:
        """The receiver has so much of a body. Refused with LINK_VIOLATION: of what was never sent."""
        whole = self._transfers.acknowledged(ack, now)
        if whole is None:
            return
        large = self._large.pop(whole.digest, None)
        for origin in whole.origins:
            if large is None:
                self._complete.add((origin, whole.digest))
            else:
                self._begin_missing(origin, self._sequence + 1)

    def on_set_ack(self, ack: pb.SetAck) -> None:
        """The receiver holds a set. Refused with LINK_VIOLATION: of a set that was never sent."""
        origin, version = self._answered(ack.sequence, ack.origin)
        if version != SetVersion(ack.epoch, ack.number):
            raise _never_sent()
        known = self._origins.get(origin)
        if known is None:
            return
        for place, (sequence, offer) in enumerate(known.outstanding):
            if sequence == ack.sequence:
                known.held = Held(offer.version, offer.content, offer.digests, offer.target)
                known.refusal = None
                known.outstanding = known.outstanding[place + 1 :]
                self._drop_transfers()
                return

    def on_set_refused(self, refused: pb.SetRefused) -> None:
        """The receiver does not take a set; it is not sent again over this link. Refused as in `on_set_ack`."""
        origin, version = self._answered(refused.sequence, refused.origin)
        known = self._origins.get(origin)
        if known is None:
            return
        found = next((each for each in known.outstanding if each.sequence == refused.sequence), None)
        if found is not None:
            known.outstanding.remove(found)
            known.refusal = Refusal(version, refused.reason[:REASON_LIMIT], refused.message[:MESSAGE_LIMIT])
            self._drop_transfers()
            self._send_anew(found.offer.digests)

    def _send_anew(self, forgotten: frozenset[bytes]) -> None:
        """The receiver forgot the bodies of a set that it refused; sets that came since may name them."""
        self._complete = {each for each in self._complete if each[1] not in forgotten}
        self._transfers.doubt(forgotten, self._sequence + 1)
        self._begin_all_missing()

    def _answered(self, sequence: int, origin: str) -> tuple[str, SetVersion]:
        """The set that is answered. It may have been replaced, or withdrawn, meanwhile."""
        found = self._sets.get(sequence)
        if found is None or found[0] != origin:
            raise _never_sent()
        return found


def _never_sent() -> Refused:
    return violation("a set was answered that was never sent")
