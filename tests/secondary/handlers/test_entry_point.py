"""`type = "entry-point"`: the owner's Python, in the daemon, with a copy of the values and a limit."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enlist_secondary.handlers import workers
from enlist_secondary.handlers.entry_point import EntryPointPolicy, EntryPointTask
from enlist_secondary.handlers.interface import HandlerFailed, TaskOutcome
from enlist_secondary.handlers.tables import EntryPoint
from tests.support.waiting import eventually

MODULE = """
import asyncio, functools, sys, threading

calls, release, began, cancelled = [], threading.Event(), [], []

def note(value):
    calls.append((value, threading.current_thread() is threading.main_thread()))

def changes(value):
    value["list"].append("changed")

async def note_in_loop(value):
    await asyncio.sleep(0)
    note(value)
    return "in the loop"

class Noting:
    async def __call__(self, value):
        return await note_in_loop(value)

noting = Noting()
partly = functools.partial(note_in_loop)

def raises(value):
    raise ValueError("wrong " + chr(27) + str(value))

def exits(value):
    sys.exit(3)

async def exits_in_loop(value):
    sys.exit(3)

def blocks(value):
    release.wait()

async def waits(value):
    began.append(value)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        cancelled.append(value)
        raise

async def waits_on(value):
    while not release.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            cancelled.append(value)

class Offers:
    @staticmethod
    def text(value):
        return "text é"

def data(value): return b"\\0data"
def nothing(value): return None
def number(value): return 3
def much(value): return "x" * 1_000_000
not_callable = 3
"""


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module above, importable; whatever blocks in it ends with the test."""
    (tmp_path / "offered.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import offered  # type: ignore[import-not-found]  # written above

    yield offered
    offered.release.set()
    del sys.modules["offered"]


def policy(name: str, timeout: int | None = 20) -> EntryPointPolicy:
    return EntryPointPolicy(EntryPoint(name, timeout))


def task(name: str) -> EntryPointTask:
    return EntryPointTask(EntryPoint(name))


async def failure(name: str) -> str:
    with pytest.raises(HandlerFailed) as failed:
        await policy(name).apply({"a": 1})
    return failed.value.message


@pytest.mark.parametrize(
    ("name", "in_loop"),
    [("offered:note", False), ("offered:note_in_loop", True), ("offered:noting", True), ("offered:partly", True)],
)
async def test_a_callable_gets_the_settings_in_a_thread_or_in_the_loop(offered: Any, name: str, in_loop: bool) -> None:
    handler = policy(name)
    await handler.apply({"a": 1})
    await handler.revert({"b": 2})
    await handler.revert(None)
    assert offered.calls == [({"a": 1}, in_loop), ({"b": 2}, in_loop), ({}, in_loop)]
    assert await handler.changed() is None
    assert not handler.restores


async def test_a_callable_gets_a_copy(offered: Any) -> None:
    settings = {"list": [1]}
    await policy("offered:changes").apply(settings)
    assert settings == {"list": [1]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("offered:Offers.text", TaskOutcome("succeeded", -1, "text é".encode(), "")),
        ("offered:data", TaskOutcome("succeeded", -1, b"\0data", "")),
        ("offered:nothing", TaskOutcome("succeeded", -1, b"", "")),
        ("offered:note_in_loop", TaskOutcome("succeeded", -1, b"in the loop", "")),
        ("offered:number", TaskOutcome("failed", -1, b"", "It returned a int; text, bytes or nothing was expected.")),
        ("offered:raises", TaskOutcome("failed", -1, b"", "ValueError: wrong \\x1b{}")),
    ],
)
async def test_how_a_task_ended(offered: Any, name: str, expected: TaskOutcome) -> None:
    assert await task(name).run({}, 20.0) == expected


async def test_much_output_is_bounded(offered: Any) -> None:
    assert len((await task("offered:much").run({}, 20.0)).output) <= 64 * 1024


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("offered:raises", "ValueError: wrong \\x1b{'a': 1}"),
        ("offered:exits", "SystemExit: 3"),
        ("offered:exits_in_loop", "SystemExit: 3"),
        ("offered:missing", "AttributeError"),
        ("no_such_module:x", "ModuleNotFoundError"),
        ("offered:not_callable", "cannot be called"),
        ("no-such-entry-point", "0 installed packages offer"),
    ],
)
async def test_whatever_a_callable_raises_fails_the_policy_and_nothing_else(offered: Any, name: str, expected: str) -> None:
    assert expected in await failure(name)


async def test_an_installed_package_offers_a_handler_by_name(offered: Any, tmp_path: Path) -> None:
    about = tmp_path / "offered-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[enlist.handlers]\nmy-handler = offered:note\n")
    await policy("my-handler").apply({"a": 1})
    assert offered.calls == [({"a": 1}, False)]


async def test_a_coroutine_is_cancelled_at_the_limit(offered: Any) -> None:
    outcome = await task("offered:waits").run({"a": 1}, 0.3)
    assert (outcome.state, outcome.exit_code) == ("timed_out", -1)
    assert "did not return within 0.3 s" in outcome.message
    assert offered.cancelled == [{"a": 1}]


async def test_a_coroutine_is_cancelled_with_its_task(offered: Any) -> None:
    running = asyncio.create_task(task("offered:waits").run({"a": 1}, 600.0))
    await eventually(lambda: offered.began)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert offered.cancelled == [{"a": 1}]


async def test_a_thread_is_abandoned_at_the_limit_and_counted(offered: Any) -> None:
    """It cannot be ended; so only a few may be under way for nothing."""
    handler = task("offered:blocks")
    for _ in range(workers.ABANDONED_LIMIT):
        assert (await handler.run({}, 0.3)).state == "timed_out"
    refused = await handler.run({}, 0.3)
    assert (refused.state, refused.message) == ("failed", "4 earlier calls have not returned yet, so none was begun.")
    offered.release.set()

    async def works() -> bool:
        return (await handler.run({}, 20.0)).state == "succeeded"

    await eventually(works)


async def test_a_coroutine_that_will_not_be_cancelled_is_abandoned(offered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE", 0.1)
    with pytest.raises(HandlerFailed) as failed:
        await policy("offered:waits_on", 1).apply({"a": 1})
    assert "did not return within 1 s" in failed.value.message
    assert offered.cancelled == [{"a": 1}]
    offered.release.set()
    await eventually(lambda: not any("_guarded" in str(each) for each in asyncio.all_tasks()))


async def test_an_abandoned_thread_does_not_keep_the_process(offered: Any) -> None:
    await task("offered:blocks").run({}, 0.1)
    assert all(each.daemon for each in threading.enumerate() if each.name.startswith("handler"))
