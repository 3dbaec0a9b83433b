"""Runs a program of the owner's: argv and never a shell, in a process group of its own of which nothing is left behind.

The child gets PATH (ours) and LANG=C.UTF-8 as its whole environment, `/` as its folder, umask 022, no descriptor of ours, and what
is given to it on standard input; its standard output and standard error come back as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from enlist.runtime import threads
from enlist_secondary.handlers.interface import HandlerFailed
from enlist_secondary.handlers.output import Output, last_lines

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PAUSE = 0.02
_CHUNK = 64 * 1024
_LAST_CHUNKS = 16  # more than a pipe holds; somebody outside the group may write into it for ever


def _seconds(limit: float) -> str:
    """For people: what is left of a deadline is seldom a round number."""
    return f"{limit:.0f} s" if limit >= 10 else f"{limit:.1f} s".replace(".0 ", " ")


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    program: str
    status: int | None
    """Its exit status; the negative number of the signal that killed it; None if it was stopped at the limit."""
    limit: float
    output: bytes

    @property
    def problem(self) -> str:
        """What went wrong, as a sentence; empty if nothing."""
        if self.status is None:
            return f"{self.program} did not end within {_seconds(self.limit)} and was stopped."
        if self.status < 0:
            return f"{self.program} was killed by {_signal_name(-self.status)}."
        return f"{self.program} ended with status {self.status}." if self.status else ""

    @property
    def explained(self) -> str:
        """The same, with the last lines it wrote."""
        lines = last_lines(self.output)
        return f"{self.problem} It said: {lines}" if lines else self.problem


async def run(argv: Sequence[str], given: bytes, limit: float) -> Ended:
    """Runs a program to its end, or for `limit` seconds. Raises HandlerFailed if it cannot be started.

    Whatever happens - the end, the limit, a cancellation - its process group gets SIGTERM, and SIGKILL after `GRACE`.
    """
    try:
        child = _Child(argv, given)
    except OSError as error:
        why = "there is no such program" if isinstance(error, FileNotFoundError) else (error.strerror or "the system refused")
        raise HandlerFailed(f"{argv[0]} could not be started: {why.lower()}.") from None
    try:
        in_time = await child.ends_within(limit)
    finally:
        await child.end()
    return Ended(argv[0], child.status if in_time else None, limit, child.output.whole())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class _Child:
    """A process, the group it leads, and the pipe it writes into.

    Until we reap it, a process that ended keeps its number, and so the group's: no signal of ours can meet a stranger. asyncio's
    own processes are reaped behind our back, and their `wait` has waited for the pipe, which a grandchild may hold for ever.
    """

    def __init__(self, argv: Sequence[str], given: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading, writing = os.pipe()
        try:
            with open(writing, "wb") as standard_output, open(_in_memory(given), "rb") as standard_input:
                self._process = _started(argv, standard_input.fileno(), standard_output.fileno())
        except BaseException:
            os.close(self._reading)
            raise
        self._left = True
        self._exited = threads.in_thread(os.waitid, os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.output = Output()
        os.set_blocking(self._reading, False)
        self._loop.add_reader(self._reading, self._read)

    @property
    def status(self) -> int | None:
        """Its exit status, once it was reaped."""
        return self._process.returncode

    async def ends_within(self, limit: float) -> bool:
        """Whether it ended by itself in so many seconds."""
        done, _ = await asyncio.wait({self._exited}, timeout=limit)
        return bool(done)

    async def end(self) -> None:
        """Ends what is left of the group, and takes the last of what it wrote."""
        try:
            self._signal(signal.SIGTERM)
            await self._gone()
        finally:
            self._signal(signal.SIGKILL)
            self._loop.remove_reader(self._reading)
            self._read_the_rest()
            os.close(self._reading)
            await self._reaped()

    async def _gone(self) -> None:
        """Until nothing is left of the group; at most for the grace."""
        until = self._loop.time() + GRACE
        await self._reaped()
        while self._signal(0) and self._loop.time() < until:  # noqa: ASYNC110  # of others' ends the system tells us nothing
            await asyncio.sleep(_PAUSE)

    async def _reaped(self) -> None:
        await asyncio.wait({self._exited}, timeout=GRACE)
        if self._exited.done():
            self._process.wait()

    def _signal(self, number: int) -> bool:
        """Whether there is still anybody to signal. Others in the group keep its number after the leader was reaped."""
        if self._left:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                self._left = False
            except PermissionError:  # it has become another user's: a program that changes users, under a daemon that may not
                pass
        return self._left

    def _read(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            if data := os.read(self._reading, _CHUNK):
                self.output.add(data)
                return True
            self._loop.remove_reader(self._reading)
        return False

    def _read_the_rest(self) -> None:
        for _ in range(_LAST_CHUNKS):
            if not self._read():
                break


def _in_memory(data: bytes) -> int:
    """A file without a name that holds this: unlike a pipe it takes all of it at once, whether or not it is ever read."""
    descriptor = os.memfd_create("standard input", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _started(argv: Sequence[str], standard_input: int, standard_output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=standard_input,
        stdout=standard_output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": os.environ.get("PATH", DEFAULT_PATH), "LANG": "C.UTF-8"},
        umask=0o022,
        start_new_session=True,
    )
