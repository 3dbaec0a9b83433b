"""The link: one stream to the primary over mutual TLS, open for as long as both ends want it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc.aio

from enlist import channel
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc, trust_pb2, trust_pb2_grpc

_Call = grpc.aio.StreamStreamCall[pb.FromSecondary, pb.FromPrimary]


class Link:
    """An open link. Whoever opened it closes it."""

    def __init__(self, dialled: grpc.aio.Channel, call: _Call, welcome: pb.Welcome) -> None:
        """Only `open_link` makes one."""
        self.welcome = welcome
        self._channel = dialled
        # Cancelling a read would cancel the whole call, so the one reader lives exactly as long as the link.
        self._reader = asyncio.create_task(_read_on(call))

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
        self._reader.cancel()
        await asyncio.wait({self._reader})
        await self._channel.close()


async def open_link(address: Address, pin: channel.Pin, identity: channel.ClientIdentity, hello: pb.Hello) -> Link:
    """Dials the SSL port, says hello and waits to be welcomed. Refuses with the primary's reason, UNREACHABLE or TIMED_OUT."""
    dialled = channel.dial(address, pin, identity)
    try:
        call: _Call = hierarchy_pb2_grpc.HierarchyServiceStub(dialled).Connect()
        async with asyncio.timeout(channel.RPC_TIMEOUT):
            return Link(dialled, call, await _greet(call, hello))
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


async def _read_on(call: _Call) -> Refused:
    """Messages of kinds that this version does not know are passed over."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return channel.refusal(error)
    return Refused(Reason.UNREACHABLE, "The primary closed the link.")
