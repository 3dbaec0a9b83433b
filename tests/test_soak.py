"""`scripts/soak` in its short form: what a storm of five minutes proves, a few kills show already; and what its verdict notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scripts.soaking.decisions import Decision
from scripts.soaking.journalled import Entry, journalled

ROOT = Path(__file__).parent.parent
SHORT = ("--seconds", "10", "--leaves", "1", "--direct", "1", "--seed", "10")


def test_short_storm_loses_and_doubles_nothing() -> None:
    argv = [sys.executable, "-m", "scripts.soaking", *SHORT]
    with subprocess.Popen(
        argv, cwd=ROOT, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as soak:
        try:
            said, _ = soak.communicate(timeout=280)
        finally:
            with suppress(ProcessLookupError):  # nothing of it outlives the test
                os.killpg(soak.pid, signal.SIGKILL)
    assert soak.returncode == 0, said
    assert "seed 10: everything held." in said
    assert "killing" in said


def entry(number: int, action: str, subject: str, **detail: Any) -> Entry:
    return {"number": number, "action": action, "subject": subject, "detail": detail}


def decision(action: str, subject: str, token: str, number: int = 0, refused: str = "") -> Decision:
    return Decision("top", action, subject, token, number, refused)


RENAMED = entry(2, "server.rename", "servers/a", name="t1")
SET = entry(3, "policy.set", "policies/web@g", kind="web", group="/", digest="d1")
ENTRIES = [entry(1, "account.create", "accounts/x"), RENAMED, SET, entry(4, "task.run", "tasks/k"), entry(5, "task.end", "tasks/k")]
MADE = [
    decision("server.rename", "servers/a", "t1", 2),
    decision("policy.set", "web /", "t2", 3),
    decision("task.run", "tasks/k", "t3", 5),
    decision("server.move", "servers/a", "t4", 2),
    decision("server.rename", "servers/a", "t5"),
    decision("server.label", "servers/a", "t6", refused="NOT_FOUND"),
]


def test_verdict_accepts_acknowledged_unanswered_and_refused_decisions() -> None:
    assert journalled(ENTRIES, 1, MADE) == []
    unanswered = entry(6, "server.rename", "servers/a", name="t5")
    assert journalled([*ENTRIES, unanswered], 1, MADE) == []


@pytest.mark.parametrize(
    ("entries", "made"),
    [
        pytest.param([ENTRIES[0], *ENTRIES[2:]], MADE, id="acknowledged and lost"),
        pytest.param(ENTRIES[:3], MADE, id="task acknowledged and lost"),
        pytest.param([*ENTRIES, {**RENAMED, "number": 6}], MADE, id="renamed twice"),
        pytest.param([*ENTRIES, {**SET, "number": 6}], MADE, id="policy set twice"),
        pytest.param([*ENTRIES, entry(6, "task.run", "tasks/l")], MADE, id="task made twice"),
        pytest.param([*ENTRIES, entry(6, "server.label", "servers/a", added="t6")], MADE, id="refused and made"),
        pytest.param(ENTRIES, [*MADE, decision("policy.set", "web /", "t9", 3)], id="two answers for one entry"),
        pytest.param(ENTRIES, [*MADE, decision("server.rename", "servers/b", "t9", 2)], id="entry of another server"),
    ],
)
def test_verdict_notices_what_was_lost_or_doubled(entries: list[Entry], made: list[Decision]) -> None:
    assert journalled(entries, 1, made) != []
