"""What a handler is to those who call it: the engine of documents and the engine of runs.

A primary names a kind and sends values. What a kind does here - which file, which program - stands in `secondary.toml` alone, and
values reach it as data: never as a name of a file, never as a word of a command line.

    Exception
    `-- HandlerFailed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from enlist.runtime.logs import redact
from enlist.runtime.terminal import escape

MESSAGE_LIMIT = 1000
"""Characters of a message, at most: that much a report holds."""

NO_EXIT_CODE = -1


def sentence(text: str) -> str:
    """Text that may hold what a program wrote, as a report carries it: one printable line, nothing in it like a secret of ours."""
    line = escape(redact(text))
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."


class HandlerFailed(Exception):
    """A policy could not be put in force; `message` says why."""

    def __init__(self, text: str) -> None:
        self.message = sentence(text)
        super().__init__(self.message)


class PolicyHandler(Protocol):
    """Puts the effective settings of a policy in force. One call at a time; one that was cancelled is half done until the next."""

    @property
    def restores(self) -> bool:
        """Whether what was in force before still is after `apply` failed. Where not, the caller reverts."""

    async def apply(self, settings: dict[str, Any]) -> None:
        """Puts them in force. Raises HandlerFailed."""

    async def revert(self, settings: dict[str, Any] | None) -> None:
        """Goes back to these settings; None: there were none before. Raises HandlerFailed."""

    async def changed(self) -> str | None:
        """What somebody changed here since `apply`, as a sentence; None if nothing, or if this handler cannot tell."""


@dataclass(frozen=True)
class TaskOutcome:
    """How a run of a task ended here."""

    state: Literal["succeeded", "failed", "timed_out", "unsupported"]
    exit_code: int
    """NO_EXIT_CODE where there is none."""
    output: bytes
    """At most `output.LIMIT` bytes."""
    message: str
    """What went wrong; may be empty."""


class TaskHandler(Protocol):
    """Runs a task. When it is cancelled, so is what it runs."""

    async def run(self, args: dict[str, Any], limit: float) -> TaskOutcome:
        """Runs it once. `limit` is the seconds until its deadline; the handler's own timeout may be shorter. Never raises
        HandlerFailed: a failure is an outcome."""
