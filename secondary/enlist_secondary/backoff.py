"""Waiting and trying again: how long to wait before the next attempt, and the loop that does so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log

FIRST = 0.5
LONGEST = 60.0

T = TypeVar("T")
Rest = Callable[[asyncio.Event, float | None], Awaitable[None]]
"""How a loop waits until there is something to do: see `rest`."""
_LOG = Log("enlist.secondary")


async def rest(woken: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set, and at most so many seconds; without a limit for None."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()


class Backoff:
    """Pauses that double from half a second to a minute, with jitter: servers that lost one primary do not all return at once."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers from 0 up to 1."""
        self._chance = chance
        self._ceiling = FIRST

    def reset(self) -> None:
        """After a success that lasted: the next pause is short again."""
        self._ceiling = FIRST

    def next(self) -> float:
        """The next pause in seconds: between half the ceiling and the ceiling, which doubles."""
        pause = self._ceiling * (1 + self._chance()) / 2
        self._ceiling = min(LONGEST, self._ceiling * 2)
        return pause


async def persevere(
    attempt: Callable[[], Awaitable[T]], heed: Callable[[Refused], Awaitable[None]], final: frozenset[Reason], backoff: Backoff
) -> T:
    """Attempts until one succeeds, pausing in between; a refusal for a `final` reason is raised. `heed` hears of each refusal.

    What nobody foresaw is logged whole and counts as INTERNAL: a daemon goes on.
    """
    while True:
        try:
            return await attempt()
        except Refused as refused:
            await heed(refused)
            if refused.reason in final:
                raise
        except Exception as error:
            _LOG.fault("unforeseen", error)
            await heed(Refused(Reason.INTERNAL, "Something unforeseen happened; this server's log has the details."))
        await asyncio.sleep(backoff.next())
