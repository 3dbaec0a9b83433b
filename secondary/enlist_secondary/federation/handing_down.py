"""The sets from above on their way to the primary on this host, over one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

from enlist.documents import SetVersion
from enlist.link.pace import PIECE, travels
from enlist.link.sender import Offer, Out, Sender, decode_held
from enlist.link.transfers import PieceOut
from enlist.v1 import document_pb2, upstream_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary.documents import Documents, StoredSet


class HandingDown:
    """One stream's share: what the local primary holds, what it lacks, and the acknowledgements of what it said."""

    def __init__(self, held: Documents, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to send."""
        self._held = held
        self._wake = wake
        self._sender: Sender | None = None
        self._acks: dict[int, None] = {}

    def begin(self, held: Iterable[document_pb2.Held]) -> None:
        """The local primary says what it holds: at first, and again with each consent to be below."""
        said = [(each.origin, decode_held(each)) for each in held]
        if self._sender is None:
            self._sender = Sender(said)
        else:
            self._sender.restate(said)

    def acknowledge(self, sequence: int) -> None:
        """A message on what is below was taken; 0 if it is acknowledged together with a later one."""
        if sequence:
            self._acks[sequence] = None
            self._wake()

    def take_acks(self) -> list[pb.Ack]:
        """The acknowledgements that are due; a stream that breaks brings everything again."""
        acks, self._acks = [pb.Ack(sequence=each) for each in self._acks], {}
        return acks

    def on_message(self, message: upstream_pb2.ToDaemon) -> None:
        """Takes what was acknowledged. Refused with LINK_VIOLATION."""
        if self._sender is not None:
            self._sender.on_message(message, asyncio.get_running_loop().time())

    def offer(self, counting: Sequence[StoredSet]) -> None:
        """From now on these sets are wanted there. Who is not above any more is forgotten there as well."""
        if self._sender is None:
            return
        for origin in self._sender.origins - {kept.held.origin for kept in counting}:
            self._sender.withdraw(origin)
        for kept in counting:
            self._sender.offer(kept.held.origin, _offer(kept))

    async def messages(self) -> AsyncIterator[upstream_pb2.FromDaemon]:
        """What is to be sent now."""
        while self._sender is not None and (out := self._sender.next()) is not None:
            message = upstream_pb2.FromDaemon(sequence=out.sequence, desired=out.desired, large_set=out.large_set)
            for piece in out.pieces:
                found = await self._piece(self._sender, out, piece)
                if found is not None:
                    message.pieces.append(found)
            if out.sent is not None or message.pieces:
                yield message

    async def _piece(self, sender: Sender, out: Out, piece: PieceOut) -> pb.BodyPiece | None:
        body = sender.large_set(piece.digest) or await self._held.body(piece.digest)
        if body is None:  # other sets hold by now, and follow
            sender.body_gone(piece.digest, piece.origins)
            return None
        data = body[piece.offset : piece.offset + PIECE]
        sender.piece_sent(out, piece, len(data), len(body), asyncio.get_running_loop().time())
        if not travels(len(data), len(body)):
            return None
        return pb.BodyPiece(digest=piece.digest, offset=piece.offset, data=data, size=len(body))


def _offer(kept: StoredSet) -> Offer:
    held = kept.held
    version = SetVersion(held.epoch, held.number)
    return Offer(version, held.content, frozenset(held.digests), partial(_signed, kept), exact=True, target=held.target)


def _signed(kept: StoredSet) -> document_pb2.SignedSet:
    return kept.signed
