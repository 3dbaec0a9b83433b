"""`type = "exec"`: a program of the owner's gets the settings, or a task's arguments, as JSON on standard input."""

from __future__ import annotations

import json
from typing import Any

from enlist_secondary.handlers import process
from enlist_secondary.handlers.interface import NO_EXIT_CODE, HandlerFailed, TaskOutcome, sentence
from enlist_secondary.handlers.tables import POLICY_TIMEOUT, Exec

TOO_LATE = TaskOutcome("timed_out", NO_EXIT_CODE, b"", "Its deadline had passed before it could begin.")


class ExecPolicy:
    """The program puts a policy in force, or ends with a status other than 0; what it had done by then nobody knows."""

    restores = False

    def __init__(self, configured: Exec) -> None:
        self._configured = configured

    async def apply(self, settings: dict[str, Any]) -> None:
        """Runs the program with these settings."""
        limit = self._configured.timeout or POLICY_TIMEOUT
        ended = await process.run(self._configured.command, _json(settings), limit)
        if ended.problem:
            raise HandlerFailed(ended.explained)

    async def revert(self, settings: dict[str, Any] | None) -> None:
        """Runs it with the settings before; with `{}` if there were none."""
        await self.apply(settings or {})

    async def changed(self) -> str | None:
        """None: a program does not say what it touched."""
        return None


class ExecTask:
    """The program does a task."""

    def __init__(self, configured: Exec) -> None:
        self._configured = configured

    async def run(self, args: dict[str, Any], limit: float) -> TaskOutcome:
        """Runs it with these arguments; it succeeded if its exit status is 0."""
        if limit <= 0:
            return TOO_LATE
        limit = min(limit, self._configured.timeout or limit)
        try:
            ended = await process.run(self._configured.command, _json(args), limit)
        except HandlerFailed as failed:
            return TaskOutcome("failed", NO_EXIT_CODE, b"", failed.message)
        return _outcome(ended)


def _outcome(ended: process.Ended) -> TaskOutcome:
    exit_code = NO_EXIT_CODE if ended.status is None or ended.status < 0 else ended.status
    message = sentence(ended.problem)
    if ended.status is None:
        return TaskOutcome("timed_out", exit_code, ended.output, message)
    return TaskOutcome("failed" if ended.problem else "succeeded", exit_code, ended.output, message)


def _json(value: dict[str, Any]) -> bytes:
    """ASCII, on one line: whatever stands in the values, a program that reads lines reads one."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
