"""How a server comes and goes by itself: invite, validate, register, leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist_primary.model import api_keys as keys
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.api_keys import ApiKey, Kind
from enlist_primary.model.servers import REQUEST_LIFETIME, Event, Server, State, after, asking
from enlist_primary.model.sources import block
from enlist_primary.model.users import Actor
from enlist_primary.operations import api_keys, groups, levels
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, changes, servers
from enlist_primary.store import api_keys as key_rows
from enlist_primary.store import groups as group_rows
from enlist_primary.store.changes import about_server
from enlist_primary.store.database import Transaction
from enlist_primary.store.groups import Group

NewId = Callable[[], str]


@dataclass(frozen=True)
class Caps:
    """How many servers may wait for a decision: in an account, and from one address without an API key."""

    per_account: int
    per_address: int


@dataclass(frozen=True)
class Asked:
    """A registration whose proof held. `key` is the fingerprint of `public_key`, `source` the address it came from."""

    name: str
    api_key: str
    key: str
    public_key: bytes
    server_address: str
    version: str
    source: str


@dataclass(frozen=True)
class Place:
    """What a registration leads to, before anything is written: a state, a group, and an invitation's name if it has one."""

    state: State
    group: str
    name: str | None
    contact: str


def invite(
    tx: Transaction, account: str, name: str | None, group: str, secret: tuple[str, str], by: Actor, new_id: NewId, now: int
) -> Server:
    """Keeps a place for a server; `secret` is id and secret part of the single-use full API key in its join line.

    Like a server that asks with an API key, one that is given no group stands in the landing group.
    """
    locked = accounts.lock(tx, account)
    if account == PRIMARY:
        raise Refused(Reason.INVALID_ARGUMENT, "Servers are invited to an account; the primary's own has none.")
    place = group_rows.by_id(tx, account, groups.ensure(tx, account, group, by, new_id, now))
    if place.path == names.ROOT_GROUP:
        place = _landing(tx, locked)
    id, expires = new_id(), now + REQUEST_LIFETIME
    number = record(tx, account, "server.invite", about_server(id), by, now, name=name, group=place.path, api_key=secret[0])
    server = Server(
        account=account,
        id=id,
        name=names.display_name(name) if name else None,
        group_id=place.id,
        group=place.path,
        state=after(None, Event.INVITE),
        since=now,
        created_at=now,
        expires_at=expires,
        revision=number,
    )
    servers.insert(tx, server)
    key = ApiKey(account, secret[0], keys.hash_of(secret[1]), Kind.FULL, now, place.id, place.path, id, 0, 1, (), expires)
    key_rows.insert(tx, key)
    return server


def validate(tx: Transaction, domain: str, api_key: str, source: str, now: int) -> Place:
    """What registering in this account with this API key would lead to. Writes nothing."""
    account = accounts.load(tx, domain)
    key = api_keys.presented(tx, account, api_key, source, now)
    invited = _invitation(tx, account, key)
    state = State.TRUSTED if key is not None and key.kind is Kind.FULL else State.PENDING
    group = _group(tx, account, invited, key)
    return Place(state, group.path, invited.name if invited else None, account.contact or "")


def register(tx: Transaction, domain: str, asked: Asked, caps: Caps, new_id: NewId, now: int) -> tuple[Server, Account]:
    """A server asks to join an account. The same key asking again gets the same answer and uses nothing up.

    Refused besides what an API key is refused for: SERVER_DENIED, SERVER_REVOKED, TOO_MANY_PENDING.
    """
    account = accounts.lock(tx, domain)
    row = servers.by_key(tx, domain, asked.key)
    known = row.at(now) if row else None
    if known is not None and _stands(tx, account, known, asked.api_key):
        return known, account
    key = api_keys.presented(tx, account, asked.api_key, asked.source, now)
    invited = _invitation(tx, account, key)
    state = _led_to(known, invited, key, now)
    if state is State.PENDING:
        _check_caps(tx, asked, domain, caps, now, exempt=key is not None)
    group = _group(tx, account, invited, key)
    server = _placed(group, known or invited, invited, asked, key, state, new_id, now)
    if key is not None and state is State.TRUSTED:
        server = replace(server, revision=_recorded(tx, server, key, "invited" if invited else "full API key", now))
    if known is not None and invited is not None:  # the key had a row of its own: it takes the invitation's name and group
        api_keys.withdraw_invitation(tx, domain, invited.id, _itself(server), now)
    _write(tx, server, key, now, new=known is None and invited is None)
    if state is State.PENDING:  # a stranger's request is no decision, so no journal entry notes it
        changes.note(tx, domain, now, about_server(server.id))
    return server, account


def _stands(tx: Transaction, account: Account, known: Server, api_key: str) -> bool:
    """Whether this key's row answers the registration as it is, so that no API key is looked at or used up."""
    if known.state in (State.TRUSTED, State.SUSPENDED):
        return True
    if known.state is not State.PENDING:
        return False
    key = api_keys.recognised(tx, account, api_key) if api_key else None
    return key is None or key.kind is Kind.RESTRICTED or known.asked_with == _asked_with(key)


def _led_to(known: Server | None, invited: Server | None, key: ApiKey | None, now: int) -> State:
    """The state that asking leads to; where the table has none, the refusal says what happened to the server."""
    full = key is not None and key.kind is Kind.FULL
    state, since = (known.state, known.since) if known else (None, 0)
    event = asking(state, since, key is not None, full, now)
    place = known or invited
    try:
        return after(place.state if place else None, event)
    except Refused:
        assert place is not None, "a server nobody knows may always ask"
        raise standings.not_trusted(place.state, place.since, place.reason or "") from None


def _group(tx: Transaction, account: Account, invited: Server | None, key: ApiKey | None) -> Group:
    """Where a server lands that asks so: where its invitation stands, where its API key leads, or in the landing group."""
    if invited is not None:
        return group_rows.by_id(tx, account.domain, invited.group_id)
    if key is not None and key.account == account.domain and key.group_id is not None and key.group != names.ROOT_GROUP:
        return group_rows.by_id(tx, account.domain, key.group_id)
    return _landing(tx, account)  # a vendor's API key names no group


def _landing(tx: Transaction, account: Account) -> Group:
    return group_rows.by_id(tx, account.domain, account.landing_group or group_rows.root(tx, account.domain))


def _placed(
    group: Group,
    place: Server | None,
    invited: Server | None,
    asked: Asked,
    key: ApiKey | None,
    state: State,
    new_id: NewId,
    now: int,
) -> Server:
    """The row as the registration leaves it. From a row that is past nothing is inherited but its id."""
    return Server(
        account=group.account,
        id=place.id if place else new_id(),
        name=invited.name if invited and invited.name else names.display_name(asked.name),
        group_id=group.id,
        group=group.path,
        state=state,
        since=now,
        created_at=now,
        key=asked.key,
        public_key=asked.public_key,
        source=asked.source,
        server_address=asked.server_address or None,
        version=names.note(asked.version, "version", 40) or None,
        expires_at=now + REQUEST_LIFETIME if state is State.PENDING else None,
        asked_with=_asked_with(key),
        revision=place.revision if place else 0,
        labels=invited.labels if invited else (),
    )


def _recorded(tx: Transaction, server: Server, key: ApiKey, evidence: str, now: int) -> int:
    """Journals that a server joined already trusted."""
    by, subject, fingerprint = _itself(server), about_server(server.id), server.key
    return record(
        tx, server.account, "server.register", subject, by, now, evidence, name=server.name, api_key=key.id, key=fingerprint
    )


def _itself(server: Server) -> Actor:
    """A server as the one who acts, known by the proof that it holds its key."""
    return Actor(f"server/{server.id}", "proof", server.source or "")


def _asked_with(key: ApiKey | None) -> str:
    return f"api-key/{key.id}" if key else keys.DEFAULT


def _write(tx: Transaction, server: Server, key: ApiKey | None, now: int, new: bool) -> None:
    if key is not None and not key_rows.use(tx, key):  # a vendor's API key may have ended since: its account is not locked
        keys.check(key_rows.load(tx, key.account, key.id), server.source or "", now)
    if new:
        servers.insert(tx, server)
    else:
        servers.update(tx, server)


def _invitation(tx: Transaction, account: Account, key: ApiKey | None) -> Server | None:
    """The place that was kept for whoever holds this API key, while it is free."""
    if key is None or key.server_id is None:
        return None
    server = servers.load(tx, account.domain, key.server_id)
    if server.state is not State.INVITED:  # its API key ends with it; should one not, it opens nothing
        raise keys.invalid()
    return server


def _check_caps(tx: Transaction, asked: Asked, domain: str, caps: Caps, now: int, exempt: bool) -> None:
    sources = servers.undecided_sources(tx, domain, asked.key, now)
    near = sum(count for source, count in sources.items() if block(source) == block(asked.source))
    full = sum(sources.values()) >= caps.per_account
    if full or (not exempt and near >= caps.per_address):
        where, key = ("for this account", "a full API key") if full else (f"from {asked.source}", "an API key")
        raise Refused(
            Reason.TOO_MANY_PENDING,
            f"Too many servers wait for a decision {where}. Ask the administrator to decide about them, or use {key}.",
        )


def leave(tx: Transaction, domain: str, key: str, source: str, now: int) -> Server:
    """A server takes its request back, or leaves the account; what holds already is returned as it is."""
    accounts.lock(tx, domain)
    row = servers.by_key(tx, domain, key)
    if row is None:
        raise unknown_key()
    server = row.at(now)
    state = after(server.state, Event.LEAVE)
    if state is server.state:
        return server
    number = server.revision
    if server.state is State.PENDING:  # a stranger's request was no decision, so taking it back is none
        changes.note(tx, domain, now, about_server(server.id))
    else:
        by = Actor(f"server/{server.id}", "proof", source)
        number = record(tx, domain, "server.leave", about_server(server.id), by, now, name=server.name)
        levels.bequeath(tx, domain, server.id, None, now, required=False)  # it has said itself what stays below
        server = replace(server, may_have_secondaries=False, child_primary_id=None, bequest=None)
    changed = replace(server, state=state, since=now, expires_at=None, revision=number, reason=None)
    servers.update(tx, changed)
    return changed


def unknown_key() -> Refused:
    """The answer to a key that never registered in the account."""
    return Refused(Reason.SERVER_UNKNOWN, "This server has not registered in this account.")
