"""What servers report of their documents, written behind.

These are observations: the last report of each server on each thing, overwritten in place. A crash loses at most the last moment,
and every server reports all of it again when its link opens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from enlist.runtime.write_behind import Written
from enlist_primary.ingest.writer import ACCOUNT_BYTES, FLUSH_SECONDS, AccountWriter
from enlist_primary.model.reports import Word
from enlist_primary.operations import reports
from enlist_primary.store.database import Database

_WORD_BYTES = 400

Key = tuple[str, str, str]


class StatusReports:
    """Reports that wait to be written, the last of each server on each thing."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time, *, bound: int = ACCOUNT_BYTES) -> None:
        """`clock` is Unix seconds; `bound` is in bytes, for each account."""
        self._writer = AccountWriter[Key, Word](
            "status reports",
            database,
            reports.record,
            clock=clock,
            bound=bound,
            merge=merge,
            weight=size,
        )

    def put(self, account: str, word: Word, written: Written | None = None) -> bool:
        """Takes a report; False if there is no room for it: then its server must be told to send it again.

        `written` is called once this report, or a later one on the same thing, is committed or dropped.
        """
        return self._writer.put(account, (word.server_id, word.kind, word.name), word, written)

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
