"""The table of phases: every pair of a phase and an event."""

from __future__ import annotations

import pytest

from enlist.link import phases
from enlist.link.phases import Event, Phase
from enlist.reasons import Reason, Refused

LEADS = {
    (Phase.CONNECTING, Event.CHALLENGE): Phase.CHALLENGED,
    (Phase.CHALLENGED, Event.HELLO): Phase.GREETED,
    (Phase.GREETED, Event.WELCOME): Phase.OPEN,
    (Phase.OPEN, Event.TRAFFIC): Phase.OPEN,
    **{(phase, Event.END): Phase.CLOSING for phase in Phase},
    **{(Phase.CLOSING, event): Phase.CLOSING for event in Event},
}
"""What leads where; written down a second time, so that a change of the table is a decision."""

PAIRS = [(phase, event) for phase in Phase for event in Event]


@pytest.mark.parametrize(("phase", "event"), [pair for pair in PAIRS if pair in LEADS])
def test_listed_pair_leads_to_its_phase(phase: Phase, event: Event) -> None:
    assert phases.after(phase, event) is LEADS[phase, event]


@pytest.mark.parametrize(("phase", "event"), [pair for pair in PAIRS if pair not in LEADS])
def test_pair_that_is_not_listed_is_refused_by_name(phase: Phase, event: Event) -> None:
    with pytest.raises(Refused) as refused:
        phases.after(phase, event)
    assert refused.value.reason is Reason.LINK_VIOLATION
    assert refused.value.message == f"The link's protocol is broken: {event} came while the link was {phase}."


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        phases.TRANSITIONS[Phase.OPEN] = {}  # type: ignore[index]
