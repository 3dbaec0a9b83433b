"""Accounts, and the first decision of all."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.users import PRIMARY_ITSELF, Actor, Role, User
from enlist_primary.operations import accounts
from enlist_primary.store import accounts as rows
from enlist_primary.store import groups, users
from tests.primary.operations.desk import ACME, ANN, BETA, START, Desk

NEW = "new.example"


def test_founding_makes_the_reserved_account_and_its_owner(desk: Desk) -> None:
    [entry] = desk.journal(PRIMARY)
    assert (entry.action, entry.number, entry.detail["name"], entry.detail["fingerprint"]) == ("primary.init", 1, "main", "f" * 64)
    assert Actor(entry.actor, entry.method, entry.source) == PRIMARY_ITSELF
    owner = users.find(desk.tx, str(entry.detail["owner"]))
    assert owner is not None
    assert (owner.account, owner.role, owner.sees(ACME)) == (PRIMARY, Role.ADMINISTRATOR, True)


def test_a_primary_is_founded_once(desk: Desk) -> None:
    """Attacks row 43."""
    owner = User(desk.new_id(), "mallory", Role.ADMINISTRATOR, PRIMARY, desk.random_bytes(32), START)
    with desk.refuses(Reason.ALREADY_EXISTS):
        desk.do(accounts.found_primary, owner, "second", "e" * 64, desk.new_id, START)


def test_a_new_account_has_a_root_group_and_lets_servers_ask(desk: Desk) -> None:
    with desk.touching_only(NEW):
        account = desk.account(NEW, "helpdesk, 4711")
    assert (account.domain, account.contact, account.default_api_key, account.head) == (NEW, "helpdesk, 4711", True, 1)
    assert [group.path for group in groups.listed(desk.tx, NEW)] == ["/"]
    entry = desk.newest(NEW)
    assert (entry.action, entry.number, entry.subject, entry.detail) == ("account.create", 1, "", {"contact": "helpdesk, 4711"})
    assert Actor(entry.actor, entry.method, entry.source) == ANN


@pytest.mark.parametrize("domain", [ACME, BETA])
def test_a_domain_is_taken_once(desk: Desk, domain: str) -> None:
    with desk.refuses(Reason.ALREADY_EXISTS):
        desk.account(domain, "somebody else")


@pytest.mark.parametrize(
    "domain",
    [
        PRIMARY,
        "",
        "ACME.example",
        "acme.example.",
        "a b",
        "a_b.example",
        "-a.example",
        "a" * 64,
        "a." * 127 + "aa",
        "аcme.example",
        "10.0.0.1",
    ],
)
def test_a_domain_is_a_dns_name_in_one_form(desk: Desk, domain: str) -> None:
    """Attacks row 5; the reserved account is nobody's to make."""
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.account(domain)


@pytest.mark.parametrize("contact", ["a\nb", "x" * 201, "\x1b[2J", "\u202ex"])
def test_a_hostile_contact_is_refused(desk: Desk, contact: str) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.account(NEW, contact)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.set_account(contact=contact)


CHANGES = [(contact, switch) for contact in (None, "", "helpdesk") for switch in (None, True, False)]


@pytest.mark.parametrize(("contact", "switch"), CHANGES)
@pytest.mark.parametrize(("had_contact", "had_switch"), [("", True), ("old", True), ("old", False), ("helpdesk", False)])
def test_an_account_is_changed_where_something_is_given(
    desk: Desk, had_contact: str, had_switch: bool, contact: str | None, switch: bool | None
) -> None:
    desk.set_account(contact=had_contact, default_api_key=had_switch)
    head = desk.head()
    wanted = ((had_contact if contact is None else contact) or None, had_switch if switch is None else switch)
    with desk.touching_only(ACME):
        account = desk.set_account(contact=contact, default_api_key=switch)
    assert rows.load(desk.tx, ACME) == account
    assert (account.contact, account.default_api_key) == wanted
    held = wanted == (had_contact or None, had_switch)
    assert account.head == head + (0 if held else 1)
    if not held:
        entry = desk.newest()
        assert (entry.action, entry.subject) == ("account.update", "")
        assert entry.detail["default api key"] == ("on" if wanted[1] else "off")
        assert entry.detail.get("contact") == wanted[0]
    with desk.unchanged():
        desk.set_account(contact=contact, default_api_key=switch)


def test_an_account_that_is_not_there_is_not_changed(desk: Desk) -> None:
    with desk.refuses(Reason.ACCOUNT_UNKNOWN):
        desk.set_account(NEW, contact="x")


def test_accounts_are_listed_by_domain_without_the_reserved_one(desk: Desk) -> None:
    desk.account("aa.example")
    assert [account.domain for account in rows.listed(desk.tx)] == ["aa.example", ACME, BETA]
