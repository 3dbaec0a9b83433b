"""Decisions about servers: what the journal keeps of them, and whom they can be about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enlist.reasons import Reason
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.journal import JournalEntry
from enlist_primary.model.levels import Bequest
from enlist_primary.model.servers import DECISIONS, Event, State
from enlist_primary.model.users import Actor
from enlist_primary.operations import servers
from tests.primary.operations.desk import ACME, AWAY, BETA, DAY, Desk, bring, fingerprint

LOCAL = Actor("local:root", "admin.sock", "")
BOB = Actor("bob (bbbbbbbbbb)", "token", "2001:db8::7")
BY_PEOPLE = sorted(DECISIONS - {Event.LEAVE})
MAY = {Event.AUTHORIZE: State.PENDING, Event.DENY: State.PENDING, Event.WITHDRAW: State.PENDING, Event.RESUME: State.SUSPENDED}


# --- Who, how, from where, when, on what evidence -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [LOCAL, BOB])
@pytest.mark.parametrize("event", BY_PEOPLE)
def test_the_journal_says_who_decided_how_from_where_and_when(desk: Desk, event: Event, by: Actor) -> None:
    server = bring(desk, MAY.get(event, State.TRUSTED))
    desk.later(12345)
    desk.decide(server, event, by=by)
    entry = desk.newest()
    assert Actor(entry.actor, entry.method, entry.source) == by
    assert (entry.time, entry.account, entry.subject) == (desk.now, ACME, f"servers/{server.id}")


EVIDENCE: dict[str, tuple[Callable[[Desk], object], str, str]] = {
    "authorized without a code": (lambda desk: desk.authorize(desk.ask()), "server.authorize", "none"),
    "authorized by its code": (lambda desk: desk.authorize(desk.ask(), True), "server.authorize", "code compared"),
    "a full API key": (lambda desk: desk.ask(api_key=desk.api_key(Kind.FULL)), "server.register", "full API key"),
    "the vendor's": (lambda desk: desk.ask(api_key=desk.api_key(Kind.FULL, PRIMARY)), "server.register", "full API key"),
    "a join line": (lambda desk: desk.ask(api_key=desk.invite()[1]), "server.register", "invited"),
}


@pytest.mark.parametrize("way", EVIDENCE)
def test_every_way_into_trust_names_its_evidence(desk: Desk, way: str) -> None:
    act, action, evidence = EVIDENCE[way]
    act(desk)
    entry = desk.newest()
    assert (entry.action, entry.evidence) == (action, evidence)
    server = desk.row()
    assert server is not None
    assert (server.state, server.revision) == (State.TRUSTED, entry.number)


def test_whoever_joins_trusted_is_named_with_its_key_and_api_key(desk: Desk) -> None:
    text = desk.api_key(Kind.FULL)
    server = desk.ask(api_key=text, source=AWAY)
    entry = desk.newest()
    assert Actor(entry.actor, entry.method, entry.source) == (f"server/{server.id}", "proof", AWAY)
    assert entry.detail == {"name": "paris-1", "api key": text.split("_")[1], "key": fingerprint("one")}


def test_a_restricted_registration_grows_no_journal(desk: Desk) -> None:
    text = desk.api_key()
    head = desk.head()
    for number in range(5):
        desk.ask(f"{number}")
        desk.ask(f"with {number}", api_key=text)
        desk.leave(f"{number}")
        desk.ask(f"{number}")
    desk.later(7 * DAY)
    desk.sweep()
    desk.later(31 * DAY)
    desk.sweep()
    assert desk.head() == head


def test_numbers_run_without_gaps_through_decisions_that_held_or_were_refused(desk: Desk) -> None:
    server = desk.ask()
    head = desk.head()
    for event, reason in [
        (Event.AUTHORIZE, None),
        (Event.AUTHORIZE, None),
        (Event.DENY, Reason.STATE_FORBIDS),
        (Event.SUSPEND, None),
        (Event.SUSPEND, None),
        (Event.AUTHORIZE, Reason.STATE_FORBIDS),
        (Event.RESUME, None),
        (Event.REVOKE, None),
        (Event.REVOKE, None),
        (Event.RESUME, Reason.STATE_FORBIDS),
    ]:
        if reason is None:
            desk.decide(server, event)
        else:
            with desk.refuses(reason):
                desk.decide(server, event)
    entries = desk.journal(after=head)
    assert [entry.number for entry in entries] == list(range(head + 1, head + 5))
    assert [entry.action.partition(".")[2] for entry in entries] == ["authorize", "suspend", "resume", "revoke"]


EVERYTHING: list[Callable[[Desk], object]] = [
    lambda desk: desk.set_account(contact="helpdesk"),
    lambda desk: desk.api_key(Kind.FULL, group="A/B", networks=("10.0.0.0/8",), max_uses=3, lifetime=DAY),
    lambda desk: desk.revoke_api_key(desk.api_key()),
    lambda desk: desk.invite("rome-1", "A/B"),
    lambda desk: desk.ask(api_key=desk.invite("rome-1")[1]),
    lambda desk: desk.decide(desk.invite("rome-1")[0], Event.WITHDRAW),
    lambda desk: desk.revoke_api_key(desk.invite("rome-1")[1]),
    lambda desk: desk.rename(desk.ask(), "rome-2"),
    lambda desk: (desk.authorize(desk.ask()), desk.leave()),
]


@pytest.mark.parametrize("act", EVERYTHING)
def test_an_entry_holds_all_five_and_never_a_secret(desk: Desk, act: Callable[[Desk], object]) -> None:
    """Attacks row 44; that no secret stands anywhere is asserted after every test by the desk itself."""
    head = desk.head()
    act(desk)
    entries: list[JournalEntry] = desk.journal(after=head)
    assert entries
    for entry in entries:
        assert entry.actor
        assert entry.method
        assert entry.time == desk.now
        assert entry.action.count(".") == 1
        assert entry.account == ACME
        assert all(value not in (None, "") for value in entry.detail.values())


# --- Comparison codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_a_wrong_code_authorizes_nobody_in_any_state(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    with desk.refuses(Reason.CODE_MISMATCH):
        desk.authorize(server, code_matches=False)


@pytest.mark.parametrize("code_matches", [None, True])
@pytest.mark.parametrize("state", sorted(set(State) - {State.PENDING, State.TRUSTED}))
def test_a_right_code_authorizes_only_who_waits(desk: Desk, state: State, code_matches: bool | None) -> None:
    server = bring(desk, state)
    with desk.refuses(Reason.STATE_FORBIDS):
        desk.authorize(server, code_matches)


# --- Secondaries of its own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("may", [None, True])
def test_what_stays_below_is_said_only_where_it_ends(desk: Desk, may: bool | None) -> None:
    server = desk.ask()
    with desk.refuses(Reason.INVALID_ARGUMENT) as no:
        desk.do(servers.authorize, ACME, server.id, None, BOB, desk.now, "", may, Bequest.FREEZE)
    assert "--no-may-have-secondaries" in no.value.message
    desk.do(servers.authorize, ACME, server.id, None, BOB, desk.now, "", False, Bequest.FREEZE)


# --- About whom -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", BY_PEOPLE)
@pytest.mark.parametrize("where", ["nowhere", "elsewhere", "primary"])
def test_another_account_s_server_is_not_there(desk: Desk, event: Event, where: str) -> None:
    """Attacks row 15: NOT_FOUND, and the same text as for an id that nobody has."""
    theirs = bring(desk, MAY.get(event, State.TRUSTED), account=BETA)
    account, id = {"nowhere": (ACME, "aaaaaaaaaa"), "elsewhere": (ACME, theirs.id), "primary": (PRIMARY, theirs.id)}[where]
    with desk.refuses(Reason.NOT_FOUND) as no:
        desk.do(servers.decide, account, id, event, BOB, desk.now)
    assert no.value.message == f'There is no server "{id}" in this account.'
    for matches in (None, True, False):
        with desk.refuses(Reason.NOT_FOUND):
            desk.do(servers.authorize, account, id, matches, BOB, desk.now)
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(servers.rename, account, id, "x", BOB, desk.now)


@pytest.mark.parametrize("event", BY_PEOPLE)
def test_an_id_is_an_account_s_own(desk: Desk, event: Event) -> None:
    """Two accounts' servers may come to bear one id; whoever decides means the one of its own account."""
    desk.new_id = lambda: "aaaaaaaaaa"  # type: ignore[method-assign]  # chance, for once
    mine, theirs = (bring(desk, MAY.get(event, State.TRUSTED), account=account) for account in (ACME, BETA))
    assert mine.id == theirs.id
    with desk.touching_only(ACME):
        desk.rename(desk.decide(mine, event), "mine")
    with desk.touching_only(ACME):
        desk.revoke_api_key("enl_aaaaaaaaaa_" + "a" * 32)


@pytest.mark.parametrize("id", ["", "%", "*", "AAAAAAAAAA", "' OR 1=1 --", "a\x00"])
def test_an_id_is_taken_as_it_is(desk: Desk, id: str) -> None:
    bring(desk, State.TRUSTED)
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(servers.decide, ACME, id, Event.REVOKE, BOB, desk.now)


@pytest.mark.parametrize("account", ["nobody.example", "ACME.EXAMPLE", "", "acme.example."])
def test_in_an_account_that_is_not_there_nothing_is_decided(desk: Desk, account: str) -> None:
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.ACCOUNT_UNKNOWN):
        desk.do(servers.decide, account, server.id, Event.REVOKE, BOB, desk.now)


@pytest.mark.parametrize("reason", ["a\nb", "\x1b[2J", "x" * 201, "\u202egood"])
def test_a_hostile_reason_is_refused(desk: Desk, reason: str) -> None:
    """Attacks row 41: the reason is told to the server and shown to people."""
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.decide(server, Event.SUSPEND, reason)


@pytest.mark.parametrize("name", ["", "a/b", "-x", " x", "a\nb", "x" * 64, "\x1b[2J", "\u202ex", "e\u0301"])
def test_a_hostile_new_name_is_refused(desk: Desk, name: str) -> None:
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.rename(server, name)


def test_a_reason_is_forgotten_when_it_holds_no_more(desk: Desk) -> None:
    server = bring(desk, State.SUSPENDED)
    assert server.reason == "an old reason"
    assert desk.load(desk.decide(server, Event.RESUME)).reason is None
    assert [entry.detail.get("reason") for entry in desk.journal()[-2:]] == ["an old reason", None]
