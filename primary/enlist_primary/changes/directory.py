"""Who a key is and whether it is still trusted: memory that the tail of the change log keeps true."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from enlist.reasons import Reason, Refused
from enlist_primary.changes.publisher import Changes
from enlist_primary.model.servers import State
from enlist_primary.store import changes, servers
from enlist_primary.store.database import BUSY, CLOSED, Database, Transaction
from enlist_primary.store.servers import Standing

READ_TIMEOUT = 2.0
"""Seconds that one read of servers may take. A caller waits for two reads at most: the one under way, and its own."""
MAX_WANTED = 5000
"""Servers that may wait to be read together."""

Key = tuple[str, str]


@dataclass(frozen=True)
class _Known:
    """A record, and the account's last change in the view of the database where it was read."""

    change: int
    record: Standing


@dataclass
class _Batch:
    """Servers that the next read is to find, for all callers that asked for one of them."""

    wanted: dict[Key, None] = field(default_factory=dict)
    answer: asyncio.Future[Mapping[Key, Standing] | Refused] = field(default_factory=asyncio.Future)


class Directory:
    """The standing of every server that may hold a certificate, by account and id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.behind = False
        """Whether the change log could not be read to its end: then memory answers for nobody."""
        self._known: dict[Key, _Known] = {}
        self._next: _Batch | None = None
        self._asked = asyncio.Event()
        self._closed = False

    async def load(self) -> None:
        """Reads all records, once, before the first caller."""
        for record in await self._database.read(servers.standings):
            self._known[record.account, record.id] = _Known(0, record)

    def on_changes(self, page: Changes) -> None:
        """Takes what was read of the servers in a page of the change log."""
        known = [id for account, id in self._known if account == page.account] if page.reload else []
        self._keep(page.account, page.view.change, {*page.ids, *known}, page.records)

    def _keep(self, account: str, change: int, ids: Iterable[str], records: Iterable[Standing]) -> None:
        """Takes what one view of the database says of these servers, unless a later view has spoken of them already."""
        found = {record.id: record for record in records}
        for id in ids:
            known = self._known.get((account, id))
            if known is not None and known.change > change:
                continue
            if id in found:
                self._known[account, id] = _Known(change, found[id])
            else:
                self._known.pop((account, id), None)

    async def find(self, account: str, id: str, key: str) -> Standing | None:
        """The standing of the server that holds this key under this account and id, or None if there is none such.

        One that memory does not have as trusted is looked up: it may have been authorized a moment ago. Refused: OVERLOADED or
        TIMED_OUT where the database does not answer.
        """
        known = self._known.get((account, id))
        record = known.record if known is not None else None
        if self.behind or record is None or record.state is not State.TRUSTED:
            record = await self._look_up(account, id)
        return record if record is not None and record.key == key else None

    # --- Look-ups ---------------------------------------------------------------------------------------------------------------

    async def _look_up(self, account: str, id: str) -> Standing | None:
        """What the database says now. Callers share one read, which begins after the last of them has asked."""
        if self._closed:
            raise Refused(Reason.SHUTTING_DOWN, CLOSED)
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        if len(batch.wanted) >= MAX_WANTED:
            raise Refused(Reason.OVERLOADED, BUSY)
        batch.wanted[account, id] = None
        self._asked.set()
        found = await asyncio.shield(batch.answer)
        if isinstance(found, Refused):
            raise Refused(found.reason, found.message)  # of its own: one that many callers raise would gather their tracebacks
        return found.get((account, id))

    async def run(self) -> None:
        """Reads what callers ask for, one read at a time, until cancelled."""
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                batch, self._next = self._next, None
                if batch is not None:
                    await self._serve(batch)
        finally:
            self._close()

    def _close(self) -> None:
        """Refuses callers that wait, and those that come."""
        self._closed = True
        if self._next is not None:
            self._next.answer.set_result(Refused(Reason.SHUTTING_DOWN, CLOSED))

    async def _serve(self, batch: _Batch) -> None:
        answer: Mapping[Key, Standing] | Refused = Refused(Reason.SHUTTING_DOWN, CLOSED)
        try:
            answer = await self._read(batch.wanted)
        finally:
            batch.answer.set_result(answer)

    async def _read(self, wanted: Collection[Key]) -> Mapping[Key, Standing] | Refused:
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                found = await self._database.read(_look_up, list(wanted))
        except TimeoutError:
            return Refused(Reason.TIMED_OUT, "The primary's database did not answer in time. Try again.")
        except Refused as refused:
            return refused
        for account, (change, ids, records) in found.items():
            self._keep(account, change, ids, records)
        return {(each.account, each.id): each for _, _, records in found.values() for each in records}


def _look_up(tx: Transaction, wanted: Iterable[Key]) -> dict[str, tuple[int, list[str], list[Standing]]]:
    """Of each account: its last change, the servers that are looked up there, and the trust records found."""
    ids: dict[str, list[str]] = defaultdict(list)
    for account, id in wanted:
        ids[account].append(id)
    return {each: (changes.last(tx, each), ids[each], servers.standings(tx, each, ids[each])) for each in ids}
