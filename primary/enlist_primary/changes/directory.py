"""Who a key is and whether it is still trusted: memory that the feed keeps true."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from enlist_primary.model.servers import State
from enlist_primary.store import servers
from enlist_primary.store.database import Database
from enlist_primary.store.servers import Standing


class Directory:
    """The standing of every server that may hold a certificate, by account and id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reading = asyncio.Lock()
        """Held from before a read to after `keep`, or an older answer could overtake a newer one."""
        self.behind = False
        """Whether the feed could not read what was decided last: then memory answers for nobody."""
        self._standings: dict[tuple[str, str], Standing] = {}

    async def load(self) -> None:
        """Reads all standings, once, before the first caller."""
        self._add(await self._database.read(servers.standings))

    def keep(self, account: str, ids: Iterable[str], standings: Iterable[Standing]) -> None:
        """Takes what was read of these servers in place of what was known."""
        for id in ids:
            self._standings.pop((account, id), None)
        self._add(standings)

    def _add(self, standings: Iterable[Standing]) -> None:
        self._standings.update({(each.account, each.id): each for each in standings})

    async def find(self, account: str, id: str, key: str) -> Standing | None:
        """The standing of the server that holds this key under this account and id, or None if there is none such.

        One that memory does not have as trusted is looked up: it may have been authorized a moment ago, and that it asked again,
        or took that back, stands in no journal.
        """
        standing = self._standings.get((account, id))
        if self.behind or standing is None or standing.state is not State.TRUSTED:
            standing = await self._look(account, id)
        return standing if standing is not None and standing.key == key else None

    async def _look(self, account: str, id: str) -> Standing | None:
        async with self.reading:
            found = await self._database.read(servers.standings, account, (id,))
            self.keep(account, (id,), found)
            return next(iter(found), None)
