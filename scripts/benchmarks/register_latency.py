"""How much longer `Register` takes than a bare unary RPC with the same messages."""

from __future__ import annotations

import time

from enlist import certificates, channel
from enlist.v1 import registration_pb2, registration_pb2_grpc
from scripts.benchmarks.enrolling import Server
from scripts.benchmarks.measuring import Rounds, median
from scripts.benchmarks.report import Figure, above
from scripts.benchmarks.stage import Stage, stage

TARGET = 2.0
"""Milliseconds above the floor."""


async def measure(quick: bool) -> list[Figure]:
    """The median latency of one registration after another, over a channel that is open."""
    rounds, calls = (3, 60) if quick else (7, 200)
    async with stage() as on:
        floor, subject = [], []
        for number in range(rounds + 1):
            bare, real = await _median(on, on.floor, calls), await _median(on, on.primary, calls)
            if number:  # the first round warms both up
                floor.append(bare)
                subject.append(real)
    return [above("Register, median latency", "ms", Rounds(subject, floor), TARGET)]


async def _median(on: Stage, at: Server, calls: int) -> float:
    """Milliseconds of the median call; the proofs are signed before the clock runs."""
    leaf = certificates.load(await channel.probe(at.api))
    times = []
    async with channel.dial(at.api, channel.pin(leaf)) as api:
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        described = await stub.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL))
        for _ in range(calls):
            request = on.applicant(on.full_api_key).register(described.challenge)
            begun = time.perf_counter()
            await stub.Register(request)
            times.append(time.perf_counter() - begun)
    return median(times) * 1000
