"""Ports for listeners that must come back at the same one: never from the range out of which the system serves connections.

Each process has a slice of ports to itself, for as long as it holds the lock on the slice's file, and hands them out in turn.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LOWEST = 16384
"""Below stand the ports of well-known services, and Enlist's own."""

SLICE = 256
"""Ports of one process: by the time that they come round again, whoever had the first is gone."""


def ephemeral() -> range:
    """The ports that the system gives to outgoing connections, and to those who ask for any."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return range(int(low), int(high) + 1)


def slices(taken: range) -> Iterator[range]:
    """All slices that hold none of the ports `taken`."""
    for first in range(LOWEST, 65536 - SLICE, SLICE):
        if first + SLICE <= taken.start or first >= taken.stop:
            yield range(first, first + SLICE)


def free_port(host: str = "127.0.0.1") -> int:
    """A port at which nobody listens, for a process that must come back at the same one."""
    return next(port for port in itertools.islice(_own(), SLICE) if _free(host, port))


@cache
def _own() -> Iterator[int]:
    """The ports of this process, round and round."""
    folder = Path(tempfile.gettempdir()) / f"enlist-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in slices(ephemeral()):
        if _locked(folder / str(each.start)):
            return itertools.cycle(each)
    raise RuntimeError(f"Every port from {LOWEST} is in use by other tests, or is in the system's ip_local_port_range.")


def _locked(path: Path) -> bool:
    """Whether the lock on this file is now this process's; it ends with the process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an ended connection's port is no listener's
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
