"""Files of secrets and state: attacks rows 35 (symbolic links) and 45 (umask 000, planted files), faults rows 2, 6 and 7."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(path: Path, secret: bool = False) -> Reason:
    with pytest.raises(Refused) as caught:
        files.read(path, secret=secret)
    assert str(path) in caught.value.message
    return caught.value.reason


@pytest.mark.usefixtures("_umask")
def test_a_file_is_0600_and_a_folder_0700_whatever_the_umask(tmp_path: Path) -> None:
    """Attacks row 45."""
    folder = tmp_path / "folder"
    files.make_folder(folder)
    files.write(folder / "key", b"secret")
    assert (mode(folder), mode(folder / "key")) == (0o700, 0o600)
    assert files.read(folder / "key", secret=True) == b"secret"


def test_a_file_is_never_wider_than_0600_not_even_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 45: looked at when the last byte is on its way to the disk."""
    seen: list[int] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(mode(path) for path in tmp_path.iterdir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    files.write(tmp_path / "key", b"secret")
    assert set(seen) == {0o600}


@pytest.mark.parametrize(("bits", "secret"), [(0o620, False), (0o602, False), (0o666, True), (0o640, True), (0o604, True)])
def test_a_file_open_to_others_is_refused(tmp_path: Path, bits: int, secret: bool) -> None:
    """Attacks row 45: a planted configuration, a key that others could read."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(bits)
    assert refusal(path, secret) is Reason.FILE_UNSAFE


def test_a_file_that_is_no_secret_may_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o644)
    assert files.read(path) == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Attacks row 45."""
    path = tmp_path / "file"
    files.write(path, b"x")
    os.chown(path, 12345, 12345)
    assert refusal(path) is Reason.FILE_UNSAFE
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(Refused, match="another user"):
        files.make_folder(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Attacks row 35."""
    target = tmp_path / "target"
    files.write(target, b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert refusal(link) is Reason.FILE_UNSAFE
    files.write(link, b"new")
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_a_planted_link_where_the_new_file_is_prepared_is_not_written_through(tmp_path: Path) -> None:
    """Attacks rows 35 and 45."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".key.new").symlink_to(victim)
    files.write(tmp_path / "key", b"secret")
    assert victim.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "victim"]


def test_a_planted_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """Attacks row 35."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    with pytest.raises(Refused, match="not a folder"):
        files.make_folder(tmp_path / "folder")


def test_a_folder_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Attacks row 45."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Refused) as caught:
        files.make_folder(folder)
    assert caught.value.reason is Reason.FILE_UNSAFE


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") is Reason.FILE_UNSAFE
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") in (Reason.FILE_UNSAFE, Reason.FILE_FAILED)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    """Attacks row 33."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(files.SIZE_LIMIT + 1)
    path.chmod(0o600)
    assert refusal(path) is Reason.FILE_UNSAFE


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "file")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, Reason.STORAGE_FULL), (errno.EDQUOT, Reason.STORAGE_FULL), (errno.EIO, Reason.FILE_FAILED)],
)
def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, reason: Reason
) -> None:
    """Faults rows 6 and 7."""
    path = tmp_path / "state"
    files.write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(number, "no")

    if step == "write":
        monkeypatch.setattr(os, "fchmod", fail)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(Refused) as caught:
        files.write(path, b"new")
    assert caught.value.reason is reason
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("state", b"old")]


def test_a_full_disk_is_met_with_a_refusal(tmp_path: Path) -> None:
    """Faults row 7, with the device that is always full."""
    assert files.failed(Path("/dev/full"), _full()).reason is Reason.STORAGE_FULL
    with pytest.raises(Refused) as caught:
        files.write(tmp_path / "missing" / "file", b"x")
    assert caught.value.reason is Reason.FILE_FAILED


def _full() -> OSError:
    try:
        with Path("/dev/full").open("wb") as full:
            full.write(b"x")
    except OSError as error:
        return error
    raise AssertionError("it was not full")


def test_two_who_write_the_same_file_leave_one_whole_text(tmp_path: Path) -> None:
    """Faults row 2: the daemon and a command may write the state at the same time."""
    path = tmp_path / "state"
    texts = [bytes([letter]) * 20_000 for letter in b"abcd"]
    files.write(path, texts[0])
    failures: list[Exception] = []

    def write(text: bytes) -> None:
        try:
            for _ in range(25):
                files.write(path, text)
        except Refused as refused:
            failures.append(refused)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert files.read(path) in texts
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_file_is_removed_once_and_missing_it_is_no_error(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"x")
    files.remove(tmp_path / "file")
    files.remove(tmp_path / "file")
    files.remove(tmp_path / "no folder" / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not files.locked(path)
    with files.lock(path, Reason.ALREADY_RUNNING, "It runs."):
        assert files.locked(path)
        assert mode(path) == 0o600
        with pytest.raises(Refused, match="It runs"), files.lock(path, Reason.ALREADY_RUNNING, "It runs."):
            pass
        assert files.locked(path)
    assert not files.locked(path)


def test_asking_whether_a_file_is_locked_keeps_nobody_from_locking_it(tmp_path: Path) -> None:
    """`status`, asked all the time, must not make the daemon refuse to start."""
    path = tmp_path / "lock"
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            files.locked(path)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(30):
            with files.lock(path, Reason.ALREADY_RUNNING, "It runs."):
                assert files.locked(path)
    finally:
        over.set()
        for asker in askers:
            asker.join(10)


def test_a_folder_that_somebody_holds_locked_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody who may read a folder may lock it."""
    monkeypatch.setattr(files, "FOLDER_TIMEOUT", 0.0)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="holds its folder locked") as caught:
            files.write(tmp_path / "x", b"x")
        assert caught.value.reason is Reason.FILE_FAILED
    finally:
        os.close(folder)
    files.write(tmp_path / "x", b"x")


def test_what_is_read_and_written_in_a_turn_is_one_step(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write(path, b"0")

    def count() -> None:
        for _ in range(30):
            with files.turn(path):
                files.write(path, str(int(files.read(path)) + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert files.read(path) == b"90"
    assert list(tmp_path.iterdir()) == [path]


def test_a_turn_is_waited_for_longer_than_whoever_has_it_may_wait_for_the_folder() -> None:
    """Who gives up loses what was to be changed."""
    assert files.TURN_TIMEOUT > 2 * files.FOLDER_TIMEOUT


def test_a_turn_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TURN_TIMEOUT", 0.0)
    with files.turn(tmp_path / "x"):
        with pytest.raises(Refused, match="locked") as caught, files.turn(tmp_path / "x"):
            pass
        assert caught.value.reason is Reason.FILE_FAILED
    with files.turn(tmp_path / "x"):
        files.write(tmp_path / "x", b"x")


def test_a_turn_comes_after_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".x.lock").touch()
    with files.turn(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []
