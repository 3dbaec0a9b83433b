"""Writes down what was seen of servers and of attempts: nothing is journalled, and nothing but the observation itself changes."""

from __future__ import annotations

from collections.abc import Sequence

from enlist_primary.store import accounts, changes, observations
from enlist_primary.store.changes import Coarse
from enlist_primary.store.database import Transaction
from enlist_primary.store.observations import Refusals, Sighting


def record(tx: Transaction, account: str, batch: Sequence[Sighting | Refusals], now: int) -> bool:
    """What was last seen of servers of one account, and its counters; False, and nothing is kept, if there is no such account."""
    if not accounts.exists(tx, account):
        return False
    for each in batch:
        if isinstance(each, Refusals):
            observations.save_refusals(tx, each)
        else:
            observations.save_seen(tx, account, each.id, each.seen)
    changes.note_coarse(tx, account, now, Coarse.OBSERVATIONS)
    return True
