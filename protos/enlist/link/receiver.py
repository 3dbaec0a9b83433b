"""The half of a link that takes sets of documents, and says what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import DecodeError

from enlist import documents
from enlist.ancestry import ORIGINS
from enlist.documents import DesiredSet, SetVersion
from enlist.link.pace import PIECE
from enlist.link.phases import violation
from enlist.names import PRIMARY_ID_LENGTH
from enlist.reasons import Refused
from enlist.v1 import document_pb2, upstream_pb2
from enlist.v1 import hierarchy_pb2 as pb

MESSAGE_LIMIT = 1000
"""Characters of a refusal's sentence."""
WAITING = 16 * 1024
"""Answers that wait to be told, at most: a sender that reads none of them cannot have so much on its way."""
OUTSTANDING = 1024
"""Sets that came over a link and are not answered, at most; the oldest ones were replaced long ago."""
PIECES = 1024
"""Pieces in one message, at most: more than any window lets through."""
LARGE_SET_LIMIT = documents.SET_LIMIT + documents.BESIDE_SET
"""Bytes of a serialised signed set that travels in pieces, at most."""


class Replies(NamedTuple):
    """What is to be told to the sender."""

    set_acks: list[pb.SetAck]
    set_refusals: list[pb.SetRefused]
    body_acks: list[pb.BodyAck]


@dataclass
class _Waiting:
    """What waits to be told; of each body, one answer to each message."""

    set_acks: dict[tuple[str, SetVersion], pb.SetAck] = field(default_factory=dict)
    set_refusals: list[pb.SetRefused] = field(default_factory=list)
    body_acks: dict[tuple[int, bytes], pb.BodyAck] = field(default_factory=dict)


class _Large(NamedTuple):
    """A set that is coming in pieces: of which origin, and the number of the message that announced it."""

    origin: str
    sequence: int


@dataclass
class Taken:
    """What came of one message: the bodies that are whole now, by digest, and what was not taken, for the log.

    `refused` says why a set was not.
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
        self._large: dict[bytes, _Large] = {}
        self._stale: set[bytes] = set()
        self._replies = _Waiting()
        self._sequence = 0
        self._came: dict[tuple[str, SetVersion], int] = {}
        """The sets that came over this link and are not answered, with the numbers of their messages."""

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
        self._replies = _Waiting()
        self._sequence = 0
        self._came.clear()
        self._large.clear()
        self._keep_parts(self._parts.keys() - self._stale)
        self._stale = set(self._parts)  # a body that nothing asks for until the next link is forgotten then

    def held(self, verified: DesiredSet) -> None:
        """A set is complete and on the disk. One that came over an earlier link is told by the hello, or comes again."""
        origin, version = verified.origin, verified.version
        sequence = self._came.get((origin, version))
        if sequence is None:
            return
        self._came = {each: number for each, number in self._came.items() if each[0] != origin or each[1] > version}
        ack = pb.SetAck(origin=origin, epoch=version.epoch, number=version.number, sequence=sequence)
        self._replies.set_acks.pop((origin, version), None)  # the order is that of the numbers
        self._replies.set_acks[origin, version] = ack

    def refuse(self, signed: document_pb2.SignedSet, refused: Refused) -> None:
        """A set that was accepted turns out not to be good."""
        sequence = self._came.pop(_key(signed), None)
        if sequence is not None:
            self._replies.set_refusals.append(_refusal(signed, refused, sequence))
            self._bound_replies()

    # --- What comes -----------------------------------------------------------------------------------------------------------

    def on_message(self, message: pb.FromPrimary | upstream_pb2.FromDaemon) -> Taken | None:
        """Takes the set and the pieces in a message; None if there is none, or it was taken before. Refused as `on_pieces` is."""
        if not self.is_new(message.sequence):
            return None
        refused = self.on_set(message.desired) if message.HasField("desired") else None
        if message.HasField("large_set"):
            self.on_large_set(message.large_set)
        taken = self.on_pieces(message.pieces)
        taken.refused = refused or taken.refused
        return taken

    def is_new(self, sequence: int) -> bool:
        """Whether a message with a set or pieces has not been taken before."""
        if sequence <= self._sequence:
            return False
        self._sequence = sequence
        return True

    def on_set(self, signed: document_pb2.SignedSet) -> Refused | None:
        """Takes a set. One that is refused is answered, and is as if it had not come; why, for the log."""
        _check_origin(signed.origin)
        self._forget_large(signed.origin)
        return self._on_set(signed, self._sequence)

    def _on_set(self, signed: document_pb2.SignedSet, sequence: int) -> Refused | None:
        key = _key(signed)
        self._came.pop(key, None)  # it is the newest one again
        self._came[key] = sequence
        if len(self._came) > OUTSTANDING:
            del self._came[next(iter(self._came))]
        try:
            self._accept(signed)
        except Refused as refused:
            self.refuse(signed, refused)
            return refused
        return None

    def on_large_set(self, large: pb.LargeSet) -> None:
        """A signed set comes in pieces."""
        _check_origin(large.origin)
        self._forget_large(large.origin, but=large.digest)
        self._large[large.digest] = _Large(large.origin, self._sequence)
        if len(self._large) > ORIGINS:
            raise violation("sets of too many origins were announced")

    def _forget_large(self, origin: str, but: bytes = b"") -> None:
        """A newer set of this origin has come, or is announced: what came of the one before is of no use."""
        for digest in [digest for digest, each in self._large.items() if each.origin == origin and digest != but]:
            del self._large[digest]
            if digest not in self._expected:
                self._size -= len(self._parts.pop(digest, b""))
                self._stale.discard(digest)

    def on_pieces(self, pieces: Iterable[pb.BodyPiece]) -> Taken:
        """Takes pieces. Refused with LINK_VIOLATION: one is too long or empty, or a body is not what its digest names."""
        taken = Taken()
        for number, piece in enumerate(pieces):
            if number >= PIECES or len(piece.digest) != documents.DIGEST_BYTES:
                raise violation("a message has too many pieces, or one of no body")
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
        if piece.size and not piece.data:
            raise violation("a piece of a body is empty")
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
        ack = pb.BodyAck(sequence=self._sequence, digest=digest, received=received, whole=whole, again=again)
        self._replies.body_acks[ack.sequence, digest] = ack
        self._bound_replies()

    def _bound_replies(self) -> None:
        if len(self._replies.body_acks) + len(self._replies.set_refusals) > WAITING:
            raise violation("the answers are not read")

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
        large = self._large.pop(digest, None)
        if large is None:
            taken.bodies[digest] = whole
            return
        signed = _read(whole)
        if signed.origin != large.origin:  # also one that cannot be read
            signed = document_pb2.SignedSet(origin=large.origin)
        taken.refused = self._on_set(signed, large.sequence) or taken.refused

    # --- What is told ---------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._replies.set_acks or self._replies.set_refusals or self._replies.body_acks)

    def replies(self) -> Replies:
        """What is to be told now. What a link that breaks does not carry, the next hello tells."""
        told, self._replies = self._replies, _Waiting()
        return Replies(list(told.set_acks.values()), told.set_refusals, list(told.body_acks.values()))


def _refusal(signed: document_pb2.SignedSet, refused: Refused, sequence: int) -> pb.SetRefused:
    """The answer to a set that is not taken; its version as it is written there, verified or not."""
    origin, version = _key(signed)
    answer = pb.SetRefused(origin=origin, epoch=version.epoch, number=version.number, reason=refused.reason, sequence=sequence)
    answer.message = refused.message[:MESSAGE_LIMIT]
    return answer


def _key(signed: document_pb2.SignedSet) -> tuple[str, SetVersion]:
    said = _said(signed)
    return signed.origin, SetVersion(said.epoch, said.number)


def _check_origin(origin: str) -> None:
    if len(origin) > PRIMARY_ID_LENGTH:
        raise violation("a set names no primary")


def _read(whole: bytes) -> document_pb2.SignedSet:
    """A signed set that came in pieces; one of nobody if it cannot be read."""
    try:
        return document_pb2.SignedSet.FromString(whole)
    except DecodeError:
        return document_pb2.SignedSet()


def _said(signed: document_pb2.SignedSet) -> document_pb2.DesiredSet:
    """What a set says, verified or not; nothing if it cannot be read, or is too large to be one."""
    if len(signed.desired_set) > documents.SET_LIMIT:
        return document_pb2.DesiredSet()
    try:
        return document_pb2.DesiredSet.FromString(signed.desired_set)
    except DecodeError:
        return document_pb2.DesiredSet()
