"""How long a policy of 1 MiB takes over a line of 64 kbit/s, beside the same bytes over a bare TCP connection on the same line."""

from __future__ import annotations

import asyncio
import base64
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from scripts.benchmarks.measuring import Rounds
from scripts.benchmarks.report import Figure, ratio
from tests.support.network import LinkedPair, can_make_namespaces, line, own_time
from tests.support.waiting import wait_for

TARGET = 1.3
RATE, LATENCY = "64kbit", "400ms"
LARGE, SMALL = "large", "small"
OVERHEAD = 1024
"""Bytes of the document that are not its text: it may have 1 MiB in all."""
PATIENCE = 4.0
"""How many times the floor's time is waited for at most."""


async def measure(quick: bool) -> list[Figure]:
    """Once each: a single round takes five minutes."""
    if not can_make_namespaces():
        print("only root can make network namespaces, with ip and tc: the slow line is left out", file=sys.stderr)
        return []
    return await asyncio.to_thread(_measure, (128 if quick else 1024) * 1024 - OVERHEAD)


def _measure(size: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enlist-bench-")))
        ends = stack.enter_context(line())
        pair = LinkedPair(folder, ends, (LARGE, SMALL), stack)
        for end in ends:
            end.slow(RATE, LATENCY)
        bare = own_time(*ends, size)
        pair.connect()
        link = pair.server["connected_changed"]
        large, small = _policies(pair, size, bare)
        lost = "" if pair.server["connected_changed"] == link else "THE LINK WAS LOST; "
    note = f"{lost}{size} bytes; set when it was on its way, a policy of 1 KB was in force after {small:.1f} s"
    return [ratio("policy over 64 kbit/s", "s", Rounds([large], [bare]), TARGET, note)]


def _policies(pair: LinkedPair, size: int, bare: float) -> tuple[float, float]:
    """Seconds until the large policy was in force, and the small one that was set when the large one was on its way."""
    sent = pair.near.sent
    begin = time.perf_counter()
    pair.set_policy(LARGE, {"text": base64.b64encode(secrets.token_bytes(size * 3 // 4)).decode()})
    wait_for(lambda: pair.near.sent > sent + 16 * 1024, what="the large policy on its way")
    small_begin = time.perf_counter()
    pair.set_policy(SMALL, {"text": "x" * 1000})
    wait_for(lambda: pair.in_force(SMALL), PATIENCE * bare, what="the small policy")
    small = time.perf_counter() - small_begin
    wait_for(lambda: pair.in_force(LARGE), PATIENCE * bare, what="the large policy")
    return time.perf_counter() - begin, small
