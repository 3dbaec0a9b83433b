"""`scripts/soak` in its short form: what a storm of five minutes proves, a few kills show already; and what its verdict notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from enlist.v1 import document_pb2, policy_pb2, task_pb2
from scripts.soaking import verdict
from scripts.soaking.decisions import Decision
from scripts.soaking.journalled import Entry, journalled
from scripts.soaking.storm import DESCRIPTORS, GROWTH, RESIDENT, Held, Storm

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


def test_verdict_notices_a_task_that_ran_twice() -> None:
    once: Any = SimpleNamespace(name="leaf-1", runs=["t1", "t2"])
    twice: Any = SimpleNamespace(name="leaf-2", runs=["t1", "t2", "t1"])
    assert verdict.runs([once]) == []
    assert verdict.runs([once, twice]) == ["leaf-2 ran t1 2 times"]


def ended(id: str, args: bytes, *states: document_pb2.TaskState.ValueType) -> verdict.Ended:
    """A task with these results, each at a server of its own."""
    servers = [policy_pb2.ServerLabel(display_name=f"leaf-{number}") for number in range(1, len(states) + 1)]
    results = [task_pb2.TaskResult(server=server, state=state) for server, state in zip(servers, states, strict=True)]
    return task_pb2.Task(id=id, args=args), results


def test_verdict_notices_tasks_that_are_not_over_or_doubled() -> None:
    succeeded, failed = document_pb2.TASK_STATE_SUCCEEDED, document_pb2.TASK_STATE_FAILED
    good = [ended("k", b'"t1"', succeeded, failed), ended("l", b'"t2"', document_pb2.TASK_STATE_TIMED_OUT)]
    assert verdict.results("top", good) == []
    running = ended("m", b'"t3"', succeeded, document_pb2.TASK_STATE_RUNNING)
    assert verdict.results("top", [*good, running]) == ["top: task m is TASK_STATE_RUNNING at leaf-2"]
    again = ended("n", b'"t1"', succeeded)
    assert verdict.results("top", [*good, again]) == ['top: there are several tasks "t1"']


def test_verdict_notices_a_traceback_in_any_log(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "primary.log").write_text("info link opened\n")
    (tmp_path / "leaf.log").write_text("warning link ended\n")
    assert verdict.logs(tmp_path) == []
    (tmp_path / "top" / "primary.log").write_text(
        "info link opened\nerror fault\nTraceback (most recent call last):\n  File x\nKeyError: 1\n"
    )
    (found,) = verdict.logs(tmp_path)
    assert found.splitlines()[0] == "primary.log has a traceback:"
    assert [line.strip() for line in found.splitlines()[1:3]] == ["error fault", "Traceback (most recent call last):"]


@pytest.mark.parametrize(
    ("primary", "secondary", "said"),
    [
        pytest.param(Held([DESCRIPTORS], [RESIDENT["primary"]]), Held([9], [RESIDENT["secondary"]]), [], id="all at the bounds"),
        pytest.param(Held([9, 9], [60, 60 + GROWTH]), Held([9, 9], [40, 40]), [], id="grown to the bound"),
        pytest.param(Held([9, DESCRIPTORS + 1, 9], [60]), Held([9], [40]), ["top holds too much"], id="descriptors for a moment"),
        pytest.param(Held([9], [60, 201, 60]), Held([9], [40]), ["top holds too much"], id="memory of a primary for a moment"),
        pytest.param(Held([9], [150]), Held([9], [101]), ["leaf-1 holds too much"], id="memory of a secondary"),
        pytest.param(Held([9], [60]), Held([9], [40, 81]), ["leaf-1 has grown"], id="memory that stays"),
    ],
)
def test_verdict_notices_what_holds_too_much(primary: Held, secondary: Held, said: list[str]) -> None:
    storm = Storm({}, Random(1), print)
    storm.held = {"top": primary, "leaf-1": secondary}
    assert [each.partition(":")[0] for each in storm.exceeded({"top"})] == said
