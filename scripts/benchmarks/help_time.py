"""How long `--help` takes, of every command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from scripts.benchmarks.measuring import Rounds, median
from scripts.benchmarks.report import Figure
from tests.support.processes import command

TARGET = 0.4
"""Seconds."""
COMMANDS = (
    ("enlist-primary",),
    *(("enlist-primary", noun) for noun in ("init", "serve", "status", "account", "api-key", "join", "server", "tree", "journal")),
    ("enlist-secondary",),
    *(("enlist-secondary", verb) for verb in ("run", "status", "doctor", "leave", "reset-identity")),
    ("enlist-setup",),
)


async def measure(quick: bool) -> list[Figure]:
    """The slowest command's median, beside an interpreter that does nothing."""
    return [await asyncio.to_thread(_measure, 3 if quick else 9)]


def _measure(rounds: int) -> Figure:
    bare = median([_seconds([sys.executable, "-c", "pass"]) for _ in range(rounds)])
    slowest, name = 0.0, ""
    for words in COMMANDS:
        taken = Rounds([_seconds([*command(*words), "--help"]) for _ in range(rounds)], [bare] * rounds)
        if (each := median(taken.subject)) > slowest:
            slowest, name = each, " ".join(words)
    return Figure("--help, the slowest of all", "s", slowest, slowest, bare, TARGET, note=f"{name}; the floor is python -c pass")


def _seconds(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return time.perf_counter() - begun
