"""The SQL of levels: the primary above this one and its sets, and what stands below middle servers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from enlist import certificates, documents, layers, names
from enlist.documents import Place, SetVersion
from enlist.layers import Layer
from enlist.origins import Memory
from enlist.reasons import Refused
from enlist.runtime.terminal import escape
from enlist.v1 import document_pb2
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import BelowServer, Bequest, Upper, UpperLayer, UpperState
from enlist_primary.model.servers import State
from enlist_primary.store import desired
from enlist_primary.store.database import Row, Transaction, Value, rows_of

# --- Above ------------------------------------------------------------------------------------------------------------------


def epoch(tx: Transaction) -> int:
    """The epoch of everything that this primary signs."""
    row = tx.row("SELECT epoch FROM account WHERE domain = $1", PRIMARY)
    assert row is not None, "every primary is made with its own account"
    return int(row["epoch"])


def upper(tx: Transaction) -> Upper | None:
    """The primary above this one, or the last that was."""
    row = tx.row("SELECT * FROM upper WHERE account = $1", PRIMARY)
    if row is None:
        return None
    parts = (bytes(row[each]) for each in ("authority", "consent", "signature", "ancestry"))
    authority, consent, signature, ancestry = parts
    memory = Memory.from_json(row["memory"])
    return Upper(authority, row["name"], UpperState(row["state"]), consent, signature, ancestry, memory)


def save_upper(tx: Transaction, upper: Upper) -> None:
    """The primary above as it is now."""
    sql = """
        INSERT INTO upper (account, authority, name, state, consent, signature, ancestry, memory)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (account) DO UPDATE SET authority = excluded.authority, name = excluded.name, state = excluded.state,
            consent = excluded.consent, signature = excluded.signature, ancestry = excluded.ancestry, memory = excluded.memory
    """
    values = (upper.authority, upper.name, upper.state.value, upper.consent, upper.signature, upper.ancestry)
    tx.run(sql, PRIMARY, *values, upper.memory.to_json())


def upper_sets(tx: Transaction) -> dict[str, bytes]:
    """The newest signed set of each primary above, by its primary id."""
    rows = tx.rows("SELECT origin, signed FROM upper_set WHERE account = $1", PRIMARY)
    return {row["origin"]: bytes(row["signed"]) for row in rows}


def held_versions(tx: Transaction) -> dict[Place, SetVersion]:
    """The versions of those sets."""
    sets = {origin: _said(signed) for origin, signed in upper_sets(tx).items()}
    return {Place(origin, said.account, said.target): SetVersion(said.epoch, said.number) for origin, said in sets.items()}


def save_upper_set(tx: Transaction, origin: str, signed: bytes, bodies: Iterable[tuple[str, bytes]]) -> None:
    """A set from above with the bodies that came with it, by their digests in hex."""
    for digest, body in bodies:
        sql = "INSERT INTO body (account, digest, body) VALUES ($1, $2, $3) ON CONFLICT (account, digest) DO NOTHING"
        tx.run(sql, PRIMARY, digest, body)
    sql = """
        INSERT INTO upper_set (account, origin, signed) VALUES ($1, $2, $3)
        ON CONFLICT (account, origin) DO UPDATE SET signed = excluded.signed
    """
    tx.run(sql, PRIMARY, origin, signed)
    _forget_bodies(tx)


def forget_upper_sets(tx: Transaction, origins: Iterable[str]) -> None:
    """Drops the sets of primaries that are not above any more."""
    for origin in origins:
        tx.run("DELETE FROM upper_set WHERE account = $1 AND origin = $2", PRIMARY, origin)
    _forget_bodies(tx)


def _forget_bodies(tx: Transaction) -> None:
    """Drops the bodies from above that no set names any more."""
    named = {item.digest.hex() for signed in upper_sets(tx).values() for item in _said(signed).items}
    for row in tx.rows("SELECT digest FROM body WHERE account = $1", PRIMARY):
        if row["digest"] not in named:
            tx.run("DELETE FROM body WHERE account = $1 AND digest = $2", PRIMARY, row["digest"])


def upper_layers(tx: Transaction, kind: str) -> list[UpperLayer]:
    """The layers of a policy from above, from the top down; all was verified when it came.

    Of a primary that left what it set to be changed, and of those above it, without locks.
    """
    row, sets = upper(tx), upper_sets(tx)
    if row is None or not sets:
        return []
    found: list[list[UpperLayer]] = []
    unlocked = False
    for ancestor in document_pb2.Ancestry.FromString(row.ancestry).ancestors:
        unlocked = unlocked or document_pb2.Consent.FromString(ancestor.consent).state == document_pb2.ANCESTOR_STATE_KEPT
        signed = sets.get(certificates.read_authority(ancestor.authority_certificate).primary_id)
        if signed is not None:
            found.append(_layers(tx, kind, escape(ancestor.primary_name), signed, unlocked))
    return [layer for layers in reversed(found) for layer in layers]


def _layers(tx: Transaction, kind: str, primary: str, signed: bytes, unlocked: bool) -> list[UpperLayer]:
    message = _said(signed)
    found = []
    for item in message.items:
        if item.kind == documents.POLICY + kind and (body := desired.body(tx, PRIMARY, item.digest)) is not None:
            place = message.account if item.name == names.ROOT_GROUP else f"{message.account}/{item.name}"
            found.append(UpperLayer(f"{primary}: {escape(place)}", item.revision, *_read(body, unlocked)))
    return found


def _said(signed: bytes) -> document_pb2.DesiredSet:
    return document_pb2.DesiredSet.FromString(document_pb2.SignedSet.FromString(signed).desired_set)


def _read(body: bytes, unlocked: bool) -> tuple[Layer | None, str]:
    """A layer, or why it cannot be read: a primary above may be newer than this one."""
    try:
        said = layers.decode(body)
    except Refused as refused:
        return None, escape(refused.message)
    return Layer(said.settings, () if unlocked else said.locks, said.put_back), ""


# --- Middle servers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Middle:
    """Whether a server's host may run a primary under this one, and the one that it runs."""

    may_have_secondaries: bool
    child_primary_id: str | None
    cross_certificate: bytes | None


def middle(tx: Transaction, account: str, id: str) -> Middle:
    """A server's part as a middle server."""
    sql = "SELECT may_have_secondaries, child_primary_id, cross_certificate FROM server WHERE account = $1 AND id = $2"
    row = tx.row(sql, account, id)
    if row is None:
        return Middle(False, None, None)
    certificate = row["cross_certificate"]
    made = bytes(certificate) if certificate is not None else None
    return Middle(bool(row["may_have_secondaries"]), row["child_primary_id"], made)


def allow(tx: Transaction, account: str, id: str, may: bool, revision: int) -> None:
    """Whether a primary on a server's host may stand under this one."""
    sql = "UPDATE server SET may_have_secondaries = $3, revision = $4 WHERE account = $1 AND id = $2"
    tx.run(sql, account, id, int(may), revision)
    if may:
        tx.run("UPDATE server SET bequest = NULL WHERE account = $1 AND id = $2", account, id)


def certify(tx: Transaction, account: str, id: str, child_primary_id: str, cross_certificate: bytes) -> None:
    """The primary that stands below a server."""
    sql = "UPDATE server SET child_primary_id = $3, cross_certificate = $4 WHERE account = $1 AND id = $2"
    tx.run(sql, account, id, child_primary_id, cross_certificate)


def last_not_before(tx: Transaction, child_key: str) -> int | None:
    """When the newest cross-certificate over a child's key begins, in any account; None if there never was one."""
    row = tx.row("SELECT not_before FROM certified_key WHERE child_key = $1", child_key)
    return None if row is None else int(row["not_before"])


def next_not_before(tx: Transaction, child_key: str, earliest: int) -> int:
    """When the next one begins: strictly later. It is one statement because no account's lock covers two accounts."""
    sql = """
        INSERT INTO certified_key (child_key, not_before) VALUES ($1, $2)
        ON CONFLICT (child_key) DO UPDATE SET not_before = CASE
            WHEN excluded.not_before > certified_key.not_before THEN excluded.not_before ELSE certified_key.not_before + 1 END
        RETURNING not_before
    """
    row = tx.row(sql, child_key, earliest)
    assert row is not None, "RETURNING gives the row that was written"
    return int(row["not_before"])


def bequeath(tx: Transaction, account: str, id: str, bequest: Bequest | None) -> None:
    """What becomes of what was set below a server that is removed; nothing of it stands below any more."""
    sql = """
        UPDATE server SET bequest = $3, may_have_secondaries = 0, child_primary_id = NULL, cross_certificate = NULL
        WHERE account = $1 AND id = $2
    """
    tx.run(sql, account, id, bequest.value if bequest else None)
    forget_below(tx, account, id)


def bequest(tx: Transaction, account: str, id: str) -> Bequest | None:
    """What was said to become of it."""
    row = tx.row("SELECT bequest FROM server WHERE account = $1 AND id = $2", account, id)
    return Bequest(row["bequest"]) if row is not None and row["bequest"] else None


# --- Below ------------------------------------------------------------------------------------------------------------------


def below(tx: Transaction, account: str | None = None) -> list[BelowServer]:
    """What last stood below middle servers, of one account or of all, by account, middle server and path."""
    where = "" if account is None else "WHERE account = $1"
    rows = tx.rows(f"SELECT * FROM below_server {where} ORDER BY account, via, path", *(() if account is None else (account,)))
    return [_below(row) for row in rows]


def find_below(tx: Transaction, account: str, via: str, path: str) -> BelowServer | None:
    """One of them; None if it stands there no more."""
    row = tx.row("SELECT * FROM below_server WHERE account = $1 AND via = $2 AND path = $3", account, via, path)
    return None if row is None else _below(row)


_SAVE = f"""
    WITH said AS MATERIALIZED (
        {rows_of("account", "via", "path", "name", "place", "state", "connected", "connected_at", "unknown_since", "code", "kinds")}
    )
    INSERT INTO below_server (account, via, path, name, place, state, connected, connected_at, unknown_since, code, kinds)
    SELECT known.account, known.id, said.path, said.name, said.place, said.state, CAST(said.connected AS INTEGER),
        CAST(said.connected_at AS BIGINT), CAST(said.unknown_since AS BIGINT), said.code, said.kinds
    FROM said CROSS JOIN server known WHERE known.account = said.account AND known.id = said.via AND known.may_have_secondaries = 1
    ON CONFLICT (account, via, path) DO UPDATE SET name = excluded.name, place = excluded.place, state = excluded.state,
        connected = excluded.connected, connected_at = excluded.connected_at, unknown_since = excluded.unknown_since,
        code = excluded.code, kinds = excluded.kinds
"""


def save_below(tx: Transaction, servers: Iterable[BelowServer]) -> None:
    """Overwrites what was said of these servers; those below a server that is gone meanwhile are passed over."""
    if rows := [_columns(each) for each in servers]:
        tx.run(_SAVE, json.dumps(rows))


def _columns(each: BelowServer) -> tuple[Value, ...]:
    states = (each.state.value, int(each.connected), each.connected_at, each.unknown_since)
    return (each.account, each.via, each.path, each.name, each.place, *states, each.code, " ".join(each.kinds))


def forget_below(tx: Transaction, account: str, via: str, paths: Iterable[str] | None = None) -> None:
    """Drops servers below a middle server, all or these, with what they said of policies; results of tasks stay."""
    if paths is None:
        rows = tx.rows("SELECT path FROM below_server WHERE account = $1 AND via = $2", account, via)
        paths = [row["path"] for row in rows]
    for path in paths:
        tx.run("DELETE FROM below_server WHERE account = $1 AND via = $2 AND path = $3", account, via, path)
        tx.run("DELETE FROM policy_report WHERE account = $1 AND server_id = $2", account, f"{via}/{path}")


def _below(row: Row) -> BelowServer:
    return BelowServer(
        account=row["account"],
        via=row["via"],
        path=row["path"],
        name=row["name"],
        place=row["place"],
        state=State(row["state"]),
        connected=bool(row["connected"]),
        connected_at=row["connected_at"],
        unknown_since=row["unknown_since"],
        code=row["code"],
        kinds=tuple(row["kinds"].split()),
    )
