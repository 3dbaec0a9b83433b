"""How long `Register` takes, above a bare unary with the same messages over the same kind of channel."""

from __future__ import annotations

import time

import grpc.aio

from enlist import certificates, channel
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
        above("Register p50, full API key", "ms", full, TARGET, "the disk's sync of one commit is in it"),
        above("Register p50, no API key", "ms", asking, TARGET),
    ]


async def _rounds(on: Stage, api_key: str, rounds: int, calls: int) -> Rounds:
    floor, subject = [], []
    for number in range(rounds + 1):
        bare, real = await _round(on, [on.applicant(api_key) for _ in range(calls)])
        if number:  # the first round warms both up
            floor.append(median(bare))
            subject.append(median(real))
    return Rounds(subject, floor)


async def _round(on: Stage, applicants: list[Applicant]) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, floor and primary by turns."""
    bare, real = [], []
    async with await _dial(on.floor) as below, await _dial(on.primary) as above:
        floor, primary = (registration_pb2_grpc.RegistrationServiceStub(each) for each in (below, above))
        described = await primary.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL))
        await floor.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL))
        for applicant in applicants:
            request = applicant.register(described.challenge)
            bare.append(await _milliseconds(floor, request))
            real.append(await _milliseconds(primary, request))
    return bare, real


async def _dial(at: Server) -> grpc.aio.Channel:
    leaf = certificates.load(await channel.probe(at.api))
    return channel.dial(at.api, channel.pin(leaf))


async def _milliseconds(
    stub: registration_pb2_grpc.RegistrationServiceAsyncStub, request: registration_pb2.RegisterRequest
) -> float:
    before = time.perf_counter()
    await stub.Register(request)
    return (time.perf_counter() - before) * 1000
