"""Writes what servers said down. Observations: nothing is journalled, and nothing but the word itself changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from enlist_primary.model.reports import Word
from enlist_primary.operations import tasks
from enlist_primary.store import changes, policies
from enlist_primary.store.changes import Coarse
from enlist_primary.store.database import Transaction


def record(tx: Transaction, account: str, words: Sequence[Word], now: int) -> None:
    """The last words of servers of one account; of one that is gone meanwhile nothing is kept."""
    of_tasks: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        if word.of_task:
            of_tasks[word.server_id].append(word)
    policies.save_reports(tx, account, [word for word in words if not word.of_task])
    for server_id, said in of_tasks.items():
        tasks.record(tx, account, server_id, said)
    changes.note_coarse(tx, account, now, Coarse.REPORTS)
