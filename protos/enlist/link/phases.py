"""The phases of a link, and the one table of what leads where. A pair that is not listed is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from enlist.reasons import Reason, Refused


class Phase(StrEnum):
    """How far a link is. Both ends go through the same phases."""

    CONNECTING = "connecting"
    CHALLENGED = "challenged"
    GREETED = "greeted"
    OPEN = "open"
    CLOSING = "closing"


class Event(StrEnum):
    """What may come over a link, whoever sends it; `END` is that either side ends it."""

    CHALLENGE = "a challenge"
    HELLO = "a hello"
    WELCOME = "a welcome"
    TRAFFIC = "a message"
    END = "the end"


TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = MappingProxyType(
    {
        Phase.CONNECTING: {Event.CHALLENGE: Phase.CHALLENGED, Event.END: Phase.CLOSING},
        Phase.CHALLENGED: {Event.HELLO: Phase.GREETED, Event.END: Phase.CLOSING},
        Phase.GREETED: {Event.WELCOME: Phase.OPEN, Event.END: Phase.CLOSING},
        Phase.OPEN: {Event.TRAFFIC: Phase.OPEN, Event.END: Phase.CLOSING},
        Phase.CLOSING: dict.fromkeys(Event, Phase.CLOSING),
    }
)


def after(phase: Phase, event: Event) -> Phase:
    """The phase an event leads to. Refused with LINK_VIOLATION where the table has none."""
    to = TRANSITIONS[phase].get(event)
    if to is None:
        raise violation(f"{event} came while the link was {phase}")
    return to


def not_a_primary() -> Refused:
    """The refusal of a peer that does not begin a link as a primary does."""
    return Refused(Reason.NOT_ENLIST, "The SSL port did not answer as a primary does.")


def violation(what: str) -> Refused:
    """The refusal of a message that no end of a link sends; it ends the link."""
    return Refused(Reason.LINK_VIOLATION, f"The link's protocol is broken: {what}.")
