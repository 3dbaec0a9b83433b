"""One stream of the secondary on this host: what comes down from the primary above, and what goes up to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc.aio

from enlist import ancestry, documents, names
from enlist.documents import DesiredSet
from enlist.link.phases import violation
from enlist.link.receiver import MESSAGE_LIMIT, Receiver
from enlist.reasons import TABLE, Reason, Refused
from enlist.runtime.controller import Backoff, Pauses, retry
from enlist.runtime.logs import Log
from enlist.runtime.threads import shielded
from enlist.v1 import document_pb2, hierarchy_pb2
from enlist.v1 import upstream_pb2 as pb
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.subtree import Subtree, SubtreeStream
from enlist_primary.links.registry import Hub
from enlist_primary.model.levels import ANCESTOR_STATES, UpperState

RETRY_SECONDS = 1.0
NAME_LIMIT = 300
"""Characters of the name of a primary above, at most."""
MESSAGES = 64
"""Messages of the secondary that wait to be written down, at most: then no further one is read."""

log = Log("upstream")

_STATES = {number: state for state, number in ANCESTOR_STATES.items()}


@dataclass(frozen=True)
class Coming:
    """A set from above that is verified and not complete."""

    signed: document_pb2.SignedSet
    verified: DesiredSet

    @property
    def digests(self) -> frozenset[bytes]:
        """The bodies that it names."""
        return frozenset(item.digest for item in self.verified.items)


class ParentStream:
    """One stream, from its beginning to its end. `clock` is Unix seconds."""

    def __init__(
        self,
        stream: grpc.aio.ServicerContext[Any, Any],
        primary_name: str,
        ancestors: Upper,
        subtree: Subtree,
        registry: Hub,
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._primary_name = primary_name
        self._ancestors = ancestors
        self._subtree = subtree
        self._registry = registry
        self._clock = clock
        self._below: SubtreeStream = subtree.open()
        self._coming: dict[str, Coming] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._relied: frozenset[bytes] = frozenset()
        """Bodies of coming sets that are here because other sets name them: they were answered, and are not sent."""
        self._messages = asyncio.Queue[pb.FromDaemon](MESSAGES)
        """What was read and is to be written down."""
        self._receiver = Receiver(self._accept, self._keeps)
        self._receiver.linked()
        self._writing = asyncio.Lock()

    def close(self) -> None:
        """The stream has ended."""
        self._subtree.close(self._below)

    # --- In -------------------------------------------------------------------------------------------------------------------

    async def hear(self) -> None:
        """Takes what the secondary says, until it goes. What cannot be written down yet holds up no acknowledgement."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._take())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self) -> None:
        while (message := await self._stream.read()) is not grpc.aio.EOF:
            self._on_acks(message.acks)
            self._on_settled(message.settled)
            if message.sequence or message.HasField("upper") or message.HasField("ancestry"):
                await self._messages.put(message)
        await self._messages.join()

    async def _take(self) -> None:
        while True:
            message = await self._messages.get()
            if message.HasField("upper"):
                await self._to_the_end(self._joined, message.upper)
            if message.HasField("ancestry"):
                await self._to_the_end(self._ancestors.ascend, message.ancestry)
            await self._on_documents(message)
            self._messages.task_done()

    def _on_acks(self, acks: Sequence[hierarchy_pb2.Ack]) -> None:
        if any(ack.refused for ack in acks):
            raise Refused(Reason.OVERLOADED, "The secondary on this host has no room for what is below. Attach again.")
        unknown = [ack.sequence for ack in acks if not self._below.ack(ack.sequence)]
        if unknown:
            log.warning("acknowledgement of what was not sent", reason=Reason.LINK_VIOLATION, sequence=unknown[0])

    def _on_settled(self, said: Sequence[hierarchy_pb2.Settled]) -> None:
        """Of what was said upward: the server that ran it, or the one on the way to it, is told.

        One without a link reports again with its next one.
        """
        strange = 0
        for each in said:
            if not (names.is_id(each.run) and ancestry.is_way(each.path)):
                strange += 1
            elif self._subtree.settled(each.path, each.run):
                id, _, rest = each.path.partition("/")
                link = self._registry.by_id(id)
                if link is not None and link.settle is not None:
                    link.settle(rest, each.run)
        if strange:
            log.warning("words on outcomes were not taken", reason=Reason.LINK_VIOLATION, count=strange)

    async def _on_documents(self, message: pb.FromDaemon) -> None:
        taken = self._receiver.on_message(message)
        if taken is None:
            return
        self._log_refused(taken.refused)
        if taken.problem:
            log.warning("a piece of a body was not taken", reason=Reason.LINK_VIOLATION, problem=taken.problem)
        self._bodies.update(taken.bodies)
        if sum(map(len, self._bodies.values())) > documents.BODIES_LIMIT * max(1, len(self._coming)):  # each has its own
            raise violation("the bodies of sets that are not complete are too much together")
        for origin in list(self._coming):
            await self._to_the_end(self._keep_complete, origin)
        if self._relied - self._ancestors.digests - self._bodies.keys():
            raise Refused(Reason.OVERLOADED, "A body that was here went with another set, and is needed again. Attach again.")
        await self._answer()

    def _accept(self, signed: document_pb2.SignedSet) -> None:
        verified = self._ancestors.check(signed)
        coming = self._coming.get(signed.origin)
        if coming is not None and not documents.supersedes(verified, coming.verified):
            return
        self._coming[signed.origin] = Coming(signed, verified)
        self._expect()

    def _keeps(self, digest: bytes) -> bool:
        named = any(digest in coming.digests for coming in self._coming.values())
        return digest in self._ancestors.digests or (named and digest in self._bodies)

    def _expect(self) -> None:
        needed = frozenset[bytes]().union(*(coming.digests for coming in self._coming.values()))
        self._bodies = {digest: body for digest, body in self._bodies.items() if digest in needed}
        missing = needed - self._ancestors.digests - self._bodies.keys()
        self._relied = (needed & self._relied) | (needed - missing - self._bodies.keys())
        self._receiver.expect(missing)

    async def _keep_complete(self, origin: str) -> None:
        """Keeps a set once all its bodies are here. One that is refused holds up no other, and is answered as it is."""
        coming = self._coming.get(origin)
        if coming is None or not coming.digests <= self._ancestors.digests | self._bodies.keys():
            return
        try:
            await self._ancestors.take(coming.signed, self._bodies)
        except Refused as refused:
            if TABLE[refused.reason].retry:
                raise
            self._log_refused(refused)
            self._receiver.refuse(coming.signed, refused)
        else:
            self._receiver.held(coming.verified)
        if self._coming.get(origin) is coming:
            del self._coming[origin]
        self._expect()

    async def _to_the_end(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """What is being written down is also known here, though the stream ends meanwhile. What may succeed later is tried again:
        it is not said twice."""

        async def on_failure(error: Exception) -> None:
            if not isinstance(error, Refused):
                raise error
            self._log_refused(error)
            if not TABLE[error.reason].retry:
                raise error

        with suppress(Refused):  # it was logged
            await retry(lambda: shielded(work(*arguments)), on_failure, Pauses(Backoff(RETRY_SECONDS, RETRY_SECONDS)))

    def _log_refused(self, refused: Refused | None) -> None:
        if refused is not None:
            say = log.alarm if refused.reason is Reason.SET_CONFLICT else log.warning
            say("ancestry or desired set refused", reason=refused.reason, problem=refused.message)

    async def _joined(self, said: pb.Upper) -> None:
        ancestors, now = self._ancestors, int(self._clock())
        state = _STATES.get(said.bequest, UpperState.GONE)
        at = said.connected_time.seconds if said.HasField("connected_time") else None
        ancestors.seen(said.connected, at, said.refusal[:MESSAGE_LIMIT])
        try:
            child = await ancestors.join(said.authority_certificate, said.primary_name[:NAME_LIMIT], state, now)
        except Refused as refused:
            if not TABLE[refused.reason].retry:  # heard it was: the secondary may be waiting for that
                await self._write(pb.ToDaemon(heard=said))
            raise
        if child is not None:
            child.primary_name = self._primary_name
            await self._write(pb.ToDaemon(lower=child, held=ancestors.held()))
        await self._write(pb.ToDaemon(heard=said))

    # --- Out ------------------------------------------------------------------------------------------------------------------

    async def say(self) -> None:
        """Says what is below: all of it, then what changes."""
        async for message in self._below.messages():
            await self._write(pb.ToDaemon(below=message))

    async def _answer(self) -> None:
        if self._receiver.ready:
            told = self._receiver.replies()
            message = pb.ToDaemon(set_acks=told.set_acks, set_refusals=told.set_refusals, body_acks=told.body_acks)
            await self._write(message)

    async def _write(self, message: pb.ToDaemon) -> None:
        async with self._writing:  # two tasks have something to say
            await self._stream.write(message)
