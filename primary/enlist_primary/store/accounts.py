"""The SQL of accounts."""

from __future__ import annotations

from enlist.names import ROOT_GROUP
from enlist_primary.model.accounts import PRIMARY, Account, unknown
from enlist_primary.model.journal import genesis
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import path_of

_COLUMNS = f"""
    domain, head, contact, default_api_key, created_at, desired, landing_group,
    {path_of("account", "landing_group", "domain")} AS landing_path
"""


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


def exists(tx: Transaction, domain: str) -> bool:
    """Whether there is an account of this domain."""
    return tx.row("SELECT domain FROM account WHERE domain = $1", domain) is not None


def listed(tx: Transaction) -> list[Account]:
    """All accounts by domain, without the primary's own."""
    return [_account(row) for row in tx.rows(f"SELECT {_COLUMNS} FROM account WHERE domain <> $1 ORDER BY domain", PRIMARY)]


def update(tx: Transaction, domain: str, contact: str | None, default_api_key: bool, landing_group: str | None) -> None:
    """What of an account may change."""
    sql = "UPDATE account SET contact = $2, default_api_key = $3, landing_group = $4 WHERE domain = $1"
    tx.run(sql, domain, contact, int(default_api_key), landing_group)


def desires(tx: Transaction, domain: str, number: int) -> None:
    """Notes that the decision of this number changed what servers of the account must get; links are reevaluated.

    The change log tells them: that decision is in it with its own subject, and `changes.Position` says the number.
    """
    tx.run("UPDATE account SET desired = $2 WHERE domain = $1", domain, number)


def _account(row: Row) -> Account:
    return Account(
        domain=row["domain"],
        head=row["head"],
        contact=row["contact"],
        default_api_key=bool(row["default_api_key"]),
        created_at=row["created_at"],
        desired=row["desired"],
        landing_group=row["landing_group"],
        landing_path=row["landing_path"] or ROOT_GROUP,
    )
