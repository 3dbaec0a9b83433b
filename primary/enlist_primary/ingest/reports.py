"""What servers say of their documents: gathered, and written in batches.

These are observations: the last word of each server on each thing, overwritten in place. A crash loses at most the last moment,
and every server says all of it again when its link opens. What the storage refuses stays in line, which is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist_primary.model.reports import Word
from enlist_primary.operations import reports
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.05
"""Seconds from one write to the next."""
RETRY_SECONDS = 1.0
BATCH = 500
LINE_BYTES = 64 * 1024 * 1024
"""What waits to be written of one account takes at most about this much; words that make it more are passed over."""
_WORD_BYTES = 400

log = Log("reports")


class Reports:
    """Words waiting to be written, the newest of each server on each thing. `clock` is Unix seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[str, _Line] = defaultdict(dict)
        self._sizes: dict[str, int] = defaultdict(int)
        self._passed_over = 0
        self._news = asyncio.Event()

    def take(self, account: str, word: Word) -> None:
        """Puts a word in line; one that waits there on the same thing is replaced, unless the newer one cannot follow it.

        That a run was sent replaces nothing: a set that goes out while the server's word waits names the run once more. And a run
        ends once.
        """
        line, key = self._waiting[account], (word.server_id, word.kind, word.name)
        known = line.get(key)
        if known is not None and (word.state == "sent" or known.of_end):
            return
        grows = _size(word) - (_size(known) if known is not None else 0)
        if grows > 0 and self._sizes[account] + grows > LINE_BYTES:
            self._passed_over += 1
            return
        self._sizes[account] += grows
        line[key] = word
        self._news.set()

    async def run(self) -> None:
        """Writes what waits until cancelled: a lone word at once, of many in a row all but the first together."""
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(GATHER_SECONDS if await self.flush() else RETRY_SECONDS)

    async def flush(self) -> bool:
        """Writes what waits, and says whether all of it could be. What the storage refuses waits on, unless newer words came."""
        waiting, self._waiting = self._waiting, defaultdict(dict)
        self._sizes.clear()
        written = True
        for account, line in waiting.items():
            said = list(line.values())
            try:
                for begin in range(0, len(said), BATCH):
                    some = said[begin : begin + BATCH]
                    await self._database.write(account, reports.record, account, some, int(self._clock()))
            except Refused as refused:
                written = False
                self._wait_on(account, said)
                log.warning("reports were not written", account=account, words=len(said), reason=refused.reason)
            except asyncio.CancelledError:  # the primary stops: it writes what waits once more
                for each, words in waiting.items():
                    self._wait_on(each, list(words.values()))
                raise
        if self._passed_over:
            log.warning("words were passed over: the servers say them again with their next links", words=self._passed_over)
            self._passed_over = 0
        return written

    def _wait_on(self, account: str, said: Sequence[Word]) -> None:
        """Puts words back in line, before those that came since."""
        since = self._waiting.pop(account, {})
        self._sizes.pop(account, None)
        for word in (*said, *since.values()):
            self.take(account, word)


_Line = dict[tuple[str, str, str], Word]


def _size(word: Word) -> int:
    return _WORD_BYTES + len(word.message) + len(word.output)
