"""Fault row 30: a large policy over a line of 64 kbit/s. The link stays up, and a small policy does not wait for the large one."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.support.network import LinkedPair, line, need_namespaces, own_time
from tests.support.waiting import wait_for

RATE, LATENCY = "64kbit", "400ms"
BYTES = int(os.environ.get("ENLIST_SLOW_LINE_BYTES", str(256 * 1024)))
"""Of the large policy's settings; 1 MiB less 1 KiB is the most that Enlist takes, and takes more than two minutes."""
SAMPLE = 64 * 1024
"""Bytes by which the line's own time is measured."""
LARGE, SMALL = "large", "small"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[LinkedPair]:
    """Linked over a line that is slow from when the secondary connects."""
    need_namespaces()
    with ExitStack() as stack:
        ends = stack.enter_context(line())
        linked = LinkedPair(tmp_path, ends, (LARGE, SMALL), stack)
        for end in ends:
            end.slow(RATE, LATENCY)
        linked.connect()
        yield linked


def until(pair: LinkedPair, condition: Callable[[], bool], within: float, what: str) -> None:
    """Waits; if it was in vain, the logs say whether the link was lost."""
    try:
        wait_for(condition, within, what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{pair.primary.log}\n{pair.secondary.log}") from None


def test_large_policy_arrives_over_slow_line_and_small_one_passes_it(pair: LinkedPair) -> None:
    longest = 1.3 * own_time(pair.near, pair.far, SAMPLE) * BYTES / SAMPLE
    link = pair.server["connected_changed"]
    sent = pair.near.sent
    pair.set_policy(LARGE, {"text": base64.b64encode(Random(30).randbytes(BYTES * 3 // 4)).decode()})
    end = time.monotonic() + longest
    until(pair, lambda: pair.near.sent > sent + 16 * 1024, 20, "the large policy on its way")
    pair.set_policy(SMALL, {"text": "x" * 1000})
    until(pair, lambda: pair.in_force(SMALL), end - time.monotonic(), "the small policy")
    assert not pair.in_force(LARGE), "the small policy waited for the large one"
    until(pair, lambda: pair.in_force(LARGE), end - time.monotonic(), "the large policy")
    until(pair, lambda: pair.reported(LARGE) == pair.reported(SMALL) == "applied", 20, "both reports")
    assert pair.server["connected_changed"] == link, f"the link was lost:\n{pair.primary.log}"
