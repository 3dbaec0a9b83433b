"""Reads an account's layout: everything that decides what its servers shall get."""

from __future__ import annotations

import json
from typing import NamedTuple

from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import Layout, Node
from enlist_primary.store import groups, rollouts, tasks
from enlist_primary.store.database import Row, Transaction

FEW = 16
SMALL = 64 * 1024
"""So many new bodies, of so many bytes each, are read together with the layout that names them."""


class Place(NamedTuple):
    """How far an account is: its journal's newest number, and the last one that changed what its servers shall get."""

    head: int
    desired: int


def place(tx: Transaction, account: str) -> Place:
    """How far the account is."""
    row = tx.row("SELECT head, desired FROM account WHERE domain = $1", account)
    return Place(row["head"], row["desired"]) if row else Place(0, 0)


def layout(tx: Transaction, account: str, before: Layout | None = None) -> Layout:
    """The account as of this view of the database; `before` is what was read last, for what of it cannot have changed."""
    known = {run.id: run.servers for run in before.runs} if before is not None else {}
    epoch = tx.row("SELECT epoch FROM account WHERE domain = $1", PRIMARY)
    paths = {group.id: group.path for group in groups.listed(tx, account)}
    nodes = tx.rows("SELECT * FROM server_group WHERE account = $1", account)
    policies = tx.rows("SELECT group_id, kind, revision FROM policy WHERE account = $1", account)
    return Layout(
        account=account,
        epoch=epoch["epoch"] if epoch else 1,
        number=place(tx, account).desired,
        groups={row["id"]: _node(row, paths[row["id"]]) for row in nodes},
        policies=[(row["group_id"], row["kind"], row["revision"]) for row in policies],
        digests=_digests(tx, account),
        unfinished={each.revision: each for each in rollouts.unfinished(tx, account)},
        runs=tasks.open_items(tx, account, known),
        ended=tasks.ended_runs(tx, account),
    ).prepared()


_BODY = "SELECT body FROM body WHERE account = $1 AND digest = $2"


def layout_with_bodies(tx: Transaction, account: str, before: Layout | None) -> tuple[Layout, dict[bytes, bytes]]:
    """The same, and by digest the bodies that are new in it, if they are few and small: no link could send its set before they
    are read."""
    found = layout(tx, account, before)
    new = found.bodies - before.bodies if before is not None else frozenset()
    if len(new) > FEW:
        return found, {}
    bodies = {digest: tx.row(f"{_BODY} AND length(body) <= $3", account, digest, SMALL) for digest in new}
    return found, {bytes.fromhex(digest): bytes(row["body"]) for digest, row in bodies.items() if row is not None}


def _digests(tx: Transaction, account: str) -> dict[int, str]:
    """The bodies of the revisions that some server may have: the present ones, and those before a rollout that is not done."""
    sql = """
        SELECT revision, digest FROM policy_revision WHERE account = $1 AND digest IS NOT NULL AND revision IN (
            SELECT revision FROM policy WHERE account = $1
            UNION ALL SELECT before FROM rollout WHERE account = $1 AND state <> 'done'
        )
    """
    return {row["revision"]: row["digest"] for row in tx.rows(sql, account)}


def _node(row: Row, path: str) -> Node:
    return Node(row["id"], row["parent"], path, _window(row), row["window_revision"])


def _window(row: Row) -> bytes | None:
    if row["window_start"] is None:
        return None
    window = {"seconds": row["window_seconds"], "start": row["window_start"], "zone": row["window_zone"] or ""}
    return json.dumps(window, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def body(tx: Transaction, account: str, digest: bytes) -> bytes | None:
    """The body of this SHA-256."""
    row = tx.row(_BODY, account, digest.hex())
    return None if row is None else bytes(row["body"])
