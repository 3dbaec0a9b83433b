"""How many servers may wait for a decision: in an account, and from one address."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.servers import Event, State
from enlist_primary.operations.enrolment import Caps
from tests.primary.operations.desk import ACME, AWAY, BETA, DAY, HOME, Desk, bring
from tests.primary.refusals import attempt

SMALL = Caps(per_account=5, per_address=2)


def crowd(desk: Desk, count: int, source: str = HOME, account: str = ACME, api_key: str = "") -> None:
    """So many servers that wait, the cap being far away."""
    for number in range(count):
        desk.ask(f"{source} {account} {number}", account, api_key=api_key, source=source)


def test_so_many_may_wait_from_one_address_and_no_more(desk: Desk) -> None:
    """Attacks row 30."""
    crowd(desk, 1)
    desk.ask("the last", caps=SMALL)
    with desk.refuses(Reason.TOO_MANY_PENDING) as no:
        desk.ask("one too many", caps=SMALL)
    assert f"from {HOME}" in no.value.message
    assert desk.ask("elsewhere", source=AWAY, caps=SMALL).state is State.PENDING


def test_the_addresses_of_one_ipv6_network_count_as_one(desk: Desk) -> None:
    """Attacks row 30: whoever has one address has its whole /64, and would close the account to everybody."""
    for number in range(SMALL.per_address):
        desk.ask(f"{number}", source=f"2001:db8::{number}", caps=SMALL)
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask("one too many", source="2001:db8::ffff:1", caps=SMALL)
    assert desk.ask("a neighbour", source="2001:db8:0:1::1", caps=SMALL).state is State.PENDING


def test_so_many_may_wait_in_one_account_and_no_more(desk: Desk) -> None:
    for number in range(5):
        desk.ask(f"{number}", source=f"192.0.2.{number}", caps=SMALL)
    with desk.refuses(Reason.TOO_MANY_PENDING) as no:
        desk.ask("one too many", source=AWAY, caps=SMALL)
    assert "for this account" in no.value.message
    assert "a full API key" in no.value.message  # another one does not help here
    assert desk.ask("one too many", BETA, source=AWAY, caps=SMALL).state is State.PENDING


@pytest.mark.parametrize("owner", [ACME, PRIMARY])
def test_a_valid_api_key_is_exempt_from_the_address_s_cap_only(desk: Desk, owner: str) -> None:
    crowd(desk, 2)
    text = desk.api_key(account=owner)
    for number in range(3):
        desk.ask(f"with {number}", api_key=text, caps=SMALL)
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask("one too many", api_key=text, caps=SMALL)


@pytest.mark.parametrize("way", ["full", "join line"])
def test_whoever_joins_trusted_waits_for_nobody_and_is_under_no_cap(desk: Desk, way: str) -> None:
    crowd(desk, 5)
    text = desk.api_key(Kind.FULL) if way == "full" else desk.invite()[1]
    assert desk.ask("one", api_key=text, caps=SMALL).state is State.TRUSTED


def test_a_server_that_waits_already_is_not_turned_away_by_the_cap(desk: Desk) -> None:
    server = desk.ask("one")
    crowd(desk, 5)
    with desk.unchanged():
        assert desk.ask("one", caps=SMALL) == server


@pytest.mark.parametrize("state", [State.EXPIRED, State.WITHDRAWN, State.DEPARTED, State.REMOVED])
def test_a_server_that_comes_back_is_under_the_caps_like_any_other(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    crowd(desk, 2)
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask(caps=SMALL)
    assert desk.load(server) == server


@pytest.mark.parametrize("event", [Event.AUTHORIZE, Event.DENY, Event.WITHDRAW, Event.REMOVE])
def test_a_decision_makes_room(desk: Desk, event: Event) -> None:
    crowd(desk, 1)
    server = desk.ask("the last", caps=SMALL)
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask("next", caps=SMALL)
    desk.decide(server, event)
    assert desk.ask("next", caps=SMALL).state is State.PENDING


@pytest.mark.parametrize("swept", [True, False])
def test_time_makes_room_though_no_sweep_came_by(desk: Desk, swept: bool) -> None:
    crowd(desk, 5)
    desk.later(7 * DAY - 1)
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask(caps=SMALL)
    desk.later(1)
    if swept:
        desk.sweep()
    assert desk.ask(caps=SMALL).state is State.PENDING


def test_a_server_does_not_stand_in_its_own_way(desk: Desk) -> None:
    only_one = Caps(1, 1)
    desk.ask(caps=only_one)
    desk.later(8 * DAY)  # its request is over, and not swept
    assert desk.ask(caps=only_one).state is State.PENDING
    desk.leave()
    assert desk.ask(caps=only_one).state is State.PENDING


def test_asking_and_taking_it_back_goes_round_no_cap(desk: Desk) -> None:
    """Attacks row 30: else a stranger with ever new keys would fill the database."""
    for number in range(2):
        desk.ask(f"{number}", caps=SMALL)
        desk.leave(f"{number}")
    with desk.refuses(Reason.TOO_MANY_PENDING):
        desk.ask("new key", caps=SMALL)
    desk.later(7 * DAY)
    assert desk.ask("new key", caps=SMALL).state is State.PENDING


def test_what_an_administrator_withdrew_counts_no_more(desk: Desk) -> None:
    crowd(desk, 1)
    desk.decide(desk.ask("the last", caps=SMALL), Event.WITHDRAW)
    assert desk.ask("next", caps=SMALL).state is State.PENDING


def test_a_flood_leaves_a_bounded_database_and_the_trusted_unharmed(desk: Desk) -> None:
    """Attacks row 30, in small: ten times the cap, week after week."""
    trusted = bring(desk, State.TRUSTED, source=AWAY)
    sizes = []
    for week in range(12):
        for number in range(20):
            key = f"{week}/{number}"
            outcome = attempt(desk.ask, key, source=f"192.0.2.{number}", caps=SMALL)
            if isinstance(outcome, Refused):
                assert outcome.reason is Reason.TOO_MANY_PENDING
            elif number % 2:
                desk.leave(key)
        desk.later(7 * DAY + 60)
        desk.sweep()
        sizes.append(len(desk.rows()["server"]))
    assert max(sizes) == sizes[-1] == sizes[5] <= 1 + 5 * 6
    assert desk.load(trusted) == trusted
    assert desk.ask() == trusted
