"""What servers say of their documents: gathered, written in batches, and told to whoever watches.

These are observations: the last word of each server on each thing, overwritten in place. A crash loses at most the last moment,
and every server says all of it again when its link opens.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist_primary.model.reports import Word
from enlist_primary.operations import reports
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.05
"""Seconds from one write to the next."""
BATCH = 500

log = Log("reports")


class Reports:
    """Words waiting to be written, the newest of each server on each thing, and the watchers of each account."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, dict[tuple[str, str, str], Word]] = defaultdict(dict)
        self._news = asyncio.Event()
        self._changes: dict[str, asyncio.Future[None]] = {}

    def take(self, account: str, word: Word) -> None:
        """Puts a word in line; one that waits there on the same thing is replaced. What may be said bounds the line.

        Only that a run was sent replaces nothing: a set that goes out while the server's word waits names the run once more.
        """
        line, key = self._waiting[account], (word.server_id, word.kind, word.name)
        if not (word.state == "sent" and key in line):
            line[key] = word
        self._news.set()

    def changed(self, account: str) -> Awaitable[None]:
        """Waits for the next change of what the account wants, of what its servers said, or of who is connected.

        It counts from the call: call, read, then await, and none is missed.
        """
        change = self._changes.get(account)
        if change is None:
            change = self._changes[account] = asyncio.get_running_loop().create_future()
        return asyncio.shield(change)

    def wake(self, account: str) -> None:
        """Tells whoever watches the account to look again."""
        change = self._changes.pop(account, None)
        if change is not None and not change.done():
            change.set_result(None)

    async def run(self) -> None:
        """Writes what waits until cancelled: a lone word at once, of many in a row all but the first together."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()
            await asyncio.sleep(GATHER_SECONDS)

    async def flush(self) -> None:
        """Writes what waits. What the storage refuses is lost until the server's next link, and said."""
        waiting, self._waiting = self._waiting, defaultdict(dict)
        for account, words in waiting.items():
            said = list(words.values())
            try:
                for begin in range(0, len(said), BATCH):
                    await self._database.write(account, reports.record, account, said[begin : begin + BATCH])
            except Refused as refused:
                log.warning("reports were not written", account=account, reason=refused.reason)
            self.wake(account)
