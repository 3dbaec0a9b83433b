"""Watches rollouts that are under way: whenever servers have said something, or a time is up, the primary decides what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist_primary.federation.reachability import Reachability
from enlist_primary.operations import rollouts
from enlist_primary.store import rollouts as rows
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.2
"""Seconds from one look to the next, at least: what is said in between is weighed together."""
SHARE = 5
"""A look that took long is followed by a rest so many times as long: very many servers shall not keep the primary from all else."""
LONGEST_REST = 2.0
RETRY_SECONDS = 1.0
LONGEST_WAIT = 3600.0
"""Seconds after which a clock that was set is noticed."""

log = Log("rollouts")


class Rollouts:
    """The one task for all rollouts. Without one under way it asks the database once after each commit, and has no timer."""

    def __init__(self, database: Database, reach: Reachability, clock: Callable[[], float]) -> None:
        self._database = database
        self._reach = reach
        self._clock = clock

    async def run(self) -> None:
        """Decides whatever is to be decided, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            changed = self._database.changed()  # before looking, so that nothing is missed
            began = loop.time()
            try:
                due = await self._look()
            except Refused as refused:
                log.warning("rollouts were not judged", reason=refused.reason)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            rest = min(max(GATHER_SECONDS, SHARE * (loop.time() - began)), LONGEST_REST)
            earliest = loop.time() + rest
            wait = None if due is None else min(max(due - self._clock(), 0.0), LONGEST_WAIT)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await changed
            await asyncio.sleep(earliest - loop.time())

    async def _look(self) -> int | None:
        """One round; returns when time alone calls for the next one, Unix seconds."""
        views = {account: self._reach.view(account) for account in await self._database.read(rows.accounts_running)}
        if not views:
            return None
        ready, due = await self._database.read(rollouts.look, views, int(self._clock()))
        for each in ready:
            view = self._reach.view(each.account)
            after = await self._database.write(
                each.account, rollouts.advance, each.account, each.revision, view, int(self._clock())
            )
            if after is not None:
                log.info("rollout", account=each.account, revision=each.revision, state=after.state, stage=after.stage)
        return due
