"""How much memory `enlist-secondary run` keeps resident once it is connected."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.enrolling import ACCOUNT
from scripts.benchmarks.measuring import resident, unshared
from scripts.benchmarks.report import Figure
from scripts.benchmarks.stage import running_primary
from tests.support.processes import PrimaryProcess, SecondaryProcess
from tests.support.waiting import wait_for

TARGET = 45.0
MEGABYTE = 1024 * 1024
SETTLE = 3.0
"""Seconds after it is connected."""


async def measure(quick: bool) -> list[Figure]:
    """Megabytes of a few processes, one after another."""
    return await asyncio.to_thread(_measure, 1 if quick else 3)


def _measure(processes: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name, running_primary(Path(name)) as primary:
        key = Path(name) / "api-key"
        key.write_text(primary.last_line("api-key", "add", ACCOUNT, "--full"))
        sizes = [_size(primary, Path(name), f"secondary-{number}", key) for number in range(processes)]
    largest, alone = max(sizes)
    note = f"{alone:.1f} MB of it shared with no other process; floor: an interpreter that has imported gRPC and cryptography"
    return [Figure("enlist-secondary run, resident", "MB", largest, largest, _imports(), TARGET, note=note)]


def _size(primary: PrimaryProcess, folder: Path, name: str, key: Path) -> tuple[float, float]:
    """Megabytes of a secondary that is connected: resident, and shared with no other process."""
    secondary = SecondaryProcess(folder, name)
    secondary.set_up(primary, "--api-key-file", str(key))
    try:
        secondary.start()
        wait_for(lambda: primary.server(name)["connected"], what="the link")
        time.sleep(SETTLE)
        return resident(secondary.pid) / MEGABYTE, unshared(secondary.pid) / MEGABYTE
    finally:
        secondary.close()


def _imports() -> float:
    """Megabytes of an interpreter that has imported what every secondary must, and does nothing."""
    code = "import asyncio, grpc.aio, cryptography.x509, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        process.stdout.readline()
        size = resident(process.pid) / MEGABYTE
        process.stdin.close()
        return size
