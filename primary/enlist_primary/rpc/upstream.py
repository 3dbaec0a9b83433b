"""UpstreamService: the secondary on this host, through which this primary stands under another one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from enlist import documents
from enlist.reasons import TABLE, Reason, Refused
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2, hierarchy_pb2, upstream_pb2_grpc
from enlist.v1 import upstream_pb2 as pb
from enlist_primary.model.levels import ANCESTOR_STATES, UpperState
from enlist_primary.rpc.context import Context

RETRY_SECONDS = 1.0

log = Log("upstream")

_STATES = {number: state for state, number in ANCESTOR_STATES.items()}


class Upstream(upstream_pb2_grpc.UpstreamServiceServicer):
    """Joins this primary to the secondary on its host: one at a time, the newest counts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._attached: asyncio.Event | None = None

    async def Attach(  # type: ignore[override]  # the stubs know generators only; this one reads and writes as it needs to
        self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if self._attached is not None:
            self._attached.set()
        replaced = self._attached = asyncio.Event()
        attached = _Attached(self._context, context)
        works = (attached.hear(), attached.say(), replaced.wait(), self._context.upper.cleared.wait())
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            attached.close()
            if self._attached is replaced:
                self._attached = None
                self._context.upper.disconnected(self._context.now())
        for task in done:
            if not isinstance(task.exception(), grpc.aio.BaseError | None):
                task.result()


class _Attached:
    """One stream."""

    def __init__(self, own: Context, stream: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._own = own
        self._stream = stream
        self._coming: dict[str, document_pb2.SignedSet] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._writing = asyncio.Lock()
        self._below = own.subtree.open()

    async def hear(self) -> None:
        """Takes what the secondary says, until it goes."""
        while (message := await self._stream.read()) is not grpc.aio.EOF:
            for ack in message.acks:
                self._acknowledged(ack)
            while not await self._heed(message):
                log.info("what came from above is tried again")

    def _acknowledged(self, ack: hierarchy_pb2.Ack) -> None:
        if ack.refused:
            raise Refused(Reason.OVERLOADED, "The secondary on this host has no room for what is below. Attach again.")
        if not self._below.ack(ack.sequence):
            log.warning("acknowledgement of what was not sent", sequence=ack.sequence)

    async def _heed(self, message: pb.FromDaemon) -> bool:
        """Takes a message. False, after a moment, if that is to be tried again: it will not be said twice."""
        taking = asyncio.create_task(self._take(message))
        try:
            await asyncio.shield(taking)  # what is being written down shall also be known here, though the stream ends meanwhile
        except asyncio.CancelledError:
            await asyncio.wait([taking])
            raise
        except Refused as refused:
            log.warning("what came from above was refused", reason=refused.reason, problem=refused.message)
            if TABLE[refused.reason].retry:
                await asyncio.sleep(RETRY_SECONDS)
                return False
        return True

    async def _take(self, message: pb.FromDaemon) -> None:
        upper = self._own.upper
        if message.HasField("upper"):
            await self._joined(message.upper)
        if message.HasField("ancestry"):
            await upper.ascend(message.ancestry)
        room = (len(self._coming) + 1) * documents.BODIES_LIMIT
        for body in message.bodies:
            if len(body) <= documents.BODY_LIMIT and sum(map(len, self._bodies.values())) < room:
                self._bodies[documents.digest(body)] = body
        if message.HasField("desired"):
            self._coming[message.desired.origin] = message.desired
        for signed in list(self._coming.values()):
            if await upper.complete(signed, self._bodies):
                await self._keep(signed)
        if not self._coming:
            self._bodies.clear()

    async def _keep(self, signed: document_pb2.SignedSet) -> None:
        """Takes a set that is complete; one that is no good waits for nothing more."""
        try:
            await self._own.upper.take(signed, self._bodies)
        except Refused as refused:
            if not TABLE[refused.reason].retry:
                del self._coming[signed.origin]
            raise
        del self._coming[signed.origin]

    async def _joined(self, said: pb.Upper) -> None:
        own, now = self._own, self._own.now()
        state = _STATES.get(said.bequest, UpperState.GONE)
        own.upper.seen(said.connected, said.connected_time.seconds if said.HasField("connected_time") else None, said.refusal)
        try:
            lower = await own.upper.join(said.authority_certificate, said.primary_name, state, now)
        except Refused as refused:
            if not TABLE[refused.reason].retry:  # heard it was: the secondary may be waiting for that
                await self._write(pb.ToDaemon(heard=said))
            raise
        if lower is not None:
            lower.primary_name = own.config.name
            await self._write(pb.ToDaemon(lower=lower, held=own.upper.held()))
        await self._write(pb.ToDaemon(heard=said))

    async def say(self) -> None:
        """Says what stands below: all of it, then what changes."""
        async for message in self._below.messages():
            await self._write(pb.ToDaemon(below=message))

    def close(self) -> None:
        """The stream has ended."""
        self._own.subtree.close(self._below)

    async def _write(self, message: pb.ToDaemon) -> None:
        async with self._writing:  # two tasks have something to say
            await self._stream.write(message)
