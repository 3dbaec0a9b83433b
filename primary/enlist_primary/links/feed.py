"""The feed: reads every account's journal onward from the number it knows, and says what changed to those who must react."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist_primary.store import journal
from enlist_primary.store.database import Database, Transaction

PAGE = 1000
RETRY_SECONDS = 0.5

log = Log("feed")

Listener = Callable[[str, frozenset[str]], Awaitable[None]]
"""Is told an account and the subjects (`servers/ID`, ...) that decisions changed."""


class Feed:
    """Follows the journals of all accounts. One task for the whole primary; an idle server costs it nothing."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._known: dict[str, int] = {}

    async def start(self) -> None:
        """Takes note of where the journals are now. Whoever keeps state loads it after this."""
        self._known = await self._database.read(journal.heads)

    async def run(self) -> None:
        """Reads on after every commit until cancelled."""
        while True:
            changed = self._database.changed()  # before reading, so that no commit is missed
            try:
                await self._read_on()
            except Refused as refused:  # too much to do just now; a storage that failed for good ends the process elsewhere
                log.warning("the feed is behind", reason=refused.reason)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await changed

    async def _read_on(self) -> None:
        for account, head in (await self._database.read(journal.heads)).items():
            while self._known.get(account, 0) < head:
                known, subjects = await self._database.read(_subjects, account, self._known.get(account, 0))
                await self._listener(account, subjects)
                self._known[account] = known  # only now: what the listener could not do is read, and told, again


def _subjects(tx: Transaction, account: str, after: int) -> tuple[int, frozenset[str]]:
    """The number of the last entry on the next page, and what its entries are about."""
    entries = journal.entries(tx, account, after, PAGE)
    return entries[-1].number, frozenset(entry.subject for entry in entries)
