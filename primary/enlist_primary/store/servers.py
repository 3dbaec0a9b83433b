"""The SQL of servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enlist.reasons import Reason, Refused
from enlist_primary.model.servers import REQUEST_LIFETIME, TOMBSTONE_LIFETIME, Server, State
from enlist_primary.store import groups
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import path_of

_SELECT = f"SELECT server.*, {path_of('server')} AS group_path FROM server WHERE server.account = $1"

# Word for word as in the schema's indexes, or these would not be used.
_WAITING = "state = 'pending' OR state = 'withdrawn' AND revision = 0"  # for a decision, or the caps count it as if it did
_OVERDUE = "state IN ('pending', 'invited')"
_UNDECIDED = "state IN ('expired', 'withdrawn') AND revision = 0"  # requests that ended by themselves, or were taken back


def unknown(id: str) -> Refused:
    """The answer for a server that is not there, or stands in somebody else's account: one and the same."""
    return Refused(Reason.NOT_FOUND, f'There is no server "{id}" in this account.')


def load(tx: Transaction, account: str, id: str) -> Server:
    """A server; refused with NOT_FOUND if the account has none of this id."""
    row = tx.row(f"{_SELECT} AND server.id = $2", account, id)
    if row is None:
        raise unknown(id)
    return _labelled(tx, row)


def find(tx: Transaction, account: str, id: str) -> Server | None:
    """A server, or None if the account has none of this id."""
    row = tx.row(f"{_SELECT} AND server.id = $2", account, id)
    return None if row is None else _labelled(tx, row)


def by_key(tx: Transaction, account: str, key: str) -> Server | None:
    """The account's server whose key has this fingerprint."""
    row = tx.row(f"{_SELECT} AND server.key = $2", account, key)
    return None if row is None else _labelled(tx, row)


def page(tx: Transaction, account: str, after: str, limit: int) -> list[Server]:
    """Servers of an account by id, those behind the id `after`."""
    rows = tx.rows(f"{_SELECT} AND server.id > $2 ORDER BY server.id LIMIT $3", account, after, limit)
    return [_labelled(tx, row) for row in rows]


def called(tx: Transaction, account: str, name_or_id: str, after: str, limit: int) -> list[Server]:
    """Servers of an account with this name or this id, by id, those behind the id `after`."""
    # Not "id = $2 OR name = $2", and `after` inside: else a planner may read the whole account in the order of the ids.
    some = "SELECT id FROM server WHERE account = $1 AND id > $3"
    where = f"AND server.id IN ({some} AND name = $2 UNION {some} AND id = $2)"
    rows = tx.rows(f"{_SELECT} {where} ORDER BY server.id LIMIT $4", account, name_or_id, after, limit)
    return [_labelled(tx, row) for row in rows]


def trusted_below(tx: Transaction, account: str, group_ids: Sequence[str]) -> list[Server]:
    """The trusted servers that stand in these groups, by id."""
    wanted = frozenset(group_ids)
    paths = {group.id: group.path for group in groups.listed(tx, account) if group.id in wanted}
    rows = tx.rows("SELECT * FROM server WHERE account = $1 AND state = 'trusted' ORDER BY id", account)
    return [_labelled(tx, {**row, "group_path": paths[row["group_id"]]}) for row in rows if row["group_id"] in paths]


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
    _insert_labels(tx, server)


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
    tx.run("DELETE FROM server_label WHERE account = $1 AND server_id = $2", server.account, server.id)
    _insert_labels(tx, server)


def _insert_labels(tx: Transaction, server: Server) -> None:
    sql = "INSERT INTO server_label (account, server_id, label) VALUES ($1, $2, $3)"
    for label in server.labels:
        tx.run(sql, server.account, server.id, label)


def place_invitation(tx: Transaction, account: str, id: str, group_id: str) -> None:
    """Lets the API key of an invitation lead to the group where its server stands."""
    tx.run("UPDATE api_key SET group_id = $3 WHERE account = $1 AND server_id = $2", account, id, group_id)


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


def undecided_sources(tx: Transaction, account: str, key: str, now: int) -> dict[str, int]:
    """From which addresses servers with other keys than this one wait for a decision, and how many from each.

    One that took its request back counts for as long as it could have waited: else a stranger who asks, takes it back and
    asks with a new key would fill the database.
    """
    sql = f"""
        SELECT source, count(*) AS n FROM server WHERE account = $1 AND key <> $2 AND ({_WAITING})
        AND (state = 'pending' AND expires_at > $3 OR state = 'withdrawn' AND since > $4)
        GROUP BY source
    """
    return {row["source"]: row["n"] for row in tx.rows(sql, account, key, now, now - REQUEST_LIFETIME)}


def state_counts(tx: Transaction) -> list[tuple[str, State, int]]:
    """How many servers stand in each state, by account."""
    rows = tx.rows("SELECT account, state, count(*) AS n FROM server GROUP BY account, state ORDER BY account, state")
    return [(row["account"], State(row["state"]), row["n"]) for row in rows]


@dataclass(frozen=True)
class Standing:
    """What the directory keeps of a server: its key, the state with its beginning and reason, and its group."""

    account: str
    id: str
    key: str
    state: State
    since: int
    reason: str | None
    group_id: str = ""


def standings(tx: Transaction, account: str | None = None, ids: Sequence[str] | None = None) -> list[Standing]:
    """Of every server that holds a key and may hold a certificate; or of one account all that hold a key, or these of them."""
    sql = "SELECT account, id, key, state, since, reason, group_id FROM server WHERE key IS NOT NULL"
    if account is None:
        rows = tx.rows(f"{sql} AND state NOT IN ('pending', 'expired', 'withdrawn')")
    elif ids is None:
        rows = tx.rows(f"{sql} AND account = $1", account)
    else:
        rows = [row for id in ids for row in tx.rows(f"{sql} AND account = $1 AND id = $2", account, id)]
    return [Standing(r["account"], r["id"], r["key"], State(r["state"]), r["since"], r["reason"], r["group_id"]) for r in rows]


def accounts_to_sweep(tx: Transaction, now: int) -> list[str]:
    """Accounts with requests or invitations that are past their end, or with undecided requests to be forgotten."""
    due = f"SELECT 1 FROM server WHERE server.account = domain AND {_OVERDUE} AND expires_at <= $1"
    sql = f"""
        SELECT domain FROM account WHERE EXISTS ({due})
        UNION ALL SELECT account FROM server WHERE {_UNDECIDED} AND since <= $2
    """  # each half reads an index of the few rows it is about; together, sorted by SQL, they would read all rows
    return sorted({row["domain"] for row in tx.rows(sql, now, now - TOMBSTONE_LIFETIME)})


def overdue(tx: Transaction, account: str, now: int, limit: int) -> list[Server]:
    """Requests and invitations of an account that are past their end."""
    rows = tx.rows(f"{_SELECT} AND {_OVERDUE} AND expires_at <= $2 LIMIT $3", account, now, limit)
    return [_labelled(tx, row) for row in rows]


def forget_undecided(tx: Transaction, account: str, now: int) -> int:
    """Drops rows of requests that ended long ago without a decision: nothing in the journal speaks of them."""
    sql = f"DELETE FROM server WHERE account = $1 AND {_UNDECIDED} AND since <= $2"
    return tx.run(sql, account, now - TOMBSTONE_LIFETIME)


def _labelled(tx: Transaction, row: Row) -> Server:
    """A row with its server's labels: no SQL that every engine knows brings both at once."""
    labels = tx.rows("SELECT label FROM server_label WHERE account = $1 AND server_id = $2", row["account"], row["id"])
    return _server(row, tuple(sorted(each["label"] for each in labels)))


def _server(row: Row, labels: tuple[str, ...]) -> Server:
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
        may_have_secondaries=bool(row["may_have_secondaries"]),
        child_primary_id=row["child_primary_id"],
        bequest=row["bequest"],
        labels=labels,
    )
