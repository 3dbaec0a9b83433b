"""How long `Register` takes, above a bare unary with the same messages over the same kind of channel."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field

import grpc.aio

from enlist import certificates, channel
from enlist.transport.dialer import Dialer
from enlist.v1 import registration_pb2, registration_pb2_grpc
from scripts.benchmarks.enrolling import Applicant, Server
from scripts.benchmarks.measuring import Rounds, median
from scripts.benchmarks.report import Figure, above
from scripts.benchmarks.stage import Stage, stage

TARGET = 2.0


async def measure(quick: bool) -> list[Figure]:
    """Median milliseconds of `Register` by one caller after another: with a full API key, and with none."""
    rounds, calls = (3, 40) if quick else (7, 100)
    async with stage() as on:
        full = await _rounds(on, on.full_api_key, rounds, calls)
        asking = await _rounds(on, "", rounds, calls)
    return [
        _figure("Register p50, full API key", full),
        _figure("Register p50, no API key", asking),
    ]


@dataclass
class Times:
    """Milliseconds of bare calls, of registrations, and of a bare commit on the primary's disk, which is in each of the latter."""

    bare: list[float] = field(default_factory=list)
    real: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)


def _figure(name: str, rounds: list[Times]) -> Figure:
    times = Rounds([median(each.real) for each in rounds], [median(each.bare) for each in rounds])
    commit = median([median(each.commit) for each in rounds])
    return above(name, "ms", times, TARGET, f"a bare SQLite commit, one row, takes {commit:.2f} ms here")


async def _rounds(on: Stage, api_key: str, rounds: int, calls: int) -> list[Times]:
    done = [await _round(on, [on.applicant(api_key) for _ in range(calls)]) for _ in range(rounds + 1)]
    return done[1:]  # the first round warms everything up


async def _round(on: Stage, applicants: list[Applicant]) -> Times:
    """Bare call, registration and bare commit by turns."""
    times = Times()
    with closing(_database(on)) as database:
        async with await _dial(on.floor) as below, await _dial(on.primary) as above:
            floor, primary = (registration_pb2_grpc.RegistrationServiceStub(each) for each in (below, above))
            described = await primary.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL))
            for request in [applicant.register(described.challenge) for applicant in applicants]:  # signed before the clock runs
                times.bare.append(await _call(floor, request))
                times.real.append(await _call(primary, request))
                times.commit.append(_commit(database))
    return times


async def _dial(at: Server) -> grpc.aio.Channel:
    dialer = Dialer()
    probed = await dialer.probe(at.api)
    return dialer.channel(probed.endpoint, channel.pin(certificates.load(probed.leaf_der)))


async def _call(stub: registration_pb2_grpc.RegistrationServiceAsyncStub, request: registration_pb2.RegisterRequest) -> float:
    before = time.perf_counter()
    await stub.Register(request)
    return (time.perf_counter() - before) * 1000


def _database(on: Stage) -> sqlite3.Connection:
    database = sqlite3.connect(on.folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS bare (text text)")
    return database


def _commit(database: sqlite3.Connection) -> float:
    before = time.perf_counter()
    database.execute("INSERT INTO bare VALUES ('one row')")
    return (time.perf_counter() - before) * 1000
