"""Turns: a decision may concern ten thousand links at once, and each set is signed by itself. A few begin at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enlist.runtime.logs import Log

LATER_SECONDS = 0.25
"""How long an acknowledgement waits for company. What a server says next of the same thing waits for it."""
AT_ONCE = 16
"""Begun in one round of the event loop: a few milliseconds of work, after which everybody else is heard."""

log = Log("links")


class Turns:
    """A line of what shall begin, each once, in its order. Nothing is awaited: a peer that does not read holds up nobody."""

    def __init__(self) -> None:
        self._line: dict[Callable[[], None], None] = {}
        self._later: dict[Callable[[], None], None] = {}

    def enter(self, begin: Callable[[], None]) -> None:
        """Puts something in line, or leaves it where it stands."""
        if not self._line:
            asyncio.get_running_loop().call_soon(self._next)
        self._line[begin] = None

    def enter_later(self, begin: Callable[[], None]) -> None:
        """Puts something in line that nobody waits for: whatever else is put in line so within a moment goes with it."""
        if not self._later:
            asyncio.get_running_loop().call_later(LATER_SECONDS, self._enter_all)
        self._later[begin] = None

    def _enter_all(self) -> None:
        later, self._later = self._later, {}
        for begin in later:
            self.enter(begin)

    def _next(self) -> None:
        for begin in list(self._line)[:AT_ONCE]:
            del self._line[begin]
            _run(begin)
        if self._line:
            asyncio.get_running_loop().call_soon(self._next)


def _run(begin: Callable[[], None]) -> None:
    """An error is one entry's own: the queue goes on."""
    try:
        begin()
    except Exception as error:
        log.fault("an entry of the fair queue failed", error)
