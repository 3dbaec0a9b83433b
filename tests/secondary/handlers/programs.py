"""Programs for handlers to run: real ones, small, and written by the test that runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from enlist_secondary.handlers.file import FilePolicy
from enlist_secondary.handlers.tables import File


def python(text: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs this Python."""
    return (sys.executable, "-I", "-S", "-c", text, *arguments)


def script(path: Path, text: str) -> str:
    """A shell script at this path; returns it as a command's first word."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def alive(pid: int) -> bool:
    """Whether the process runs: one that has ended and was not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def number_in(path: Path) -> int:
    """The number a program wrote into a file, whole lines only; 0 while it has not."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


def whole_tree(folder: Path) -> dict[str, bytes]:
    """Each file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Site:
    """A folder with a template, a file that policies write, and programs that note what they were run with."""

    def __init__(self, folder: Path, template: str = "limit {{ limit }}\n") -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.etc = folder / "etc"
        self.etc.mkdir(exist_ok=True)
        self.path = self.etc / "program.conf"
        self.kept = folder / "kept"
        self.template = folder / "program.conf.j2"
        self.template.write_text(template)
        self.checked = folder / "checked"
        self.loaded = folder / "loaded"
        self.check = script(folder / "check", f'echo "$1" >> {self.checked}; ! grep -n bad "$1"')
        self.reload = script(folder / "reload", f"cat {self.path} >> {self.loaded} 2>&1; ! grep -n unloadable {self.path}")

    def configured(self, **changes: Any) -> File:
        """What the owner configured."""
        values = {
            "path": self.path,
            "template": self.template,
            "check": (self.check, "{file}"),
            "reload": (self.reload,),
            "timeout": 20,
            **changes,
        }
        return File(**values)

    def handler(self, **changes: Any) -> FilePolicy:
        """A handler as a fresh start of the daemon makes it."""
        return FilePolicy(self.configured(**changes), self.kept)

    def loads(self) -> list[str]:
        """What was loaded so far."""
        return self.loaded.read_text().splitlines() if self.loaded.exists() else []

    def only_the_file(self) -> bool:
        """Whether nothing else was left beside the file."""
        return set(os.listdir(self.etc)) <= {self.path.name}
