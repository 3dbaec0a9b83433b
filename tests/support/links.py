"""The secondary's part of a link, played by a test: it answers the challenge, takes sets, and reports what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio

from enlist.channel import PROTOCOL
from enlist.documents import DesiredSet, Item, SetVersion
from enlist.link.ends import SecondaryEnd
from enlist.link.receiver import Receiver
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from tests.support.inprocess import Asker, Stubs

VERSION = "0.1.0"
"""What a hello says that the secondary runs."""


class LinkClient:
    """An open link. What it reads it takes, and answers as a secondary does; what it holds is in memory."""

    def __init__(self, stream: Any, end: SecondaryEnd, welcome: pb.Welcome) -> None:
        """Only `open_link` makes one."""
        self.stream = stream
        self.welcome = welcome
        self.answers = True
        """Whether sets and bodies are acknowledged."""
        self.got: list[pb.FromPrimary] = []
        """The messages behind the welcome, in their order."""
        self.held: list[DesiredSet] = []
        """The sets that were complete, in their order; no signature is verified."""
        self.bodies: dict[bytes, bytes] = {}
        self.acks: list[pb.Ack] = []
        self.ended: grpc.aio.AioRpcError | None = None
        """What the link ended with, if the primary ended it while `listen` read."""
        self._end = end
        self._writing = asyncio.Lock()
        self._coming: dict[str, DesiredSet] = {}
        self._receiver = Receiver(self._accept, self.bodies.__contains__)
        self._receiver.linked()

    # --- In -------------------------------------------------------------------------------------------------------------------

    async def read(self) -> Any:
        """The next message, taken and answered; `grpc.aio.EOF` at the end. Raises what the primary ended the link with."""
        message = await self.stream.read()
        if message is not grpc.aio.EOF:
            self.got.append(message)
            self.acks.extend(message.acks)
            await self._take(message)
        return message

    async def listen(self) -> None:
        """Reads until the link ends."""
        try:
            while await self.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            self.ended = error

    async def until_held(self, number: int = 0) -> DesiredSet:
        """Reads until a set of this number, or any, is complete: the newest one."""
        while not self.held or self.held[-1].version.number < number:
            assert await self.read() is not grpc.aio.EOF
        return self.held[-1]

    @property
    def items(self) -> tuple[Item, ...]:
        """What the newest complete set wants."""
        return self.held[-1].items if self.held else ()

    async def _take(self, message: pb.FromPrimary) -> None:
        self._end.on_message(message)
        taken = self._receiver.on_message(message)
        if taken is None:
            return
        self.bodies |= taken.bodies
        self._complete()
        if self.answers and self._receiver.ready:
            told = self._receiver.replies()
            with suppress(asyncio.InvalidStateError):  # the test has said its last word, or the link has ended
                await self.send(set_acks=told.set_acks, set_refusals=told.set_refusals, body_acks=told.body_acks)

    def _accept(self, signed: document_pb2.SignedSet) -> None:
        self._coming[signed.origin] = read_set(signed)
        self._expect()

    def _complete(self) -> None:
        for origin, coming in list(self._coming.items()):
            if _digests(coming) <= self.bodies.keys():
                self.held.append(self._coming.pop(origin))
                self._receiver.held(coming)
        self._expect()

    def _expect(self) -> None:
        wanted = (digest for coming in self._coming.values() for digest in _digests(coming))
        self._receiver.expect(digest for digest in wanted if digest not in self.bodies)

    # --- Out ------------------------------------------------------------------------------------------------------------------

    async def send(self, **fields: Any) -> None:
        """A message of these fields."""
        async with self._writing:  # gRPC ends a call that is written to by two tasks at once, here by the test and `listen`
            await self.stream.write(pb.FromSecondary(**fields))

    async def report(self, *reports: document_pb2.Report) -> int:
        """Reports in one message; its number, which the primary acknowledges."""
        said = pb.Reports(reports=reports, sequence=self._end.number())
        await self.send(reports=said)
        return said.sequence

    async def report_below(self, servers: Iterable[pb.BelowServer] = (), **fields: Any) -> int:
        """What is below the primary on this host; the message's number."""
        said = pb.Below(servers=servers, sequence=self._end.number(), **fields)
        await self.send(below=said)
        return said.sequence

    def cancel(self) -> None:
        """Hangs up."""
        self.stream.cancel()


def read_set(signed: document_pb2.SignedSet) -> DesiredSet:
    """What a set says, whoever signed it."""
    said = document_pb2.DesiredSet.FromString(signed.desired_set)
    items = tuple(Item(each.kind, each.name, each.revision, each.digest, each.confirm_seconds) for each in said.items)
    return DesiredSet(signed.origin, said.account, said.target, SetVersion(said.epoch, said.number), items)


def _digests(desired: DesiredSet) -> frozenset[bytes]:
    return frozenset(item.digest for item in desired.items)


async def open_link(stub: Stubs, asker: Asker, metadata: Any = None, **hello: Any) -> LinkClient:
    """A link of this server that has been welcomed. Raises what the primary refuses it with."""
    stream: Any = stub.hierarchy.Connect(metadata=metadata)
    end = asker.link_end()
    said = pb.Hello(**{"protocol": PROTOCOL, "version": VERSION, **hello})
    challenge = await stream.read()
    assert challenge is not grpc.aio.EOF
    with suppress(asyncio.InvalidStateError):  # the call has ended already; reading says why
        await stream.write(end.on_challenge(challenge, said))
    message = await stream.read()
    assert message is not grpc.aio.EOF
    return LinkClient(stream, end, end.on_welcome(message))


@asynccontextmanager
async def linked(asker: Asker, listening: bool = False, **hello: Any) -> AsyncIterator[LinkClient]:
    """An open link over a connection of its own; with `listening` it reads by itself."""
    async with asker.at_ssl_port() as stub:
        link = await open_link(stub, asker, **hello)
        listener = asyncio.create_task(link.listen()) if listening else None
        try:
            yield link
        finally:
            link.cancel()
            if listener is not None:
                listener.cancel()
                await asyncio.wait([listener])
