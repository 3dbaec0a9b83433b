"""What stands at the place of a policy's file: somebody's change is noticed, and what is not ours is not touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enlist.runtime import files
from enlist_secondary.handlers.interface import HandlerFailed
from tests.secondary.handlers.programs import Site, whole_tree

GOOD, BETTER = {"limit": 1}, {"limit": 2}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.write_text("limit 9\n"), "The content of {} was changed."),
        (lambda path: path.write_text("limit 10\n"), "The content of {} was changed."),
        (lambda path: path.chmod(0o600), "The mode of {} was changed from 0644 to 0600."),
        (lambda path: path.chmod(0o666), "The mode of {} was changed from 0644 to 0666."),
        (lambda path: path.unlink(), "{} was removed."),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "{} is not a plain file any more."),
        (lambda path: (path.unlink(), path.mkdir()), "{} is not a plain file any more."),
        (lambda path: path.write_bytes(b"x" * (1 << 20) + b"x"), "{} is larger than 1 MiB and was not read."),
    ],
)
async def test_what_somebody_changed_is_told(site: Site, change: object, expected: str) -> None:
    assert callable(change)
    await site.handler().apply(GOOD)
    change(site.path)
    assert await site.handler().changed() == expected.format(site.path)


async def test_a_change_that_hides_behind_size_and_time_is_noticed(site: Site) -> None:
    """The system's own time of change cannot be set."""
    handler = site.handler()
    await handler.apply(GOOD)
    status = site.path.stat()
    site.path.write_text("limit 9\n")
    os.utime(site.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert await handler.changed() == f"The content of {site.path} was changed."


async def test_the_same_content_anew_is_no_change_and_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = site.handler()
    await handler.apply(GOOD)
    reads: list[Path] = []
    real = files.read

    def read(path: Path) -> bytes:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(files, "read", read)
    assert await handler.changed() is None
    assert site.path not in reads
    site.path.write_text("limit 1\n")
    assert await handler.changed() is None
    assert reads.count(site.path) == 1
    assert await handler.changed() is None
    assert reads.count(site.path) == 1


async def test_nothing_was_changed_where_nothing_was_put(site: Site) -> None:
    site.path.write_text("by hand\n")
    assert await site.handler().changed() is None


async def test_a_policy_puts_back_what_was_changed(site: Site) -> None:
    handler = site.handler()
    await handler.apply(GOOD)
    site.path.write_text("by hand\n")
    await handler.apply(GOOD)
    assert site.path.read_text() == "limit 1\n"
    assert await handler.changed() is None


# --- What is not ours (attacks row 35) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["symlink", "dangling symlink", "folder", "open to all", "a stranger's", "open folder"])
async def test_a_place_that_others_have_a_hand_in_is_refused_in_words(site: Site, planted: str) -> None:
    """Attacks row 35: a symbolic link is not followed, and nothing of a stranger's replaced."""
    other = site.folder / "other"
    other.write_text("other\n")
    if "symlink" in planted:
        site.path.symlink_to(other if planted == "symlink" else site.folder / "nowhere")
    elif planted == "folder":
        site.path.mkdir()
    else:
        site.path.write_text("by hand\n")
    if planted == "open to all":
        site.path.chmod(0o666)
    if planted == "open folder":
        site.etc.chmod(0o777)
    if planted == "a stranger's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(site.path, 12345, -1)
    before = whole_tree(site.folder)
    with pytest.raises(HandlerFailed) as failed:
        await site.handler().apply(GOOD)
    assert str(site.path.parent) in failed.value.message
    assert whole_tree(site.folder) == before
    assert not site.loads()


async def test_a_file_planted_for_the_new_one_is_not_written_through(site: Site) -> None:
    """Attacks row 35."""
    other = site.folder / "other"
    other.write_text("other\n")
    (site.etc / f".{site.path.name}.enlist-new").symlink_to(other)
    await site.handler().apply(GOOD)
    assert other.read_text() == "other\n"
    assert site.path.read_text() == "limit 1\n"
    assert not site.path.is_symlink()


@pytest.mark.parametrize("name", ["original", "before", "record.json"])
async def test_a_symlink_in_the_place_of_a_kept_file_is_not_followed(site: Site, name: str) -> None:
    """Attacks row 35: symlink in any backup."""
    site.path.write_text("by hand\n")
    await site.handler().apply(GOOD)
    other = site.folder / "other"
    other.write_text("other\n")
    (site.kept / name).unlink()
    (site.kept / name).symlink_to(other)
    if name == "before":
        await site.handler().apply(BETTER)
    else:
        with pytest.raises(HandlerFailed) as failed:
            await site.handler().revert(None)
        assert "symbolic link" in failed.value.message
    assert other.read_text() == "other\n"


async def test_a_folder_that_is_missing_is_told(site: Site) -> None:
    site.etc.rmdir()
    with pytest.raises(HandlerFailed) as failed:
        await site.handler().apply(GOOD)
    assert failed.value.message == f"{site.path}: no such file or directory."


async def test_a_damaged_record_is_told_and_changes_nothing(site: Site) -> None:
    await site.handler().apply(GOOD)
    (site.kept / "record.json").write_text('{"path": 3}')
    with pytest.raises(HandlerFailed) as failed:
        await site.handler().apply(BETTER)
    assert "record.json is damaged" in failed.value.message
    assert site.path.read_text() == "limit 1\n"


async def test_what_is_kept_is_for_nobody_else(site: Site) -> None:
    """Attacks row 45: what stood there may hold a password."""
    site.path.write_text("by hand\n")
    await site.handler().apply(GOOD)
    await site.handler().apply(BETTER)
    assert {path.name: path.stat().st_mode & 0o777 for path in site.kept.iterdir()} == {
        "record.json": 0o600,
        "original": 0o600,
        "before": 0o600,
    }
    assert site.kept.stat().st_mode & 0o777 == 0o700
