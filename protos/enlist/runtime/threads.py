"""Work that would block the event loop, in threads of its own.

The loop's own pool is not for these: it has few threads, and waits for each of them before the process may end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

# What came of a call: its value, or what it raised. Not the future's own exception: SystemExit there would end the loop.
Outcome = tuple[Any, BaseException | None]


def in_thread(work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Outcome]:
    """Begins a call in a thread that ends with the process; the future is done when the call is."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()

    def report(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    def thread() -> None:
        try:
            outcome: Outcome = (work(*arguments), None)
        except BaseException as error:
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(report, outcome)

    threading.Thread(target=thread, name=f"enlist {getattr(work, '__name__', '')}", daemon=True).start()
    return future


async def to_the_end(work: Callable[..., T], *arguments: Any) -> T:
    """Work on files, in a thread. Where the caller is cancelled it is waited for all the same: half done, it would race with
    whatever comes next."""
    future = in_thread(work, *arguments)
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
    value, error = future.result()
    if error is not None:
        raise error
    return cast(T, value)


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Awaits work that is done to its end, also if its caller is cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
