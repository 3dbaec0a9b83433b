"""Stands for the secondary on a primary's host, as far as that is told what is below."""

from __future__ import annotations

from contextlib import aclosing

from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.federation.subtree import SubtreeStream


async def whole(stream: SubtreeStream) -> list[pb.Below]:
    """What a new stream is told until all is said; it is acknowledged."""
    found = []
    async with aclosing(stream.messages()) as messages:
        async for message in messages:
            found.append(message)
            acknowledge(stream, message)
            if message.whole:
                break
    return found


async def due(stream: SubtreeStream) -> list[pb.Below]:
    """What it is told now; it is acknowledged."""
    found = []
    async for message in stream.due():
        found.append(message)
        acknowledge(stream, message)
    return found


def acknowledge(stream: SubtreeStream, message: pb.Below) -> None:
    """The other end has taken a message."""
    assert message.sequence == 0 or stream.ack(message.sequence)


def by_path(messages: list[pb.Below]) -> dict[str, pb.BelowServer]:
    """The servers in messages."""
    return {server.path: server for message in messages for server in message.servers}
