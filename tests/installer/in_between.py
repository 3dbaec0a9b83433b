"""What may stand where a primary should be: a port that is something else, a firewall, somebody who opens TLS, an odd primary.

Each runs in threads of its own, beside a wizard that is another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from enlist import certificates
from enlist.channel import PROTOCOL
from enlist.v1 import registration_pb2 as pb
from enlist_primary.authority.keys import private_pem
from enlist_primary.authority.signer import Signer, new_authority
from tests.support.pretender import primary_id_of
from tests.support.processes import PrimaryProcess

Target = tuple[str, int]


@dataclass(frozen=True)
class Served:
    """A server certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def new_signer() -> Signer:
    """Some authority."""
    key = certificates.new_key()
    return Signer(key, new_authority(key, int(time.time())))


def leaf(signer: Signer) -> Served:
    """A server certificate for loopback by some authority."""
    key = certificates.new_key()
    certificate = signer.issue_server(key.public_key(), ["127.0.0.1"], 3600, int(time.time()))
    return Served(certificates.pem(certificate), private_pem(key))


def _pump(left: socket.socket, right: socket.socket) -> None:
    while True:
        ready = select.select([left, right], [], [], 30)[0]
        if not ready:
            return
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (right if source is left else left).sendall(data)


@contextmanager
def _listening(host: str, port: int, handle: Callable[[socket.socket], None]) -> Iterator[Target]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                handle(self.request)
            except OSError:
                return  # one of the two has gone

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

    with Server((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield host, server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def forwarding(host: str, port: int, target: Target) -> Iterator[Target]:
    """Passes on what comes: a firewall that lets exactly this port through."""

    def handle(client: socket.socket) -> None:
        with socket.create_connection(target, 5) as server:
            _pump(client, server)

    with _listening(host, port, handle) as address:
        yield address


@contextmanager
def both_ports(host: str, primary: PrimaryProcess, port: int = 0) -> Iterator[str]:
    """The primary at another address of this machine; what a person types."""
    with (
        forwarding(host, port, ("127.0.0.1", primary.api_port)) as (_, api_port),
        forwarding(host, primary.ssl_port, ("127.0.0.1", primary.ssl_port)),
    ):
        yield f"{host}:{api_port}"


@contextmanager
def web_server() -> Iterator[Target]:
    """A port that answers, but speaks something else."""

    def handle(client: socket.socket) -> None:
        client.recv(1024)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with _listening("127.0.0.1", 0, handle) as address:
        yield address


@contextmanager
def silent() -> Iterator[Target]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "127.0.0.1", server.getsockname()[1]


@contextmanager
def intercepting(folder: Path, host: str, port: int, target: Target) -> Iterator[Target]:
    """Opens TLS under a certificate of its own, as some firewalls do, and passes the content on to the real primary."""
    served = leaf(new_signer())
    pem = folder / f"intercepting-{port}.pem"
    pem.write_bytes(served.certificate + served.key)
    inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inward.load_cert_chain(pem)
    inward.set_alpn_protocols(["h2"])
    outward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outward.check_hostname = False
    outward.verify_mode = ssl.CERT_NONE
    outward.set_alpn_protocols(["h2"])

    async def handle(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        far_reader, far = await asyncio.open_connection(*target, ssl=outward)
        await asyncio.gather(_pass_on(near_reader, far), _pass_on(far_reader, near))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(handle, host, port, ssl=inward), loop)
    try:
        yield host, starting.result(10).sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(starting.result()), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def odd_primary(**described: Any) -> Iterator[Target]:
    """A primary that describes itself as told: an old one, one with a wrong clock. It has no SSL port worth the name."""
    signer = new_signer()
    served = leaf(signer)

    def describe(_: bytes, context: grpc.ServicerContext) -> bytes:
        values = {"oldest_protocol": PROTOCOL, "newest_protocol": PROTOCOL, "ssl_port": 1, "version": "0.0.1", **described}
        seconds_off = values.pop("seconds_off", 0)
        values.setdefault("authority_certificate", certificates.der(signer.authority.certificate))
        values.setdefault("primary_id", primary_id_of(values["authority_certificate"]))
        answer = pb.DescribePrimaryResponse(primary_name="Odd one", challenge=b"c" * 56, **values)
        answer.time.FromSeconds(int(time.time()) + seconds_off)
        return answer.SerializeToString()

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(describe)
    service = grpc.method_handlers_generic_handler("enlist.v1.RegistrationService", {"DescribePrimary": handler})
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((service,))
    credentials = grpc.ssl_server_credentials([(served.key, served.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield "127.0.0.1", port
    finally:
        server.stop(None).wait(10)
