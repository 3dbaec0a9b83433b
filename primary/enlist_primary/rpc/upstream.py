"""UpstreamService: the secondary on this host, through which this primary stands under another one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from enlist import documents
from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2, upstream_pb2_grpc
from enlist.v1 import upstream_pb2 as pb
from enlist_primary.model.levels import ANCESTOR_STATES, UpperState
from enlist_primary.rpc.context import Context

GATHER_SECONDS = 0.05
"""Seconds for which changes below are gathered before they are said upward."""

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
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(work) for work in (attached.hear(), attached.say(), replaced.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._attached is replaced:
                self._attached = None
                self._context.subtree.detached()
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
        self._told: pb.ToDaemon | None = None

    async def hear(self) -> None:
        """Takes what the secondary says, until it goes."""
        while (message := await self._stream.read()) is not grpc.aio.EOF:
            taking = asyncio.create_task(self._heed(message))
            try:
                await asyncio.shield(
                    taking
                )  # what is being written down shall also be known here, though the stream ends meanwhile
            except asyncio.CancelledError:
                await asyncio.wait([taking])
                raise

    async def _heed(self, message: pb.FromDaemon) -> None:
        try:
            await self._take(message)
        except Refused as refused:
            log.warning("what came from above was refused", reason=refused.reason, problem=refused.message)

    async def _take(self, message: pb.FromDaemon) -> None:
        upper = self._own.upper
        if message.HasField("upper"):
            await self._joined(message.upper)
        if message.HasField("ancestry"):
            await upper.ascend(message.ancestry)
        for body in message.bodies:
            if len(body) <= documents.BODY_LIMIT and sum(map(len, self._bodies.values())) < documents.BODIES_LIMIT:
                self._bodies[documents.digest(body)] = body
        if message.HasField("desired"):
            self._coming[message.desired.origin] = message.desired
        for signed in list(self._coming.values()):
            if await upper.complete(signed, self._bodies):
                del self._coming[signed.origin]
                await upper.take(signed, self._bodies)
        if not self._coming:
            self._bodies.clear()

    async def _joined(self, said: pb.Upper) -> None:
        own, now = self._own, self._own.now()
        state = _STATES.get(said.bequest, UpperState.GONE)
        own.upper.seen(said.connected, said.connected_time.seconds if said.HasField("connected_time") else None, said.refusal)
        lower = await own.upper.join(said.authority_certificate, said.primary_name, state, now)
        if lower is not None and lower != (self._told.lower if self._told else None):
            lower.primary_name = own.config.name
            self._told = pb.ToDaemon(lower=lower, held=own.upper.held())
            await self._write(self._told)
        await self._write(pb.ToDaemon(heard=said))

    async def say(self) -> None:
        """Says what stands below: all of it, then what changes."""
        for message in await self._own.subtree.whole():
            await self._write(pb.ToDaemon(below=message))
        while True:
            for message in await self._own.subtree.changes():
                await self._write(pb.ToDaemon(below=message))
            await asyncio.sleep(GATHER_SECONDS)

    async def _write(self, message: pb.ToDaemon) -> None:
        async with self._writing:  # two tasks have something to say
            await self._stream.write(message)
