"""The SQL of servers."""

from __future__ import annotations

from dataclasses import dataclass

from enlist.reasons import Reason, Refused
from enlist_primary.model.servers import Server, State
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import PATHS

_SELECT = f"""
{PATHS}
SELECT server.*, group_path.path AS group_path
FROM server JOIN group_path ON group_path.account = server.account AND group_path.id = server.group_id
WHERE server.account = $1
"""


def unknown(id: str) -> Refused:
    """The answer for a server that is not there, or stands in somebody else's account: one and the same."""
    return Refused(Reason.NOT_FOUND, f'There is no server "{id}" in this account.')


def load(tx: Transaction, account: str, id: str) -> Server:
    """A server; refused with NOT_FOUND if the account has none of this id."""
    row = tx.row(f"{_SELECT} AND server.id = $2", account, id)
    if row is None:
        raise unknown(id)
    return _server(row)


def by_key(tx: Transaction, account: str, key: str) -> Server | None:
    """The account's server whose key has this fingerprint."""
    row = tx.row(f"{_SELECT} AND server.key = $2", account, key)
    return None if row is None else _server(row)


def page(tx: Transaction, account: str, after: str, limit: int) -> list[Server]:
    """Servers of an account by id, those behind the id `after`."""
    return [_server(row) for row in tx.rows(f"{_SELECT} AND server.id > $2 ORDER BY server.id LIMIT $3", account, after, limit)]


def insert(tx: Transaction, server: Server) -> None:
    """A new row."""
    tx.run(
        """
        INSERT INTO server (account, id, name, group_id, state, since, created_at, key, public_key, source, server_address,
                            version, expires_at, asked_with, revision, reason)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        """,
        *_values(server),
    )


def update(tx: Transaction, server: Server) -> None:
    """The row as it stands now."""
    tx.run(
        """
        UPDATE server SET name = $3, group_id = $4, state = $5, since = $6, created_at = $7, key = $8, public_key = $9,
            source = $10, server_address = $11, version = $12, expires_at = $13, asked_with = $14, revision = $15, reason = $16
        WHERE account = $1 AND id = $2
        """,
        *_values(server),
    )


def _values(server: Server) -> tuple[str | int | bytes | None, ...]:
    return (
        server.account,
        server.id,
        server.name,
        server.group_id,
        server.state.value,
        server.since,
        server.created_at,
        server.key,
        server.public_key,
        server.source,
        server.server_address,
        server.version,
        server.expires_at,
        server.asked_with,
        server.revision,
        server.reason,
    )


def pending_count(tx: Transaction, account: str) -> int:
    """How many servers of the account wait for a decision."""
    row = tx.row("SELECT count(*) AS n FROM server WHERE account = $1 AND state = $2", account, State.PENDING.value)
    return int(row["n"]) if row else 0


def pending_from(tx: Transaction, account: str, source: str) -> int:
    """How many of them asked from this address."""
    sql = "SELECT count(*) AS n FROM server WHERE account = $1 AND source = $2 AND state = $3"
    row = tx.row(sql, account, source, State.PENDING.value)
    return int(row["n"]) if row else 0


def state_counts(tx: Transaction) -> list[tuple[str, State, int]]:
    """How many servers stand in each state, by account."""
    rows = tx.rows("SELECT account, state, count(*) AS n FROM server GROUP BY account, state ORDER BY account, state")
    return [(row["account"], State(row["state"]), row["n"]) for row in rows]


@dataclass(frozen=True)
class Standing:
    """What the directory keeps of a server: its key, and the state with its beginning and reason."""

    account: str
    id: str
    key: str
    state: State
    since: int
    reason: str | None


def standings(tx: Transaction, account: str | None = None, ids: tuple[str, ...] = ()) -> list[Standing]:
    """Of every server that holds a key and may hold a certificate; or of these servers of one account."""
    sql = "SELECT account, id, key, state, since, reason FROM server WHERE key IS NOT NULL"
    if account is None:
        rows = tx.rows(f"{sql} AND state NOT IN ('pending', 'expired', 'withdrawn')")
    else:
        rows = [row for id in ids for row in tx.rows(f"{sql} AND account = $1 AND id = $2", account, id)]
    return [Standing(r["account"], r["id"], r["key"], State(r["state"]), r["since"], r["reason"]) for r in rows]


def overdue(tx: Transaction, now: int, limit: int) -> list[tuple[str, str]]:
    """(account, id) of requests and invitations that are past their end."""
    sql = """
        SELECT account, id FROM server WHERE state IN ('pending', 'invited') AND expires_at <= $1
        ORDER BY account, id LIMIT $2
    """
    return [(row["account"], row["id"]) for row in tx.rows(sql, now, limit)]


def forget_expired(tx: Transaction, account: str, before: int) -> int:
    """Drops rows of requests that expired undecided before this moment: nothing in the journal speaks of them."""
    sql = "DELETE FROM server WHERE account = $1 AND state = 'expired' AND revision = 0 AND since < $2"
    return tx.run(sql, account, before)


def _server(row: Row) -> Server:
    return Server(
        account=row["account"],
        id=row["id"],
        name=row["name"],
        group_id=row["group_id"],
        group=row["group_path"],
        state=State(row["state"]),
        since=row["since"],
        created_at=row["created_at"],
        key=row["key"],
        public_key=row["public_key"],
        source=row["source"],
        server_address=row["server_address"],
        version=row["version"],
        expires_at=row["expires_at"],
        asked_with=row["asked_with"],
        revision=row["revision"],
        reason=row["reason"],
    )
