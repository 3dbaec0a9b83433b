"""How long `--help` of every command takes."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator

from scripts.benchmarks.measuring import median
from scripts.benchmarks.report import Figure
from tests.support.processes import command

TARGET = 0.4
PROGRAMS = {
    "enlist-primary": "enlist_primary.cli.main",
    "enlist-secondary": "enlist_secondary.cli",
    "enlist-setup": "enlist_installer.cli",
}


async def measure(quick: bool) -> list[Figure]:
    """Median seconds of each command; of every program the slowest is shown. Floor: an interpreter that does nothing."""
    return await asyncio.to_thread(_measure, 3 if quick else 9)


def _measure(rounds: int) -> list[Figure]:
    floor = _seconds([sys.executable, "-c", ""], rounds)
    return [_slowest(program, module, floor, rounds) for program, module in PROGRAMS.items()]


def _slowest(program: str, module: str, floor: float, rounds: int) -> Figure:
    commands = list(_commands(importlib.import_module(module).parser()))
    seconds, words = max((_seconds(command(program, *words, "--help"), rounds), words) for words in commands)
    slowest = " ".join((program, *words, "--help"))
    return Figure(f"{program} --help", "s", seconds, seconds, floor, TARGET, note=f"the slowest of {len(commands)}: {slowest}")


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a parser and of all commands below it."""
    yield words
    for action in parser._actions:  # argparse shows its sub-commands nowhere else
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _commands(below, (*words, name))


def _seconds(argv: list[str], rounds: int) -> float:
    """The median of several runs; what they read is in the system's cache after the first, which does not count."""
    return median([_run(argv) for _ in range(rounds + 1)][1:])


def _run(argv: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin
