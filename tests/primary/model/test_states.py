"""The table of states against the design's (section 5), pair by pair."""

from __future__ import annotations

import itertools

import pytest

from enlist.reasons import Reason
from enlist_primary.model.servers import DECISIONS, LIVING, TRANSITIONS, Event, State, after
from tests.primary.design import ALLOWED, CELLS, EVENTS, FORBIDDEN, HOLDING, STATES
from tests.primary.refusals import refused


def test_the_copy_of_the_design_names_every_state_and_every_event_once() -> None:
    assert sorted(EVENTS) == sorted(Event)
    assert (len(STATES), set(STATES)) == (11, {None, *State})
    assert len(CELLS) == 11 * 13


@pytest.mark.parametrize(("state", "event", "to"), ALLOWED)
def test_an_event_leads_where_the_design_says(state: State | None, event: Event, to: State) -> None:
    assert after(state, event) is to


@pytest.mark.parametrize(("state", "event"), HOLDING)
def test_a_decision_whose_result_already_holds_returns_it(state: State, event: Event) -> None:
    assert after(state, event) is state


@pytest.mark.parametrize(("state", "event"), FORBIDDEN)
def test_a_pair_that_is_not_listed_is_refused(state: State | None, event: Event) -> None:
    with refused(Reason.STATE_FORBIDS) as no:
        after(state, event)
    assert f'"{event}"' in no.value.message


@pytest.mark.parametrize("state", State)
def test_a_refusal_names_what_people_could_do_instead_and_nothing_else(state: State) -> None:
    forbidden = next(event for from_, event in FORBIDDEN if from_ is state)
    with refused(Reason.STATE_FORBIDS) as no:
        after(state, forbidden)
    people = {"authorize", "deny", "suspend", "resume", "revoke", "withdraw", "remove"}
    possible = {event.value for from_, event, _ in ALLOWED if from_ is state} & people
    hint = no.value.message.partition("possible is: ")[2].rstrip(".")
    assert set(filter(None, hint.split(", "))) == possible


def test_what_people_and_servers_decide_is_what_can_already_hold() -> None:
    assert {event for event in Event if event in DECISIONS} == {event for _, event in HOLDING}


def test_revoked_is_final() -> None:
    assert TRANSITIONS[State.REVOKED] == {}


def test_every_state_can_be_reached_from_nothing() -> None:
    reached: set[State | None] = {None}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == {None, *State}


def test_trust_begins_only_by_a_decision_or_a_full_api_key() -> None:
    begins = {event for state, row in TRANSITIONS.items() for event, to in row.items() if to is State.TRUSTED is not state}
    assert begins == {Event.AUTHORIZE, Event.RESUME, Event.ENROL}


@pytest.mark.parametrize("state", [None, *sorted(set(State) - {State.TRUSTED})])
def test_no_asking_without_a_full_api_key_ever_ends_in_trust(state: State | None) -> None:
    for events in itertools.product([Event.ASK, Event.ASK_AGAIN, Event.EXPIRE, Event.WITHDRAW, Event.LEAVE], repeat=3):
        at = state
        for event in events:
            at = TRANSITIONS[at].get(event, at)
        assert at is not State.TRUSTED


def test_the_living_are_those_whose_time_is_not_over() -> None:
    assert set(State) - LIVING == {State(each) for each in ("denied", "revoked", "expired", "withdrawn", "departed", "removed")}


def test_nobody_changes_the_table() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[None] = {}  # type: ignore[index]  # that it cannot be done is the point
