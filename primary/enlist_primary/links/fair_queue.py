"""Turns: a decision may concern ten thousand links at once, and each gets a set of its own. A few begin at a time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from enlist.runtime.logs import Log

SOON_SECONDS = 0.1
LATER_SECONDS = 5.0
"""How long something waits for company that is waited for, or is not: at least, and at most twice as long, since it came last."""
AT_ONCE = 256
ROUND_SECONDS = 0.04
"""Begun in one round of the event loop, and how long that may take, at most; then everybody else is heard.

gRPC wakes the loop once for each of its events, and then takes all that have come: a few rounds cost less than many.
"""

log = Log("links")


class Turns:
    """A line of what shall begin, each once, in its order. Nothing is awaited: a peer that does not read holds up nobody."""

    def __init__(
        self, soon: float = SOON_SECONDS, later: float = LATER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`soon` and `later` are what `enter_later` waits at least, in seconds as `clock` counts them."""
        self._clock = clock
        self._line = OrderedDict[Callable[[], None], None]()
        self._scheduled = False
        """Whether a round is to come. That nothing is in line does not say so: within a round, what begins may enter others."""
        self._soon = _Later(soon, self.enter)
        self._later = _Later(later, self.enter)

    def enter(self, begin: Callable[[], None]) -> None:
        """Puts something in line, or leaves it at its place there."""
        self._line[begin] = None
        self._schedule()

    def enter_later(self, begin: Callable[[], None], soon: bool = False) -> None:
        """Puts something in line once it has waited for company. Entered again meanwhile, it waits anew."""
        (self._soon if soon else self._later).put(begin)

    def _schedule(self) -> None:
        if self._line and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        end = self._clock() + ROUND_SECONDS
        for _ in range(AT_ONCE):
            if not self._line or self._clock() >= end:
                break
            begin, _nothing = self._line.popitem(last=False)
            _run(begin)
        self._scheduled = False
        self._schedule()


class _Later:
    """What waits: one timer for all. What was put here before one round of it and not again in that, is entered after it."""

    def __init__(self, seconds: float, enter: Callable[[Callable[[], None]], None]) -> None:
        self._seconds = seconds
        self._enter = enter
        self._younger: dict[Callable[[], None], None] = {}
        self._older: dict[Callable[[], None], None] = {}

    def put(self, begin: Callable[[], None]) -> None:
        """Lets something wait."""
        if not self._younger and not self._older:
            asyncio.get_running_loop().call_later(self._seconds, self._on_time)
        self._older.pop(begin, None)
        self._younger[begin] = None

    def _on_time(self) -> None:
        due = self._older
        self._older = self._younger
        self._younger = {}
        for begin in due:
            self._enter(begin)
        if self._older:
            asyncio.get_running_loop().call_later(self._seconds, self._on_time)


def _run(begin: Callable[[], None]) -> None:
    """An error is one entry's own: the queue goes on."""
    try:
        begin()
    except Exception as error:
        log.fault("an entry of the fair queue failed", error)
