"""A database whose reads fail, or never end, as often as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from enlist.reasons import Reason, Refused
from enlist_primary.store.database import Database


class Flaky:
    """Reads of another database, counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failures = 0
        self.stuck = 0
        self.reads = 0

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """Reads, or refuses."""
        self.reads += 1
        if self.stuck:
            self.stuck -= 1
            await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise Refused(Reason.OVERLOADED, "Try again.")
        return await self._database.read(query, *arguments)

    def changed(self) -> Awaitable[None]:
        """See `Database.changed`."""
        return self._database.changed()
