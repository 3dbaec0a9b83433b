"""How an operation writes its decision down."""

from __future__ import annotations

from enlist_primary.model.journal import Detail, JournalEntry
from enlist_primary.model.users import Actor
from enlist_primary.store import journal
from enlist_primary.store.database import Transaction


def record(
    tx: Transaction, account: str, action: str, subject: str, by: Actor, now: int, evidence: str = "", **detail: Detail
) -> int:
    """Appends to the account's journal and to its change log, and returns the journal's number.

    Details that are None or empty are left out.
    """
    entry = JournalEntry(
        account=account,
        time=now,
        actor=by.who,
        method=by.method,
        source=by.source,
        action=action,
        subject=subject,
        evidence=evidence,
        detail={name.replace("_", " "): value for name, value in detail.items() if value not in (None, "")},
    )
    return journal.append(tx, account, entry)


def about_group(id: str) -> str:
    """The journal's subject for a group."""
    return f"groups/{id}"
