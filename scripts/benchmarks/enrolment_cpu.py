"""What an enrolment costs the primary's processor, from the first byte to the open link."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

from scripts.benchmarks.enrolling import enrol
from scripts.benchmarks.measuring import Rounds, cpu_clock
from scripts.benchmarks.report import Figure, ratio
from scripts.benchmarks.setting_up import enrol_fully, one_key
from scripts.benchmarks.stage import Stage, stage

TARGET = 1.8
AUTHORIZED_TARGET = 1.76
CALLERS = 8
"""Servers that enrol at the same time."""
SETTLE = 1.5
"""Seconds after the last link opened in which what is left to do is done and counted: observations are written once a second."""

_numbers = count(1)


class Closes(Protocol):
    """An open link, as far as this file cares."""

    async def close(self) -> None:
        """Ends it."""


Enrol = Callable[[], Awaitable[Closes]]


async def measure(quick: bool) -> list[Figure]:
    """CPU per enrolment: as users enrol, with a full API key and authorized by a person; and in the shortest way there is."""
    rounds, enrolments = (3, 40) if quick else (6, 60)
    async with stage() as on:
        trusted = await _rounds(on, _fully, on.full_api_key, rounds, enrolments)
        shortest = await _rounds(on, _shortest, on.full_api_key, rounds, enrolments)
    async with stage(asking=True) as on:
        authorized = await _rounds(on, _fully, "", rounds, enrolments)
    return [
        ratio("enrolment CPU, full API key", "ms", trusted, TARGET),
        ratio("enrolment CPU, authorized by a person", "ms", authorized, AUTHORIZED_TARGET),
        ratio("enrolment CPU, shortest way", "ms", shortest, None, "less than any real server does; see scripts/README.md"),
    ]


async def _rounds(on: Stage, way: Callable[[Stage, str, bool, Path], Enrol], api_key: str, rounds: int, enrolments: int) -> Rounds:
    floor, subject = [], []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name:
            bare, real = ([way(on, api_key, issued, Path(name)) for _ in range(enrolments)] for issued in (False, True))
            with one_key(on.key):
                below = await _cpu_each(on.floor.pid, bare)
            above = await _cpu_each(on.primary.pid, real)
        if number:  # the first round warms both up
            floor.append(below)
            subject.append(above)
    return Rounds(subject, floor)


def _fully(on: Stage, api_key: str, issued: bool, folder: Path) -> Enrol:
    at, name = on.primary if issued else on.floor, f"server-{next(_numbers):06}"
    (folder / name).mkdir()
    return lambda: enrol_fully(at, folder / name, name, api_key)


def _shortest(on: Stage, api_key: str, issued: bool, folder: Path) -> Enrol:
    applicant = on.applicant(api_key)
    return lambda: enrol(on.primary if issued else on.floor, applicant, issued)


async def _cpu_each(pid: int, enrolments: Sequence[Enrol]) -> float:
    """Milliseconds of the server's CPU per enrolment."""
    places = asyncio.Semaphore(CALLERS)

    async def one(enrolment: Enrol) -> Closes:
        async with places:
            return await enrolment()

    clock = cpu_clock(pid)
    before = clock()
    links = await asyncio.gather(*map(one, enrolments))
    await asyncio.sleep(SETTLE)
    used = clock() - before
    await asyncio.gather(*(link.close() for link in links))
    return used / len(enrolments) * 1000
