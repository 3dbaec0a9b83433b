"""Puts a file in its place and takes it back, so that a crash at any moment leaves the old or the new, whole.

Beside each file that policies write stand, in a 0700 folder of ours: what stood there before the first policy (`original`), what
stood there before the last change (`before`), and a record of what was put there. The record is written before the rename, and
until it says that the new file is in force, `before` is what to go back to - also for whoever comes after a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from enlist.reasons import Reason, Refused
from enlist.runtime import files

_ABSENT = "absent"  # in the place of a file's SHA-256


class Attributes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose a file is, and who may read it."""

    mode: int
    owner: int
    group: int


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    """For people: which file the folder is about."""
    original: Attributes | None
    """None: no file stood there."""
    before: Attributes | None
    placing: str | None = None
    """SHA-256 of what is taking its place and not in force yet."""
    good: str | None = None
    """SHA-256 of what was put in force last."""
    mode: int = 0
    seen: tuple[int, ...] = ()
    """What the system said of the good file when it was last known to be unchanged."""


class Place:
    """The place of one file. Every call blocks, on files alone; refuses with FILE_UNSAFE, FILE_FAILED or STORAGE_FULL, and lets an
    OSError pass."""

    def __init__(self, path: Path, folder: Path) -> None:
        """`folder` is for this place alone; it is made when it is needed."""
        self.path = path
        self._folder = folder
        self._temporary = path.with_name(f".{path.name}.enlist-new")

    def stage(self, content: bytes, mode: int) -> Path:
        """Writes the new file, under a name that configuration folders pass over, to be looked at before it takes its place.

        Owner and group are those of the file that stands, if one does.
        """
        stands = self._stands()
        attributes = Attributes(mode, stands.owner, stands.group) if stands else Attributes(mode, os.geteuid(), -1)
        self._write(content, attributes)
        return self._temporary

    def unstage(self) -> None:
        """Takes the new file back before it took its place."""
        with contextlib.suppress(OSError):  # in the worst case the next one writes it anew
            self._temporary.unlink()

    def take(self) -> None:
        """Lets the staged file take its place; it is not in force until `confirm`."""
        with self._whole():
            self._begin(_digest(files.read(self._temporary)))
            self._temporary.replace(self.path)
            _sync(self.path.parent)

    def take_original(self) -> bool:
        """Puts back what stood there before the first policy, or removes the file; False if no policy was ever put there."""
        record = self._record()
        if record is None:
            return False
        content = files.read(self._folder / "original") if record.original else None
        with self._whole():
            self._begin(_digest(content))
            self._put(content, record.original)
        return True

    def confirm(self) -> None:
        """The file that was placed is in force."""
        record = self._record()
        if record is None or record.placing is None:
            return
        good = msgspec.structs.replace(record, good=record.placing, placing=None)
        self._keep(msgspec.structs.replace(good, **self._as_seen()))

    def forget(self) -> None:
        """The place is as it was before the first policy; the next one is the first again."""
        for name in ("record.json", "original", "before"):
            files.remove(self._folder / name)

    def go_back(self) -> None:
        """Puts back what stood there before `take` or `take_original`."""
        record = self._record()
        if record is None or record.placing is None:
            return
        content = files.read(self._folder / "before") if record.before else None
        self._put(content, record.before)
        seen = self._as_seen() if _digest(content) == record.good else {}
        self._keep(msgspec.structs.replace(record, placing=None, **seen))

    def changed(self) -> str | None:
        """What somebody else did to the file since it was put in force, as a sentence."""
        record = self._record()
        if record is None or record.good is None or record.placing is not None:
            return None
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return f"{self.path} was removed."
        if not stat.S_ISREG(status.st_mode):
            return f"{self.path} is not a plain file any more."
        if (mode := stat.S_IMODE(status.st_mode)) != record.mode:
            return f"The mode of {self.path} was changed from {record.mode:04o} to {mode:04o}."
        if _seen(status) == record.seen:
            return None
        if _digest(files.read(self.path)) != record.good:
            return f"The content of {self.path} was changed."
        self._keep(msgspec.structs.replace(record, seen=_seen(status)))
        return None

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """If anything fails in between, what stood before stands again: a full disk, say."""
        try:
            yield
        except (Refused, OSError):
            self.go_back()
            self.unstage()
            raise

    def _begin(self, placing: str) -> None:
        """Keeps what stands as `before`, unless that is what an earlier change placed and nobody confirmed."""
        files.make_folder(self._folder)
        record = self._record() or _Record(str(self.path), self._kept("original"), None)
        if record.placing is None or self._digest() != record.placing:
            record = msgspec.structs.replace(record, before=self._kept("before"))
        self._keep(msgspec.structs.replace(record, placing=placing))

    def _kept(self, name: str) -> Attributes | None:
        """Keeps a copy of what stands, if anything does."""
        attributes = self._stands()
        if attributes:
            files.write(self._folder / name, files.read(self.path))
        return attributes

    def _stands(self) -> Attributes | None:
        """The file that stands. Refuses one that is not ours to replace, or in a folder where others could replace it again."""
        files.check_safe(self.path.parent, folder=True)
        try:
            files.check_safe(self.path)
            status = self.path.lstat()
        except FileNotFoundError:
            return None
        return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    def _digest(self) -> str:
        try:
            return _digest(files.read(self.path))
        except FileNotFoundError:
            return _ABSENT

    def _put(self, content: bytes | None, attributes: Attributes | None) -> None:
        if content is None or attributes is None:
            self.path.unlink(missing_ok=True)
        else:
            self._write(content, attributes)
            self._temporary.replace(self.path)
        _sync(self.path.parent)

    def _write(self, content: bytes, attributes: Attributes) -> None:
        self._temporary.unlink(missing_ok=True)  # left by a crash, or planted: either way not written through
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _hand_over(file.fileno(), attributes)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.unstage()
            raise

    def _as_seen(self) -> dict[str, object]:
        """What the record says of the file that now stands."""
        with contextlib.suppress(FileNotFoundError):
            status = self.path.lstat()
            return {"mode": stat.S_IMODE(status.st_mode), "seen": _seen(status)}
        return {}

    def _record(self) -> _Record | None:
        try:
            return msgspec.json.decode(files.read(self._folder / "record.json"), type=_Record)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, ValueError):
            path = self._folder / "record.json"
            raise Refused(Reason.FILE_FAILED, f"{path} is damaged. Look at {self.path}, then remove {self._folder}.") from None

    def _keep(self, record: _Record) -> None:
        files.write(self._folder / "record.json", msgspec.json.encode(record))


def _digest(content: bytes | None) -> str:
    return _ABSENT if content is None else hashlib.sha256(content).hexdigest()


def _seen(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _hand_over(descriptor: int, attributes: Attributes) -> None:
    """Before anything is written: who may not read the file may not read it half written either."""
    if (attributes.owner, attributes.group) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, attributes.owner, attributes.group)
    os.fchmod(descriptor, attributes.mode)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
