"""The journal of each account: the hash-chained list of its decisions.

A decision's operation calls `accounts.lock` as its first statement, decides, writes, and calls `append` for what it decided. The
number is taken by `append`, so a decision that already holds leaves no gap (docs/adr/0002-group-commit-and-journal.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from enlist.reasons import Reason, Refused
from enlist_primary.model.journal import JournalEntry, chained, genesis
from enlist_primary.store import changes
from enlist_primary.store.database import Row, Transaction

_PAGE = 1000  # entries read at once when a whole journal is verified: other reads come between
_LOWEST = -(2**63)  # the lowest number a column can hold: an entry below 1 is as wrong as any other


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of an account's journal: its number (0: none yet) and its hash (32 bytes)."""

    number: int
    hash: bytes


def append(tx: Transaction, account: str, entry: JournalEntry) -> int:
    """Add a decision to its account's journal and to its change log; its number in the journal, the revision of what it changed."""
    if entry.account != account:
        raise ValueError(f"a decision of {entry.account} does not belong in the journal of {account}")
    # RETURNING shows the new head beside the hash of the entry before it, which this statement leaves alone.
    sql = "UPDATE account SET head = head + 1, change = change + 1 WHERE domain = $1 RETURNING head, head_hash, change"
    row = _row(tx, sql, account)
    head = Head(row["head"], row["head_hash"])
    changes.insert(tx, account, row["change"], entry.subject, entry.time)
    body = replace(entry, number=head.number).body()
    digest = chained(head.hash, body)
    insert = "INSERT INTO journal (account, number, body, hash) VALUES ($1, $2, $3, $4)"
    tx.run(insert, account, head.number, body.decode(), digest)
    tx.run("UPDATE account SET head_hash = $2 WHERE domain = $1", account, digest)
    return head.number


def entries(tx: Transaction, account: str, after: int, limit: int) -> list[JournalEntry]:
    """At most `limit` entries numbered above `after`, oldest first."""
    return [JournalEntry.from_body(row["body"].encode()) for row in _page(tx, account, after, limit)]


def hashed_entries(tx: Transaction, account: str, after: int, limit: int) -> list[tuple[JournalEntry, bytes]]:
    """The same, each with its hash."""
    return [(JournalEntry.from_body(row["body"].encode()), row["hash"]) for row in _page(tx, account, after, limit)]


def beginning(account: str) -> Head:
    """Where the verification of an account's journal begins."""
    return Head(0, genesis(account))


def verify_page(tx: Transaction, account: str, known: Head) -> tuple[Head, bool]:
    """Recompute the account's chain onward from an entry that holds: how far it holds now, and whether that is all of it.

    Raises `JOURNAL_BROKEN`, naming the first entry that is missing, moved or altered, and `ACCOUNT_UNKNOWN`. Somebody
    who can write the database can also compute a whole new chain: only a head kept elsewhere shows that.
    """
    newest = _row(tx, "SELECT head, head_hash FROM account WHERE domain = $1", account)
    head = Head(newest["head"], newest["head_hash"])
    number, digest = known.number, known.hash
    rows = _page(tx, account, number or _LOWEST, _PAGE)
    for row in rows:
        number += 1
        digest = _checked(row, account, number, digest)
    if len(rows) == _PAGE:
        return Head(number, digest), False
    if number < head.number:
        raise _broken(account, number + 1, "it is missing")
    if number > head.number or digest != head.hash:
        raise _broken(account, number, "it is not the one that the account names as its newest")
    return head, True


def _row(tx: Transaction, sql: str, account: str) -> Row:
    row = tx.row(sql, account)
    if row is None:
        raise Refused(Reason.ACCOUNT_UNKNOWN, f'There is no account "{account}".')
    return row


def _checked(row: Row, account: str, number: int, previous: bytes) -> bytes:
    """The hash of this row, once it is certain to be entry `number` of this account and to follow the previous hash."""
    if row["number"] != number:
        raise _broken(account, number, "it is missing")
    body = str(row["body"]).encode()
    if chained(previous, body) != row["hash"]:
        raise _broken(account, number, "its content or the order of entries was changed")
    try:
        entry = JournalEntry.from_body(body)
    except ValueError as error:
        raise _broken(account, number, "it cannot be read") from error
    if (entry.account, entry.number) != (account, number):
        raise _broken(account, number, "it belongs elsewhere")
    return bytes(row["hash"])


def _broken(account: str, number: int, why: str) -> Refused:
    what_to_do = "Somebody or something changed the database: compare it with a backup."
    return Refused(Reason.JOURNAL_BROKEN, f"The journal of {account} is broken at entry {number}: {why}. {what_to_do}")


def _page(tx: Transaction, account: str, after: int, limit: int) -> list[Row]:
    sql = "SELECT number, body, hash FROM journal WHERE account = $1 AND number > $2 ORDER BY number LIMIT $3"
    return tx.rows(sql, account, after, limit)
