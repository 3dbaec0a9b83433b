"""Decisions about groups."""

from __future__ import annotations

from collections.abc import Callable

from enlist import names
from enlist_primary.model.users import Actor
from enlist_primary.operations.journalling import record
from enlist_primary.store import groups
from enlist_primary.store.database import Transaction


def ensure(tx: Transaction, account: str, path: str, by: Actor, new_id: Callable[[], str], now: int) -> str:
    """The id of the group at this path; what is missing on the way is made and journalled. The account's lock is held."""
    group = groups.root(tx, account)
    walked: list[str] = []
    for name in names.group_path(path):
        walked.append(name)
        below = groups.child(tx, account, group, name)
        if below is None:
            below = new_id()
            groups.insert(tx, account, below, group, name)
            record(tx, account, "group.create", f"groups/{below}", by, now, path=names.show_group(tuple(walked)))
        group = below
    return group
