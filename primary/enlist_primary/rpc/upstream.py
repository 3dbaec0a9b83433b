"""UpstreamService: the secondary on this host, through which this primary stands under another one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist.v1 import upstream_pb2_grpc
from enlist_primary.federation.parent_stream import ParentStream
from enlist_primary.rpc.context import Context

log = Log("upstream")


class Upstream(upstream_pb2_grpc.UpstreamServiceServicer):
    """Joins this primary to the secondary on its host: one at a time, the newest counts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._newest: asyncio.Event | None = None
        self._turn = asyncio.Lock()

    async def Attach(  # type: ignore[override]  # the stubs know generators only; this one reads and writes as it needs to
        self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        if self._newest is not None:
            self._newest.set()
        replaced = self._newest = asyncio.Event()
        async with self._turn:  # the stream before has ended: two never write what is above this primary
            if not replaced.is_set():
                await self._converse(context, replaced)

    async def _converse(self, context: grpc.aio.ServicerContext[Any, Any], replaced: asyncio.Event) -> None:
        own = self._context
        stream = ParentStream(context, own.config.name, own.upper, own.subtree, own.hub, own.clock)
        works = (stream.hear(), stream.say(), replaced.wait(), own.upper.cleared.wait())
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.close()
            own.upper.disconnected(own.now())
        for task in done:
            error = task.exception()
            if isinstance(error, Refused):
                log.warning("the secondary on this host is refused", reason=error.reason, problem=error.message)
            if not isinstance(error, grpc.aio.BaseError | None):
                task.result()
