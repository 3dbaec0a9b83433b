"""The SQL of API keys."""

from __future__ import annotations

from enlist.names import ROOT_GROUP
from enlist.reasons import Reason, Refused
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import ApiKey, Kind
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import path_of

_SELECT = f"SELECT api_key.*, {path_of('api_key')} AS group_path FROM api_key WHERE api_key.account = $1"


def insert(tx: Transaction, key: ApiKey) -> None:
    """A new row."""
    tx.run(
        """
        INSERT INTO api_key (account, id, secret_hash, kind, created_at, group_id, server_id, uses, max_uses, networks, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        key.account,
        key.id,
        key.secret_hash,
        key.kind.value,
        key.created_at,
        key.group_id,
        key.server_id,
        key.uses,
        key.max_uses,
        ",".join(key.networks) or None,
        key.expires_at,
    )


def load(tx: Transaction, account: str, id: str) -> ApiKey:
    """An API key; refused with NOT_FOUND if the account has none of this id."""
    row = tx.row(f"{_SELECT} AND api_key.id = $2", account, id)
    if row is None:
        raise Refused(Reason.NOT_FOUND, f'There is no API key "{id}" in this account.')
    return _api_key(row)


def find(tx: Transaction, account: str, id: str) -> ApiKey | None:
    """The API key of this id that counts in the account: its own, or the vendor's."""
    for owner in (account, PRIMARY):
        row = tx.row(f"{_SELECT} AND api_key.id = $2", owner, id)
        if row is not None:
            return _api_key(row)
    return None


def of_invitation(tx: Transaction, account: str, server_id: str) -> ApiKey | None:
    """The API key that was made for an invited server."""
    row = tx.row(f"{_SELECT} AND api_key.server_id = $2", account, server_id)
    return None if row is None else _api_key(row)


def use(tx: Transaction, key: ApiKey) -> bool:
    """Counts one use more; False if it has been used as often as it may be. The row is locked from here to the commit."""
    sql = """
        UPDATE api_key SET uses = uses + 1
        WHERE account = $1 AND id = $2 AND revoked_at IS NULL AND (max_uses IS NULL OR uses < max_uses)
    """
    return tx.run(sql, key.account, key.id) == 1


def revoke(tx: Transaction, account: str, id: str, now: int) -> None:
    """Ends an API key."""
    tx.run("UPDATE api_key SET revoked_at = $3 WHERE account = $1 AND id = $2", account, id, now)


def listed(tx: Transaction, account: str) -> list[ApiKey]:
    """The API keys of an account in the order they were made."""
    return [_api_key(row) for row in tx.rows(f"{_SELECT} ORDER BY api_key.created_at, api_key.id", account)]


def _api_key(row: Row) -> ApiKey:
    return ApiKey(
        account=row["account"],
        id=row["id"],
        secret_hash=row["secret_hash"],
        kind=Kind(row["kind"]),
        created_at=row["created_at"],
        group_id=row["group_id"],
        group=row["group_path"] or ROOT_GROUP,
        server_id=row["server_id"],
        uses=row["uses"],
        max_uses=row["max_uses"],
        networks=tuple(row["networks"].split(",")) if row["networks"] else (),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
