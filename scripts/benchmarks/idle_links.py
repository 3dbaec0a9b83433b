"""What a secondary that only stays connected costs the primary: memory, and no work."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scripts.benchmarks import measuring
from scripts.benchmarks.enrolling import Link, Server, close_all, enrol
from scripts.benchmarks.report import Figure
from scripts.benchmarks.stage import Stage, stage

T = TypeVar("T")

MEMORY_TARGET = 120.0
WAKE_TARGET = 0.1
QUERY_TARGET = 1.0
WARM = 50
AT_ONCE = 8
SETTLE = 3.0
"""Seconds in which what was seen of the links is written, and memory comes to rest."""


@dataclass(frozen=True)
class Idling:
    """What two servers did over the same stretch of time: CPU milliseconds, and how often Python's threads woke."""

    cpu: float
    floor_cpu: float
    wakes: int


async def measure(quick: bool) -> list[Figure]:
    """Memory of each idle link, and what is done for all of them over a while, less what is done for none."""
    links, seconds = (400, 20.0) if quick else (500, 30.0)  # the sweep, once a minute, wakes six times: too few to count as theirs
    async with stage() as on:
        await close_all(await _links(on, on.primary, WARM) + await _links(on, on.floor, WARM))
        await asyncio.sleep(SETTLE)
        none = await _idle(on, seconds)
        queries_none = await _queries(on, seconds)
        memory, floor_memory, held = await _memory(on, links)
        many = await _idle(on, seconds)
        queries = await _queries(on, seconds)
        await close_all(held)
    return [
        _memory_figure(memory / links / 1024, floor_memory / links / 1024, links),
        _cpu_figure(none, many, links, seconds),
        _wakes_figure(none, many, links, seconds),
        *_query_figure(queries_none, queries, links, seconds),
    ]


async def _links(on: Stage, at: Server, number: int) -> list[Link]:
    applicants = [on.applicant(on.full_api_key) for _ in range(number)]
    return await _few_at_once([enrol(at, applicant, issued=at is on.primary) for applicant in applicants])


async def _few_at_once(calls: Sequence[Awaitable[T]]) -> list[T]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[T]) -> T:
        async with places:
            return await call

    return await asyncio.gather(*map(one, calls))


async def _memory(on: Stage, links: int) -> tuple[int, int, list[Link]]:
    """By how many bytes primary and floor grow with these links, enrolment and all; and the links."""
    before, floor_before = measuring.resident(on.primary.pid), measuring.resident(on.floor.pid)
    held = await _links(on, on.primary, links) + await _links(on, on.floor, links)
    await asyncio.sleep(SETTLE)
    return measuring.resident(on.primary.pid) - before, measuring.resident(on.floor.pid) - floor_before, held


async def _idle(on: Stage, seconds: float) -> Idling:
    clock, floor_clock = measuring.cpu_clock(on.primary.pid), measuring.cpu_clock(on.floor.pid)
    cpu, floor_cpu, wakes = clock(), floor_clock(), measuring.python_wakes(on.primary.pid)
    await asyncio.sleep(seconds)
    wakes = measuring.python_wakes(on.primary.pid) - wakes
    return Idling((clock() - cpu) * 1000, (floor_clock() - floor_cpu) * 1000, wakes)


async def _queries(on: Stage, seconds: float) -> int | None:
    """How many transactions the primary begins on its database; None where there is no strace."""
    if shutil.which("strace") is None:
        print("strace is not installed: the queries of idle links are not counted", file=sys.stderr)
        return None
    async with measuring.transactions(on.primary.pid) as count:
        await asyncio.sleep(seconds)
        seen = count()
        await asyncio.to_thread(on.process.do, "status")
        assert count() > seen, "a command's query was not counted, so the count says nothing"
    return seen


def _memory_figure(kilobytes: float, floor: float, links: int) -> Figure:
    note = f"growth with {links} servers that enrolled and stay connected; floor: the same at the bare server"
    return Figure("idle link, memory", "KB", kilobytes, kilobytes, floor, MEMORY_TARGET, note=note)


def _cpu_figure(none: Idling, many: Idling, links: int, seconds: float) -> Figure:
    each = 60_000 / seconds / links  # microseconds of CPU per link and minute
    value, floor = (many.cpu - none.cpu) * each, (many.floor_cpu - none.floor_cpu) * each
    note = f"{links} links less none, over {seconds:g} s: HTTP/2's keepalive pings, in gRPC's own threads"
    return Figure("idle link, CPU a minute", "us", value, value - floor, floor, how="above", note=note)


def _wakes_figure(none: Idling, many: Idling, links: int, seconds: float) -> Figure:
    value = (many.wakes - none.wakes) / links * 60 / seconds
    note = f"the event loop's thread and the database's; {none.wakes} without links, {many.wakes} with {links}, in {seconds:g} s"
    return Figure("idle link, wakes of Python a minute", "", value, value, target=WAKE_TARGET, note=note)


def _query_figure(none: int | None, many: int | None, links: int, seconds: float) -> list[Figure]:
    if none is None or many is None:
        return []
    note = f"transactions begun in {seconds:g} s, {none} without links; the sweep begins one a minute, whatever the links"
    return [Figure(f"{links} idle links, queries", "", many, many - none, none, QUERY_TARGET, "above", note=note)]
