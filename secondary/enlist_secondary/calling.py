"""Calls of the owner's handlers: whatever a handler does, the engine that called it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

UNFORESEEN = "Something unforeseen happened; this server's log has the details."


async def answer(call: Awaitable[T]) -> T:
    """What a handler answers, or raises. A cancellation that is not the caller's own comes out as RuntimeError."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("the handler was cancelled by something of its own") from None
