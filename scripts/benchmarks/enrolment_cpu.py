"""What an enrolment costs the primary's processor, from the first byte to the open link."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from scripts.benchmarks.enrolling import Applicant, Link, Server, close_all, enrol
from scripts.benchmarks.measuring import Rounds, cpu_clock
from scripts.benchmarks.report import Figure, ratio
from scripts.benchmarks.stage import Stage, stage

TARGET = 1.8
CALLERS = 8
"""Servers that enrol at the same time."""
SETTLE = 1.5
"""Seconds after the last link opened in which what is left to do is done and counted: observations are written once a second."""


async def measure(quick: bool) -> list[Figure]:
    """CPU per enrolment with a full API key, and with an administrator who authorizes."""
    rounds, enrolments = (3, 60) if quick else (7, 120)
    async with stage() as on:
        trusted = await _rounds(on, on.full_api_key, rounds, enrolments)
    async with stage(asking=True) as on:
        authorized = await _rounds(on, "", rounds, enrolments)
    return [
        ratio("enrolment CPU, full API key", "ms", trusted, TARGET),
        ratio("enrolment CPU, authorized by a person", "ms", authorized, TARGET),
    ]


async def _rounds(on: Stage, api_key: str, rounds: int, enrolments: int) -> Rounds:
    floor, subject = [], []
    for number in range(rounds + 1):
        applicants = [on.applicant(api_key) for _ in range(2 * enrolments)]
        bare = await _cpu_each(on.floor, applicants[:enrolments], trusts_primary=False)
        real = await _cpu_each(on.primary, applicants[enrolments:], trusts_primary=True)
        if number:  # the first round warms both up
            floor.append(bare)
            subject.append(real)
    return Rounds(subject, floor)


async def _cpu_each(at: Server, applicants: Sequence[Applicant], trusts_primary: bool) -> float:
    """Milliseconds of the server's CPU per enrolment."""
    places = asyncio.Semaphore(CALLERS)

    async def one(applicant: Applicant) -> Link:
        async with places:
            return await enrol(at, applicant, trusts_primary)

    clock = cpu_clock(at.pid)
    before = clock()
    links = await asyncio.gather(*map(one, applicants))
    await asyncio.sleep(SETTLE)
    used = clock() - before
    await close_all(links)
    return used / len(applicants) * 1000
