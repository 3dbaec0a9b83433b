"""Decisions about servers that are there."""

from __future__ import annotations

from dataclasses import replace

from enlist import names
from enlist.reasons import Reason, Refused
from enlist_primary.model.servers import Event, Server, State, after
from enlist_primary.model.users import PRIMARY_ITSELF, Actor
from enlist_primary.operations.journalling import about_server, record
from enlist_primary.store import accounts, api_keys, servers
from enlist_primary.store.database import Transaction


def decide(
    tx: Transaction, account: str, id: str, event: Event, by: Actor, now: int, evidence: str = "", reason: str = ""
) -> Server:
    """Applies what somebody decided; what holds already is returned as it is."""
    accounts.lock(tx, account)
    server = servers.load(tx, account, id).at(now)
    state = after(server.state, event)
    if state is server.state:
        return server
    names.note(reason, "reason")
    number = record(tx, account, f"server.{event.value}", about_server(id), by, now, evidence, name=server.name, reason=reason)
    if server.state is State.INVITED:
        _end_join_line(tx, server, now)
    changed = replace(server, state=state, since=now, expires_at=None, revision=number, reason=reason or None)
    servers.update(tx, changed)
    return changed


def _end_join_line(tx: Transaction, server: Server, now: int) -> None:
    key = api_keys.of_invitation(tx, server.account, server.id)
    if key is not None:
        api_keys.revoke(tx, server.account, key.id, now)


def authorize(tx: Transaction, account: str, id: str, code_matches: bool | None, by: Actor, now: int) -> Server:
    """Trusts a pending server; `code_matches` is None where no comparison code was compared."""
    if code_matches is False:
        servers.load(tx, account, id)  # whoever asks about a server that is not there learns that first
        raise Refused(
            Reason.CODE_MISMATCH,
            "The comparison code is not this server's. Read it out again at the server; if it still differs, "
            "somebody else may be asking: deny the request.",
        )
    return decide(tx, account, id, Event.AUTHORIZE, by, now, evidence="code compared" if code_matches else "none")


def rename(tx: Transaction, account: str, id: str, name: str, by: Actor, now: int) -> Server:
    """Gives a server another name for people."""
    accounts.lock(tx, account)
    server = servers.load(tx, account, id)
    if server.name == names.display_name(name):
        return server
    number = record(tx, account, "server.rename", about_server(id), by, now, before=server.name, name=name)
    changed = replace(server, name=name, revision=number)
    servers.update(tx, changed)
    return changed


def expire(tx: Transaction, account: str, now: int, limit: int = 1000) -> list[str]:
    """Ends requests and invitations past their time, at most so many, and says which; forgets those long ended. An invitation
    was a decision, so its end is journalled; a stranger's request was none, so its end is not."""
    accounts.lock(tx, account)
    overdue = servers.overdue(tx, account, now, limit)
    for server in overdue:
        late = server.at(now)
        if server.state is State.INVITED:
            number = record(tx, account, "server.expire", about_server(server.id), PRIMARY_ITSELF, now, name=server.name)
            late = replace(late, revision=number)
        servers.update(tx, late)
    servers.forget_undecided(tx, account, now)
    return [server.id for server in overdue]
