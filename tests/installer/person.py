"""A person at a terminal of 80 columns and 24 lines, for whom the wizard is a process like any other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pexpect

from tests.support.processes import command

WITHIN = 30
"""Seconds within which the next thing must be on the screen."""
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Person:
    """Types, and reads what comes; everything read is kept."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        argv = command("enlist-setup", *arguments)
        self._child: pexpect.spawn[str] = pexpect.spawn(
            argv[0],
            argv[1:],
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            encoding="utf-8",
            timeout=WITHIN,
            dimensions=(24, 80),
        )
        self._seen = ""

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self.hangs_up()

    @property
    def screen(self) -> str:
        """All that was shown so far, without the terminal's control sequences."""
        return _CONTROL.sub("", self._seen).replace("\r", "")

    def sees(self, text: str) -> None:
        """Waits until this is shown."""
        try:
            self._child.expect_exact(text)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise AssertionError(f"not shown: {text!r}, after:\n{self.screen}{_CONTROL.sub('', str(self._child.before))}") from None
        self._seen += str(self._child.before) + str(self._child.after)

    def answers(self, question: str, answer: str = "", instead: bool = False) -> None:
        """Waits for a question and answers it; `instead` of the default that is typed already."""
        self.sees(question)
        self.types(answer, instead)

    def types(self, answer: str = "", instead: bool = False) -> None:
        """Types a line; `instead` of what stands there."""
        if instead:
            self._child.sendcontrol("u")
        self._child.sendline(answer)

    def presses_ctrl_c(self) -> None:
        """Sends the key; the terminal makes of it what it makes of it."""
        self._child.sendcontrol("c")

    def hangs_up(self) -> None:
        """Closes the terminal."""
        self._child.close()

    def ends(self, status: int) -> None:
        """Waits for the end and checks the exit status; no traceback ever reaches a person."""
        self._child.expect(pexpect.EOF)
        self._seen += str(self._child.before)
        self._child.close()
        assert "Traceback" not in self.screen, self.screen
        assert self._child.exitstatus == status, self.screen


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
