"""Decisions about groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import schedules
from enlist.runtime.schedules import Window
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.users import Actor
from enlist_primary.operations import policies
from enlist_primary.operations.journalling import about_group, record
from enlist_primary.store import accounts, groups
from enlist_primary.store import policies as policy_rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.groups import Group

FEW = 5
"""Ids that a refusal names, at most."""


def ensure(tx: Transaction, account: str, path: str, by: Actor, new_id: Callable[[], str], now: int) -> str:
    """The id of the group at this path; what is missing on the way is made and journalled. The account's lock is held."""
    group = groups.root(tx, account)
    walked: list[str] = []
    for name in names.group_path(path):
        walked.append(name)
        below = groups.child(tx, account, group, name)
        if below is None:
            below = new_id()
            groups.insert(tx, account, below, group, name)
            _record(tx, account, "group.create", below, by, now, path=names.show_group(tuple(walked)))
        group = below
    return group


def add(tx: Transaction, account: str, path: str, by: Actor, new_id: Callable[[], str], now: int) -> Group:
    """Makes a group and what is missing above it; one that is there is returned as it is."""
    _lock(tx, account)
    return groups.by_id(tx, account, ensure(tx, account, path, by, new_id, now))


def remove(tx: Transaction, account: str, path: str, by: Actor, now: int) -> None:
    """Ends an empty group, and its policies with it. What is past and stood in it stands in the group above from now on.

    Refused with GROUP_NOT_EMPTY while something stands in it or leads to it.
    """
    locked = _lock(tx, account)
    group = _below_the_root(tx, account, path)
    held = list(_held(tx, locked, group, now))
    if held:
        sentence = f'The group "{group.path}" is still needed: {"; ".join(held)}. Give all that another place, or end it, first.'
        raise Refused(Reason.GROUP_NOT_EMPTY, sentence)
    for kind in groups.policy_kinds(tx, account, group.id):
        policies.remove(tx, account, group.path, kind, by, now)
    policy_rows.forget_group(tx, account, group.id)
    groups.remove(tx, account, group.id)
    _record(tx, account, "group.remove", group.id, by, now, path=group.path)


def _held(tx: Transaction, account: Account, group: Group, now: int) -> Iterator[str]:
    """What keeps a group from being removed, in words."""
    held = groups.held(tx, account.domain, group.id, now)
    for count, what in ((held.groups, "group"), (held.servers, "server")):
        if count:
            yield f"1 {what} stands in it" if count == 1 else f"{count} {what}s stand in it"
    if held.api_keys:
        yield f"servers that use {_listed('API key', held.api_keys)} land in it"
    if held.tasks:
        yield f"{_listed('task', held.tasks)} {'is' if len(held.tasks) == 1 else 'are'} for it"
    if account.landing_group == group.id:
        yield "it is the account's landing group"


def _listed(what: str, ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - FEW} more" if len(ids) > FEW else ""
    return f"the {what}{'s' * (len(ids) > 1)} {', '.join(ids[:FEW])}{more}"


def move(tx: Transaction, account: str, path: str, new_path: str, by: Actor, now: int) -> Group:
    """Gives a group another name or place, with all that stands below it. One that is there already is returned as it is.

    Refused: NOT_FOUND, WOULD_LOOP, ALREADY_EXISTS, and INVALID_ARGUMENT for the root group and for what would stand too deep,
    DOCUMENT_TOO_LARGE where servers would get too much.
    """
    _lock(tx, account)
    group = _below_the_root(tx, account, path)
    before, after = names.group_path(group.path), names.group_path(new_path)
    if after == before:
        return group
    shown = names.show_group(after)
    if not after:
        hint = f'to put the group right below the root group, name it "{before[-1]}"'
        raise Refused(Reason.INVALID_ARGUMENT, f"The new path ends with the group's own name: {hint}.")
    if after[: len(before)] == before:
        raise Refused(Reason.WOULD_LOOP, f'The group "{group.path}" cannot stand below itself, at "{shown}".')
    parent = groups.find(tx, account, names.show_group(after[:-1]))
    if groups.child(tx, account, parent.id, after[-1]) is not None:
        raise Refused(Reason.ALREADY_EXISTS, f'There is a group "{shown}" already.')
    if len(after) + groups.height(tx, account, group.id) > names.GROUP_DEPTH:
        sentence = f'With what stands below it, "{group.path}" would stand more than {names.GROUP_DEPTH} levels deep at "{shown}".'
        raise Refused(Reason.INVALID_ARGUMENT, sentence)
    groups.move(tx, account, group.id, parent.id, after[-1])
    policies.check_room(tx, account, group.id)
    _record(tx, account, "group.move", group.id, by, now, before=group.path, after=shown)
    return groups.by_id(tx, account, group.id)


def set_window(tx: Transaction, account: str, path: str, window: Window | None, by: Actor, now: int) -> Group:
    """Sets a group's maintenance window, or ends it with None; one that holds already is returned as it is."""
    if window is not None:
        schedules.check_window(window)
    _lock(tx, account)
    group = groups.find(tx, account, path)
    if window == group.window:
        return group
    before, after = _words(group.window), _words(window)
    number = _record(tx, account, "group.update", group.id, by, now, path=group.path, before=before, after=after)
    groups.set_window(tx, account, group.id, window, number)
    return groups.by_id(tx, account, group.id)


def _words(window: Window | None) -> str:
    return f"{window.start} for {window.seconds} s by {window.zone or 'UTC'}" if window else "no window"


def _lock(tx: Transaction, account: str) -> Account:
    locked = accounts.lock(tx, account)
    if account == PRIMARY:
        raise Refused(Reason.INVALID_ARGUMENT, "The primary's own account has no groups.")
    return locked


def _below_the_root(tx: Transaction, account: str, path: str) -> Group:
    """The group that is to be moved or removed: it is there, and not the root group."""
    group = groups.at(tx, account, path)
    if group is None:
        shown = names.show_group(names.group_path(path))
        raise Refused(Reason.NOT_FOUND, f'There is no group "{shown}" in {account}. See: enlist-primary group list {account}')
    if group.path == names.ROOT_GROUP:
        raise Refused(Reason.INVALID_ARGUMENT, "The root group is the account itself: it is neither moved nor removed.")
    return group


def _record(tx: Transaction, account: str, action: str, id: str, by: Actor, now: int, **detail: str) -> int:
    """Journals a decision about a group. Each is one about what servers shall get: the way down to them leads through groups."""
    number = record(tx, account, action, about_group(id), by, now, **detail)
    accounts.desires(tx, account, number)
    return number
