"""A primary that is only answers: what the commands ask of one, and what they make of what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from enlist.v1 import server_pb2
from enlist.v1.server_pb2 import Server

T = 1_800_000_000
SHOWN = "2027-01-15T08:00:00Z"

Answer = Message | Callable[[Any], Message]


def moment(seconds: int = T) -> Timestamp:
    """A time on the wire."""
    return Timestamp(seconds=seconds)


def server(
    id: str, name: str = "", state: str = "trusted", account: str = "acme.example", group: str = "/", **fields: Any
) -> Server:
    """A server as the primary shows it."""
    number = server_pb2.ServerState.Value(f"SERVER_STATE_{state.upper()}")
    resource = f"accounts/{account}/servers/{id}"
    return Server(name=resource, id=id, display_name=name, account=account, group=group, state=number, **fields)


class FakePrimary:
    """Stands where the channel stands. `asked` holds (RPC, request) in the order in which they came."""

    def __init__(self, **answers: Answer) -> None:
        self._answers = answers
        self.asked: list[tuple[str, Message]] = []

    def unary_unary(self, method: str, *_: object, **__: object) -> Callable[[Message], Awaitable[Message]]:
        """What a stub is made of."""
        name = method.rpartition("/")[2]

        async def rpc(request: Message) -> Message:
            self.asked.append((name, request))
            answer = self._answers[name]
            return answer if isinstance(answer, Message) else answer(request)

        return rpc

    def unary_stream(self, method: str, *_: object, **__: object) -> Callable[[Message], AsyncIterator[Message]]:
        """The same for an RPC that answers with a stream: of what was given for it, or of nothing."""
        name = method.rpartition("/")[2]

        async def rpc(request: Message) -> AsyncIterator[Message]:
            self.asked.append((name, request))
            if name in self._answers:
                answer = self._answers[name]
                yield answer if isinstance(answer, Message) else answer(request)

        return rpc

    stream_unary = stream_stream = unary_unary

    def call(self, arguments: object, work: Callable[[Any], Any]) -> Any:
        """What `enlist_primary.cli.client.call` does, without a socket."""
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(_awaited(work(self)))
        finally:
            loop.close()


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
