"""The table of states against the design's (section 5), written out here a second time, pair by pair."""

from __future__ import annotations

import itertools

import pytest

from enlist.reasons import Reason
from enlist_primary.model.servers import DECISIONS, LIVING, TRANSITIONS, Event, State, after
from tests.primary.refusals import refused

# One line per state, one column per event: the state it leads to, "." for a pair that is refused, "=" for a decision whose
# result already holds. "ask" is to register and be held back by a denial, "again" with an API key or long after the denial,
# "enrol" with a full API key. A pending server that leaves takes its own request back.
DESIGN = """
           ask       again     enrol     invite  authorize deny   suspend   resume  revoke  withdraw  leave     remove  expire
none       pending   pending   trusted   invited .         .      .         .       .       .         .         .       .
expired    pending   pending   trusted   invited .         .      .         .       .       .         .         .       .
withdrawn  pending   pending   trusted   invited .         .      .         .       .       =         =         .       .
departed   pending   pending   trusted   invited .         .      .         .       .       .         =         .       .
removed    pending   pending   trusted   invited .         .      .         .       .       .         .         =       .
invited    .         .         trusted   .       .         .      .         .       .       withdrawn .         .       expired
pending    pending   pending   trusted   .       trusted   denied .         .       .       withdrawn withdrawn removed expired
denied     .         pending   pending   .       .         =      .         .       .       .         .         .       .
trusted    trusted   trusted   trusted   .       =         .      suspended =       revoked .         departed  removed .
suspended  suspended suspended suspended .       .         .      =         trusted revoked .         departed  removed .
revoked    .         .         .         .       .         .      .         .       =       .         .         .       .
"""

HEADER, *LINES = [line.split() for line in DESIGN.strip().splitlines()]
EVENTS = [Event("ask again" if name == "again" else name) for name in HEADER]
PAIRS = [(state, event, cell) for state, *cells in LINES for event, cell in zip(EVENTS, cells, strict=True)]
ALLOWED = [pair for pair in PAIRS if pair[2] not in ".="]
HOLDING = [pair for pair in PAIRS if pair[2] == "="]
FORBIDDEN = [pair for pair in PAIRS if pair[2] == "."]


def state_of(name: str) -> State | None:
    return None if name == "none" else State(name)


def test_the_copy_of_the_design_names_every_state_and_every_event_once() -> None:
    assert sorted(EVENTS) == sorted(Event)
    assert sorted(line[0] for line in LINES) == sorted(["none", *State])
    assert len(PAIRS) == 11 * 13


@pytest.mark.parametrize(("state", "event", "to"), ALLOWED)
def test_an_event_leads_where_the_design_says(state: str, event: Event, to: str) -> None:
    assert after(state_of(state), event) is State(to)


@pytest.mark.parametrize(("state", "event", "_"), HOLDING)
def test_a_decision_whose_result_already_holds_returns_it(state: str, event: Event, _: str) -> None:
    assert after(state_of(state), event) is State(state)


@pytest.mark.parametrize(("state", "event", "_"), FORBIDDEN)
def test_a_pair_that_is_not_listed_is_refused(state: str, event: Event, _: str) -> None:
    with refused(Reason.STATE_FORBIDS) as no:
        after(state_of(state), event)
    assert f'"{event}"' in no.value.message


@pytest.mark.parametrize("state", State)
def test_a_refusal_names_what_people_could_do_instead_and_nothing_else(state: State) -> None:
    forbidden = next(event for from_, event, cell in PAIRS if from_ == state and cell == ".")
    with refused(Reason.STATE_FORBIDS) as no:
        after(state, forbidden)
    people = {"authorize", "deny", "suspend", "resume", "revoke", "withdraw", "remove"}
    possible = {event.value for from_, event, cell in ALLOWED if from_ == state} & people
    hint = no.value.message.partition("possible is: ")[2].rstrip(".")
    assert set(filter(None, hint.split(", "))) == possible


def test_what_people_and_servers_decide_is_what_can_already_hold() -> None:
    assert {event for event in Event if event in DECISIONS} == {event for _, event, _ in HOLDING}


def test_revoked_is_final() -> None:
    assert TRANSITIONS[State.REVOKED] == {}


def test_every_state_can_be_reached_from_nothing() -> None:
    reached: set[State | None] = {None}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == {None, *State}


def test_trust_begins_only_by_a_decision_or_a_full_api_key() -> None:
    into = {event for row in TRANSITIONS.values() for event, to in row.items() if to is State.TRUSTED}
    stays = {event for event, to in TRANSITIONS[State.TRUSTED].items() if to is State.TRUSTED}
    assert into - stays == {Event.AUTHORIZE, Event.RESUME}
    asking = {Event.ASK, Event.ASK_AGAIN}
    assert {state for state, row in TRANSITIONS.items() for event in asking if row.get(event) is State.TRUSTED} == {State.TRUSTED}


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
