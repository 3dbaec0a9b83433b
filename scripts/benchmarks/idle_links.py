"""What a secondary costs the primary that holds its link and has nothing to say: memory, processor, queries."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Sequence

from scripts.benchmarks.enrolling import Link, Server, close_all, enrol
from scripts.benchmarks.measuring import cpu_clock, resident
from scripts.benchmarks.report import Figure
from scripts.benchmarks.stage import Stage, stage

TARGET = 120.0
"""KB of memory for each idle link."""
WARM = 50
"""Links opened, and kept, before the first reading: what a process sets up once is not a link's."""


async def measure(quick: bool) -> list[Figure]:
    """Memory for each link beside the floor's, CPU per link and minute, and file accesses while idle."""
    links, seconds = (300, 5.0) if quick else (1000, 20.0)
    async with stage() as on:
        return await _figures(on, links, seconds)


async def _figures(on: Stage, count: int, seconds: float) -> list[Figure]:
    bare, held_there = await _per_link(on, on.floor, count, False)
    await close_all(held_there)
    quiet = await _cpu_share(on.primary, seconds)
    each, held = await _per_link(on, on.primary, count, True)
    busy = await _cpu_share(on.primary, seconds)
    touched = await _database_calls(on.primary, seconds)
    await close_all(held)
    per_minute = (busy - quiet) * 60_000 / count
    return [
        Figure("idle link, memory", "KB", each, each, bare, TARGET, note=f"{count} links"),
        Figure("idle link, CPU", "ms/min", per_minute, per_minute, note="above a primary without links; HTTP/2 keepalive is in it"),
        *touched,
    ]


async def _per_link(on: Stage, at: Server, count: int, trusts_primary: bool) -> tuple[float, list[Link]]:
    """KB by which the server grows for each link, and the links."""
    held = await _open(on, at, WARM, trusts_primary)
    await asyncio.sleep(1.5)
    before = resident(at.pid)
    held += await _open(on, at, count, trusts_primary)
    await asyncio.sleep(3.0)  # observations are written, and what enrolling needed is given back
    return (resident(at.pid) - before) / 1000 / count, held


async def _open(on: Stage, at: Server, count: int, trusts_primary: bool) -> list[Link]:
    places = asyncio.Semaphore(8)

    async def one() -> Link:
        async with places:
            return await enrol(at, on.applicant(on.full_api_key), trusts_primary)

    return await asyncio.gather(*(one() for _ in range(count)))


async def _cpu_share(at: Server, seconds: float) -> float:
    """CPU seconds per second while nothing happens."""
    clock = cpu_clock(at.pid)
    before = clock()
    await asyncio.sleep(seconds)
    return (clock() - before) / seconds


async def _database_calls(at: Server, seconds: float) -> Sequence[Figure]:
    """Reads, writes, locks and syncs of files while all links are idle: SQLite cannot answer or change anything without one."""
    strace = shutil.which("strace")
    if strace is None:
        return [Figure("idle links, database accesses", "", float("nan"), float("nan"), note="strace is not installed")]
    traced = "trace=pread64,pwrite64,fcntl,fsync,fdatasync"
    argv = [strace, "-f", "-y", "-e", traced, "-p", str(at.pid)]
    watching = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.PIPE)
    await asyncio.sleep(seconds)
    watching.terminate()
    _, said = await watching.communicate()
    calls = sum(b"enlist.db" in line for line in said.splitlines())
    return [Figure("idle links, database accesses", "", calls, calls, target=0, note=f"in {seconds:g} s, by strace")]
