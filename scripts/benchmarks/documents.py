"""How long a policy change takes to be in force, and recorded so, at all servers of a group, beside a bare broadcast-and-answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import grpc.aio

from enlist.v1 import policy_pb2, policy_pb2_grpc
from scripts.benchmarks.answering import PROCESSES, Order, answering, line
from scripts.benchmarks.enrolling import ACCOUNT
from scripts.benchmarks.floor import BROADCAST, SERVICE
from scripts.benchmarks.measuring import Rounds, cpu_clock
from scripts.benchmarks.report import Figure, ratio
from scripts.benchmarks.stage import Stage, stage

TARGET = 2.0
GROUP, KIND = "Sites/Paris", "chrony"
SETTLE = 1.0
"""Seconds after a round in which what is left to do is done and counted."""
LOOK = 0.005
"""Seconds from one look into the database to the next."""
LONGEST = 120.0

_numbers = count(1)


@dataclass(frozen=True)
class Taken:
    """What one round took, in milliseconds: until all was recorded, until a watcher was told, and of the server's CPU, in all."""

    recorded: float
    told: float
    cpu: float


async def measure(quick: bool) -> list[Figure]:
    """The time until all is recorded, and the server's CPU; by turns with the floor."""
    servers, rounds = (200, 7) if quick else (1000, 11)
    async with (
        stage() as on,
        answering(on.process.data, _order(on, servers)) as clients,
        grpc.aio.insecure_channel(on.primary.admin) as admin,
    ):
        await asyncio.sleep(SETTLE)
        await _change(on, admin, servers)
        message = bytes.fromhex(await line(clients[0]))
        floor, subject = [], []
        for number in range(rounds + 1):
            below, above = await _broadcast(on, message), await _change(on, admin, servers)
            if number:  # the first round warms both up
                floor.append(below)
                subject.append(above)
    note = (
        f"until all reports stand in the database, while somebody watches; {len(message)} bytes to each of {servers} links. "
        f"{PROCESSES} client processes answer primary and floor alike, and leave out what is a secondary's own cost"
    )
    name, bare = f"policy change, {servers} servers", [each.recorded for each in floor]
    told = Rounds([each.told for each in subject], bare)
    cpu = Rounds([each.cpu for each in subject], [each.cpu for each in floor])
    return [
        ratio(name, "ms", Rounds([each.recorded for each in subject], bare), TARGET, note),
        ratio(f"{name}, until the watcher knows", "ms", told, None, "WatchPolicy's word that it is in force at all, a pace behind"),
        ratio(f"{name}, CPU", "ms", cpu, None, "of the server's process, the watching included"),
    ]


def _order(on: Stage, servers: int) -> Order:
    key = on.process.last_line("api-key", "add", ACCOUNT, "--full", "--group", GROUP)
    api, ssl, floor = ((at.host, at.port) for at in (on.primary.api, on.primary.ssl, on.floor.ssl))
    return Order(servers, key, api, ssl, floor)


async def _change(on: Stage, admin: grpc.aio.Channel, servers: int) -> Taken:
    """Sets the policy, and watches until it is in force everywhere."""
    stub = policy_pb2_grpc.PolicyServiceStub(admin)
    key = policy_pb2.PolicyKey(parent=f"accounts/{ACCOUNT}", group=GROUP, kind=KIND)
    layer = policy_pb2.Layer(settings=settings())
    clock = cpu_clock(on.primary.pid)
    cpu, begin = clock(), time.perf_counter()
    policy = await stub.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer))
    async with asyncio.timeout(LONGEST):
        kept, told = await asyncio.gather(
            recorded(on.process.data / "enlist.db", policy.revision, servers), _told(stub, key, policy.revision, servers)
        )
    await asyncio.sleep(SETTLE)
    return Taken((kept - begin) * 1000, (told - begin) * 1000, (clock() - cpu) * 1000)


async def recorded(database: Path, revision: int, servers: int) -> float:
    """When the last report stood in the database. Only what was committed is looked at: looking must not cost what is measured."""
    sql = "SELECT count(*) FROM policy_report WHERE account = ? AND kind = ? AND applied LIKE ? AND state = 'applied'"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        seen = None
        while True:
            committed = connection.execute("PRAGMA data_version").fetchone()
            if committed != seen and connection.execute(sql, (ACCOUNT, KIND, f"{revision}:%")).fetchone() == (servers,):
                return time.perf_counter()
            seen = committed
            await asyncio.sleep(LOOK)


async def _told(stub: policy_pb2_grpc.PolicyServiceAsyncStub, key: policy_pb2.PolicyKey, revision: int, servers: int) -> float:
    """When whoever watches was told so."""
    watch = stub.WatchPolicy(policy_pb2.WatchPolicyRequest(key=key))
    async for shown in watch:
        if shown.revision == revision and shown.counts.applied == servers:
            break
    watch.cancel()
    return time.perf_counter()


async def _broadcast(on: Stage, message: bytes) -> Taken:
    """The floor says the same bytes to all, and hears each."""
    clock = cpu_clock(on.floor.pid)
    async with grpc.aio.insecure_channel(on.floor.admin) as admin:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = admin.unary_unary(f"/{SERVICE}/{BROADCAST}")
        cpu, begin = clock(), time.perf_counter()
        await call(message, timeout=LONGEST)
        heard = (time.perf_counter() - begin) * 1000
        await asyncio.sleep(SETTLE)
    return Taken(heard, heard, (clock() - cpu) * 1000)


def settings() -> bytes:
    """A kilobyte of settings, other ones every time."""
    sources = [{"address": f"ntp{number}.acme.example", "iburst": True, "weight": number} for number in range(16)]
    return json.dumps({"number": next(_numbers), "servers": sources}).encode()
