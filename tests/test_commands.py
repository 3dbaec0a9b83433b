"""What the three commands have in common: quick help, no traceback, no wall of imports before anything is to be done."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import commands
from tests.support.processes import run

PARSERS = ("enlist_primary.cli.main", "enlist_secondary.cli", "enlist_installer.cli")
HEAVY = {"grpc", "cryptography", "sqlite_utils", "questionary", "dns"}


@pytest.mark.parametrize("module", PARSERS)
def test_help_loads_nothing_heavy(module: str) -> None:
    """`--help` answers at once because of this; `scripts/bench help` measures it."""
    code = f"import json, sys; from {module} import parser; parser().format_help(); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("command", ["enlist-primary", "enlist-secondary", "enlist-setup"])
def test_wrong_usage_ends_with_2_and_help_with_0(command: str) -> None:
    assert "usage:" in run(command, "--help").stdout
    assert "usage:" in run(command, "--no-such-flag", expect=2).stderr


def test_what_nobody_foresaw_is_a_refusal_without_its_details() -> None:
    refusals: list[Refused] = []

    def work() -> int:
        raise ValueError("the API key enl_abc")

    def refuse(refused: Refused) -> int:
        refusals.append(refused)
        return 1

    assert commands.run(work, refuse) == 1
    assert refusals[0].reason is Reason.INTERNAL
    assert "ValueError in test_commands.py" in refusals[0].message
    assert "enl_abc" not in refusals[0].message


def test_what_an_output_cannot_encode_is_shown_as_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))

    def work() -> int:
        print("├── Zürich")
        sys.stdout.flush()
        return 0

    assert commands.run(work, lambda refused: 1) == 0
    assert printed.getvalue() == b"\\u251c\\u2500\\u2500 Z\\xfcrich\n"


def test_an_interrupted_command_says_so() -> None:
    def work() -> int:
        raise KeyboardInterrupt

    assert commands.run(work, lambda refused: {Reason.INTERRUPTED: 1}.get(refused.reason, 99)) == 1
