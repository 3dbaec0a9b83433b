"""Somebody between two ends: passes bytes on, keeps them, and can come from another address of the loopback network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from enlist.names import Address


@dataclass
class Relay:
    """Where it listens, and what it saw of both directions."""

    address: Address
    seen: bytearray


@asynccontextmanager
async def relay(to: Address, source: str = "127.0.0.1") -> AsyncIterator[Relay]:
    """A relay to `to` that dials from `source`."""
    seen = bytearray()
    running: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                seen.extend(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def bridge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(to.host, to.port, local_addr=(source, 0))
        writers.extend((writer, onward_writer))
        for task in (pass_on(reader, onward_writer), pass_on(onward_reader, writer)):
            running.add(asyncio.create_task(task))

    server = await asyncio.start_server(bridge, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield Relay(Address("127.0.0.1", port), seen)
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # in which the loop lets go of the aborted ones
