"""The SQL of the change log: what changed in each account, in order, for everything that keeps a copy of rows in memory.

Every decision notes its subjects in its own transaction, journalled or not; a batch of observations of one account notes one coarse
subject. The numbers of an account have no gaps and are given out under its row lock, so that a reader that goes on from the number
it knows misses nothing, on any engine. Old rows are trimmed: a reader whose next row is gone reloads the account.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from enlist_primary.model.accounts import unknown
from enlist_primary.store.database import Transaction

ACCOUNT = "account"
"""The subject of a decision about the account itself."""
KEPT_SECONDS = 3600
KEPT_ROWS = 100_000
"""Rows of an account that are kept, at most; older ones than `KEPT_SECONDS` are trimmed before."""
TRIMMED_AT_ONCE = 10_000


class Coarse(StrEnum):
    """Subjects that say what changed in an account, without saying of which servers."""

    REPORTS = "reports"
    OBSERVATIONS = "observations"
    DESCENDANTS = "descendants"
    SERVERS = "servers"
    ANCESTORS = "ancestors"
    """Who stands above this primary, and what came from there; in the primary's own account."""
    ORIGINS = "origins"
    """Somebody cleared what is remembered of primaries above: what was refused before may be taken now. In the same account."""


class Position(NamedTuple):
    """How far an account is in one view of the database: its last change, its journal's newest number, and the last decision that
    changed what its servers shall get."""

    change: int
    head: int
    desired: int


def about_server(id: str) -> str:
    """The subject for a server, in the journal too."""
    return f"{Coarse.SERVERS}/{id}"


def about_descendants(id: str) -> str:
    """The subject for a server below which no primary stands any longer: all that was known of its descendants is void."""
    return f"{Coarse.DESCENDANTS}/{id}"


def note(tx: Transaction, account: str, now: int, *subjects: str) -> None:
    """Appends one row per subject, and takes the account's row lock for that. Refused with ACCOUNT_UNKNOWN.

    It belongs to the transaction that makes the change: both are committed or neither is.
    """
    row = tx.row("UPDATE account SET change = change + $2 WHERE domain = $1 RETURNING change", account, len(subjects))
    if row is None:
        raise unknown(account)
    for number, subject in enumerate(subjects, row["change"] - len(subjects) + 1):
        insert(tx, account, number, subject, now)


def insert(tx: Transaction, account: str, number: int, subject: str, now: int) -> None:
    """The row of a number that the account's row has given out in this transaction; no subject is the account itself."""
    sql = "INSERT INTO change (account, number, subject, at) VALUES ($1, $2, $3, $4)"
    tx.run(sql, account, number, subject or ACCOUNT, now)


def note_coarse(tx: Transaction, account: str, now: int, what: Coarse) -> None:
    """The same for a batch of observations: one row, however many servers it is about."""
    note(tx, account, now, what.value)


def positions(tx: Transaction) -> dict[str, Position]:
    """How far every account is: what the tail asks after every commit."""
    rows = tx.rows("SELECT domain, change, head, desired FROM account")
    return {row["domain"]: Position(row["change"], row["head"], row["desired"]) for row in rows}


def last(tx: Transaction, account: str) -> int:
    """The number of the account's last change; 0 if there was none, or there is no such account."""
    row = tx.row("SELECT change FROM account WHERE domain = $1", account)
    return row["change"] if row else 0


def after(tx: Transaction, account: str, number: int, limit: int) -> list[str] | None:
    """The subjects of at most `limit` changes behind this number, oldest first; None where the next one is not kept any longer."""
    sql = "SELECT number, subject FROM change WHERE account = $1 AND number > $2 ORDER BY number LIMIT $3"
    rows = tx.rows(sql, account, number, limit)
    return [row["subject"] for row in rows] if rows and rows[0]["number"] == number + 1 else None


def everything(tx: Transaction, account: str) -> list[str]:
    """Subjects that stand for all changes that may have been trimmed: every server, and all coarse ones."""
    rows = tx.rows("SELECT id, may_have_secondaries AS may FROM server WHERE account = $1 ORDER BY id", account)
    servers = [about_server(row["id"]) for row in rows]
    return [ACCOUNT, *(each.value for each in Coarse), *servers, *(about_descendants(row["id"]) for row in rows if not row["may"])]


# --- Trimmed ----------------------------------------------------------------------------------------------------------------


def accounts_to_trim(tx: Transaction, now: int) -> list[str]:
    """Accounts with rows that need not be kept. It reads the oldest row of each."""
    oldest = "SELECT {} FROM change WHERE change.account = domain ORDER BY number LIMIT 1"
    sql = f"""
        SELECT domain FROM account
        WHERE ({oldest.format("at")}) < $1 OR ({oldest.format("number")}) <= account.change - $2 ORDER BY domain
    """
    return [row["domain"] for row in tx.rows(sql, now - KEPT_SECONDS, KEPT_ROWS)]


def trim(tx: Transaction, account: str, now: int) -> bool:
    """Drops rows that need not be kept, oldest first and a bounded number at once. Whether there may be more.

    What is dropped is always the beginning of the log: a clock that was set back leaves no hole behind.
    """
    sql = "SELECT number FROM change WHERE account = $1 ORDER BY number LIMIT 1"
    oldest = tx.row(sql, account)
    if oldest is None:
        return False
    young = "SELECT number FROM change WHERE account = $1 AND at >= $2 ORDER BY number LIMIT 1"
    row, end = tx.row(young, account, now - KEPT_SECONDS), last(tx, account)
    first_kept = max(row["number"] if row else end + 1, end - KEPT_ROWS + 1)
    bound = oldest["number"] + TRIMMED_AT_ONCE
    tx.run("DELETE FROM change WHERE account = $1 AND number < $2", account, min(first_kept, bound))
    return bool(bound < first_kept)
