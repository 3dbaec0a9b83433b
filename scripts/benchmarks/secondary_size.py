"""How much memory `enlist-secondary run` takes while it is connected."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.measuring import resident, unshared
from scripts.benchmarks.report import Figure
from scripts.benchmarks.stage import running_primary
from tests.support.processes import SecondaryProcess
from tests.support.waiting import wait_for

TARGET = 60.0
"""MB as `ps` and `top` count them, 1,048,576 bytes each."""
MB = 1024 * 1024


async def measure(quick: bool) -> list[Figure]:
    """Resident size of a secondary that has waited for authorization, and is connected since."""
    return await asyncio.to_thread(_measure, 2.0 if quick else 10.0)


def _measure(settle: float) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name, running_primary(Path(name)) as primary:
        secondary = SecondaryProcess(Path(name), "measured")
        secondary.set_up(primary)
        try:
            secondary.start()
            primary.do("server", "authorize", "measured")
            wait_for(lambda: secondary.status()["connected"], what="the link")
            time.sleep(settle)
            size, own = resident(secondary.pid) / MB, unshared(secondary.pid) / MB
        finally:
            secondary.close()
    return [Figure("secondary, resident", "MB", size, size, target=TARGET, note=f"{own:.0f} MB of it shared with no other process")]
