"""The SQL of accounts."""

from __future__ import annotations

from enlist_primary.model.accounts import PRIMARY, Account, unknown
from enlist_primary.model.journal import genesis
from enlist_primary.store.database import Row, Transaction

_COLUMNS = "domain, head, contact, default_api_key, created_at"


def insert(tx: Transaction, domain: str, contact: str | None, now: int) -> bool:
    """A new account; False if there is one of this domain."""
    sql = """
        INSERT INTO account (domain, head, head_hash, contact, default_api_key, created_at)
        VALUES ($1, 0, $2, $3, 1, $4) ON CONFLICT (domain) DO NOTHING
    """
    return tx.run(sql, domain, genesis(domain), contact, now) == 1


def lock(tx: Transaction, domain: str) -> Account:
    """Takes the account's row lock, which lasts until the commit: what every decision begins with. Refuses as `load` does.

    An update that changes nothing is a lock in every engine; SQLite writes no page for it.
    """
    row = tx.row(f"UPDATE account SET head = head WHERE domain = $1 RETURNING {_COLUMNS}", domain)
    if row is None:
        raise unknown(domain)
    return _account(row)


def load(tx: Transaction, domain: str) -> Account:
    """An account; refused with ACCOUNT_UNKNOWN if there is none of this domain."""
    row = tx.row(f"SELECT {_COLUMNS} FROM account WHERE domain = $1", domain)
    if row is None:
        raise unknown(domain)
    return _account(row)


def listed(tx: Transaction) -> list[Account]:
    """All accounts by domain, without the primary's own."""
    return [_account(row) for row in tx.rows(f"SELECT {_COLUMNS} FROM account WHERE domain <> $1 ORDER BY domain", PRIMARY)]


def update(tx: Transaction, domain: str, contact: str | None, default_api_key: bool) -> None:
    """What of an account may change."""
    sql = "UPDATE account SET contact = $2, default_api_key = $3 WHERE domain = $1"
    tx.run(sql, domain, contact, int(default_api_key))


def _account(row: Row) -> Account:
    return Account(row["domain"], row["head"], row["contact"], bool(row["default_api_key"]), row["created_at"])
