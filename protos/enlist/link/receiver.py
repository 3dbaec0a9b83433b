"""The half of a link that takes sets of documents, and says what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from enlist import documents
from enlist.ancestry import LEVELS
from enlist.documents import DesiredSet, SetVersion
from enlist.link.pace import PIECE
from enlist.link.phases import violation
from enlist.reasons import Refused
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb

MESSAGE_LIMIT = 1000
"""Characters of a refusal's sentence."""
LARGE_SET_LIMIT = documents.SET_LIMIT + 1024
"""Bytes of a serialised signed set that travels in pieces, at most."""


@dataclass
class Replies:
    """What is to be told to the sender."""

    set_acks: list[pb.SetAck] = field(default_factory=list)
    set_refusals: list[pb.SetRefused] = field(default_factory=list)
    body_acks: list[pb.BodyAck] = field(default_factory=list)


@dataclass
class Taken:
    """What came of the pieces in one message: the bodies that are whole now, by digest, and what was not taken, for the log.

    `refused` says why a set that came in pieces was not.
    """

    bodies: dict[bytes, bytes] = field(default_factory=dict)
    problem: str = ""
    refused: Refused | None = None


class Receiver:
    """Takes signed sets, and puts together the bodies that they miss. What is verified and kept, its host says.

    Bodies that an earlier link brought in part go on where they stopped.
    """

    def __init__(self, accept: Callable[[document_pb2.SignedSet], None], has: Callable[[bytes], bool]) -> None:
        """`accept` takes a signed set or refuses it; then the host says with `expect` which bodies are missing.

        `has` says whether the host has a body and keeps it, because a set that is held or coming names it.
        """
        self._accept = accept
        self._has = has
        self._expected: set[bytes] = set()
        self._parts: dict[bytes, bytearray] = {}
        self._size = 0
        self._large: dict[bytes, str] = {}
        self._stale: set[bytes] = set()
        self._replies = Replies()
        self._sequence = 0
        self._came: set[tuple[str, SetVersion]] = set()
        """The sets that came over this link and are not answered."""

    # --- What the host says ---------------------------------------------------------------------------------------------------

    def expect(self, digests: Iterable[bytes]) -> None:
        """These bodies are missing, and no others. What an earlier link brought of others stays until the next one."""
        self._expected = set(digests)
        keep = self._expected | self._large.keys() | self._stale
        self._keep_parts(keep)

    def _keep_parts(self, keep: Set[bytes]) -> None:
        self._parts = {digest: part for digest, part in self._parts.items() if digest in keep}
        self._size = sum(map(len, self._parts.values()))

    def parts(self) -> list[pb.BodyAck]:
        """What a hello says of bodies that came in part."""
        return [pb.BodyAck(digest=digest, received=len(part)) for digest, part in self._parts.items()]

    def linked(self) -> None:
        """Another link is open: its messages count from here on, and those of the link before do not."""
        self._replies = Replies()
        self._sequence = 0
        self._came.clear()
        self._large.clear()
        self._keep_parts(self._parts.keys() - self._stale)
        self._stale = set(self._parts)  # a body that nothing asks for until the next link is forgotten then

    def held(self, verified: DesiredSet) -> None:
        """A set is complete and on the disk. One that came over an earlier link is told by the hello, or comes again."""
        version = verified.version
        if (verified.origin, version) not in self._came:
            return
        self._came = {each for each in self._came if each[0] != verified.origin or each[1] > version}
        self._replies.set_acks.append(pb.SetAck(origin=verified.origin, epoch=version.epoch, number=version.number))

    def refuse(self, signed: document_pb2.SignedSet, refused: Refused) -> None:
        """A set that was accepted turns out not to be good."""
        self._replies.set_refusals.append(refusal(signed, refused))

    # --- What comes -----------------------------------------------------------------------------------------------------------

    def is_new(self, sequence: int) -> bool:
        """Whether a message with a set or pieces has not been taken before."""
        if sequence <= self._sequence:
            return False
        self._sequence = sequence
        return True

    def on_set(self, signed: document_pb2.SignedSet) -> Refused | None:
        """Takes a set. One that is refused is answered, and is as if it had not come; why, for the log."""
        self._forget_large(signed.origin)
        said = _said(signed)
        key = signed.origin, SetVersion(said.epoch, said.number)
        self._came.add(key)
        try:
            self._accept(signed)
        except Refused as refused:
            self._came.discard(key)
            self._replies.set_refusals.append(refusal(signed, refused))
            return refused
        return None

    def on_large_set(self, large: pb.LargeSet) -> None:
        """A signed set comes in pieces."""
        self._forget_large(large.origin)
        self._large[large.digest] = large.origin
        if len(self._large) > LEVELS + 1:
            raise violation("sets of too many origins were announced")

    def _forget_large(self, origin: str) -> None:
        """A newer set of this origin has come, or is announced."""
        self._large = {digest: each for digest, each in self._large.items() if each != origin}

    def on_pieces(self, pieces: Iterable[pb.BodyPiece]) -> Taken:
        """Takes pieces. Refused with LINK_VIOLATION where one is too long, or a body is not what its digest names."""
        taken = Taken()
        for piece in pieces:
            if piece.digest not in self._expected and piece.digest not in self._large:
                self._pass_over(piece, taken)
            elif (whole := self._on_piece(piece, taken)) is not None:
                self._on_whole(piece.digest, whole, taken)
        return taken

    def _pass_over(self, piece: pb.BodyPiece, taken: Taken) -> None:
        """Of a body that is here, or that no set asks for: its set may have been refused a moment ago."""
        if self._has(piece.digest):
            self._answer(piece.digest, whole=True)
        else:
            taken.problem = "a body came that no set asks for"
            self._answer(piece.digest, again=True)

    def _on_piece(self, piece: pb.BodyPiece, taken: Taken) -> bytes | None:
        limit = LARGE_SET_LIMIT if piece.digest in self._large else documents.BODY_LIMIT
        part = self._parts.setdefault(piece.digest, bytearray())
        if len(piece.data) > PIECE or piece.size > limit or piece.offset + len(piece.data) > piece.size:
            raise violation("a piece of a body is too long")
        if not 0 <= piece.offset <= len(part):
            taken.problem = "the pieces of a body came out of order"
            self._answer(piece.digest, len(part), again=True)
            return None
        if piece.offset == len(part):  # else it came before
            self._append(part, piece.data)
        whole = len(part) >= piece.size
        self._answer(piece.digest, len(part), whole=whole)
        return self._finish(piece.digest) if whole else None

    def _answer(self, digest: bytes, received: int = 0, whole: bool = False, again: bool = False) -> None:
        self._replies.body_acks.append(
            pb.BodyAck(sequence=self._sequence, digest=digest, received=received, whole=whole, again=again)
        )

    def _append(self, part: bytearray, data: bytes) -> None:
        if self._size + len(data) > documents.BODIES_LIMIT:
            raise violation("the bodies that are not whole are too much together")
        part += data
        self._size += len(data)

    def _finish(self, digest: bytes) -> bytes:
        whole = bytes(self._parts.pop(digest))
        self._size -= len(whole)
        self._expected.discard(digest)
        self._stale.discard(digest)
        if documents.digest(whole) != digest:
            raise violation("a body is not the one that its digest names")
        return whole

    def _on_whole(self, digest: bytes, whole: bytes, taken: Taken) -> None:
        origin = self._large.get(digest)
        if origin is None:
            taken.bodies[digest] = whole
            return
        try:
            signed = document_pb2.SignedSet.FromString(whole)
        except DecodeError:
            signed = document_pb2.SignedSet(origin=origin)
        taken.refused = self.on_set(signed) or taken.refused

    # --- What is told ---------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._replies.set_acks or self._replies.set_refusals or self._replies.body_acks)

    def replies(self) -> Replies:
        """What is to be told now. What a link that breaks does not carry, the next hello tells."""
        told, self._replies = self._replies, Replies()
        last = {(ack.sequence, ack.digest): ack for ack in told.body_acks}
        told.body_acks = list(last.values())
        return told


def refusal(signed: document_pb2.SignedSet, refused: Refused) -> pb.SetRefused:
    """The answer to a set that is not taken; its version as it is written there, verified or not."""
    said = _said(signed)
    message = refused.message[:MESSAGE_LIMIT]
    return pb.SetRefused(origin=signed.origin, epoch=said.epoch, number=said.number, reason=refused.reason, message=message)


def _said(signed: document_pb2.SignedSet) -> document_pb2.DesiredSet:
    """What a set says, verified or not; nothing if it cannot be read."""
    try:
        return document_pb2.DesiredSet.FromString(signed.desired_set)
    except DecodeError:
        return document_pb2.DesiredSet()
