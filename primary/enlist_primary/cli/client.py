"""Reaches the running primary through its socket."""

from __future__ import annotations

import argparse
import asyncio
import getpass
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc.aio

from enlist.channel import MESSAGE_LIMIT, RPC_TIMEOUT, refusal
from enlist.reasons import Reason, Refused
from enlist.runtime import files, sockets
from enlist_primary.datafolder import DataFolder

T = TypeVar("T")

BEGIN_TIMEOUT = 3.0
"""Seconds for which a command waits for a `serve` that somebody started right before it to take the folder."""
READY_TIMEOUT = 30.0
"""Seconds for which it waits for whoever holds the folder to answer."""
LOOK = 0.05
"""Seconds between two looks."""


class _Deadline(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every RPC a deadline, and says who the local administrator is."""

    async def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]  # gRPC's are untyped
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("enlist-local-user", _user()))
        fresh = grpc.aio.ClientCallDetails(
            details.method, details.timeout or RPC_TIMEOUT, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(fresh, request)


def _user() -> str:
    """The system user's name, ASCII, for the journal; who may open the socket is the folder's business."""
    try:
        return getpass.getuser().encode("ascii", "replace").decode()
    except (OSError, KeyError):
        return "unknown"


@asynccontextmanager
async def _channel(folder: DataFolder) -> AsyncIterator[grpc.aio.Channel]:
    try:
        if not folder.config.exists():
            problem = f"{folder.path} holds no primary. Make one with init, or name its folder with --data."
            raise Refused(Reason.CONFIG_MISSING, problem)
        await _running(folder)
    except PermissionError:
        raise Refused(Reason.FILE_FAILED, f"{folder.path} is another user's. Run this as whoever runs the primary.") from None
    options = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.enable_http_proxy", 0)]
    with sockets.target(folder.admin_socket) as target:
        async with grpc.aio.insecure_channel(target, options=options, interceptors=[_Deadline()]) as channel:
            yield channel


async def _running(folder: DataFolder) -> None:
    """Returns once a primary answers in this folder; refused with NOT_RUNNING if none does, or is about to."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not await _answers(folder):
        held = files.locked(folder.lock_file)
        if loop.time() - begun > (READY_TIMEOUT if held else BEGIN_TIMEOUT):
            raise Refused(Reason.NOT_RUNNING, f"No primary is running in {folder.path}. Start it with: serve")
        await asyncio.sleep(LOOK)


async def _answers(folder: DataFolder) -> bool:
    try:
        with sockets.target(folder.admin_socket) as target:
            _, writer = await asyncio.open_unix_connection(target.removeprefix("unix:"))
    except PermissionError:
        raise
    except OSError:
        return False
    writer.close()
    return True


def call(arguments: argparse.Namespace, work: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
    """Runs `work` over a channel to the primary of `--data`; failed RPCs come out as refusals."""

    async def run() -> T:
        async with _channel(DataFolder(arguments.data)) as channel:
            try:
                return await work(channel)
            except grpc.aio.AioRpcError as error:
                refused = refusal(error)
                if refused.reason is Reason.UNREACHABLE:
                    refused = Refused(Reason.NOT_RUNNING, "The primary does not answer at its socket. Is it running?")
                raise refused from None

    return asyncio.run(run())
