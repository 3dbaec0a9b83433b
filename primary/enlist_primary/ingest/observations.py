"""What is seen, kept in memory and written in batches: a row overwritten, a counter raised. A crash may lose the last second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace

from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.store import observations as rows
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.observations import Refusals, Seen

FLUSH_SECONDS = 1.0
BATCH = 500

log = Log("observations")

_NEVER = Seen()


class Observations:
    """The latest of every server, and the counters of refused attempts, waiting to be written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[tuple[str, str], Seen] = {}
        self._dirty: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._refusals: dict[tuple[str, str], Refusals] = {}
        self._news = asyncio.Event()

    async def load(self, now: int) -> None:
        """Reads what was seen before. Links that were open when the primary was killed are closed since now, for all we know."""
        self._seen = await self._database.read(rows.seen)
        for (account, id), seen in list(self._seen.items()):
            if seen.open:
                self.disconnected(account, id, max(now, seen.connected_at or 0))

    def seen(self, account: str, id: str) -> Seen:
        """The last that was seen of a server."""
        return self._seen.get((account, id), _NEVER)

    def ids(self, account: str) -> list[str]:
        """The servers of an account that ever had a link."""
        return [id for domain, id in self._seen if domain == account]

    def connected(
        self, account: str, id: str, address: str, version: str, now: int, server_address: str = "", kinds: str = ""
    ) -> None:
        """The server's link opened: from this address, and this is what it said of itself."""
        seen = self.seen(account, id)
        seen = replace(seen, connected_at=now, disconnected_at=None, address=address, version=version)
        self._note(account, id, replace(seen, server_address=server_address, kinds=kinds))

    def disconnected(self, account: str, id: str, now: int) -> None:
        """The server's link closed."""
        self._note(account, id, replace(self.seen(account, id), disconnected_at=now))

    def _note(self, account: str, id: str, seen: Seen) -> None:
        self._seen[account, id] = seen
        self._dirty[account, id] = None
        self._news.set()

    def refused(self, account: str, reason: Reason, source: str, now: int) -> None:
        """An attempt was refused. Accounts that do not exist are counted under the primary's own, and so are any in a flood."""
        if len(self._refusals) >= BATCH:  # a stranger chose the account's name
            account = PRIMARY
        before = self._refusals.get((account, reason.value))
        count = before.count + 1 if before else 1
        self._refusals[account, reason.value] = Refusals(account, reason.value, count, now, source)
        self._news.set()

    async def run(self) -> None:
        """Writes, at most once a second and only if there is something new, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()
            await asyncio.sleep(FLUSH_SECONDS)

    async def flush(self) -> None:
        """Writes what waits. Counts that the storage refuses are lost, and said; who was seen is written with what comes next."""
        refusals, self._refusals = self._refusals, {}
        try:
            if refusals:
                await self._database.write(PRIMARY, _save_refusals, list(refusals.values()))
            while self._dirty:
                keys = list(self._dirty)[:BATCH]
                for key in keys:
                    del self._dirty[key]
                try:
                    await self._database.write(PRIMARY, _save_seen, {key: self._seen[key] for key in keys})
                except (Refused, asyncio.CancelledError):
                    self._dirty.update(dict.fromkeys(key for key in keys if key in self._seen))
                    raise
        except Refused as refused:
            log.warning("observations were not written", reason=refused.reason)


def _save_seen(tx: Transaction, seen: dict[tuple[str, str], Seen]) -> None:
    for (account, id), each in seen.items():
        rows.save_seen(tx, account, id, each)


def _save_refusals(tx: Transaction, refusals: list[Refusals]) -> None:
    for each in refusals:
        rows.add_refusals(tx, each)
