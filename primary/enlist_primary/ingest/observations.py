"""What is seen, kept in memory and written behind: a row overwritten, a counter's total. A crash may lose the last second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from enlist.reasons import Reason
from enlist_primary.ingest.writer import FLUSH_SECONDS, AccountWriter
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.operations import observations
from enlist_primary.store import accounts
from enlist_primary.store import observations as rows
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.observations import Refusals, Seen, Sighting

PACE = 1.0
"""Seconds from one write of an account to the next."""
WAITING = 200_000
"""Observations of one account that may wait: more than an account has servers."""
STRANGERS = 500
"""Accounts of which nobody knows yet whether they exist, and of which refused attempts are counted meanwhile."""

Key = tuple[str, str]

_NEVER = Seen()


class Observations:
    """The latest of every server, and the totals of refused attempts."""

    def __init__(self, database: Database, pace: float = PACE, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` is Unix seconds. `pace` is in seconds, from one write of an account to the next."""
        self._database = database
        self._seen: dict[tuple[str, str], Seen] = {}
        self._totals: dict[str, dict[str, Refusals]] = {PRIMARY: {}}
        """By account and reason."""
        self._strangers: set[str] = set()
        """Accounts with totals that were not there when this primary started, and were not written yet."""
        self._writer = AccountWriter[Key, Sighting | Refusals](
            "observations",
            database,
            observations.record,
            clock=clock,
            bound=WAITING,
            pace=pace,
            on_commit=self._settle,
        )

    async def load(self, now: int) -> None:
        """Reads what was seen before. Links that were open when the primary was killed are closed since now, for all we know."""
        self._seen, domains, totals = await self._database.read(_known)
        self._totals |= {domain: {} for domain in domains}
        for total in totals:
            self._totals.setdefault(total.account, {})[total.reason] = total
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
        self._writer.put(account, ("server", id), Sighting(id, seen))

    def refused(self, account: str, reason: Reason, source: str, now: int) -> None:
        """An attempt was refused. Accounts that do not exist are counted under the primary's own, and so are any in a flood."""
        if account not in self._totals and len(self._strangers) >= STRANGERS:  # a stranger chose the account's name
            account = PRIMARY
        if account not in self._totals:
            self._strangers.add(account)
        self._add(account, [Refusals(account, reason.value, 1, now, source)])

    def _add(self, account: str, more: Iterable[Refusals]) -> None:
        """Adds to the totals of an account."""
        totals = self._totals.setdefault(account, {})
        for each in more:
            before = totals.get(each.reason)
            count = each.count + (before.count if before is not None else 0)
            totals[each.reason] = replace(each, account=account, count=count)
            self._writer.put(account, ("refusals", each.reason), totals[each.reason])

    def _settle(self, account: str, exists: bool) -> None:
        """It is known now whether an account exists: what was counted for one that does not is the primary's own."""
        if account in self._strangers:
            self._strangers.discard(account)
            if not exists:
                self._add(PRIMARY, self._totals.pop(account).values())

    async def run(self) -> None:
        """Writes what waits until cancelled, of each account at most once a second."""
        await self._writer.run()

    async def flush(self, deadline: float = FLUSH_SECONDS) -> bool:
        """Writes all that waits now, within `deadline` seconds; whether all of it could be written."""
        first = await self._writer.flush(deadline)
        return await self._writer.flush(deadline) and first  # with what the first one found to be the primary's own


def _known(tx: Transaction) -> tuple[dict[tuple[str, str], Seen], list[str], list[Refusals]]:
    return rows.seen(tx), [account.domain for account in accounts.listed(tx)], rows.refusals(tx)
