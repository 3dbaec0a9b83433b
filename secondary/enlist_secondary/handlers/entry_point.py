"""`type = "entry-point"`: a Python callable of the owner's gets the settings, or a task's arguments.

It runs inside the daemon, as the daemon. A coroutine function is cancelled at the limit, and must not block the loop. Any other
callable runs in a thread, which nothing can end: at the limit its call counts as timed out, is abandoned and goes on; when a
handler has abandoned `workers.ABANDONED_LIMIT` of them that still go on, it begins no further one. Who needs more runs a program.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from enlist_secondary.handlers.exec import TOO_LATE
from enlist_secondary.handlers.interface import NO_EXIT_CODE, HandlerFailed, TaskOutcome, sentence
from enlist_secondary.handlers.output import bounded
from enlist_secondary.handlers.tables import POLICY_TIMEOUT, EntryPoint
from enlist_secondary.handlers.workers import Workers

GROUP = "enlist.handlers"
"""The group of entry points in which an installed package may offer a handler by name."""


class EntryPointPolicy:
    """`function(settings) -> None` puts a policy in force, or raises; what it had done by then nobody knows."""

    restores = False

    def __init__(self, configured: EntryPoint) -> None:
        self._call = _Call(configured)
        self._limit = configured.timeout or POLICY_TIMEOUT

    async def apply(self, settings: dict[str, Any]) -> None:
        """Calls it with these settings."""
        try:
            await self._call(settings, self._limit)
        except TimeoutError:
            raise HandlerFailed(self._call.late(self._limit)) from None

    async def revert(self, settings: dict[str, Any] | None) -> None:
        """Calls it with the settings before; with `{}` if there were none."""
        await self.apply(settings or {})

    async def changed(self) -> str | None:
        """None: a callable does not say what it touched."""
        return None


class EntryPointTask:
    """`function(args) -> str | bytes | None` does a task and returns its output."""

    def __init__(self, configured: EntryPoint) -> None:
        self._call = _Call(configured)
        self._timeout = configured.timeout

    async def run(self, args: dict[str, Any], limit: float) -> TaskOutcome:
        """Calls it with these arguments; it succeeded if it returned."""
        if limit <= 0:
            return TOO_LATE
        limit = min(limit, self._timeout or limit)
        try:
            output = _output(await self._call(args, limit))
        except TimeoutError:
            return TaskOutcome("timed_out", NO_EXIT_CODE, b"", sentence(self._call.late(limit)))
        except HandlerFailed as failed:
            return TaskOutcome("failed", NO_EXIT_CODE, b"", failed.message)
        return TaskOutcome("succeeded", NO_EXIT_CODE, bounded(output), "")


class _Call:
    def __init__(self, configured: EntryPoint) -> None:
        self._name = configured.object
        self._function: Callable[[dict[str, Any]], Any] | None = None
        self._workers = Workers()

    async def __call__(self, value: dict[str, Any], limit: float) -> Any:
        """What the callable returns; it gets a copy. Importing it, the first time, is part of the limit."""
        now = asyncio.get_running_loop().time
        until = now() + limit
        if self._function is None:
            self._function = await self._workers.call(_load, self._name, limit=limit)
        return await self._workers.call(self._function, copy.deepcopy(value), limit=until - now())

    def late(self, limit: float) -> str:
        return f"{self._name} did not return within {limit:g} s."


def _load(name: str) -> Callable[[dict[str, Any]], Any]:
    from importlib import metadata  # more than a megabyte, which most secondaries have no use for

    found = metadata.entry_points(group=GROUP, name=name)
    if ":" in name:
        found = metadata.EntryPoints([metadata.EntryPoint(name=name, value=name, group=GROUP)])
    if len(found) != 1:
        raise HandlerFailed(f'{len(found)} installed packages offer the entry point "{name}" in {GROUP}; exactly one was expected.')
    function = next(iter(found)).load()
    if not callable(function):
        raise HandlerFailed(f"{name} cannot be called.")
    return function  # type: ignore[no-any-return]  # its owner's: nothing is known of it but that


def _output(returned: object) -> bytes:
    if returned is None:
        return b""
    if isinstance(returned, str):
        return returned.encode(errors="backslashreplace")
    if isinstance(returned, bytes):
        return returned
    raise HandlerFailed(f"It returned a {type(returned).__name__}; text, bytes or nothing was expected.")
