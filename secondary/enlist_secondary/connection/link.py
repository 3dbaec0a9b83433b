"""The link: one stream to the primary over mutual TLS, open for as long as both ends want it. Only moves bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import grpc.aio

from enlist import channel
from enlist.link.ends import SecondaryEnd
from enlist.link.phases import not_a_primary
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc
from enlist_secondary import renewal
from enlist_secondary.connection.session import Session
from enlist_secondary.identity import Identity

GATHER_SECONDS = 0.03
"""Seconds for which reports are gathered before they are sent: most policies are received and in force within them."""

_Call = grpc.aio.StreamStreamCall[pb.FromSecondary, pb.FromPrimary]


class Host(Protocol):
    """What a link brings messages to, and says the messages of."""

    def introduce(self, hello: pb.Hello) -> None:
        """Adds to a hello what is held, and what there are handlers for."""

    def linked(self, welcome: pb.Welcome, end: SecondaryEnd) -> Session:
        """The link is open: what it has to say comes from the session."""

    def on_message(self, message: pb.FromPrimary, session: Session) -> None:
        """What came over the link. Refused with LINK_VIOLATION, which ends it."""


class Link:
    """An open link. Whoever opened it closes it."""

    def __init__(self, dialled: grpc.aio.Channel, call: _Call, end: SecondaryEnd, welcome: pb.Welcome, host: Host | None) -> None:
        """Only `open_link` makes one."""
        self.welcome = welcome
        self._channel = dialled
        self._end = end
        self._session = session = host.linked(welcome, end) if host is not None else None
        # Cancelling a read would cancel the whole call, so the one reader lives exactly as long as the link.
        self._reader = asyncio.create_task(self._read_on(call, host, session))
        self._tasks: set[asyncio.Task[Any]] = {self._reader}
        if session is not None:
            self._tasks.add(asyncio.create_task(_write_on(call, session)))

    async def ended(self) -> Refused | None:
        """Waits until the link has ended, and says why; None if it was closed here.

        Nothing is sent to find out: HTTP/2's keepalive ends the link within 30 s of the peer's death.
        """
        await asyncio.wait({self._reader})
        return None if self._reader.cancelled() else self._reader.result()

    async def renew(self, identity: Identity) -> bytes:
        """A new certificate (DER) for this server's key. The old one stays good."""
        return await renewal.renew(self._channel, identity)

    async def close(self) -> None:
        """Ends the link, if it has not ended."""
        self._end.close()
        if self._session is not None:
            self._session.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._channel.close()

    async def _read_on(self, call: _Call, host: Host | None, session: Session | None) -> Refused:
        """Fields that this version does not know are passed over."""
        try:
            while isinstance(message := await call.read(), pb.FromPrimary):
                self._end.on_message(message)
                if host is not None and session is not None:
                    host.on_message(message, session)
        except grpc.aio.AioRpcError as error:
            return channel.refusal(error)
        except Refused as refused:
            call.cancel()
            return refused
        return Refused(Reason.UNREACHABLE, "The primary closed the link.")


async def open_link(dialled: grpc.aio.Channel, identity: Identity, hello: pb.Hello, host: Host | None) -> Link:
    """Answers the challenge of the SSL port and waits for the welcome. The link closes the channel.

    Refuses with the primary's reason, UNREACHABLE or TIMED_OUT.

    Without `host`, what the primary wants here is passed over: whoever opens such a link only tries whether one can be opened.
    """
    end = SecondaryEnd(identity.key, identity.authority.public_key)
    try:
        call: _Call = hierarchy_pb2_grpc.HierarchyServiceStub(dialled).Connect()
        async with asyncio.timeout(channel.RPC_TIMEOUT):
            welcome = await _greet(call, end, hello)
        return Link(dialled, call, end, welcome, host)
    except BaseException as error:
        await dialled.close()
        if isinstance(error, grpc.aio.AioRpcError):
            raise channel.refusal(error) from None
        if isinstance(error, TimeoutError):
            raise Refused(Reason.TIMED_OUT, "The primary did not welcome this server in time.") from None
        raise


async def _greet(call: _Call, end: SecondaryEnd, hello: pb.Hello) -> pb.Welcome:
    with suppress(asyncio.InvalidStateError):  # the call has ended already; reading says why
        greeting = end.on_challenge(await _message(call), hello)
        await call.write(greeting)
    return end.on_welcome(await _message(call))


async def _message(call: _Call) -> pb.FromPrimary:
    message = await call.read()
    if not isinstance(message, pb.FromPrimary):
        raise not_a_primary()
    return message


async def _write_on(call: _Call, session: Session) -> None:
    """Says what there is to say; what a link that breaks did not carry, the next one says again."""
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # the reader knows why
        while True:
            await session.news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            for message in session.say():
                await call.write(message)
                if session.over:  # the next link says it all, over cursors of its own
                    return
