"""What is read of a process, and how readings of a noisy machine are summed up."""

from __future__ import annotations

import asyncio
import ctypes
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.waiting import wait_for

_SLEEPS = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
_READS = re.compile(r"\.db-shm>.*F_RDLCK")


def cpu_clock(pid: int) -> Callable[[], float]:
    """Reads the CPU seconds a process has used, user and system, all threads that ever were, to the nanosecond.

    (The ticks of /proc/PID/stat are 10 ms, about what two enrolments take.) See clock_getcpuclockid(3).
    """
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, f"process {pid} has no CPU clock")
    return lambda: time.clock_gettime(clock.value)


def resident(pid: int) -> int:
    """Resident bytes of a process, what it shares with others included."""
    return int(psutil.Process(pid).memory_info().rss)


def unshared(pid: int) -> int:
    """Resident bytes of a process that would be free without it."""
    return int(psutil.Process(pid).memory_full_info().uss)


@dataclass(frozen=True)
class Rounds:
    """One reading of the subject and one of the floor per round."""

    subject: Sequence[float]
    floor: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Subject over floor, round by round: what slows the machine for a while slows both."""
        return [subject / floor for subject, floor in zip(self.subject, self.floor, strict=True)]

    @property
    def differences(self) -> list[float]:
        """Subject above floor, round by round."""
        return [subject - floor for subject, floor in zip(self.subject, self.floor, strict=True)]


median = statistics.median


def python_wakes(pid: int) -> int:
    """How often the threads that may run Python were woken: the event loop's, the database's, and the one that waits for gRPC.

    gRPC's own threads, which send and answer HTTP/2's pings, bear names of their own; all others bear the process's.
    """
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if _name(task) == _name(Path(f"/proc/{pid}"))]
    return sum(int(_SLEEPS.findall((task / "status").read_text())[0]) for task in tasks)


def _name(task: Path) -> str:
    return (task / "comm").read_text()


def _traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


@asynccontextmanager
async def transactions(pid: int) -> AsyncIterator[Callable[[], int]]:
    """Counts the transactions that a process begins on its SQLite database in WAL mode: each takes one shared lock (`F_RDLCK`).

    Needs strace(1), and the right to trace the process.
    """
    with tempfile.NamedTemporaryFile("r", prefix="enlist-bench-") as trace:
        argv = ["strace", "-f", "-y", "-e", "trace=fcntl", "-o", trace.name, "-p", str(pid)]
        strace = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
        try:
            await asyncio.to_thread(wait_for, lambda: _traced(pid), what="strace")
            yield lambda: len(_READS.findall(Path(trace.name).read_text()))
        finally:
            strace.terminate()
            await strace.wait()
