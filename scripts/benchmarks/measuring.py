"""What is read of a process, and how readings of a noisy machine are summed up."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil

T = TypeVar("T")


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
