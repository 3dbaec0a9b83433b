"""Files that hold secrets or state: 0600 in 0700 folders whatever the umask, written whole or not at all, refused where unsafe."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enlist.reasons import Reason, Refused

SIZE_LIMIT = 1024 * 1024

FOLDER_TIMEOUT = 10.0
"""Seconds for which a folder that somebody else holds locked is waited for: who writes many files of one side by side waits for the
disk as often."""
TURN_TIMEOUT = 30.0
"""The same for a file's turn, in which its folder is waited for: who gives up loses what was to be changed."""

_LOCK_ATTEMPTS = 25
_LOCK_PAUSE = 0.02
_TURN_PAUSE = 0.002


def make_folder(path: Path) -> None:
    """Makes a folder 0700 (and its parents); one that is there must be ours and closed to writing by others."""
    try:
        for parent in reversed(path.parents):
            if not parent.exists():  # `parents=True` would leave their mode to the umask
                parent.mkdir(exist_ok=True, mode=0o700)
        path.mkdir(exist_ok=True, mode=0o700)
        check_safe(path, folder=True)
        path.chmod(0o700)
    except OSError as error:
        raise failed(path, error) from error


def entries(path: Path) -> list[Path]:
    """What stands in a folder, by name; nothing if there is no folder. For those who must know before they change anything."""
    try:
        return sorted(path.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise failed(path, error) from error


def check_safe(path: Path, folder: bool = False, secret: bool = False) -> None:
    """Refuses what somebody else may have planted: a symbolic link, a foreign owner, writable by others, or - if it is to hold a
    secret - readable by them."""
    status = path.lstat()
    right_kind = stat.S_ISDIR(status.st_mode) if folder else stat.S_ISREG(status.st_mode)
    if not right_kind:
        raise Refused(Reason.FILE_UNSAFE, f"{path} is not a {'folder' if folder else 'plain file'}; remove it first.")
    if status.st_uid not in (os.geteuid(), 0):
        raise Refused(Reason.FILE_UNSAFE, f"{path} belongs to another user; change its owner, or remove it.")
    forbidden = 0o077 if secret else 0o022
    if status.st_mode & forbidden:
        mode = "0700" if folder else "0600"
        raise Refused(Reason.FILE_UNSAFE, f"{path} is open to other users; set its mode to {mode} if you trust it.")


def read(path: Path, secret: bool = False, limit: int = SIZE_LIMIT) -> bytes:
    """A file of ours, checked to be safe and at most `limit` bytes. A missing one raises FileNotFoundError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            check_safe(path, secret=secret)
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(Reason.FILE_UNSAFE, f"{path} is a symbolic link; put the file itself there.") from None
        raise failed(path, error) from error
    if len(data) > limit:
        raise Refused(Reason.FILE_UNSAFE, f"{path} is larger than {limit // SIZE_LIMIT} MiB and was not read.")
    return data


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces a file in one step: what stands at `path` is the old or the new, whole, also after a power cut.

    Two processes that write the same file take turns.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with _folder(path.parent) as folder:
            _take_turns(folder)
            temporary.unlink(missing_ok=True)  # left by a crash, or planted: either way not written through
            try:
                _write_new(temporary, data, mode)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            os.fsync(folder)
    except OSError as error:
        raise failed(path, error) from error


def _take_turns(folder: int) -> None:
    """Holds the folder against others who write there: not for ever, for anybody who may read a folder may lock it."""
    deadline = time.monotonic() + FOLDER_TIMEOUT
    while not _flock(folder, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "another program holds its folder locked")
        time.sleep(0.01)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Holds a file against every other `turn` on it, of this process too: what is read, changed and written within is one step.

    Nobody who only reads or writes the file is held up. Blocks for up to `TURN_TIMEOUT`, then refuses with FILE_FAILED. The lock
    is a file beside it that goes with the turn.
    """
    beside = path.with_name(f".{path.name}.lock")
    try:
        descriptor = _await_turn(beside)
    except OSError as error:
        raise failed(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder is gone as well, or nothing can be removed: an empty file stays, locked by nobody
            beside.unlink()
        os.close(descriptor)


def _await_turn(beside: Path) -> int:
    deadline = time.monotonic() + TURN_TIMEOUT
    while (descriptor := _try_turn(beside)) is None:
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "another program holds it locked")
        time.sleep(_TURN_PAUSE)
    return descriptor


def _try_turn(beside: Path) -> int | None:
    """A descriptor that holds the lock; None while somebody else does, or if that file went with the turn before."""
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with suppress(FileNotFoundError):
        if _flock(descriptor, fcntl.LOCK_EX) and os.path.samestat(os.fstat(descriptor), beside.lstat()):
            return descriptor
    os.close(descriptor)
    return None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Removes a file if it is there, for good."""
    try:
        path.unlink()
        with _folder(path.parent) as folder:
            os.fsync(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failed(path, error) from error


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def failed(path: Path, error: OSError) -> Refused:
    """The refusal for a file the system would not let us read or write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(Reason.STORAGE_FULL, f"{path} cannot be written: no space is left. Make room and try again.")
    return Refused(Reason.FILE_FAILED, f"{path}: {(error.strerror or 'the system refused').lower()}.")


@contextmanager
def lock(path: Path, reason: Reason, message: str) -> Iterator[None]:
    """Holds a file's exclusive lock, which the system drops with the process; refused if another process holds it.

    Blocks for up to half a second: who asks whether a file is `locked` holds it for an instant.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(path, error) from error
    try:
        for _ in range(_LOCK_ATTEMPTS):
            if _flock(descriptor, fcntl.LOCK_EX):
                break
            time.sleep(_LOCK_PAUSE)
        else:
            raise Refused(reason, message)
        yield
    finally:
        os.close(descriptor)


def locked(path: Path) -> bool:
    """Whether a process holds the file's lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failed(path, error) from error
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)  # shared: two who ask do not mistake each other for the holder
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
