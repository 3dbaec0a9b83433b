"""Servers that wait for a decision about themselves: each parked until the change log names it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from enlist.reasons import Reason, Refused
from enlist_primary.changes.publisher import Changes
from enlist_primary.links.registry import shutting_down

PLACES = 4
"""Streams one server may wait on at once: its daemon's, a wizard's, and one or two whose end was not noticed yet."""


class WaitingRoom:
    """All `AwaitAuthorization` streams of this process."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._closing = False

    @contextmanager
    def place(self, account: str, key: str) -> Iterator[asyncio.Event]:
        """A place for the server with this key (a fingerprint). A server does not change its key while it waits.

        The event is set when something about the server changed, or the primary shuts down.
        """
        waiting = self._waiting.setdefault((account, key), set())
        if len(waiting) >= PLACES:
            raise Refused(Reason.OVERLOADED, "This server is waiting on several connections already. Close one of them.")
        event = asyncio.Event()
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop((account, key), None)

    def on_changes(self, changes: Changes) -> None:
        """The tail's changes: streams of the servers among them look again."""
        self._notify(changes.account, (each.key for each in changes.records))

    def _notify(self, account: str, keys: Iterable[str]) -> None:
        for key in keys:
            for event in self._waiting.get((account, key), ()):
                event.set()

    def close(self) -> None:
        """Sends everybody home."""
        self._closing = True
        for account, key in list(self._waiting):
            self._notify(account, [key])

    def check(self) -> None:
        """Refuses once the room is closed."""
        if self._closing:
            raise shutting_down()
