"""The link: one stream to the primary over mutual TLS, open for as long as both ends want it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc.aio

from enlist import channel
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc, trust_pb2, trust_pb2_grpc
from enlist_secondary.outbox import Outlet
from enlist_secondary.work import Work

GATHER_SECONDS = 0.03
"""Seconds for which words are gathered before they are said: most policies are received and in force within them."""

_Call = grpc.aio.StreamStreamCall[pb.FromSecondary, pb.FromPrimary]


class Link:
    """An open link. Whoever opened it closes it."""

    def __init__(self, dialled: grpc.aio.Channel, call: _Call, welcome: pb.Welcome, work: Work | None) -> None:
        """Only `open_link` makes one."""
        self.welcome = welcome
        self._channel = dialled
        # Cancelling a read would cancel the whole call, so the one reader lives exactly as long as the link.
        self._reader = asyncio.create_task(_read_on(call, work))
        self._tasks: set[asyncio.Task[Any]] = {self._reader}
        if work is not None:
            self._tasks.add(asyncio.create_task(_write_on(call, work, work.welcomed(welcome))))

    async def ended(self, within: float) -> Refused | None:
        """Why the link ended, or None if it still stands after `within` seconds.

        Nothing is sent to find out: HTTP/2's keepalive ends the link within 30 s of the peer's death.
        """
        await asyncio.wait({self._reader}, timeout=within)
        return self._reader.result() if self._reader.done() else None

    async def renew(self) -> bytes:
        """A new certificate (DER) for this server's key. The old one stays good."""
        stub = trust_pb2_grpc.TrustServiceStub(self._channel)
        call = stub.RenewCertificate(trust_pb2.RenewCertificateRequest(), timeout=channel.RPC_TIMEOUT)
        return (await channel.answer(call)).certificate

    async def close(self) -> None:
        """Ends the link, if it has not ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._channel.close()


async def open_link(dialled: grpc.aio.Channel, hello: pb.Hello, work: Work | None) -> Link:
    """Says hello over a channel to the SSL port and waits to be welcomed. From now on the link closes the channel.

    Refuses with the primary's reason, UNREACHABLE or TIMED_OUT. Without `work`, what the primary wants here is passed over: such a
    link is opened only to see that it can be.
    """
    try:
        call: _Call = hierarchy_pb2_grpc.HierarchyServiceStub(dialled).Connect()
        async with asyncio.timeout(channel.RPC_TIMEOUT):
            welcome = await _greet(call, hello)
        return Link(dialled, call, welcome, work)
    except BaseException as error:
        await dialled.close()
        if isinstance(error, grpc.aio.AioRpcError):
            raise channel.refusal(error) from None
        if isinstance(error, TimeoutError):
            raise Refused(Reason.TIMED_OUT, "The primary did not welcome this server in time.") from None
        raise


async def _greet(call: _Call, hello: pb.Hello) -> pb.Welcome:
    with suppress(asyncio.InvalidStateError):  # the call has ended already; reading says why
        await call.write(pb.FromSecondary(hello=hello))
    first = await call.read()
    if isinstance(first, pb.FromPrimary) and first.HasField("welcome"):
        return first.welcome
    raise Refused(Reason.NOT_ENLIST, "The SSL port did not answer as a primary does.")


async def _read_on(call: _Call, work: Work | None) -> Refused:
    """Messages of kinds that this version does not know are passed over."""
    try:
        while isinstance(message := await call.read(), pb.FromPrimary):
            if work is not None:
                await work.take(message)
    except grpc.aio.AioRpcError as error:
        return channel.refusal(error)
    return Refused(Reason.UNREACHABLE, "The primary closed the link.")


async def _write_on(call: _Call, work: Work, outlet: Outlet) -> None:
    """Says what there is to say; what a link that breaks did not carry, the next one says again."""
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # the reader knows why
        while True:
            await outlet.news()
            await asyncio.sleep(GATHER_SECONDS)
            for message in work.say(outlet):
                await call.write(message)
