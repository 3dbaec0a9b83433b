"""Waits for a condition with a deadline; tests never just sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

PAUSE = 0.02
"""Seconds from one look to the next, at least. A look that starts a process takes longer: it is followed by a pause as long as
itself, or the tests that wait would take the processors from what they wait for."""


def wait_for(condition: Callable[[], T], within: float = 20.0, what: str = "the condition") -> T:
    """The condition's first true value; fails after `within` seconds with the last value seen."""
    end = time.monotonic() + within
    looked = time.monotonic()
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not hold within {within} s; last seen: {value!r}")
        time.sleep(max(PAUSE, time.monotonic() - looked))
        looked = time.monotonic()
    return value


@overload
async def eventually(condition: Callable[[], Awaitable[T]], within: float = ..., what: str = ...) -> T: ...


@overload
async def eventually(condition: Callable[[], T], within: float = ..., what: str = ...) -> T: ...


async def eventually(condition: Callable[[], Any], within: float = 20.0, what: str = "the condition") -> Any:
    """The same in an event loop; the condition may be a coroutine function."""
    end = time.monotonic() + within
    while True:
        looked = time.monotonic()
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not hold within {within} s; last seen: {value!r}")
        await asyncio.sleep(max(PAUSE, time.monotonic() - looked))
