"""A disk that fails: it is full, or the process dies between two operations on files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files


class Crash(BaseException):
    """The process is dead: nothing catches this."""


class Disk:
    """Stands between the engine and its files. `dies_at` counts down to the operation at which the process dies."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._write, self._remove = files.write, files.remove
        self.full: Callable[[Path], bool] = lambda _: False
        self.dies_at: int | None = None
        self.after = False
        self.dead = False
        self.done: list[str] = []
        patch.setattr(os, "fsync", lambda _: None)  # a process dies here, not the machine
        patch.setattr(files, "write", lambda path, *rest: self._do("write", path, lambda: self._write(path, *rest)))
        patch.setattr(files, "remove", lambda path: self._do("remove", path, lambda: self._remove(path)))

    def _do(self, what: str, path: Path, operation: Callable[[], Any]) -> None:
        if self.dead:
            raise Crash
        self.done.append(f"{what} {path.parent.name}/{path.name}")
        dies = self._dies()
        if dies and not self.after:
            raise self._death()
        if what == "write" and self.full(path):
            raise Refused(Reason.STORAGE_FULL, f"{path} cannot be written: no space is left. Make room and try again.")
        operation()
        if dies:
            raise self._death()

    def _dies(self) -> bool:
        if self.dies_at is None:
            return False
        self.dies_at -= 1
        return self.dies_at < 0

    def _death(self) -> Crash:
        self.dead, self.dies_at = True, None
        return Crash()

    def live(self) -> None:
        """The process has been started again."""
        self.dead, self.dies_at = False, None
