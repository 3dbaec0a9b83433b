"""Rollouts that are under way: when servers have reported, or a time is up, the primary decides what follows. Each alone."""

from __future__ import annotations

from collections.abc import Callable

from enlist.runtime.controller import Again, each
from enlist.runtime.logs import Log
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.controllers.items import AccountItems
from enlist_primary.model.fleet import FleetView
from enlist_primary.operations import rollouts
from enlist_primary.store import rollouts as rows
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.2
"""Seconds from one evaluation of a rollout to the next, at least: what is reported in between is weighed together."""
SHARE = 5
"""An evaluation that took long is followed by a rest so many times as long: very many servers leave time for everything else."""
LONGEST_REST = 2.0
LONGEST_WAIT = 3600.0
"""Seconds after which a clock that was set is noticed."""

log = Log("rollouts")


def rest_after(took: float) -> float:
    """For how many seconds a rollout rests after an evaluation that took so many."""
    return min(SHARE * took, LONGEST_REST)


class Rollouts:
    """Decides about the rollouts of all accounts. A rollout that cannot be judged holds up no other.

    Without a rollout under way it asks the database only after decisions about policies and tasks, and has no timer.
    """

    def __init__(self, database: Database, views: Callable[[str], FleetView], clock: Callable[[], float]) -> None:
        """`views` gives what is seen of an account's servers now; `clock` is Unix seconds."""
        self._database = database
        self._views = views
        self._clock = clock
        self._items = AccountItems[int](
            "rollouts",
            database,
            rows.running,
            each(self._reconcile),
            subjects=("policies/", "tasks/", "groups/"),
            pace=GATHER_SECONDS,
            rest_after=rest_after,
        )

    async def load(self) -> None:
        """Reads which rollouts are under way, once."""
        await self._items.load()

    def on_changes(self, changes: Changes) -> None:
        """A decision was made in an account, or its servers reported something."""
        self._items.on_changes(changes)

    def on_presence(self, change: PresenceChange) -> None:
        """Servers of an account connected or disconnected."""
        self._items.mark(change.account)

    async def run(self) -> None:
        """Decides whatever is to be decided, until cancelled."""
        await self._items.run()

    async def _reconcile(self, key: tuple[str, int]) -> Again:
        account, revision = key
        now = int(self._clock())
        due = await self._database.read(rollouts.due, account, revision, self._views(account), now)
        if due is None:
            return None
        if due > now:
            return min(max(due - self._clock(), 0.0), LONGEST_WAIT)
        after = await self._database.write(account, rollouts.advance, account, revision, self._views(account), now)
        if after is not None:  # the change log brings what follows
            log.info("rollout", account=account, revision=revision, state=after.state, stage=after.stage)
        return None
