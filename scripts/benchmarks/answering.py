"""Light secondaries, many in a process of its own: each link is a real one, and every set is answered with the report it is owed.

`answering` starts such processes, each `python -m scripts.benchmarks.answering DATA_FOLDER` with an `Order` as JSON on standard
input. It enrols its servers at the primary and keeps the links open; with the same certificates it opens as many to the floor, if
there is one. Then it writes the line `open`, and answers until its standard input ends; the first set that comes is a second line,
in hex. What a secondary does besides - verify the signature, keep the set, put it in force - is its own cost, and left out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from enlist.names import Address
from enlist.v1 import document_pb2, hierarchy_pb2
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer
from enlist_primary.datafolder import DataFolder
from scripts.benchmarks.enrolling import Applicant, Link, Server, close_all, connect, enrol

AT_ONCE = 8
PROCESSES = 2
"""Processes that the servers' ends of the links live in."""
LINE = 1024 * 1024


@dataclass(frozen=True)
class Order:
    """How many servers enrol with which API key, and where the two server processes listen (`host`, `port`)."""

    servers: int
    api_key: str
    api: tuple[str, int]
    ssl: tuple[str, int]
    floor: tuple[str, int] | None = None

    def encode(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """What `encode` made."""
        return cls(**json.loads(line))


@asynccontextmanager
async def answering(data: Path, order: Order) -> AsyncIterator[Sequence[Process]]:
    """The processes, with their links open; the servers of the order are shared out among them."""
    share = replace(order, servers=order.servers // PROCESSES)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(_process(data, share)) for _ in range(PROCESSES)]
        for process in processes:
            assert await line(process) == "open", "the links could not be opened"
        yield processes


@asynccontextmanager
async def _process(data: Path, order: Order) -> AsyncIterator[Process]:
    argv = [sys.executable, "-m", "scripts.benchmarks.answering", str(data)]
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, limit=LINE)
    try:
        assert process.stdin is not None, "it is a pipe"
        process.stdin.write(order.encode())
        yield process
    finally:
        await process.communicate(b"")  # which ends its standard input


async def line(process: Process) -> str:
    """The next line of a process."""
    assert process.stdout is not None, "it is a pipe"
    return (await process.stdout.readline()).decode().strip()


async def _work(signer: Signer, order: Order) -> None:
    at = Server(0, Address(*order.api), Address(*order.ssl), "", signer)
    floor = replace(at, ssl=Address(*order.floor)) if order.floor is not None else None
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> list[Link]:
        async with places:
            applicant = Applicant(signer, order.api_key, int(time.time()))
            link = await enrol(at, applicant)
            if floor is None:
                return [link]
            return [link, await connect(floor, applicant, link.said.awaited[-1].certificate)]

    links = list(chain.from_iterable(await asyncio.gather(*(one() for _ in range(order.servers)))))
    answering = [asyncio.create_task(_answer(link, shows=link is links[0])) for link in links]
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)
    await close_all(links)


async def _answer(link: Link, shows: bool) -> None:
    """Says of every set that comes that it is held and in force; shows the first one.

    A body of these benchmarks fits into one piece, which comes with its set; so each set is answered by one message.
    """
    while isinstance(message := await link.call.read(), hierarchy_pb2.FromPrimary):
        if message.HasField("desired"):
            await link.call.write(_answer_to(message, link.end.number()))
            if shows:
                print(message.SerializeToString().hex(), flush=True)
                shows = False


def _answer_to(message: hierarchy_pb2.FromPrimary, number: int) -> hierarchy_pb2.FromSecondary:
    signed = message.desired
    desired = document_pb2.DesiredSet.FromString(signed.desired_set)
    held = hierarchy_pb2.SetAck(origin=signed.origin, epoch=desired.epoch, number=desired.number, sequence=message.sequence)
    bodies = [
        hierarchy_pb2.BodyAck(sequence=message.sequence, digest=piece.digest, received=piece.size, whole=True)
        for piece in message.pieces
    ]
    reports = hierarchy_pb2.Reports(reports=[_applied(signed.origin, desired.items)], sequence=number)
    return hierarchy_pb2.FromSecondary(set_acks=[held], body_acks=bodies, reports=reports)


def _applied(origin: str, items: Sequence[document_pb2.Item]) -> document_pb2.Report:
    versions = [document_pb2.ItemVersion(revision=item.revision, digest=item.digest) for item in items]
    told = [document_pb2.OriginItems(origin=origin, items=versions)]
    return document_pb2.Report(
        kind=items[0].kind,
        observed_items=told,
        applied_items=told,
        state=document_pb2.DOCUMENT_STATE_APPLIED,
        time=Timestamp(seconds=int(time.time())),
    )


if __name__ == "__main__":
    asyncio.run(_work(keys.load(DataFolder(Path(sys.argv[1]))), Order.decode(sys.stdin.buffer.readline())))
