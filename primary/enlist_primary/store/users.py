"""The SQL of users."""

from __future__ import annotations

from enlist_primary.model.users import Role, User
from enlist_primary.store.database import Transaction


def insert(tx: Transaction, user: User) -> None:
    """A new row."""
    sql = "INSERT INTO user_account (id, name, role, account, token_hash, created_at) VALUES ($1, $2, $3, $4, $5, $6)"
    tx.run(sql, user.id, user.name, user.role.value, user.account, user.token_hash, user.created_at)


def find(tx: Transaction, id: str) -> User | None:
    """The user of this id."""
    row = tx.row("SELECT id, name, role, account, token_hash, created_at FROM user_account WHERE id = $1", id)
    if row is None:
        return None
    return User(row["id"], row["name"], Role(row["role"]), row["account"], row["token_hash"], row["created_at"])
