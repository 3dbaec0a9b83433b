"""The storm: processes are killed and started again; and what each of them holds meanwhile is measured."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import psutil

from tests.support.processes import Daemon

MEGABYTE = 1024 * 1024
DESCRIPTORS = 256
"""What a process may hold at most; the soft limit of most systems is 1024."""
RESIDENT = {"primary": 200.0, "secondary": 100.0}
"""Megabytes that a process may hold at most."""
GROWTH = 40.0
"""Megabytes by which a process may exceed, when all is at rest again, what it held before the storm."""


@dataclass
class Held:
    """Descriptors and resident megabytes of one process: before the storm, at most, and now."""

    descriptors: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Takes one reading."""
        process = psutil.Process(pid)
        with process.oneshot():
            self.descriptors.append(process.num_fds())
            self.megabytes.append(process.memory_info().rss / MEGABYTE)

    def shown(self) -> str:
        """For the summary."""
        fds, sizes = self.descriptors, self.megabytes
        return (
            f"descriptors {fds[0]} before, {max(fds)} at most, {fds[-1]} after; "
            f"MB {sizes[0]:.1f} before, {max(sizes):.1f} at most, {sizes[-1]:.1f} after"
        )


class Storm:
    """Kills random processes, by a seeded plan, and starts them again."""

    def __init__(self, processes: dict[str, Daemon], random: Random, say: Callable[[str], None]) -> None:
        self.kills = 0
        self.violations: list[str] = []
        self.held = {name: Held() for name in processes}
        self._processes = processes
        self._random = random
        self._say = say
        self._up = set(processes)

    async def rage(self, seconds: float) -> None:
        """Kills one or two processes every few seconds, for so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(self._random.uniform(1, 4))
            victims = self._random.sample(sorted(self._processes), self._random.choice([1, 1, 2]))
            down = [self._random.choice([0.0, self._random.uniform(0, 1), self._random.uniform(1, 6)]) for _ in victims]
            self._say(f"killing {' and '.join(victims)}")
            await asyncio.gather(*(self._kill(name, rest) for name, rest in zip(victims, down, strict=True)))

    async def watch(self) -> None:
        """Looks at every process that runs, each second, until it is cancelled."""
        while True:
            for name in sorted(self._processes):
                if name in self._up:
                    await self._look(name)
            await asyncio.sleep(1)

    async def _kill(self, name: str, rest: float) -> None:
        """Kills it, and starts it after `rest` seconds."""
        self.kills += 1
        self._up.discard(name)
        await asyncio.to_thread(self._processes[name].end, signal.SIGKILL)
        await asyncio.sleep(rest)
        await self._start(name)

    async def _start(self, name: str) -> None:
        """Starts it. One that is alive and only slow, on a busy machine, has the time to settle to get ready."""
        process = self._processes[name]
        try:
            await asyncio.to_thread(process.start)
        except AssertionError as error:
            if process.returncode is not None:
                self.violations.append(f"{name} does not start: {str(error)[-500:]}")
        self._up.add(name)

    async def _look(self, name: str) -> None:
        """Measures one process. One that ended without being killed is a violation, and is started again."""
        process = self._processes[name]
        if process.returncode is not None:
            self.violations.append(f"{name} ended by itself with status {process.returncode}")
            self._up.discard(name)
            await self._start(name)
            return
        try:
            self.held[name].look(process.pid)
        except psutil.Error:  # it was killed meanwhile
            return

    def exceeded(self, primaries: set[str]) -> list[str]:
        """Which bounds were exceeded."""
        found = []
        for name, held in self.held.items():
            limit = RESIDENT["primary" if name in primaries else "secondary"]
            if max(held.descriptors) > DESCRIPTORS or max(held.megabytes) > limit:
                found.append(f"{name} holds too much: {held.shown()}")
            if held.megabytes[-1] - held.megabytes[0] > GROWTH:
                found.append(f"{name} has grown: {held.shown()}")
        return found
