"""The SQL of groups."""

from __future__ import annotations

from dataclasses import dataclass

from enlist.names import ROOT_GROUP
from enlist_primary.store.database import Transaction


def path_of(table: str) -> str:
    """The SQL expression for the path of the group that a row of this table stands in; NULL if it stands in none.

    It walks up from the group, so that it costs what the tree is deep, and not what it is large.
    """
    return f"""(
        WITH RECURSIVE above (parent, path) AS (
            SELECT parent, name FROM server_group WHERE account = {table}.account AND id = {table}.group_id
            UNION ALL
            SELECT node.parent, CASE WHEN node.parent IS NULL THEN above.path ELSE node.name || '/' || above.path END
            FROM above JOIN server_group node ON node.account = {table}.account AND node.id = above.parent
        )
        SELECT path FROM above WHERE parent IS NULL
    )"""


@dataclass(frozen=True)
class Group:
    """A node of an account's tree; `path` is `/` for the root."""

    account: str
    id: str
    path: str


def insert_root(tx: Transaction, account: str, id: str) -> None:
    """The root group of a new account."""
    insert(tx, account, id, None, ROOT_GROUP)


def insert(tx: Transaction, account: str, id: str, parent: str | None, name: str) -> None:
    """A group below another."""
    tx.run("INSERT INTO server_group (account, id, parent, name) VALUES ($1, $2, $3, $4)", account, id, parent, name)


def root(tx: Transaction, account: str) -> str:
    """The id of the account's root group."""
    row = tx.row("SELECT id FROM server_group WHERE account = $1 AND parent IS NULL", account)
    assert row is not None, "every account is made with its root group"
    return str(row["id"])


def child(tx: Transaction, account: str, parent: str, name: str) -> str | None:
    """The id of the group of this name right below `parent`."""
    sql = "SELECT id FROM server_group WHERE account = $1 AND parent = $2 AND name = $3"
    row = tx.row(sql, account, parent, name)
    return None if row is None else str(row["id"])


def listed(tx: Transaction, account: str) -> list[Group]:
    """All groups of an account, parents before children, siblings by name."""
    rows = tx.rows(
        """
        WITH RECURSIVE group_path (account, id, path) AS (
            SELECT account, id, '/' FROM server_group WHERE parent IS NULL AND account = $1
            UNION ALL
            SELECT child.account, child.id, CASE above.path WHEN '/' THEN child.name ELSE above.path || '/' || child.name END
            FROM server_group child JOIN group_path above ON child.account = above.account AND child.parent = above.id
        )
        SELECT id, path FROM group_path
        """,
        account,
    )
    return sorted((Group(account, row["id"], row["path"]) for row in rows), key=lambda g: g.path.strip("/").split("/"))
