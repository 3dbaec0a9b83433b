"""Task schedules: begins each task that is due, ends each run that is over.

What is due stands in the database and nowhere else, so a primary that was away finds it when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from enlist.runtime.controller import Again, Controller, Outcome, each, run_all
from enlist.runtime.logs import Log
from enlist_primary.changes.publisher import Changes
from enlist_primary.controllers.items import ACCOUNTS, AT_ONCE, BACKOFF, DEADLINE, AccountItems
from enlist_primary.model.fleet import FleetView
from enlist_primary.operations import tasks
from enlist_primary.store import tasks as rows
from enlist_primary.store.database import Database, Transaction

GATHER_SECONDS = 0.05
"""Seconds from one look at an account to the next: what many servers report together is looked at once."""
LONGEST_SLEEP = 60.0
"""Seconds after which a planned task is looked at anyhow: the wall clock may have been set, or the machine have slept."""
RUNS = 100
"""Runs that are looked at in one read, at most."""

Key = tuple[str, str]
"""An account, and the id of a task or a run."""

log = Log("scheduler")


class Scheduler:
    """Keeps the tasks of all accounts on time. What cannot be done now is tried again, and holds up nothing else."""

    def __init__(
        self, database: Database, views: Callable[[str], FleetView], new_id: Callable[[], str], clock: Callable[[], float]
    ) -> None:
        """`views` gives what is seen of an account's servers now; `clock` is Unix seconds."""
        self._database = database
        self._views = views
        self._new_id = new_id
        self._clock = clock
        self._schedules = Controller[str](
            "task schedules", self._look, batch=ACCOUNTS, pace=GATHER_SECONDS, backoff=BACKOFF, deadline=DEADLINE
        )
        self._tasks = Controller[Key]("tasks", each(self._begin), at_once=AT_ONCE, backoff=BACKOFF, deadline=DEADLINE)
        self._runs = AccountItems[str](
            "runs", database, rows.open_run_ids, self._end_runs, subjects=("tasks/",), pace=GATHER_SECONDS, batch=RUNS
        )

    async def load(self) -> None:
        """Reads which tasks are planned and which runs are under way, once."""
        for account in await self._database.read(rows.planning):
            self._schedules.mark(account)
        await self._runs.load()

    def on_changes(self, changes: Changes) -> None:
        """A decision was made in an account, or its servers reported something."""
        if changes.concerns("tasks/"):
            self._schedules.mark(changes.account)
        self._runs.on_changes(changes)

    async def run(self) -> None:
        """Begins and ends what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_all([self._schedules, self._tasks]))
            group.create_task(self._runs.run())

    # --- Tasks ------------------------------------------------------------------------------------------------------------------

    async def _look(self, accounts: Sequence[str]) -> Mapping[str, Outcome]:
        found = await self._database.read(rows.schedules, accounts, int(self._clock()))
        for account, schedule in found.items():
            for id in schedule.due:
                self._tasks.mark((account, id))
        return {account: self._wait(schedule.following) for account, schedule in found.items()}

    async def _begin(self, key: Key) -> Again:
        account, id = key
        now = int(self._clock())
        task = await self._database.write(account, tasks.begin_due, account, id, self._views(account), self._new_id, now)
        if task is not None:
            log.info("a task's time came", account=account, task=id, state=task.state)
        return None

    # --- Runs -------------------------------------------------------------------------------------------------------------------

    async def _end_runs(self, keys: Sequence[Key]) -> Mapping[Key, Outcome]:
        """One read for all: what servers report concerns every run of an account."""
        now = int(self._clock())
        dues = await self._database.read(_dues, keys, now)
        over = [key for key, due in dues.items() if isinstance(due, int) and due <= now]
        ended = await each(self._end)(over)
        waits = {key: due if isinstance(due, Exception) else self._wait(due) for key, due in dues.items()}
        return {**waits, **ended}

    async def _end(self, key: Key) -> Again:
        account, run_id = key
        task = await self._database.write(account, tasks.end_run, account, run_id, self._views(account), int(self._clock()))
        if task is not None:
            log.info("a run is over", account=account, task=task.id, run=run_id)
        return None

    def _wait(self, due: int | None) -> Again:
        """For how many seconds nothing is to be done until then."""
        return None if due is None else min(max(due - self._clock(), 0.0), LONGEST_SLEEP)


def _dues(tx: Transaction, keys: Sequence[Key], now: int) -> dict[Key, int | Exception | None]:
    """When each run is due; the error of one that cannot be judged is its own."""
    return {key: _due(tx, key, now) for key in keys}


def _due(tx: Transaction, key: Key, now: int) -> int | Exception | None:
    try:
        return rows.run_due(tx, *key, now)
    except Exception as error:
        return error
