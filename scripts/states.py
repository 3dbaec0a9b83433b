"""Writes docs/states.md: a server's states as the primary itself has them, so that the page cannot say anything else.

`scripts/generate` runs it; `states.py PATH` writes the page there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from enlist_primary.model.servers import DAY, DENIAL_REST, REQUEST_LIFETIME, TOMBSTONE_LIFETIME, TRANSITIONS, Event, State

STATES = {
    State.INVITED: "A place is kept for whoever holds the join line.",
    State.PENDING: "It has asked, and is *not trusted* until an administrator authorizes it.",
    State.TRUSTED: "It holds certificates and may keep its link.",
    State.DENIED: "An administrator said no to its request.",
    State.SUSPENDED: "Its trust rests; it stays in the account and waits.",
    State.REVOKED: "Its key is banned from the account for good.",
    State.EXPIRED: "Nobody decided about the request, or used the invitation, in time.",
    State.WITHDRAWN: "The request or the invitation was taken back.",
    State.DEPARTED: "It left by itself.",
    State.REMOVED: "An administrator ended its enrolment.",
}

EVENTS = {
    Event.ASK: "It registers without an API key.",
    Event.ASK_AGAIN: f"It registers with a restricted API key, or {DENIAL_REST // DAY} days after it was denied.",
    Event.ENROL: "It registers with a full API key, such as a join line's.",
    Event.INVITE: "An administrator makes a join line.",
    Event.AUTHORIZE: "An administrator trusts it.",
    Event.DENY: "An administrator says no.",
    Event.SUSPEND: "An administrator lets its trust rest.",
    Event.RESUME: "An administrator trusts it again.",
    Event.REVOKE: "An administrator bans its key.",
    Event.WITHDRAW: "An administrator takes the invitation or the request back.",
    Event.LEAVE: "It takes its own request back, or leaves.",
    Event.REMOVE: "An administrator ends its enrolment.",
    Event.EXPIRE: f"{REQUEST_LIFETIME // DAY} days have passed.",
}

ANEW = tuple(state for state in State if TRANSITIONS[state] == TRANSITIONS[None])
"""States in which a server begins as if it had never been there."""


def page() -> str:
    """The whole of docs/states.md."""
    return f"""# The states of a server

Written by `scripts/generate` from `enlist_primary.model.servers.TRANSITIONS`, the table that the primary itself obeys.
Change that, not this page.

```mermaid
{_lines(_diagram())}
```

A pair that is not in the table below is refused with `STATE_FORBIDS` and changes nothing. A decision whose result already
holds returns the server as it is and journals nothing. A server that registers again in the same way gets the same answer,
and uses no API key up. From {_words(ANEW)} it begins anew,
and inherits no name, group or reason. A request that ended without a decision is forgotten after {TOMBSTONE_LIFETIME // DAY} days.

| from | what happens | to |
|---|---|---|
{_lines(_rows())}

| state | means |
|---|---|
{_lines(f"| {state} | {STATES[state]} |" for state in State)}

| what happens | means |
|---|---|
{_lines(f"| {event} | {EVENTS[event]} |" for event in Event)}
"""


def _diagram() -> Iterator[str]:
    """A Mermaid state diagram; what changes nothing is left out, and what begins anew leads to the end."""
    yield "stateDiagram-v2"
    for state, row in TRANSITIONS.items():
        if state in ANEW:
            yield f"    {state} --> [*]"
            continue
        for to, events in _by_result(row).items():
            if to is not state:
                yield f"    {state or '[*]'} --> {to}: {', '.join(events)}"


def _rows() -> Iterator[str]:
    for state, row in TRANSITIONS.items():
        if state in ANEW:
            continue
        name = "(none), " + ", ".join(ANEW) if state is None else state
        for to, events in _by_result(row).items():
            yield f"| {name} | {', '.join(events)} | {'unchanged' if to is state else to} |"
        if not row:
            yield f"| {name} | (nothing) | final |"


def _by_result(row: Mapping[Event, State]) -> dict[State, list[Event]]:
    """The events of a row by the state they lead to."""
    results: dict[State, list[Event]] = {}
    for event, to in row.items():
        results.setdefault(to, []).append(event)
    return results


def _words(states: tuple[State, ...]) -> str:
    return f"{', '.join(states[:-1])} and {states[-1]}"


def _lines(lines: Iterator[str]) -> str:
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
