"""Faults rows 1, 5, 6 and 7 and attacks row 49 on real processes and real files: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.store.database import Transaction
from enlist_primary.store.sqlite import open_sqlite
from tests.primary.store.helpers import ACME, DEADLINE, add_account, add_server, decide, heads, servers, together, verify
from tests.support.means import need

ROOT = Path(__file__).resolve().parents[3]


def _writer(path: Path, callers: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.primary.store.writer", str(path), str(callers), *options]


@asynccontextmanager
async def _running(argv: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process with its output as a stream; dead at the end, whatever happens."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, cwd=ROOT, env=environment)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def _output(argv: list[str]) -> list[str]:
    async with _running(argv) as child, asyncio.timeout(DEADLINE):
        output, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return output.decode().splitlines()


def _acknowledged(lines: list[str]) -> list[int]:
    return [int(line.removeprefix("ack ")) for line in lines if line.startswith("ack ")]


async def _kept(path: Path) -> int:
    """How many decisions the reopened database holds; its journal verifies."""
    async with open_sqlite(path) as database:
        return await database.read(verify, ACME)


# Rows 1 and 5: killed, and out of power


@pytest.mark.parametrize("callers", [1, 16])
async def test_every_acknowledged_decision_survives_a_kill(path: Path, callers: int) -> None:
    """Faults rows 1 and 5. Killed in full work, three times over on one database."""
    for _ in range(3):
        async with _running(_writer(path, callers)) as child, asyncio.timeout(DEADLINE):
            assert child.stdout is not None
            heard: list[str] = []
            while len(_acknowledged(heard)) < 100:
                heard.append((await child.stdout.readline()).decode())
            child.kill()
            heard += (await child.stdout.read()).decode().splitlines(keepends=True)
        acknowledged = _acknowledged([line for line in heard if line.endswith("\n")])
        assert max(acknowledged) <= await _kept(path)


async def test_the_disk_confirms_before_each_acknowledgement(path: Path, folder: Path) -> None:
    """Faults row 5: power may fail right after an acknowledgement, so a completed sync stands before every one."""
    trace = folder / "trace"
    argv = [*_strace(trace, "-e", "trace=fsync,fdatasync,write"), *_writer(path, 1)]
    async with _running(argv) as child, asyncio.timeout(DEADLINE):
        assert child.stdout is not None
        for _ in range(100):
            await child.stdout.readline()
        _kill_below(child)
        await child.communicate()
    events = re.findall(r'(f\w*sync)\(\d+\) += 0|\b(f\w*sync) resumed>\) += 0|write\(1, "(ask|ack)', trace.read_text())
    order = ["sync" if sync or resumed else said for sync, resumed, said in events]
    assert order.count("ack") > 20
    asked = order.index("ask")
    for place, event in enumerate(order[asked:], asked):
        if event == "ask":
            asked = place
        if event == "ack":
            assert "sync" in order[asked:place]


# Row 6: the disk errs


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("40+", id="for good"),
        pytest.param("40", id="once, and then the disk seems well again"),
    ],
)
async def test_a_failed_sync_stops_everything_and_acknowledges_nothing(path: Path, folder: Path, when: str) -> None:
    """Faults row 6. After one failed sync the kernel may forget the pages: a later good one proves nothing."""
    inject = f"inject=fsync,fdatasync:error=EIO:when={when}"
    lines = await _output([*_strace(folder / "trace", "-e", "trace=fsync,fdatasync", "-e", inject), *_writer(path, 1)])
    assert "EIO" in (folder / "trace").read_text()
    await _stopped_without_a_false_acknowledgement(path, lines)


async def test_a_short_write_stops_everything_and_acknowledges_nothing(path: Path) -> None:
    """Faults row 6."""
    lines = await _output(_writer(path, 1, str(300_123)))
    await _stopped_without_a_false_acknowledgement(path, lines)


async def _stopped_without_a_false_acknowledgement(path: Path, lines: list[str]) -> None:
    acknowledged = _acknowledged(lines)
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert len(acknowledged) >= 5
    assert lines[-5:] == [
        "ask",
        f"refused {Reason.STORAGE_FAILED}",
        "ask",
        f"then {Reason.STORAGE_FAILED}",
        f"failed {Reason.STORAGE_FAILED}",
    ]
    assert await _kept(path) in {len(acknowledged), len(acknowledged) + 1}  # the refused one: nobody knows


# Row 7: the disk is full


def _fill(folder: Path) -> Path:
    """Take every byte that is left, block by block: the last ones need not be a whole one."""
    path = folder / "filler"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        return path
    finally:
        os.close(file)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    need(os.geteuid() == 0 and shutil.which("mount") is not None, "only root can mount a small file system")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, check=False)
    need(mounted.returncode == 0, f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)  # lazy: a test that failed may still have files open there


async def test_a_full_disk_refuses_clearly_and_recovers_when_space_returns(small_disk: Path) -> None:
    """Faults row 7, attacks row 49."""
    path = small_disk / "enlist.db"
    async with open_sqlite(path, create=True) as database:
        await database.write(ACME, add_account, ACME)
        await database.write(ACME, decide)
        filler = _fill(small_disk)
        for _ in range(3):
            outcomes = await together(database, *[(ACME, lambda tx, id=id: _register(tx, id)) for id in "abc"])
            assert [_reason(outcome) for outcome in outcomes] == [Reason.STORAGE_FULL] * 3
        assert await database.read(heads) == {ACME: 1}
        assert await database.read(servers) == []
        filler.unlink()
        assert await database.write(ACME, _register, "d") == 2
    async with open_sqlite(path) as database:
        assert await database.read(servers) == ["d"]
        assert await database.read(verify, ACME) == 2


async def test_a_decision_that_fills_the_database_takes_its_batch_along_and_nothing_else(path: Path) -> None:
    """Attacks row 49, faults row 7: SQLITE_FULL ends the transaction under the savepoints of all who share it."""

    def limit(tx: Transaction, pages: int) -> None:
        tx.rows(f"PRAGMA max_page_count = {pages}")

    def fill(tx: Transaction) -> None:
        decide(tx)
        for number in range(10_000):
            add_server(tx, f"fill-{number}")

    def fill_and_hide(tx: Transaction) -> str:
        try:
            fill(tx)
        except Exception:  # what no operation may do: then it must come out here
            add_server(tx, "hidden")
        return "as if nothing had been"

    async with open_sqlite(path) as database:
        assert await database.write(ACME, _register, "before") == 1
        for greedy in (fill, fill_and_hide):
            await database.write(ACME, limit, 60)
            calls: list[Callable[[Transaction], object]] = [
                lambda tx: _register(tx, "x"),
                greedy,
                lambda tx: _register(tx, "y"),
            ]
            outcomes = await together(database, *[(ACME, operation) for operation in calls])
            assert {_reason(outcome) for outcome in outcomes} <= {Reason.STORAGE_FULL, Reason.OVERLOADED}
            assert await database.read(servers) == ["before"]
        await database.write(ACME, limit, 1_000_000)
        assert await database.write(ACME, _register, "after") == 2
    async with open_sqlite(path) as database:
        assert await database.read(servers) == ["after", "before"]
        assert await database.read(verify, ACME) == 2


def _register(tx: Transaction, id: str) -> int:
    number = decide(tx)
    add_server(tx, id)
    return number


def _reason(outcome: object) -> Reason:
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


def _strace(trace: Path, *options: str) -> list[str]:
    need(shutil.which("strace") is not None, "strace is missing")
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False)
    need(tried.returncode == 0, f"strace does not work here: {tried.stderr.decode().strip()}")
    return ["strace", "-f", "-o", str(trace), *options]


def _kill_below(child: asyncio.subprocess.Process) -> None:
    """Kill what strace runs; strace then ends by itself, its trace complete."""
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    for pid in children:
        os.kill(int(pid), 9)
