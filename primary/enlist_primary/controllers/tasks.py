"""The scheduler: begins what is due, ends what is over. One task for the whole primary; it sleeps until one of both may have come.

What is due stands in the database and nowhere else, so a primary that was away finds it when it is back. It looks after a commit,
and when the time of the next task, or the end of a run's time, is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist_primary.model.fleet import FleetView
from enlist_primary.operations import tasks
from enlist_primary.store import tasks as rows
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.05
"""Seconds from one look to the next: what many servers say together is looked at once."""
RETRY_SECONDS = 1.0
LONGEST_SLEEP = 60.0
"""Seconds after which it looks anyhow: the wall clock may have been set, or the machine have slept."""

log = Log("scheduler")


class Scheduler:
    """Keeps tasks on time. `views` gives what is seen of an account's servers now; `clock` is Unix seconds."""

    def __init__(
        self, database: Database, views: Callable[[str], FleetView], new_id: Callable[[], str], clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._views = views
        self._new_id = new_id
        self._clock = clock

    async def run(self) -> None:
        """Looks whenever there may be something to do, until cancelled."""
        while True:
            changed = self._database.changed()  # before looking, so that no commit is missed
            wait = await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await changed
            await asyncio.sleep(GATHER_SECONDS)

    async def look(self) -> float:
        """Does all that is due. For how many seconds it may sleep then, unless something is written."""
        now = int(self._clock())
        try:
            agenda = await self._database.read(rows.agenda, now)
        except Refused as refused:
            log.warning("tasks were not looked at", reason=refused.reason)
            return RETRY_SECONDS
        done = [await self._attempt(account, id, self._begin) for account, id in agenda.begin]
        done += [await self._attempt(account, id, self._end) for account, id in agenda.end]
        if not all(done):
            return RETRY_SECONDS
        wait = LONGEST_SLEEP if agenda.following is None else agenda.following - self._clock()
        return min(max(wait, 0.0), LONGEST_SLEEP)

    async def _attempt(self, account: str, id: str, work: Callable[[str, str], Awaitable[None]]) -> bool:
        """Whether it could be done; what cannot be done just now stays due, and keeps nothing else from being done."""
        try:
            await work(account, id)
        except Refused as refused:
            log.warning("a task was put off", account=account, id=id, reason=refused.reason)
            return False
        return True

    async def _begin(self, account: str, id: str) -> None:
        now = int(self._clock())
        task = await self._database.write(account, tasks.begin_due, account, id, self._views(account), self._new_id, now)
        if task is not None:
            log.info("a task's time came", account=account, task=id, state=task.state)

    async def _end(self, account: str, run_id: str) -> None:
        task = await self._database.write(account, tasks.end_run, account, run_id, int(self._clock()))
        if task is not None:
            log.info("a run is over", account=account, task=task.id, run=run_id)
