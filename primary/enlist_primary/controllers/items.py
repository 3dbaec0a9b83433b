"""What is under way in accounts: each item is decided about alone, when something in its account changed and when it is due."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from enlist.runtime.controller import Again, Backoff, Controller, ReconcileBatch, run_all
from enlist_primary.changes.publisher import Changes
from enlist_primary.store.database import Database, Transaction

Item = TypeVar("Item", bound=Hashable)

Find = Callable[[Transaction, Collection[str] | None], Mapping[str, Sequence[Item]]]

BACKOFF = Backoff(first=1.0, longest=60.0)
DEADLINE = 60.0
"""Seconds after which a decision that has not come back counts as failed."""
AT_ONCE = 4
ACCOUNTS = 1000
"""Accounts that are asked about in one read, at most."""


class AccountItems(Generic[Item]):
    """Knows which items are under way in every account, and reconciles each when something in its account changed.

    An account without items costs nothing: it is asked only after a decision that may have begun one.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        find: Find[Item],
        reconcile: ReconcileBatch[tuple[str, Item]],
        *,
        subjects: tuple[str, ...],
        pace: float,
        batch: int = 1,
        rest_after: Callable[[float], float] = lambda _: 0.0,
    ) -> None:
        """`find` lists the items of these accounts, or of all; `subjects` are how those changes begin that may bring or end one.

        `pace`, `batch` and `rest_after` are those of the items' controller.
        """
        self._database = database
        self._find = find
        self._subjects = subjects
        self._known: dict[str, frozenset[Item]] = {}
        self._accounts = Controller[str](
            f"{name} of accounts", self._list, batch=ACCOUNTS, pace=pace, backoff=BACKOFF, deadline=DEADLINE
        )
        self._items = Controller[tuple[str, Item]](
            name,
            reconcile,
            batch=batch,
            at_once=AT_ONCE,
            pace=pace,
            rest_after=rest_after,
            backoff=BACKOFF,
            deadline=DEADLINE,
        )

    async def load(self) -> None:
        """Reads what is under way, once; changes from the tail's start on are heard of."""
        found = await self._database.read(self._find, None)
        for account, items in found.items():
            self._keep(account, items)

    def on_changes(self, changes: Changes) -> None:
        """Something in an account changed."""
        if changes.concerns(*self._subjects):
            self._accounts.mark(changes.account)
        else:
            self.mark(changes.account)

    def mark(self, account: str) -> None:
        """Something that may concern every item of the account changed, though none of them began or ended."""
        for item in self._known.get(account, ()):
            self._items.mark((account, item))

    async def run(self) -> None:
        """Reconciles items until cancelled."""
        await run_all([self._accounts, self._items])

    async def _list(self, accounts: Sequence[str]) -> Mapping[str, Again]:
        found = await self._database.read(self._find, accounts)
        for account in accounts:
            self._keep(account, found.get(account, ()))
        return {}

    def _keep(self, account: str, items: Sequence[Item]) -> None:
        gone = self._known.pop(account, frozenset()).difference(items)
        for item in gone:
            self._items.forget((account, item))
        if items:
            self._known[account] = frozenset(items)
        self.mark(account)
