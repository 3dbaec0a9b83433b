"""How an engine waits until there is something to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

AGAIN_SECONDS = 10.0
"""Seconds from a fault, or from what the disk refused, to the next attempt."""

Rest = Callable[[asyncio.Event, float | None], Awaitable[None]]
"""How a loop waits until there is something to do: see `rest`."""


async def rest(woken: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set, and at most so many seconds; without a limit for None."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
