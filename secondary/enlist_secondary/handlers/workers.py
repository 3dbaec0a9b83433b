"""Work that would block the event loop, in threads of its own; and calls of the owner's Python that may never return.

The loop's own pool is not for these: it has few threads, and waits for each of them before the process may end.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from enlist.runtime.logs import Log
from enlist.runtime.threads import Outcome, in_thread
from enlist_secondary.handlers.interface import HandlerFailed

T = TypeVar("T")

GRACE = 2.0
"""Seconds that a coroutine has to end after it was cancelled."""

ABANDONED_LIMIT = 4
"""Calls of one handler that never returned, at most; with as many, no further one is begun."""

_LOG = Log("enlist.secondary")


class Workers:
    """Calls of one handler's Python.

    A coroutine is cancelled at the limit. A thread cannot be ended from outside: its call is abandoned, goes on, and is counted.
    """

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Future[Outcome]] = set()

    async def call(self, function: Callable[..., Any], *arguments: Any, limit: float) -> Any:
        """What the function returns, awaited if it is a coroutine function. Raises TimeoutError at the limit, in seconds, and
        HandlerFailed with whatever it raised."""
        if len(self._abandoned) >= ABANDONED_LIMIT:
            raise HandlerFailed(f"{ABANDONED_LIMIT} earlier calls have not returned yet, so none was begun.")
        future = _begun(function, arguments)
        try:
            await asyncio.wait({future}, timeout=limit)
        finally:
            if not future.done():
                await self._give_up(future)
        if not future.done() or future.cancelled():
            raise TimeoutError
        value, error = future.result()
        if error is not None:
            raise error if isinstance(error, HandlerFailed) else HandlerFailed(f"{type(error).__name__}: {error}")
        return value

    async def _give_up(self, future: asyncio.Future[Outcome]) -> None:
        self._abandoned.add(future)
        future.add_done_callback(self._abandoned.discard)
        if isinstance(future, asyncio.Task):
            future.cancel()
            await asyncio.wait({future}, timeout=GRACE)
        if not future.done():
            _LOG.warning("a handler's call was abandoned", abandoned=len(self._abandoned))


def _begun(function: Callable[..., Any], arguments: tuple[Any, ...]) -> asyncio.Future[Outcome]:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return asyncio.ensure_future(_guarded(function, arguments))
    return in_thread(function, *arguments)


async def _guarded(function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Outcome:
    try:
        return await function(*arguments), None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error
