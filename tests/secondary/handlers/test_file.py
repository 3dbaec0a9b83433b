"""`type = "file"`: checked before it takes its place, loaded after it, and taken back where either fails."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from enlist.runtime import files
from enlist_secondary.handlers import placing, process
from enlist_secondary.handlers.file import FilePolicy
from enlist_secondary.handlers.interface import HandlerFailed
from tests.secondary.handlers.programs import Site, alive, number_in, script, whole_tree
from tests.support.waiting import eventually

GOOD, BETTER, BAD, UNLOADABLE = {"limit": 1}, {"limit": 2}, {"limit": "bad"}, {"limit": "unloadable"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def failure(handler: FilePolicy, settings: dict[str, Any]) -> str:
    with pytest.raises(HandlerFailed) as failed:
        await handler.apply(settings)
    return failed.value.message


async def test_the_file_is_checked_put_in_its_place_and_loaded(site: Site) -> None:
    handler = site.handler(mode=0o640)
    await handler.apply(GOOD)
    assert site.path.read_text() == "limit 1\n"
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o640
    (checked,) = site.checked.read_text().splitlines()
    assert checked != str(site.path)
    assert Path(checked).parent == site.path.parent
    assert Path(checked).name.startswith(".")  # no `*` of a configuration folder reads it
    assert site.loads() == ["limit 1"]
    assert site.only_the_file()
    assert await handler.changed() is None
    assert handler.restores


async def test_settings_as_json_are_sorted_and_indented(site: Site) -> None:
    handler = site.handler(format="json", template=None, check=())
    await handler.apply({"b": "é\n", "a": [1, None]})
    assert site.path.read_text() == '{\n  "a": [\n    1,\n    null\n  ],\n  "b": "é\\n"\n}\n'
    assert json.loads(site.path.read_text()) == {"b": "é\n", "a": [1, None]}
    assert "larger than 1 MiB" in await failure(handler, {"a": "é" * 600_000})


async def test_without_programs_the_file_is_only_written(site: Site) -> None:
    await site.handler(check=(), reload=()).apply(BAD)
    assert site.path.read_text() == "limit bad\n"


# --- What fails touches nothing, or is taken back ---------------------------------------------------------------------------------


async def test_a_file_that_fails_its_check_touches_nothing(site: Site) -> None:
    """Issue 3: it rolls back when the check fails."""
    handler = site.handler()
    await handler.apply(GOOD)
    before, status = whole_tree(site.kept), site.path.stat()
    assert await failure(handler, BAD) == f"{site.check} ended with status 1. It said: 1:limit bad"
    assert (site.path.stat().st_ino, site.path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert whole_tree(site.kept) == before
    assert site.loads() == ["limit 1"]
    assert site.only_the_file()
    assert await handler.changed() is None


@pytest.mark.parametrize("settings", [BAD, {}, {"limit": "1\nallow all"}], ids=["check", "missing setting", "injected line"])
async def test_a_first_policy_that_fails_leaves_nothing(site: Site, settings: dict[str, Any]) -> None:
    """Attacks row 36 among them: a value that would begin a line."""
    await failure(site.handler(), settings)
    assert list(site.etc.iterdir()) == []
    assert not site.kept.exists()


async def test_a_file_that_cannot_be_loaded_goes_and_the_one_before_is_loaded_again(site: Site) -> None:
    handler = site.handler()
    await handler.apply(GOOD)
    message = await failure(handler, UNLOADABLE)
    assert message.startswith("What was there before was put back and loaded again. ")
    assert message.endswith(f"{site.reload} ended with status 1. It said: 1:limit unloadable")
    assert site.path.read_text() == "limit 1\n"
    assert site.loads() == ["limit 1", "limit unloadable", "limit 1"]
    assert site.only_the_file()
    assert await handler.changed() is None
    await handler.apply(BETTER)
    assert site.path.read_text() == "limit 2\n"


async def test_a_first_file_that_cannot_be_loaded_goes(site: Site) -> None:
    script(Path(site.reload), f"! grep -s unloadable {site.path}")
    assert "put back and loaded again" in await failure(site.handler(), UNLOADABLE)
    assert list(site.etc.iterdir()) == []


async def test_what_cannot_be_loaded_again_either_is_said(site: Site) -> None:
    handler = site.handler()
    await handler.apply(GOOD)
    script(Path(site.reload), "echo broken; exit 5")
    message = await failure(handler, BETTER)
    assert "could not be loaded again either" in message
    assert message.endswith("ended with status 5. It said: broken")
    assert site.path.read_text() == "limit 1\n"


async def test_what_cannot_be_put_back_is_said_and_put_back_by_the_next_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = site.handler()
    await handler.apply(GOOD)

    def lost(_: placing.Place) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(placing.Place, "go_back", lost)
        message = await failure(handler, UNLOADABLE)
    assert message.startswith(f"What was there before could not be put back: {site.path}: input/output error.")
    assert "1:limit unloadable" in message
    await failure(handler, {"limit": "also unloadable"})
    assert site.path.read_text() == "limit 1\n"


@pytest.mark.parametrize("which", ["check", "reload"])
async def test_a_program_that_hangs_fails_the_policy(site: Site, which: str) -> None:
    handler = site.handler(timeout=1)
    await handler.apply(GOOD)
    script(site.folder / which, "sleep 600")
    assert "did not end within 1 s" in await failure(handler, BETTER)
    assert site.path.read_text() == "limit 1\n"
    assert site.only_the_file()


async def test_a_template_that_hangs_fails_the_policy(site: Site) -> None:
    site.template.write_text("{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}")
    assert "was not rendered within 1 s" in await failure(site.handler(timeout=1), {"x": list(range(400))})
    assert not site.path.exists()


async def test_a_full_disk_fails_the_policy_and_leaves_the_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = site.handler()
    await handler.apply(GOOD)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "no space is left" in await failure(handler, BETTER)
    monkeypatch.undo()
    assert site.path.read_text() == "limit 1\n"
    assert site.only_the_file()
    assert await site.handler().changed() is None


# --- Going back ---------------------------------------------------------------------------------------------------------------


async def test_going_back_to_settings_writes_their_file(site: Site) -> None:
    handler = site.handler()
    await handler.apply(GOOD)
    await handler.apply(BETTER)
    await handler.revert(GOOD)
    assert site.path.read_text() == "limit 1\n"
    assert site.loads()[-1] == "limit 1"


async def test_without_a_policy_what_stood_there_before_the_first_comes_back(site: Site) -> None:
    """With its mode, and though it would not pass the check."""
    site.path.write_text("limit bad, by hand\n")
    site.path.chmod(0o600)
    await site.handler().apply(GOOD)
    await site.handler().apply(BETTER)
    await site.handler().revert(None)
    assert site.path.read_text() == "limit bad, by hand\n"
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600
    assert site.loads()[-1] == "limit bad, by hand"
    assert await site.handler().changed() is None
    assert whole_tree(site.kept) == {}


async def test_without_a_policy_a_file_that_was_not_there_goes(site: Site) -> None:
    script(Path(site.reload), "true")
    handler = site.handler()
    await handler.apply(GOOD)
    await handler.revert(None)
    assert list(site.etc.iterdir()) == []
    await handler.revert(None)  # there is nothing to go back to, and nobody is told to load anything
    assert await handler.changed() is None


async def test_what_comes_back_and_cannot_be_loaded_leaves_the_policy_in_force(site: Site) -> None:
    site.path.write_text("unloadable\n")
    handler = site.handler()
    await handler.apply(GOOD)
    with pytest.raises(HandlerFailed):
        await handler.revert(None)
    assert site.path.read_text() == "limit 1\n"
    assert await handler.changed() is None


async def test_owner_and_group_of_the_file_that_stands_are_kept(site: Site) -> None:
    """A program may read its configuration by its group only."""
    site.path.write_text("by hand\n")
    os.chown(site.path, -1, _another_group())
    await site.handler().apply(GOOD)
    assert site.path.stat().st_gid == _another_group()


def _another_group() -> int:
    if os.geteuid() == 0:
        return 12345
    return next((each for each in os.getgroups() if each != os.getegid()), os.getegid())


# --- Crashes ------------------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone: nothing is caught, and nothing cleaned up."""


@pytest.mark.parametrize("stood", [True, False], ids=["over a policy", "the first policy"])
@pytest.mark.parametrize(
    "crash_at",
    ["make_folder", *(f"{call} {nth}" for call in ("write", "replace") for nth in (1, 2, 3)), "sync", "reload", "confirm", "never"],
)
async def test_a_crash_leaves_the_old_or_the_new_whole_and_the_way_back(
    site: Site, monkeypatch: pytest.MonkeyPatch, crash_at: str, stood: bool
) -> None:
    """Then the daemon starts again, the new one turns out not to load, and what was in force before comes back."""
    if stood:
        await site.handler().apply(GOOD)
    script(Path(site.reload), f"! grep -s unloadable {site.path}")
    _crash(monkeypatch, crash_at)
    try:
        await site.handler(check=()).apply(BETTER)
        confirmed = True
    except Crash:
        confirmed = False
    monkeypatch.undo()
    assert confirmed or crash_at != "never"
    old = "limit 1\n" if stood else None
    assert (site.path.read_text() if site.path.exists() else None) in (old, "limit 2\n")
    await failure(site.handler(), UNLOADABLE)
    assert (site.path.read_text() if site.path.exists() else None) == ("limit 2\n" if confirmed else old)
    assert site.only_the_file()
    await site.handler().revert(None)
    assert list(site.etc.iterdir()) == []


def _crash(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Ends the work where this is called, for the first time or the nth."""
    name, _, nth = at.partition(" ")
    left = [int(nth or 1)]

    def crash(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return real(*arguments, **named)

        return call

    match name:
        case "make_folder" | "write":
            monkeypatch.setattr(files, name, crash(getattr(files, name)))
        case "replace":
            monkeypatch.setattr(Path, "replace", crash(Path.replace))
        case "sync":
            monkeypatch.setattr(placing, "_sync", crash(placing._sync))
        case "reload":
            monkeypatch.setattr(process, "run", crash(process.run))
        case "confirm":
            monkeypatch.setattr(placing.Place, "confirm", crash(placing.Place.confirm))


async def test_a_policy_that_was_cancelled_while_it_loads_can_be_taken_back(site: Site) -> None:
    """The daemon is stopped just then; what it started is ended."""
    handler = site.handler()
    await handler.apply(GOOD)
    pid = site.folder / "pid"
    script(Path(site.reload), f"echo $$ > {pid}; exec sleep 600")
    running = asyncio.create_task(handler.apply(BETTER))
    number = await eventually(lambda: number_in(pid))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: not alive(number))
    assert site.path.read_text() == "limit 2\n"
    script(Path(site.reload), f"! grep unloadable {site.path}")
    await failure(site.handler(), UNLOADABLE)
    assert site.path.read_text() == "limit 1\n"


async def test_a_policy_that_was_cancelled_in_its_check_leaves_nothing(site: Site) -> None:
    pid = site.folder / "pid"
    script(Path(site.check), f"echo $$ > {pid}; exec sleep 600")
    running = asyncio.create_task(site.handler().apply(GOOD))
    assert await eventually(lambda: number_in(pid))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(site.etc.iterdir()) == []
