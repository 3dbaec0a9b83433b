"""The SQL of what was seen, not decided: overwritten in place, written in batches, lost in a crash without harm."""

from __future__ import annotations

from dataclasses import dataclass

from enlist_primary.store.database import Transaction


@dataclass(frozen=True)
class Seen:
    """The last the primary saw of a server's link. Times are Unix seconds."""

    connected_at: int | None = None
    disconnected_at: int | None = None
    address: str | None = None
    version: str | None = None
    server_address: str | None = None
    """Where clients find it, as it said when the link opened; empty if nowhere, None if it never said."""
    kinds: str | None = None
    """What it has handlers for, `policy/{kind}` and `task/{kind}` separated by spaces, as it said when the link opened; or None."""

    @property
    def open(self) -> bool:
        """Whether the link was open when this was written: `disconnected_at` is taken back when the next one opens."""
        return self.connected_at is not None and (self.disconnected_at is None or self.disconnected_at < self.connected_at)


@dataclass(frozen=True)
class Sighting:
    """What was last seen of one server of an account."""

    id: str
    seen: Seen


@dataclass(frozen=True)
class Refusals:
    """How often attempts on an account were refused for one reason, in all."""

    account: str
    reason: str
    count: int
    last_at: int
    last_source: str | None


def save_seen(tx: Transaction, account: str, id: str, seen: Seen) -> None:
    """Overwrites what was seen of a server; one that is gone meanwhile is passed over."""
    sql = """
        INSERT INTO server_observation (account, id, connected_at, disconnected_at, address, version, server_address, kinds)
        SELECT account, id, $3, $4, $5, $6, $7, $8 FROM server WHERE account = $1 AND id = $2
        ON CONFLICT (account, id) DO UPDATE SET connected_at = excluded.connected_at,
            disconnected_at = excluded.disconnected_at, address = excluded.address, version = excluded.version,
            server_address = excluded.server_address, kinds = excluded.kinds
    """
    values = (seen.connected_at, seen.disconnected_at, seen.address, seen.version, seen.server_address, seen.kinds)
    tx.run(sql, account, id, *values)


def seen(tx: Transaction) -> dict[tuple[str, str], Seen]:
    """What was last seen of every server, by (account, id)."""
    rows = tx.rows("SELECT * FROM server_observation")
    return {
        (r["account"], r["id"]): Seen(
            r["connected_at"], r["disconnected_at"], r["address"], r["version"], r["server_address"], r["kinds"]
        )
        for r in rows
    }


def save_refusals(tx: Transaction, total: Refusals) -> None:
    """Overwrites the counter of an account and reason; the account must be there."""
    sql = """
        INSERT INTO counter (account, name, count, last_at, last_source) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (account, name) DO UPDATE SET count = excluded.count, last_at = excluded.last_at,
            last_source = excluded.last_source
    """
    tx.run(sql, total.account, total.reason, total.count, total.last_at, total.last_source)


def refusals(tx: Transaction) -> list[Refusals]:
    """All counters, by account and reason."""
    rows = tx.rows("SELECT account, name, count, last_at, last_source FROM counter ORDER BY account, name")
    return [Refusals(row["account"], row["name"], row["count"], row["last_at"], row["last_source"]) for row in rows]
