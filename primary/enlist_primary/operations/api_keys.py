"""Decisions about API keys, and what a presented one is good for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from enlist import names
from enlist.reasons import Reason, Refused
from enlist_primary.model import api_keys as model
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.api_keys import ApiKey, Kind
from enlist_primary.model.servers import Event, State, after
from enlist_primary.model.users import Actor
from enlist_primary.operations import groups
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, api_keys, servers
from enlist_primary.store.changes import about_server
from enlist_primary.store.database import Transaction

LONGEST = 100 * 365 * 86400
"""Seconds that an API key may be good for, unless it is for ever: its end is still a date, and a number the database holds."""


@dataclass(frozen=True)
class Wanted:
    """An API key to be made: lifetime in seconds, 0 or empty for no limit."""

    kind: Kind
    max_uses: int = 0
    networks: tuple[str, ...] = ()
    group: str = names.ROOT_GROUP
    lifetime: int = 0


def create(
    tx: Transaction, account: str, wanted: Wanted, id: str, secret: str, by: Actor, new_id: Callable[[], str], now: int
) -> ApiKey:
    """Makes an API key; `secret` is its secret part alone, of which the hash is kept."""
    accounts.lock(tx, account)
    if wanted.max_uses < 0 or not 0 <= wanted.lifetime <= LONGEST:
        raise Refused(Reason.INVALID_ARGUMENT, "A number of uses is above zero, and so is a lifetime, of at most 100 years.")
    if account == PRIMARY and names.group_path(wanted.group):
        raise Refused(Reason.INVALID_ARGUMENT, "The vendor's API keys count in every account, so they name no group.")
    key = ApiKey(
        account=account,
        id=id,
        secret_hash=model.hash_of(secret),
        kind=wanted.kind,
        created_at=now,
        group_id=groups.ensure(tx, account, wanted.group, by, new_id, now),
        max_uses=wanted.max_uses or None,
        networks=tuple(model.network(each) for each in wanted.networks),
        expires_at=now + wanted.lifetime if wanted.lifetime else None,
    )
    api_keys.insert(tx, key)
    record(tx, account, "api-key.create", f"apiKeys/{id}", by, now, kind=key.kind.value, group=wanted.group)
    return api_keys.load(tx, account, id)


def revoke(tx: Transaction, account: str, id: str, by: Actor, now: int) -> ApiKey:
    """Ends an API key; an invitation that stood on it is withdrawn."""
    accounts.lock(tx, account)
    key = api_keys.load(tx, account, id)
    if key.revoked_at is not None:
        return key
    api_keys.revoke(tx, account, id, now)
    record(tx, account, "api-key.revoke", f"apiKeys/{id}", by, now)
    if key.server_id is not None:
        withdraw_invitation(tx, account, key.server_id, by, now)
    return api_keys.load(tx, account, id)


def withdraw_invitation(tx: Transaction, account: str, server_id: str, by: Actor, now: int) -> None:
    """Takes back the place that was kept for whoever holds an API key, if it is still free."""
    server = servers.load(tx, account, server_id).at(now)
    if server.state is State.INVITED:
        number = record(tx, account, "server.withdraw", about_server(server_id), by, now, name=server.name)
        state = after(server.state, Event.WITHDRAW)
        servers.update(tx, replace(server, state=state, since=now, expires_at=None, revision=number))


def presented(tx: Transaction, account: Account, text: str, source: str, now: int) -> ApiKey | None:
    """What a server asks with: a valid API key, or None for the default restricted API key. Counts nothing.

    Refused: API_KEY_REQUIRED, API_KEY_INVALID, and - only where the secret matches - EXPIRED, USED_UP, NETWORK.
    """
    key = recognised(tx, account, text)
    if key is not None:
        model.check(key, source, now)
    return key


def recognised(tx: Transaction, account: Account, text: str) -> ApiKey | None:
    """The API key whose secret matches, good or not; None without one. Refused: API_KEY_REQUIRED, API_KEY_INVALID."""
    if not text:
        if not account.default_api_key:
            raise model.required()
        return None
    id, secret = model.parse(text)
    key = api_keys.find(tx, account.domain, id)
    if not model.matches(key, secret):
        raise model.invalid()
    return key
