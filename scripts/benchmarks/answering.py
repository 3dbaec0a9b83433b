"""Light secondaries, many in a process of its own: each link is a real one, and every set is answered with the report it is owed.

Run as `python -m scripts.benchmarks.answering DATA_FOLDER`, with an `Order` as JSON on standard input. It enrols its servers at
the primary and keeps the links open; with the same certificates it opens as many to the floor. Then it writes the line `open`, and
answers until its standard input ends; the first set that comes is a second line, in hex. What a secondary does besides - verify
the signature, keep the set, put it in force - is its own cost, and left out of both.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from enlist.names import Address
from enlist.v1 import document_pb2, hierarchy_pb2
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer
from enlist_primary.datafolder import DataFolder
from scripts.benchmarks.enrolling import Applicant, Link, Server, close_all, connect, enrol

AT_ONCE = 8


@dataclass(frozen=True)
class Order:
    """How many servers enrol with which API key, and where the two server processes listen (`host`, `port`)."""

    servers: int
    api_key: str
    api: tuple[str, int]
    ssl: tuple[str, int]
    floor: tuple[str, int]

    def encode(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """What `encode` made."""
        return cls(**json.loads(line))


async def _work(signer: Signer, order: Order) -> None:
    at = Server(0, Address(*order.api), Address(*order.ssl), "", signer)
    floor = Server(0, Address(*order.floor), Address(*order.floor), "", signer)
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> tuple[Link, Link]:
        async with places:
            applicant = Applicant(signer, order.api_key, int(time.time()))
            link = await enrol(at, applicant)
            return link, await connect(floor, applicant.identity(link.said.awaited[-1].certificate))

    pairs = await asyncio.gather(*(one() for _ in range(order.servers)))
    links = [link for pair in pairs for link in pair]
    answering = [asyncio.create_task(_answer(link, shows=link is links[0])) for link in links]
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)
    await close_all(links)


async def _answer(link: Link, shows: bool) -> None:
    """Says of every set that comes that it is in force; shows the first one."""
    while isinstance(message := await link.call.read(), hierarchy_pb2.FromPrimary):
        if message.HasField("desired"):
            await link.call.write(_applied(message.desired))
            if shows:
                print(message.SerializeToString().hex(), flush=True)
                shows = False


def _applied(signed: document_pb2.SignedSet) -> hierarchy_pb2.FromSecondary:
    items = document_pb2.DesiredSet.FromString(signed.desired_set).items
    meant = [document_pb2.Meant(origin=signed.origin, revisions=[item.revision for item in items])]
    report = document_pb2.Report(
        kind=items[0].kind,
        meant=meant,
        running=meant,
        state=document_pb2.DOCUMENT_STATE_APPLIED,
        time=Timestamp(seconds=int(time.time())),
    )
    return hierarchy_pb2.FromSecondary(reports=hierarchy_pb2.Reports(reports=[report]))


if __name__ == "__main__":
    asyncio.run(_work(keys.load(DataFolder(Path(sys.argv[1]))), Order.decode(sys.stdin.buffer.readline())))
