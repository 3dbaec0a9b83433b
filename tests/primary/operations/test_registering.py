"""What registering refuses, what it takes from a stranger, and what it tells one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from enlist.reasons import Reason
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind, invalid
from enlist_primary.model.servers import Event, State
from enlist_primary.store.database import Transaction, Value
from tests.primary.operations.desk import ACME, AWAY, BETA, DAY, HOME, Desk, bring
from tests.primary.refusals import refused

# --- API keys: what is told, and to whom ----------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, Any], Reason]] = {  # in the order in which they are told
    "revoked": ({}, Reason.API_KEY_EXPIRED),
    "expired": ({"lifetime": DAY}, Reason.API_KEY_EXPIRED),
    "used up": ({"max_uses": 1}, Reason.API_KEY_USED_UP),
    "elsewhere": ({"networks": ("10.0.0.0/8", "2001:db8::/32")}, Reason.API_KEY_NETWORK),
}
FAULTY = [faults for count in range(5) for faults in itertools.combinations(FAULTS, count)]


def faulty(desk: Desk, faults: tuple[str, ...], kind: Kind, owner: str) -> str:
    """An API key that is no good in all of these ways; good if there are none."""
    wanted = {name: value for fault in faults for name, value in FAULTS[fault][0].items()}
    text = desk.api_key(kind, owner, **wanted)
    if "used up" in faults:
        source = "10.0.0.1" if "elsewhere" in faults else HOME
        desk.ask("who used it up", BETA if owner == PRIMARY else ACME, api_key=text, source=source)
    if "revoked" in faults:
        desk.revoke_api_key(text, owner)
    desk.later(DAY)
    return text


def tampered(text: str) -> str:
    """The same id with another secret."""
    return text[:-1] + ("b" if text[-1] == "a" else "a")


@pytest.mark.parametrize("owner", [ACME, PRIMARY])
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("faults", FAULTY, ids=lambda faults: ", ".join(faults) or "good")
def test_with_the_right_secret_the_first_fault_is_told(desk: Desk, faults: tuple[str, ...], kind: Kind, owner: str) -> None:
    text = faulty(desk, faults, kind, owner)
    if not faults:
        with desk.unchanged():
            place = desk.validate(text)
        assert desk.ask(api_key=text).state is place.state is (State.TRUSTED if kind is Kind.FULL else State.PENDING)
        return
    reason = FAULTS[faults[0]][1]
    with desk.refuses(reason) as told:
        desk.validate(text)
    with desk.refuses(reason) as no:
        desk.ask(api_key=text)
    assert told.value.message == no.value.message
    assert text not in no.value.message


@pytest.mark.parametrize("owner", [ACME, PRIMARY])
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("faults", FAULTY, ids=lambda faults: ", ".join(faults) or "good")
def test_with_a_wrong_secret_nothing_at_all_is_told(desk: Desk, faults: tuple[str, ...], kind: Kind, owner: str) -> None:
    """Attacks row 28: the same text whether the API key is good, spent, foreign, or was never there."""
    text = tampered(faulty(desk, faults, kind, owner))
    for call in (desk.validate, lambda wrong: desk.ask(api_key=wrong)):
        with desk.refuses(Reason.API_KEY_INVALID) as no:
            call(text)
        assert no.value.message == invalid().message


STATES_THAT_LOOK = [None, *sorted(set(State) - {State.INVITED, State.TRUSTED, State.SUSPENDED})]


@pytest.mark.parametrize("state", STATES_THAT_LOOK)
@pytest.mark.parametrize("wrong", ["unknown", "foreign", "tampered", "malformed", "foreign join line"])
def test_wrong_foreign_and_unknown_api_keys_are_one_to_the_asker(desk: Desk, state: State | None, wrong: str) -> None:
    """Attacks rows 15 and 28; a server that asked before learns no more than one that did not."""
    if state:
        bring(desk, state)
    text = {
        "unknown": "enl_aaaaaaaaaa_" + "a" * 32,
        "foreign": desk.api_key(Kind.FULL, BETA),
        "tampered": tampered(desk.api_key(Kind.FULL)),
        "malformed": "enl_' OR 1=1 --",
        "foreign join line": desk.invite(account=BETA)[1],
    }[wrong]
    with desk.refuses(Reason.API_KEY_INVALID) as no:
        desk.ask(api_key=text)
    assert no.value.message == invalid().message


@pytest.mark.parametrize("state", [State.TRUSTED, State.SUSPENDED])
def test_a_server_that_stands_needs_no_api_key_any_more(desk: Desk, state: State) -> None:
    """After authorization its API key is erased, or may have ended; asking again is answered all the same."""
    server = bring(desk, state)
    desk.set_account(default_api_key=False)
    for text in ("", "enl_aaaaaaaaaa_" + "a" * 32, "nonsense"):
        with desk.unchanged():
            assert desk.ask(api_key=text) == server


@pytest.mark.parametrize("fault", FAULTS)
def test_a_waiting_server_s_api_key_may_end_meanwhile(desk: Desk, fault: str) -> None:
    text = desk.api_key(max_uses=1, lifetime=DAY, networks=("192.0.2.0/24",))
    server = desk.ask(api_key=text)
    if fault == "revoked":
        desk.revoke_api_key(text)
    if fault == "expired":
        desk.later(DAY)
    with desk.unchanged():
        assert desk.ask(api_key=text, source=AWAY if fault == "elsewhere" else HOME) == server


@pytest.mark.parametrize("fault", FAULTS)
def test_a_waiting_server_is_not_trusted_by_a_full_api_key_that_is_no_good(desk: Desk, fault: str) -> None:
    text = faulty(desk, (fault,), Kind.FULL, ACME)
    server = desk.ask()
    with desk.refuses(FAULTS[fault][1]):
        desk.ask(api_key=text)
    assert desk.load(server) == server


def test_a_vendor_s_api_key_counts_in_every_account_and_is_counted_once(desk: Desk) -> None:
    text = desk.api_key(Kind.FULL, PRIMARY, max_uses=2)
    assert [desk.ask("one", account, api_key=text).state for account in (ACME, BETA)] == [State.TRUSTED] * 2
    assert desk.uses(text, PRIMARY) == 2
    with desk.refuses(Reason.API_KEY_USED_UP):
        desk.ask("two", ACME, api_key=text)


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [("revoked_at = created_at", Reason.API_KEY_EXPIRED), ("uses = max_uses", Reason.API_KEY_USED_UP)],
)
def test_an_api_key_another_primary_ended_between_looking_and_counting_lets_nobody_in(
    desk: Desk, meanwhile: str, reason: Reason
) -> None:
    """A vendor's API key belongs to an account that the decision does not lock; its own row is what counts."""
    text = desk.api_key(Kind.FULL, PRIMARY, max_uses=3)
    desk.tx = Interrupted(desk.tx, "UPDATE api_key", lambda tx: tx.run(f"UPDATE api_key SET {meanwhile}"))
    with refused(reason):
        desk.ask(api_key=text)
    assert desk.row() is None


class Interrupted:
    """A transaction in which somebody else acts just before a statement that begins so."""

    def __init__(self, tx: Transaction, before: str, act: Any) -> None:
        self._tx, self._before, self._act = tx, before, act

    def rows(self, sql: str, *values: Value) -> list[Any]:
        return self._tx.rows(sql, *values)

    def row(self, sql: str, *values: Value) -> Any:
        return self._tx.row(sql, *values)

    def run(self, sql: str, *values: Value) -> int:
        if sql.lstrip().startswith(self._before):
            self._act(self._tx)
        return self._tx.run(sql, *values)


# --- The default restricted API key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [each for each in STATES_THAT_LOOK if each is not State.PENDING])
def test_an_account_may_want_an_api_key(desk: Desk, state: State | None) -> None:
    if state:
        bring(desk, state)
    desk.set_account(default_api_key=False)
    for call in (desk.validate, desk.ask):
        with desk.refuses(Reason.API_KEY_REQUIRED):
            call()


@pytest.mark.parametrize("kind", Kind)
def test_where_one_is_wanted_one_helps(desk: Desk, kind: Kind) -> None:
    desk.set_account(default_api_key=False)
    assert desk.ask(api_key=desk.api_key(kind)).state is (State.TRUSTED if kind is Kind.FULL else State.PENDING)


def test_whoever_waits_already_goes_on_waiting_when_the_switch_is_thrown(desk: Desk) -> None:
    server = desk.ask()
    desk.set_account(default_api_key=False)
    with desk.unchanged():
        assert desk.ask() == server


def test_the_switch_of_one_account_is_none_of_another_s(desk: Desk) -> None:
    desk.set_account(BETA, default_api_key=False)
    assert desk.ask().state is State.PENDING
    desk.set_account(BETA, default_api_key=True)
    assert desk.ask(account=BETA).state is State.PENDING


# --- Names and other words of strangers -----------------------------------------------------------------------------------------

HOSTILE = ["", " ", "a" * 64, "-rf", "a/b", "a\nb", "a\x00b", "\x1b[31mred", "\u202eevil", "e\u0301", "a ", "\ud800", "\u2028"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(desk: Desk, name: str) -> None:
    """Attacks row 41."""
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.ask(name=name)


@pytest.mark.parametrize("version", ["a\nb", "\x1b[31m", "x" * 41])
def test_a_hostile_version_is_refused(desk: Desk, version: str) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.ask(version=version)


@pytest.mark.parametrize("name", ["x", "a" * 63, "Zürich 1", "打印机", "a.b_c-d", "'; DROP TABLE server; --", "{0}", "%s", "$(id)"])
def test_a_name_is_kept_as_it_was_given(desk: Desk, name: str) -> None:
    assert desk.load(desk.ask(name=name)).name == name


def test_several_rows_may_bear_one_name(desk: Desk) -> None:
    """Attacks row 11: an existing name with a new key is a new pending row, and the old one keeps working."""
    old = bring(desk, State.TRUSTED, name="paris-1")
    new = desk.ask("two", name="paris-1")
    assert (new.name, new.state, new.group) == ("paris-1", State.PENDING, "/")
    assert new.id != old.id
    assert desk.load(old) == old


@pytest.mark.parametrize("past", [State.REMOVED, State.REVOKED, State.DEPARTED, State.DENIED])
def test_a_name_with_a_new_key_inherits_nothing(desk: Desk, past: State) -> None:
    """Attacks row 12."""
    old = bring(desk, past, name="paris-1")
    new = desk.ask("two", name="paris-1")
    assert (new.state, new.group, new.reason, new.revision) == (State.PENDING, "/", None, 0)
    assert new.id != old.id
    assert desk.load(old) == old


def test_one_key_may_stand_in_two_accounts_that_know_nothing_of_each_other(desk: Desk) -> None:
    """Attacks row 10."""
    first = desk.ask(account=ACME)
    with desk.touching_only(BETA):
        second = desk.ask(account=BETA)
    desk.decide(desk.authorize(first), Event.REVOKE)
    assert desk.load(second) == second
    assert first.id != second.id


@pytest.mark.parametrize("account", ["nobody.example", "acme.example.", "ACME.EXAMPLE", "", "acme.example\x00", "аcme.example"])
def test_an_account_that_is_not_there_is_refused(desk: Desk, account: str) -> None:
    """Attacks row 5."""
    for call in (lambda: desk.validate(account=account), lambda: desk.ask(account=account), lambda: desk.leave(account=account)):
        with desk.refuses(Reason.ACCOUNT_UNKNOWN):
            call()


# --- What validating tells ------------------------------------------------------------------------------------------------------


def test_validating_tells_what_registering_would_lead_to(desk: Desk) -> None:
    desk.set_account(contact="helpdesk, 4711")
    vendors = desk.api_key(Kind.FULL, PRIMARY)
    restricted, full = desk.api_key(group="Sites/Paris"), desk.api_key(Kind.FULL, group="Sites/Rome")
    _, named = desk.invite("rome-1", "Sites/Rome")
    _, nameless = desk.invite()
    pending, trusted, contact = State.PENDING, State.TRUSTED, "helpdesk, 4711"
    with desk.unchanged():
        places = [desk.validate(text) for text in ("", vendors, restricted, full, named, nameless)]
    assert [(each.state, each.group, each.name, each.contact) for each in places] == [
        (pending, "/", None, contact),
        (trusted, "/", None, contact),
        (pending, "Sites/Paris", None, contact),
        (trusted, "Sites/Rome", None, contact),
        (trusted, "Sites/Rome", "rome-1", contact),
        (trusted, "/", None, contact),
    ]


def test_validating_uses_nothing_up(desk: Desk) -> None:
    _, text = desk.invite()
    with desk.unchanged():
        for _ in range(10):
            desk.validate(text)
    assert desk.ask(api_key=text).state is State.TRUSTED
