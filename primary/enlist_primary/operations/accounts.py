"""Decisions about accounts, and the first one of all: the primary itself."""

from __future__ import annotations

from collections.abc import Callable

from enlist import names
from enlist.reasons import Reason, Refused
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.users import PRIMARY_ITSELF, Actor, User
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, groups, users
from enlist_primary.store.database import Transaction

NewId = Callable[[], str]


def found_primary(tx: Transaction, owner: User, name: str, fingerprint: str, new_id: NewId, now: int) -> None:
    """Makes the reserved account and the first user, who stands over all accounts."""
    if not accounts.insert(tx, PRIMARY, None, now):
        raise Refused(Reason.ALREADY_EXISTS, "The database holds a primary already.")
    groups.insert_root(tx, PRIMARY, new_id())
    users.insert(tx, owner)
    record(tx, PRIMARY, "primary.init", "", PRIMARY_ITSELF, now, name=name, fingerprint=fingerprint, owner=owner.id)


def create(tx: Transaction, domain: str, contact: str, by: Actor, new_id: NewId, now: int) -> Account:
    """Makes an account with its root group; refused with ALREADY_EXISTS if the domain is taken."""
    if not accounts.insert(tx, names.account_domain(domain), names.note(contact, "contact") or None, now):
        raise Refused(Reason.ALREADY_EXISTS, f'There is an account "{domain}" already.')
    groups.insert_root(tx, domain, new_id())
    record(tx, domain, "account.create", "", by, now, contact=contact)
    return accounts.load(tx, domain)


def update(
    tx: Transaction,
    domain: str,
    contact: str | None,
    default_api_key: bool | None,
    by: Actor,
    now: int,
    landing_group: str | None = None,
) -> Account:
    """Changes what is given (None: leave it), or returns the account as it is if all of it holds already."""
    account = accounts.lock(tx, domain)
    wanted = account.contact if contact is None else names.note(contact, "contact") or None
    switch = account.default_api_key if default_api_key is None else default_api_key
    place = (account.landing_group, account.landing_path)
    landing, path = place if landing_group is None else _landing(tx, domain, landing_group)
    if (wanted, switch, landing) == (account.contact, account.default_api_key, account.landing_group):
        return account
    accounts.update(tx, domain, wanted, switch, landing)
    shown = "on" if switch else "off"
    record(tx, domain, "account.update", "", by, now, contact=wanted, default_api_key=shown, landing_group=path)
    return accounts.load(tx, domain)


def _landing(tx: Transaction, domain: str, path: str) -> tuple[str | None, str]:
    """The id of the landing group that is to be, None for the root group, and its path."""
    group = groups.find(tx, domain, path)
    return None if group.path == names.ROOT_GROUP else group.id, group.path
