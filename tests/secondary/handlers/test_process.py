"""Programs of the owner's: no shell, nothing left behind, nothing that blocks (attacks row 36)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from enlist.outputs import LIMIT
from enlist_secondary.handlers import output, process
from enlist_secondary.handlers.interface import HandlerFailed
from tests.secondary.handlers.programs import alive, number_in, python, script
from tests.support.waiting import eventually

LONG = 60.0
PROMPT = 15.0
"""Seconds that are far from LONG, and enough on a busy machine."""

NOTE = "import os, sys; from pathlib import Path; Path(sys.argv[1]).write_text(f'{os.getpid()}\\n');"
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
STAYS = "import time; time.sleep(600)"


async def test_a_program_gets_its_argv_as_it_stands_and_what_is_given_on_standard_input() -> None:
    """Attacks row 36."""
    text = "import sys; print(sys.argv[1:], sys.stdin.buffer.read())"
    ended = await process.run(python(text, "$(id) ; *", "--flag"), b"; $(id)\n--flag", LONG)
    assert ended.output.decode() == "['$(id) ; *', '--flag'] b'; $(id)\\n--flag'\n"
    assert (ended.status, ended.problem) == (0, "")


async def test_a_program_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 44: no secret in its environment, no descriptor of ours; and a plain umask, folder and session."""
    monkeypatch.setenv("ENLIST_API_KEY", "enl_secret")
    text = """
import json, os
print(json.dumps([dict(os.environ), os.getcwd(), os.umask(0), os.getsid(0) == os.getpid(), sorted(os.listdir("/proc/self/fd"))]))
"""
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        ended = await process.run(python(text), b"", LONG)
    environment, folder, umask, leads, descriptors = json.loads(ended.output)
    environment.pop("LC_CTYPE", None)  # Python's own doing, where LANG alone were "C" (PEP 538)
    assert environment == {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    assert (folder, umask, leads) == ("/", 0o022, True)
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the listing's own


async def test_standard_error_comes_with_standard_output_in_order() -> None:
    ended = await process.run(("/bin/sh", "-c", "echo one; echo two >&2; echo three; exit 3"), b"", LONG)
    assert (ended.status, ended.output) == (3, b"one\ntwo\nthree\n")
    assert ended.problem == "/bin/sh ended with status 3."
    assert ended.explained.endswith("It said: one | two | three")


async def test_a_program_that_a_signal_killed_has_no_exit_code() -> None:
    ended = await process.run(("/bin/sh", "-c", "kill -SEGV $$"), b"", LONG)
    assert (ended.status, ended.problem) == (-signal.SIGSEGV, "/bin/sh was killed by SIGSEGV.")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("no-such-program", "there is no such program"),
        ("/nowhere/program", "there is no such program"),
        ("/etc", "permission denied"),
    ],
)
async def test_a_program_that_cannot_be_started_is_a_failure_in_words(program: str, why: str) -> None:
    with pytest.raises(HandlerFailed) as failed:
        await process.run((program,), b"", LONG)
    assert failed.value.message == f"{program} could not be started: {why}."


async def test_a_name_alone_is_looked_up_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "found-in-path", "echo here")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert (await process.run(("found-in-path",), b"", LONG)).output == b"here\n"


async def test_starting_programs_leaves_no_descriptor_open() -> None:
    await process.run(("true",), b"", LONG)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await process.run(("true",), b"x", LONG)
        with pytest.raises(HandlerFailed):
            await process.run(("/nowhere",), b"x", LONG)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_mebibyte_that_is_never_read_holds_nobody_up() -> None:
    ended = await process.run(("true",), b"x" * 1024 * 1024, LONG)
    assert ended.status == 0


async def test_a_mebibyte_that_is_read_late_arrives_whole() -> None:
    text = "import sys; print('y' * 300000); print(len(sys.stdin.buffer.read()))"
    ended = await process.run(python(text), b"x" * 1024 * 1024, LONG)
    assert ended.output.endswith(b"\n1048576\n")


async def test_ten_megabytes_are_drained_and_their_beginning_and_end_are_kept() -> None:
    text = "import sys; w = sys.stdout.buffer.write; w(b'begin'); w(b'x' * 10_000_000); w(b'end')"
    ended = await process.run(python(text), b"", LONG)
    assert ended.status == 0
    assert len(ended.output) <= LIMIT
    head, line, tail = ended.output.split(b"\n")
    assert (head[:6], len(head), tail[-4:]) == (b"beginx", 32 * 1024, b"xend")
    assert line == f"[{10_000_008 - len(head) - len(tail)} bytes left out]".encode()


# --- The limit, cancellation, and what is left ------------------------------------------------------------------------------------


async def test_the_limit_ends_a_program_and_says_so(tmp_path: Path) -> None:
    ended = await process.run(("/bin/sh", "-c", f"echo so far; echo $$ > {tmp_path / 'pid'}; exec sleep 600"), b"", 2.0)
    assert (ended.status, ended.output) == (None, b"so far\n")
    assert "did not end within 2 s" in ended.problem
    assert not alive(number_in(tmp_path / "pid"))


async def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    assert (await asyncio.wait_for(process.run(command, b"", 2.0), PROMPT)).status is None
    assert number_in(pid)
    assert not alive(number_in(pid))


async def test_a_program_has_time_to_end_well_after_sigterm(tmp_path: Path) -> None:
    text = f"trap 'echo ended well; exit 0' TERM; echo $$ > {tmp_path / 'pid'}; while :; do sleep 0.05; done"
    ended = await asyncio.wait_for(process.run(("/bin/sh", "-c", text), b"", 2.0), PROMPT)
    assert number_in(tmp_path / "pid")
    assert ended.status is None
    assert ended.output.endswith(b"ended well\n")  # a shell may say first that its `sleep` was ended, too


@pytest.mark.parametrize("ignores", [IGNORES, ""], ids=["ignores SIGTERM", "heeds SIGTERM"])
async def test_a_cancelled_program_is_ended_with_its_children(tmp_path: Path, ignores: str) -> None:
    child, parent = tmp_path / "child", tmp_path / "parent"
    text = f"{ignores}import subprocess; {NOTE} subprocess.run(sys.argv[2:])"
    argv = python(text, str(parent), *python(ignores + NOTE + STAYS, str(child)))
    running = asyncio.create_task(process.run(argv, b"", LONG))
    numbers = [await eventually(lambda: number_in(child)), await eventually(lambda: number_in(parent))]
    assert all(map(alive, numbers))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, PROMPT)
    await eventually(lambda: not any(map(alive, numbers)), what="the end of the group")


async def test_a_second_cancellation_leaves_nothing_behind_either(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    running = asyncio.create_task(process.run(python(IGNORES + NOTE + STAYS, str(pid)), b"", LONG))
    number = await eventually(lambda: number_in(pid))
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, PROMPT)
    await eventually(lambda: not alive(number), what="the end of the program")


@pytest.mark.parametrize("ignores", [IGNORES, ""], ids=["ignores SIGTERM", "heeds SIGTERM"])
async def test_a_grandchild_that_holds_the_pipe_neither_hangs_us_nor_stays(tmp_path: Path, ignores: str) -> None:
    pid = tmp_path / "pid"
    text = "import subprocess, sys, time; from pathlib import Path; subprocess.Popen(sys.argv[2:]);"
    text += "print('done', flush=True); p = Path(sys.argv[1])\nwhile not p.exists(): time.sleep(0.01)"
    begun = time.monotonic()
    ended = await process.run(python(text, str(pid), *python(ignores + NOTE + STAYS, str(pid))), b"", LONG)
    assert time.monotonic() - begun < PROMPT
    assert (ended.status, ended.output) == (0, b"done\n")
    number = await eventually(lambda: number_in(pid))
    await eventually(lambda: not alive(number), what="the end of the grandchild")


async def test_a_daemon_that_left_the_group_and_writes_for_ever_does_not_hang_us(tmp_path: Path) -> None:
    """A program may start a service: that leads a session of its own, and is no child of ours to end."""
    pid = tmp_path / "pid"
    flood = NOTE + "\nwhile True: os.write(1, b'x' * 65536)"
    text = "import subprocess, sys, time; from pathlib import Path; subprocess.Popen(sys.argv[2:], start_new_session=True);"
    text += "p = Path(sys.argv[1])\nwhile not p.exists(): time.sleep(0.01)"
    ended = await asyncio.wait_for(process.run(python(text, str(pid), *python(flood, str(pid))), b"", LONG), PROMPT)
    assert ended.status == 0
    number = await eventually(lambda: number_in(pid))
    await eventually(lambda: not alive(number), what="the end of a writer whose reader has gone")


async def test_the_loop_goes_on_while_a_program_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    text = f"while [ ! -e {go} ]; do sleep 0.01; done; echo went"
    running = asyncio.create_task(process.run(("/bin/sh", "-c", text), b"", LONG))
    await asyncio.sleep(0)
    go.touch()
    assert (await running).output == b"went\n"


def test_output_within_the_limit_is_kept_as_it_is() -> None:
    assert output.bounded(b"x" * LIMIT) == b"x" * LIMIT
    cut = output.bounded(b"a" + b"x" * LIMIT)
    assert len(cut) <= LIMIT
    assert b"bytes left out" in cut


def test_a_file_made_by_a_program_is_readable_by_others(tmp_path: Path) -> None:
    """The unit of the daemon has umask 0077; what an owner's program makes is not the daemon's."""
    made = tmp_path / "made"
    asyncio.run(process.run((sys.executable, "-I", "-c", "import sys; open(sys.argv[1], 'w')", str(made)), b"", LONG))
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
