"""A database that takes its time."""

from __future__ import annotations

import asyncio
from typing import Any


class Holding:
    """A database whose writes of one operation wait for leave."""

    def __init__(self, database: Any, name: str) -> None:
        self._database = database
        self._name = name
        self.asked, self.leave = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        if operation.__name__ == self._name:
            self.asked.set()
            await self.leave.wait()
        return await self._database.write(account, operation, *arguments)
