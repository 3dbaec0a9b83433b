"""A database that takes its time."""

from __future__ import annotations

import asyncio
from typing import Any


class Holding:
    """A database whose writes, or reads, of one operation wait for leave."""

    def __init__(self, database: Any, name: str, begun: bool = False) -> None:
        """`begun`: they wait when they are committed, and not before."""
        self._database = database
        self._begun = begun
        self._name = name
        self.asked, self.leave = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        waits = operation.__name__ == self._name
        if waits and not self._begun:
            await self._wait()
        result = await self._database.write(account, operation, *arguments)
        if waits and self._begun:
            await self._wait()
        return result

    async def read(self, operation: Any, *arguments: Any) -> Any:
        """See `Database.read`."""
        result = await self._database.read(operation, *arguments)
        if operation.__name__ == self._name:
            await self._wait()
        return result

    async def _wait(self) -> None:
        self.asked.set()
        await self.leave.wait()
