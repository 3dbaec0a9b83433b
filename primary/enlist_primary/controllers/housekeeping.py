"""What a primary does at regular times: ends what is past its time, trims the change log, renews its own certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from enlist.runtime.controller import Again, Backoff, Controller, each
from enlist_primary.links.registry import Hub
from enlist_primary.operations import servers as operations
from enlist_primary.store import changes
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Database, Transaction

SWEEP_SECONDS = 60.0
SHORTEST_WAIT = 0.2
"""Seconds between two looks at the links' certificates, at least."""
DEADLINE = 60.0
"""Seconds after which a chore that has not come back counts as failed."""
AT_ONCE = 4

SWEEP, REQUESTS, CHANGE_LOG, LINKS, CERTIFICATES = "sweep", "requests", "change log", "links", "certificates"


class Chore(NamedTuple):
    """Something to do for one account, or, without one, for the whole primary."""

    name: str
    account: str = ""


class Housekeeping:
    """Does every chore when it is due. One that fails is tried again, and holds up no other, nor the same for another account."""

    def __init__(self, database: Database, hub: Hub, renew: Callable[[], float], clock: Callable[[], float]) -> None:
        """`renew` renews the primary's own certificates if it is time for that, and says in how many seconds to ask again.

        `clock` is Unix seconds.
        """
        self._database = database
        self._hub = hub
        self._renew = renew
        self._clock = clock
        self._chores: Mapping[str, Callable[[str], Awaitable[Again]]] = {
            SWEEP: self._sweep,
            REQUESTS: self._expire,
            CHANGE_LOG: self._trim,
            LINKS: self._end_links,
            CERTIFICATES: self._renew_certificates,
        }
        self._controller = Controller[Chore](
            "housekeeping",
            each(self._reconcile),
            at_once=AT_ONCE,
            backoff=Backoff(first=1.0, longest=SWEEP_SECONDS),
            deadline=DEADLINE,
        )

    async def run(self) -> None:
        """Does all chores, until cancelled."""
        for name in (SWEEP, LINKS, CERTIFICATES):
            self._controller.mark(Chore(name))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.run())
            group.create_task(self._watch_links())

    async def _watch_links(self) -> None:
        """A link whose certificate ends before all others calls for an earlier look."""
        while True:
            await self._hub.sooner.wait()
            self._hub.sooner.clear()
            self._controller.mark(Chore(LINKS))

    async def _reconcile(self, chore: Chore) -> Again:
        return await self._chores[chore.name](chore.account)

    async def _sweep(self, _: str) -> Again:
        """Looks which accounts need something: one transaction a minute, however many there are."""
        overdue, old = await self._database.read(to_sweep, int(self._clock()))
        for account in overdue:
            self._controller.mark(Chore(REQUESTS, account))
        for account in old:
            self._controller.mark(Chore(CHANGE_LOG, account))
        return SWEEP_SECONDS

    async def _expire(self, account: str) -> Again:
        """Ends requests and invitations past their time."""
        await self._database.write(account, operations.expire, account, int(self._clock()))
        return None

    async def _trim(self, account: str) -> Again:
        """Drops what the change log need not keep."""
        return 0.0 if await self._database.write(account, changes.trim, account, int(self._clock())) else None

    async def _end_links(self, _: str) -> Again:
        """Ends links whose certificate is over. Without a link there is nothing to wait for: the first one says so."""
        following = self._hub.expire(int(self._clock()))
        return None if following is None else min(max(following - self._clock(), SHORTEST_WAIT), SWEEP_SECONDS)

    async def _renew_certificates(self, _: str) -> Again:
        return self._renew()


def to_sweep(tx: Transaction, now: int) -> tuple[list[str], list[str]]:
    """The accounts with requests past their time, and those with a change log that is to be trimmed."""
    return rows.accounts_to_sweep(tx, now), changes.accounts_to_trim(tx, now)
