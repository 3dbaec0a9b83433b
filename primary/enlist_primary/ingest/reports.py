"""What servers report of their documents: written behind, and told to those who watch an account.

These are observations: the last report of each server on each thing, overwritten in place. A crash loses at most the last moment,
and every server reports all of it again when its link opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from enlist.runtime.write_behind import Written
from enlist_primary.ingest.writer import FLUSH_SECONDS, AccountWriter
from enlist_primary.model.reports import Word
from enlist_primary.operations import reports
from enlist_primary.store.database import Database

ACCOUNT_BYTES = 64 * 1024 * 1024
"""What waits to be written of one account takes at most about this much."""
_WORD_BYTES = 400

Key = tuple[str, str, str]


class StatusReports:
    """Reports that wait to be written, the last of each server on each thing, and the watchers of each account."""

    def __init__(self, database: Database, bound: int = ACCOUNT_BYTES) -> None:
        """`bound` is in bytes, for each account."""
        self._writer = AccountWriter[Key, Word](
            "status reports",
            database,
            reports.record,
            bound=bound,
            merge=merge,
            weight=size,
            on_commit=lambda account, _: self.wake(account),
        )
        self._changes: dict[str, asyncio.Future[None]] = {}

    def put(self, account: str, word: Word, written: Written | None = None) -> bool:
        """Takes a report; False if there is no room for it: then its server must be told to send it again.

        `written` is called once this report, or a later one on the same thing, is committed or dropped.
        """
        return self._writer.put(account, (word.server_id, word.kind, word.name), word, written)

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
        """Writes what waits until cancelled."""
        await self._writer.run()

    async def flush(self, deadline: float = FLUSH_SECONDS) -> bool:
        """Writes all that waits now, within `deadline` seconds; whether all of it could be written."""
        return await self._writer.flush(deadline)


def merge(known: Word, new: Word) -> Word:
    """What is written of two reports on the same thing.

    That a run was sent replaces nothing: a set that goes out while the server's report waits names the run once more. And a run
    ends once.
    """
    return known if new.state == "sent" or known.of_end else new


def size(word: Word) -> int:
    """About how many bytes a report takes in memory."""
    return _WORD_BYTES + len(word.message) + len(word.output)
