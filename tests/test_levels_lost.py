"""Primaries in between that stand still, are away for longer than a certificate lives, or are lost for good; real processes, as in
test_levels."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import primary_process
from tests.support.waiting import wait_for
from tests.test_levels import ACCOUNT, Levels, Place

LIFETIME = 8
"""Seconds for which a certificate is good where a test outlasts it."""


@pytest.fixture
def levels(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Levels]:
    """Three levels with a policy of the top in force; a parameter is the lifetime of certificates."""
    with ExitStack() as stack:
        levels = Levels(tmp_path, stack, *([request.param] if hasattr(request, "param") else []))
        levels.set_policy(levels.top, {"a": 1})
        levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "four reports")
        yield levels


def test_a_middle_primary_that_stands_still_is_unknown_and_nobody_enrols_anew(levels: Levels) -> None:
    """Faults row 12: who is silent is not revoked, and what is in force stays."""
    entries = levels.middle.json("journal", "show", ACCOUNT)
    os.kill(levels.middle.pid, signal.SIGSTOP)
    wait_for(lambda: levels.below()["k1"]["unknown_since"] is not None, 60, what="k1 to be unknown at the top")
    levels.until(lambda: levels.policy(levels.top)["unreachable"] == 3, "three unreachable")
    assert [place.settings for place in levels.all] == [{"a": 1}] * 4
    os.kill(levels.middle.pid, signal.SIGCONT)
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four again")
    assert levels.middle.json("journal", "show", ACCOUNT) == entries


@pytest.mark.parametrize("levels", [f"{LIFETIME}s"], indirect=True)
def test_a_middle_primary_that_was_away_for_longer_than_certificates_live_is_found_again(levels: Levels) -> None:
    """Faults row 9, over levels: meanwhile the last policy stays in force, and another one waits."""
    levels.middle.end(9)
    expired = time.time() + 1.5 * LIFETIME
    levels.set_policy(levels.top, {"a": 2})
    levels.until(lambda: time.time() > expired, "every certificate that the middle primary issued to have ended")
    assert [place.settings for place in levels.all] == [{"a": 2}, {"a": 1}, {"a": 1}, {"a": 1}]
    levels.middle.start()
    wait_for(lambda: levels.policy(levels.top)["applied"] == 4, 60, what="four reports")
    assert [place.settings for place in levels.all] == [{"a": 2}] * 4


def test_a_primary_that_is_replaced_loses_and_doubles_no_task(levels: Levels, tmp_path: Path) -> None:
    """Faults row 25: its data are gone; another one takes its place on the same host while a run is open."""
    levels.k1.daemon.end()
    levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--deadline", "5m")
    levels.until(lambda: [place.runs for place in levels.all] == [1, 1, 1, 0], "the run at all who are there")
    levels.low.end(9)
    (tmp_path / "new").mkdir(mode=0o700)
    with primary_process(tmp_path / "new") as new:
        config = levels.m0.daemon.config
        config.write_text(config.read_text().replace(str(levels.low.data), str(new.data)))
        levels.m0.daemon.end()
        levels.m0.daemon.start()
        levels.until(lambda: "NOT_ALLOWED" in levels.m0.daemon.log, "another primary to be refused")
        levels.middle.do("server", "authorize", "m0", "--no-may-have-secondaries", "--below", "delete")
        levels.middle.do("server", "authorize", "m0", "--may-have-secondaries")
        newcomer = Place(tmp_path, "k2", new)
        try:
            levels.until(lambda: newcomer.settings == {"a": 1} and newcomer.runs == 1, "the policy and the run at the new bottom")
            levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "four reports again")
            levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--wait", "--deadline", "30s")
            assert [place.runs for place in (*levels.all, newcomer)] == [2, 2, 2, 0, 2]
        finally:
            newcomer.daemon.close()
