"""A server as it is judged at a moment: past its end, when it may ask again, and what it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason
from enlist.runtime import standings
from enlist_primary.model.servers import (
    DAY,
    DENIAL_REST,
    REQUEST_LIFETIME,
    TOMBSTONE_LIFETIME,
    Event,
    Server,
    State,
    asking,
)

T = 1_800_000_000
SERVER = Server("acme.example", "aaaaaaaaaa", "paris-1", "root", "/", State.PENDING, T, T, key="00" * 32)
MOMENTS = st.integers(0, 2**40)


def test_the_times_are_the_design_s() -> None:
    assert (REQUEST_LIFETIME, DENIAL_REST, TOMBSTONE_LIFETIME) == (7 * DAY, 7 * DAY, 30 * DAY)
    assert DAY == 24 * 60 * 60


@pytest.mark.parametrize("state", [State.PENDING, State.INVITED])
@pytest.mark.parametrize(("later", "over"), [(-1, False), (0, True), (1, True), (10**9, True)])
def test_a_request_or_invitation_ends_in_the_very_second(state: State, later: int, over: bool) -> None:
    server = replace(SERVER, state=state, expires_at=T + DAY)
    judged = server.at(T + DAY + later)
    assert judged.state is (State.EXPIRED if over else state)


@given(now=MOMENTS, end=MOMENTS)
def test_what_is_past_its_end_expired_then_and_not_when_somebody_looked(now: int, end: int) -> None:
    server = replace(SERVER, expires_at=end, revision=3, reason="x")
    judged = server.at(now)
    if now < end:
        assert judged == server
    else:
        assert judged == replace(server, state=State.EXPIRED, since=end, expires_at=None)
        assert judged.at(now + DAY) == judged


@given(now=MOMENTS)
@pytest.mark.parametrize("state", State)
def test_what_has_no_end_stays_as_it_is(state: State, now: int) -> None:
    server = replace(SERVER, state=state)
    assert server.at(now) is server


def test_an_invitation_without_a_name_is_called_by_its_id() -> None:
    assert SERVER.shown_name == "paris-1"
    assert replace(SERVER, name=None).shown_name == "(aaaaaaaaaa)"


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("has_api_key", [True, False])
@pytest.mark.parametrize("since", [0, T])
def test_a_full_api_key_always_enrols(state: State | None, has_api_key: bool, since: int) -> None:
    assert asking(state, since, has_api_key, True, T) is Event.ENROL


@pytest.mark.parametrize("state", [None, *State])
def test_a_restricted_api_key_always_asks_again(state: State | None) -> None:
    assert asking(state, T, True, False, T) is Event.ASK_AGAIN


@given(since=MOMENTS, waited=st.integers(0, 2**40))
def test_without_an_api_key_the_denied_ask_again_after_seven_days(since: int, waited: int) -> None:
    expected = Event.ASK_AGAIN if waited >= 7 * 86400 else Event.ASK
    assert asking(State.DENIED, since, False, False, since + waited) is expected


@pytest.mark.parametrize(("waited", "event"), [(7 * DAY - 1, Event.ASK), (7 * DAY, Event.ASK_AGAIN)])
def test_the_denial_holds_to_the_last_second(waited: int, event: Event) -> None:
    assert asking(State.DENIED, T, False, False, T + waited) is event


@pytest.mark.parametrize("state", [None, *set(State) - {State.DENIED}])
def test_no_other_state_turns_asking_into_asking_again(state: State | None) -> None:
    assert asking(state, 0, False, False, T) is Event.ASK


REASONS = {
    State.INVITED: Reason.SERVER_PENDING,
    State.PENDING: Reason.SERVER_PENDING,
    State.DENIED: Reason.SERVER_DENIED,
    State.SUSPENDED: Reason.SERVER_SUSPENDED,
    State.REVOKED: Reason.SERVER_REVOKED,
    State.EXPIRED: Reason.SERVER_EXPIRED,
    State.WITHDRAWN: Reason.SERVER_WITHDRAWN,
    State.DEPARTED: Reason.SERVER_DEPARTED,
    State.REMOVED: Reason.SERVER_REMOVED,
}


def test_every_state_but_trusted_has_its_refusal() -> None:
    assert set(REASONS) == set(State) - {State.TRUSTED}


@pytest.mark.parametrize(("state", "reason"), REASONS.items())
@pytest.mark.parametrize("given_reason", [None, "", "disk to be wiped"])
def test_a_server_learns_what_happened_to_it_when_and_why(state: State, reason: Reason, given_reason: str | None) -> None:
    no = standings.not_trusted(state, T, given_reason or "")
    assert no.reason is reason
    assert "2027-01-15T08:00:00Z" in no.message
    assert ('"' in no.message) == bool(given_reason)
    assert (given_reason or "") in no.message


@pytest.mark.parametrize("state", [State.PENDING, State.INVITED, State.SUSPENDED, State.EXPIRED])
def test_where_waiting_may_help_the_refusal_says_so(state: State) -> None:
    assert standings.not_trusted(state, T).retry


@pytest.mark.parametrize("state", [State.DENIED, State.REVOKED, State.WITHDRAWN, State.DEPARTED, State.REMOVED])
def test_where_waiting_is_in_vain_the_refusal_says_so(state: State) -> None:
    assert not standings.not_trusted(state, T).retry
