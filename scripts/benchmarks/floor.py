"""The floor: a bare gRPC server with a primary's ports, options and certificates, which answers the same calls with constants.

Run as a process of its own over a folder that `stage.floor` has filled: `python -m scripts.benchmarks.floor FOLDER`. What it says
was recorded from a real primary, so every message has its real size. No interceptor, no check, no storage, no log.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from enlist.runtime import sockets
from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc, registration_pb2, registration_pb2_grpc, server_pb2, trust_pb2_grpc
from enlist_primary.rpc.listeners import SERVER_OPTIONS
from scripts.benchmarks.said import Said

SERVICE, BROADCAST = "enlist.benchmarks.Floor", "Broadcast"


class Registration(registration_pb2_grpc.RegistrationServiceServicer):
    """Says what a primary said."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self.waiting: deque[asyncio.Event] = deque()

    async def DescribePrimary(self, request: Any, context: Any) -> registration_pb2.DescribePrimaryResponse:
        self._said.described.time.GetCurrentTime()  # or who is here a while would be told that the clocks differ
        return self._said.described

    async def Validate(self, request: Any, context: Any) -> registration_pb2.ValidateResponse:
        return self._said.validated

    async def Register(self, request: Any, context: Any) -> registration_pb2.Enrolment:
        return self._said.registered

    async def AwaitAuthorization(self, request: Any, context: Any) -> AsyncIterator[registration_pb2.Enrolment]:
        for awaited in self._said.awaited[:-1]:
            decided = asyncio.Event()
            self.waiting.append(decided)
            try:
                yield awaited
                await decided.wait()
            finally:
                if decided in self.waiting:
                    self.waiting.remove(decided)
        yield self._said.awaited[-1]


class Trust(trust_pb2_grpc.TrustServiceServicer):
    """Lets everybody go on who waits, whichever server is named: all look alike, and one may have hung up a moment ago."""

    def __init__(self, said: Said, registration: Registration) -> None:
        self._said = said
        self._registration = registration

    async def AuthorizeServer(self, request: Any, context: Any) -> server_pb2.Server:
        while self._registration.waiting:
            self._registration.waiting.popleft().set()
        return self._said.authorized


_Stream = grpc.aio.ServicerContext[Any, Any]


class Hierarchy(hierarchy_pb2_grpc.HierarchyServiceServicer):
    """Holds links, and says one thing to all of them."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._streams: set[_Stream] = set()
        self._awaited = 0
        self._answered = asyncio.Event()

    async def Connect(  # type: ignore[override]  # the stubs know generators only; a primary reads and writes, and so does this
        self, requests: Any, context: _Stream
    ) -> None:
        await context.write(self._said.challenge)
        await context.read()
        await context.write(self._said.welcome)
        self._streams.add(context)
        try:
            while await context.read() is not grpc.aio.EOF:
                self._awaited -= 1
                if not self._awaited:
                    self._answered.set()
        finally:
            self._streams.discard(context)

    async def broadcast(self, message: bytes, context: Any) -> bytes:
        """Sends these bytes over every link, and returns when each has answered once."""
        said = hierarchy_pb2.FromPrimary.FromString(message)
        self._awaited = len(self._streams)
        self._answered.clear()
        await asyncio.gather(*(stream.write(said) for stream in self._streams))
        await self._answered.wait()
        return b""


def _server(folder: Path, socket: str) -> tuple[grpc.aio.Server, dict[str, int]]:
    said = Said.load(folder)
    server = grpc.aio.server(options=list(SERVER_OPTIONS.items()))
    registration = Registration(said)  # type: ignore[abstract]  # an enrolment calls no more than these
    registration_pb2_grpc.add_RegistrationServiceServicer_to_server(registration, server)
    trust_pb2_grpc.add_TrustServiceServicer_to_server(Trust(said, registration), server)  # type: ignore[abstract]  # as above
    hierarchy = Hierarchy(said)  # type: ignore[abstract]  # as above
    hierarchy_pb2_grpc.add_HierarchyServiceServicer_to_server(hierarchy, server)
    broadcast: dict[str, Any] = {BROADCAST: grpc.unary_unary_rpc_method_handler(hierarchy.broadcast)}  # bytes both ways
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, broadcast)])
    pair = [((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())]
    root = (folder / "root.pem").read_bytes()
    server.add_insecure_port(socket)
    ports = {
        "ssl": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, root, True)),
        "api": server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)),
    }
    said.described.ssl_port = ports["ssl"]
    return server, ports


async def _serve(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with sockets.target(folder / "admin.sock") as socket:
        server, ports = _server(folder, socket)
        await server.start()
        print(json.dumps(ports), flush=True)
        await stop.wait()
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
