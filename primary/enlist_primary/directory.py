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
        self._reading = asyncio.Lock()  # or an older answer could overtake a newer one
        self._standings: dict[tuple[str, str], Standing] = {}

    async def load(self) -> None:
        """Reads all standings, once, before the first caller."""
        self._keep(await self._database.read(servers.standings))

    async def reload(self, account: str, ids: tuple[str, ...]) -> list[Standing]:
        """Reads these servers anew after decisions about them."""
        async with self._reading:
            fresh = await self._database.read(servers.standings, account, ids)
            for id in ids:
                self._standings.pop((account, id), None)
            self._keep(fresh)
            return fresh

    def _keep(self, standings: Iterable[Standing]) -> None:
        self._standings.update({(each.account, each.id): each for each in standings})

    async def find(self, account: str, id: str, key: str) -> Standing | None:
        """The standing of the server that holds this key under this account and id, or None if there is none such.

        One that memory does not have as trusted is asked for: it may have been authorized a moment ago, and that it asked again,
        or took that back, stands in no journal.
        """
        standing = self._standings.get((account, id))
        if standing is None or standing.state is not State.TRUSTED:
            standing = next(iter(await self.reload(account, (id,))), None)
        return standing if standing is not None and standing.key == key else None
