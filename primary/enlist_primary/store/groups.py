"""The SQL of groups."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from enlist import names
from enlist.names import ROOT_GROUP
from enlist.reasons import Reason, Refused
from enlist.runtime.schedules import Window
from enlist_primary.model.servers import LIVING
from enlist_primary.store.database import Row, Transaction


def path_of(table: str, group: str = "group_id", account: str = "account") -> str:
    """The SQL expression for the path of the group that these columns of a table name; NULL if they name none.

    It walks up from the group, so that it costs what the tree is deep, and not what it is large.
    """
    return f"""(
        WITH RECURSIVE above (parent, path) AS (
            SELECT parent, name FROM server_group WHERE account = {table}.{account} AND id = {table}.{group}
            UNION ALL
            SELECT node.parent, CASE WHEN node.parent IS NULL THEN above.path ELSE node.name || '/' || above.path END
            FROM above JOIN server_group node ON node.account = {table}.{account} AND node.id = above.parent
        )
        SELECT path FROM above WHERE parent IS NULL
    )"""


_BELOW = """
    WITH RECURSIVE below (id, depth) AS (
        SELECT id, 0 FROM server_group WHERE account = $1 AND id = $2
        UNION ALL
        SELECT child.id, below.depth + 1 FROM below JOIN server_group child ON child.account = $1 AND child.parent = below.id
    )
"""


@dataclass(frozen=True)
class Group:
    """A node of an account's tree; `path` is `/` for the root. `window_revision` is the number of the decision on its window."""

    account: str
    id: str
    path: str
    window: Window | None = None
    window_revision: int = 0


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


def at(tx: Transaction, account: str, path: str) -> Group | None:
    """The group at a path, or None. Refused with INVALID_ARGUMENT if it is no path."""
    walk = names.group_path(path)
    id: str | None = root(tx, account)
    for name in walk:
        id = None if id is None else child(tx, account, id, name)
    return None if id is None else by_id(tx, account, id)


def find(tx: Transaction, account: str, path: str) -> Group:
    """The group at a path, which somebody names as being there; refused with NOT_FOUND if it is not, and how it is made."""
    found = at(tx, account, path)
    if found is None:
        shown = names.show_group(names.group_path(path))
        make = f"enlist-primary group add {shlex.quote(f'{account}/{shown}')}"
        raise Refused(Reason.NOT_FOUND, f'There is no group "{shown}" in {account}. Make it with: {make}')
    return found


def by_id(tx: Transaction, account: str, id: str) -> Group:
    """A group; refused with NOT_FOUND if the account has none of this id."""
    sql = f"SELECT place.*, {path_of('place', 'id')} AS path FROM server_group place WHERE account = $1 AND id = $2"
    row = tx.row(sql, account, id)
    if row is None:
        raise Refused(Reason.NOT_FOUND, f'There is no group with the id "{id}" in {account}.')
    return _group(row)


def below(tx: Transaction, account: str, id: str) -> list[str]:
    """The ids of a group and of all below it, it first."""
    return [row["id"] for row in tx.rows(f"{_BELOW} SELECT id FROM below ORDER BY depth", account, id)]


def height(tx: Transaction, account: str, id: str) -> int:
    """How many levels of groups stand below a group."""
    row = tx.row(f"{_BELOW} SELECT max(depth) AS height FROM below", account, id)
    return row["height"] or 0 if row else 0


def listed(tx: Transaction, account: str) -> list[Group]:
    """All groups of an account, parents before children, siblings by name."""
    rows = tx.rows(
        """
        WITH RECURSIVE group_path (id, path) AS (
            SELECT id, '/' FROM server_group WHERE parent IS NULL AND account = $1
            UNION ALL
            SELECT child.id, CASE above.path WHEN '/' THEN child.name ELSE above.path || '/' || child.name END
            FROM server_group child JOIN group_path above ON child.account = $1 AND child.parent = above.id
        )
        SELECT place.*, path FROM group_path JOIN server_group place ON place.account = $1 AND place.id = group_path.id
        """,
        account,
    )
    return sorted(map(_group, rows), key=lambda g: g.path.strip("/").split("/"))


def move(tx: Transaction, account: str, id: str, parent: str, name: str) -> None:
    """Puts a group, with all that stands below it, under another parent and name."""
    tx.run("UPDATE server_group SET parent = $3, name = $4 WHERE account = $1 AND id = $2", account, id, parent, name)


def set_window(tx: Transaction, account: str, id: str, window: Window | None, revision: int) -> None:
    """Sets a group's maintenance window, or ends it."""
    sql = """
        UPDATE server_group SET window_start = $3, window_seconds = $4, window_zone = $5, window_revision = $6
        WHERE account = $1 AND id = $2
    """
    values = (window.start, window.seconds, window.zone or None) if window else (None, None, None)
    tx.run(sql, account, id, *values, revision)


# --- The end of a group ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What keeps a group from being removed: how many groups and servers stand in it, and the ids of what leads or speaks to it."""

    groups: int
    servers: int
    api_keys: tuple[str, ...]
    tasks: tuple[str, ...]


def held(tx: Transaction, account: str, id: str, now: int) -> Held:
    """What a group holds. What is past counts for nothing; an invitation is a server, so its API key is not told beside it."""
    group_count = "SELECT count(*) AS n FROM server_group WHERE account = $1 AND parent = $2"
    server_count = f"""
        SELECT count(*) AS n FROM server WHERE account = $1 AND group_id = $2
        AND state IN ({", ".join(f"'{state}'" for state in sorted(LIVING))}) AND (expires_at IS NULL OR expires_at > $3)
    """
    api_keys = """
        SELECT id FROM api_key WHERE account = $1 AND group_id = $2 AND server_id IS NULL AND revoked_at IS NULL
        AND (expires_at IS NULL OR expires_at > $3) AND (max_uses IS NULL OR uses < max_uses) ORDER BY id
    """
    tasks = "SELECT id FROM task WHERE account = $1 AND group_id = $2 AND state IN ('planned', 'running') ORDER BY id"
    return Held(
        tx.rows(group_count, account, id)[0]["n"],
        tx.rows(server_count, account, id, now)[0]["n"],
        tuple(row["id"] for row in tx.rows(api_keys, account, id, now)),
        tuple(row["id"] for row in tx.rows(tasks, account, id)),
    )


def policy_kinds(tx: Transaction, account: str, id: str) -> list[str]:
    """The kinds of which a group has a policy."""
    sql = "SELECT kind FROM policy WHERE account = $1 AND group_id = $2 ORDER BY kind"
    return [row["kind"] for row in tx.rows(sql, account, id)]


def remove(tx: Transaction, account: str, id: str) -> None:
    """Drops the row of an empty group; what is past and named it, stands in the group above from now on."""
    above = "(SELECT parent FROM server_group WHERE account = $1 AND id = $2)"
    for table in ("server", "api_key"):
        tx.run(f"UPDATE {table} SET group_id = {above} WHERE account = $1 AND group_id = $2", account, id)
    tx.run("DELETE FROM server_group WHERE account = $1 AND id = $2", account, id)


def _group(row: Row) -> Group:
    window = None
    if row["window_start"] is not None:
        window = Window(row["window_start"], row["window_seconds"], row["window_zone"] or "")
    return Group(row["account"], row["id"], row["path"], window, row["window_revision"])
