"""Happy Eyeballs (RFC 8305): attempts that start one after another, and the first that succeeds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

C = TypeVar("C")
T = TypeVar("T")

ATTEMPT_DELAY = 0.25
"""Seconds after which the next attempt starts beside those that have not answered (RFC 8305, section 8)."""


async def race(candidates: Sequence[C], attempt: Callable[[C], Coroutine[Any, Any, T]], delay: float = ATTEMPT_DELAY) -> T:
    """The first result of an attempt at one of the candidates, which are tried in their order.

    The next attempt starts when the last one has failed, or after `delay` seconds. The others are cancelled and have ended before
    this returns; an attempt must leave nothing open behind it, because two may succeed at once. If all fail, an `ExceptionGroup`
    holds their errors. Each attempt has its own deadline.
    """
    coming = deque(candidates)
    started: list[asyncio.Task[T]] = []
    running: set[asyncio.Task[T]] = set()
    try:
        while coming or running:
            if coming:
                started.append(asyncio.create_task(attempt(coming.popleft())))
                running.add(started[-1])
            timeout = delay if coming else None
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return task.result()
    finally:
        await _end(started)
    raise ExceptionGroup("every attempt failed", [error for task in started if isinstance(error := task.exception(), Exception)])


async def _end(tasks: Sequence[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
