"""Decisions about servers that are there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from enlist import names
from enlist.reasons import Reason, Refused
from enlist_primary.model.levels import Bequest
from enlist_primary.model.servers import LIVING, Event, Server, State, after
from enlist_primary.model.users import PRIMARY_ITSELF, Actor
from enlist_primary.operations import levels
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, api_keys, changes, groups, servers
from enlist_primary.store.changes import Coarse, about_server
from enlist_primary.store.database import Transaction
from enlist_primary.store.groups import Group

LABELS = 32
"""Labels of a server, at most."""


def decide(
    tx: Transaction,
    account: str,
    id: str,
    event: Event,
    by: Actor,
    now: int,
    evidence: str = "",
    reason: str = "",
    group: str = "",
    bequest: Bequest | None = None,
) -> Server:
    """Applies what somebody decided; what holds already is returned as it is. `group` is where the server shall stand then.

    `bequest` says what becomes of what was set below a middle server that is removed.
    """
    accounts.lock(tx, account)
    server = servers.load(tx, account, id).at(now)
    state = after(server.state, event)
    place = groups.find(tx, account, group) if group else None
    if state is server.state:
        return _moved(tx, server, place, by, now) if place else server
    names.note(reason, "reason")
    if event in (Event.REMOVE, Event.REVOKE):
        levels.bequeath(tx, account, id, bequest, now, required=True)
        server = replace(server, may_have_secondaries=False, child_primary_id=None, bequest=bequest.value if bequest else None)
    action, path = f"server.{event.value}", place.path if place else None
    number = record(tx, account, action, about_server(id), by, now, evidence, name=server.name, reason=reason, group=path)
    if server.state is State.INVITED:
        _end_join_line(tx, server, now)
    changed = replace(server, state=state, since=now, expires_at=None, revision=number, reason=reason or None)
    if place is not None:
        changed = replace(changed, group_id=place.id, group=place.path)
    servers.update(tx, changed)
    return changed


def _end_join_line(tx: Transaction, server: Server, now: int) -> None:
    key = api_keys.of_invitation(tx, server.account, server.id)
    if key is not None:
        api_keys.revoke(tx, server.account, key.id, now)


def authorize(
    tx: Transaction,
    account: str,
    id: str,
    code_matches: bool | None,
    by: Actor,
    now: int,
    group: str = "",
    may_have_secondaries: bool | None = None,
    bequest: Bequest | None = None,
) -> Server:
    """Trusts a pending server, and puts it in a group if one is given: one decision.

    `code_matches` is None where no comparison code was compared. One that is trusted already is only moved, and told whether a
    primary on its host may stand under this one (None: that stays as it is).
    """
    if bequest is not None and may_have_secondaries is not False:
        sentence = "What becomes of what was set below is said where it ends: --below goes with --no-may-have-secondaries."
        raise Refused(Reason.INVALID_ARGUMENT, sentence)
    if code_matches is False:
        servers.load(tx, account, id)  # whoever asks about a server that is not there learns that first
        raise Refused(
            Reason.CODE_MISMATCH,
            "The comparison code is not this server's. Read it out again at the server; if it still differs, "
            "somebody else may be asking: deny the request.",
        )
    evidence = "code compared" if code_matches else "none"
    server = decide(tx, account, id, Event.AUTHORIZE, by, now, evidence, group=group)
    if may_have_secondaries is None:
        return server
    levels.allow(tx, account, id, may_have_secondaries, bequest, by, now)
    return servers.load(tx, account, id)


def move(tx: Transaction, account: str, id: str, group: str, by: Actor, now: int) -> Server:
    """Puts a server in a group that is there; its trust and its link stay as they are."""
    accounts.lock(tx, account)
    server = _living(tx, account, id, now)
    return _moved(tx, server, groups.find(tx, account, group), by, now)


def _moved(tx: Transaction, server: Server, place: Group, by: Actor, now: int) -> Server:
    if server.group_id == place.id:
        return server
    subject, before = about_server(server.id), server.group
    number = record(tx, server.account, "server.move", subject, by, now, name=server.name, before=before, after=place.path)
    changed = replace(server, group_id=place.id, group=place.path, revision=number)
    servers.update(tx, changed)
    if server.state is State.INVITED:
        servers.place_invitation(tx, server.account, server.id, place.id)
    return changed


def label(tx: Transaction, account: str, id: str, add: Collection[str], remove: Collection[str], by: Actor, now: int) -> Server:
    """Adds labels to a server and takes labels away; what holds already is returned as it is."""
    accounts.lock(tx, account)
    server = _living(tx, account, id, now)
    added, removed = ({names.label(each) for each in labels} for labels in (add, remove))
    if both := added & removed:
        raise Refused(Reason.INVALID_ARGUMENT, f'The label "{min(both)}" cannot be added and taken away at once.')
    before = set(server.labels)
    wanted = (before | added) - removed
    if wanted == before:
        return server
    if len(wanted) > LABELS:
        raise Refused(Reason.INVALID_ARGUMENT, f"A server bears at most {LABELS} labels.")
    more, less = (" ".join(sorted(labels)) for labels in (wanted - before, before - wanted))
    number = record(tx, account, "server.label", about_server(id), by, now, name=server.name, added=more, removed=less)
    changed = replace(server, labels=tuple(sorted(wanted)), revision=number)
    servers.update(tx, changed)
    return changed


def _living(tx: Transaction, account: str, id: str, now: int) -> Server:
    """A server that is, or may soon be, part of the tree; of one that is past there is nothing to arrange."""
    server = servers.load(tx, account, id).at(now)
    if server.state not in LIVING:
        raise Refused(Reason.STATE_FORBIDS, f"The server is {server.state}: it stands in no group, and bears no labels.")
    return server


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
    was a decision, so its end is journalled; a stranger's request was none, so its end is noted in the change log only."""
    accounts.lock(tx, account)
    overdue = servers.overdue(tx, account, now, limit)
    for server in overdue:
        late = server.at(now)
        if server.state is State.INVITED:
            number = record(tx, account, "server.expire", about_server(server.id), PRIMARY_ITSELF, now, name=server.name)
            late = replace(late, revision=number)
        servers.update(tx, late)
    changes.note(tx, account, now, *(about_server(each.id) for each in overdue if each.state is not State.INVITED))
    if servers.forget_undecided(tx, account, now):
        changes.note_coarse(tx, account, now, Coarse.SERVERS)
    return [server.id for server in overdue]
