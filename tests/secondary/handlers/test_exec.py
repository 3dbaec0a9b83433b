"""`type = "exec"`: values reach a program on standard input and nowhere else (attacks row 36)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enlist_secondary.handlers.exec import ExecPolicy, ExecTask
from enlist_secondary.handlers.interface import MESSAGE_LIMIT, HandlerFailed, TaskOutcome
from enlist_secondary.handlers.tables import Exec
from tests.secondary.handlers.programs import alive, number_in, python
from tests.support.waiting import eventually

NASTY: dict[str, Any] = {
    "a": "; touch /tmp/x",
    "$(id)": "`id`",
    "--flag": ["--flag", "\n--flag", "\0", "'\"\\"],
    "é\u2028": {"deep": [None, True, 1.5, 2**53]},
    "lone": "\ud800",
}
TELL = "import json, sys; d = sys.stdin.read(); print(json.dumps([sys.argv[1:], d.count(chr(10)), json.loads(d)]))"


def task(*command: str, timeout: int | None = None) -> ExecTask:
    return ExecTask(Exec(command, timeout))


async def test_arguments_of_a_task_reach_standard_input_alone() -> None:
    """Attacks row 36: `; $() \\n --flag`."""
    outcome = await task(*python(TELL, "--strict")).run(NASTY, 60.0)
    assert (outcome.state, outcome.exit_code, outcome.message) == ("succeeded", 0, "")
    assert json.loads(outcome.output) == [["--strict"], 1, NASTY]


async def test_settings_of_a_policy_reach_standard_input_alone(tmp_path: Path) -> None:
    """Attacks row 36."""
    told = tmp_path / "told"
    handler = ExecPolicy(Exec(("/bin/sh", "-c", f"cat > {told}; echo $# >> {told}")))
    await handler.apply(NASTY)
    *lines, words = told.read_text().splitlines()
    assert (json.loads("".join(lines)), len(lines), words) == (NASTY, 1, "0")


async def test_going_back_runs_the_program_with_the_settings_before_or_with_none(tmp_path: Path) -> None:
    told = tmp_path / "told"
    handler = ExecPolicy(Exec(("/bin/sh", "-c", f"cat >> {told}")))
    await handler.revert({"a": 1})
    await handler.revert(None)
    assert told.read_text() == '{"a": 1}\n{}\n'
    assert await handler.changed() is None
    assert not handler.restores


async def test_a_policy_whose_program_fails_says_what_it_said_last() -> None:
    handler = ExecPolicy(Exec(("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 7")))
    with pytest.raises(HandlerFailed) as failed:
        await handler.apply({})
    assert failed.value.message == "/bin/sh ended with status 7. It said: line 3 | line 4 | line 5 | line 6 | line 7"


async def test_what_a_program_says_is_harmless_short_and_without_our_secrets() -> None:
    """Attacks rows 41 and 44."""
    secret = f"enl_abcdefghij_{'a' * 32}"
    text = f"import sys; print('{secret}', chr(27) + '[31m', chr(0x202E), 'x' * 5000); sys.exit(1)"
    with pytest.raises(HandlerFailed) as failed:
        await ExecPolicy(Exec(python(text))).apply({})
    message = failed.value.message
    assert len(message) == MESSAGE_LIMIT
    assert message.isprintable()
    assert "enl_abcdefghij_*** \\x1b[31m \\u202e xxx" in message
    assert secret not in message


@pytest.mark.parametrize(
    ("text", "state", "exit_code", "output", "message"),
    [
        ("echo out; exit 0", "succeeded", 0, b"out\n", ""),
        ("echo out; exit 9", "failed", 9, b"out\n", "/bin/sh ended with status 9."),
        ("echo out; kill -9 $$", "failed", -1, b"out\n", "/bin/sh was killed by SIGKILL."),
    ],
)
async def test_how_a_task_ended(text: str, state: Any, exit_code: int, output: bytes, message: str) -> None:
    assert await task("/bin/sh", "-c", text).run({}, 60.0) == TaskOutcome(state, exit_code, output, message)


async def test_a_program_that_is_not_there_is_an_outcome() -> None:
    outcome = await task("/nowhere/program").run({}, 60.0)
    assert (outcome.state, outcome.exit_code, outcome.output) == ("failed", -1, b"")
    assert "there is no such program" in outcome.message


@pytest.mark.parametrize(("timeout", "limit", "said"), [(1, 60.0, "1 s"), (600, 0.5, "0.5 s"), (None, 0.5, "0.5 s")])
async def test_the_shorter_of_deadline_and_timeout_ends_a_task(timeout: int | None, limit: float, said: str) -> None:
    outcome = await task("sleep", "600", timeout=timeout).run({}, limit)
    assert (outcome.state, outcome.exit_code) == ("timed_out", -1)
    assert f"within {said} " in outcome.message


async def test_a_task_past_its_deadline_is_not_begun(tmp_path: Path) -> None:
    outcome = await task("touch", str(tmp_path / "begun")).run({}, 0.0)
    assert outcome.state == "timed_out"
    assert not (tmp_path / "begun").exists()


async def test_a_cancelled_task_ends_its_program(tmp_path: Path) -> None:
    running = asyncio.create_task(task("/bin/sh", "-c", f"echo $$ > {tmp_path / 'pid'}; exec sleep 600").run({}, 600.0))
    number = await eventually(lambda: number_in(tmp_path / "pid"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: not alive(number))
