"""A server: its states, the one table of what leads where, and the row.

The table is the design's; a pair that is not listed raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from enlist.reasons import Reason, Refused

DAY = 86400
REQUEST_LIFETIME = 7 * DAY
"""Seconds after which an undecided request or an unused invitation expires."""
DENIAL_REST = 7 * DAY
"""Seconds for which a denied server need not ask again without an API key."""
TOMBSTONE_LIFETIME = 30 * DAY
"""Seconds for which a request that expired undecided is remembered."""


class State(StrEnum):
    """Where a server stands in the trust of its account."""

    INVITED = "invited"
    PENDING = "pending"
    TRUSTED = "trusted"
    DENIED = "denied"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DEPARTED = "departed"
    REMOVED = "removed"


class Event(StrEnum):
    """What may happen to a server."""

    ASK = "ask"  # registers, and a denial still holds it back
    ASK_AGAIN = "ask again"  # registers with an API key, or long enough after a denial
    ENROL = "enrol"  # registers with a full API key
    INVITE = "invite"
    AUTHORIZE = "authorize"
    DENY = "deny"
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    WITHDRAW = "withdraw"
    LEAVE = "leave"
    REMOVE = "remove"
    EXPIRE = "expire"


LIVING = frozenset({State.INVITED, State.PENDING, State.TRUSTED, State.SUSPENDED})
"""States of servers that are, or may soon be, part of the tree; the others are its past."""

_START = {Event.ASK: State.PENDING, Event.ASK_AGAIN: State.PENDING, Event.ENROL: State.TRUSTED, Event.INVITE: State.INVITED}
_STAY_TRUSTED = {Event.ASK: State.TRUSTED, Event.ASK_AGAIN: State.TRUSTED, Event.ENROL: State.TRUSTED}
_STAY_SUSPENDED = {Event.ASK: State.SUSPENDED, Event.ASK_AGAIN: State.SUSPENDED, Event.ENROL: State.SUSPENDED}
_END = {Event.REVOKE: State.REVOKED, Event.LEAVE: State.DEPARTED, Event.REMOVE: State.REMOVED}

TRANSITIONS: Mapping[State | None, Mapping[Event, State]] = MappingProxyType(
    {
        None: _START,
        State.EXPIRED: _START,
        State.WITHDRAWN: _START,
        State.DEPARTED: _START,
        State.REMOVED: _START,
        State.INVITED: {Event.ENROL: State.TRUSTED, Event.EXPIRE: State.EXPIRED, Event.WITHDRAW: State.WITHDRAWN},
        State.PENDING: {
            Event.ASK: State.PENDING,
            Event.ASK_AGAIN: State.PENDING,
            Event.ENROL: State.TRUSTED,
            Event.AUTHORIZE: State.TRUSTED,
            Event.DENY: State.DENIED,
            Event.EXPIRE: State.EXPIRED,
            Event.WITHDRAW: State.WITHDRAWN,
            Event.LEAVE: State.WITHDRAWN,
            Event.REMOVE: State.REMOVED,
        },
        State.DENIED: {Event.ASK_AGAIN: State.PENDING, Event.ENROL: State.PENDING},
        State.TRUSTED: {**_STAY_TRUSTED, Event.SUSPEND: State.SUSPENDED, **_END},
        State.SUSPENDED: {**_STAY_SUSPENDED, Event.RESUME: State.TRUSTED, **_END},
        State.REVOKED: {},
    }
)

DECISIONS = frozenset(Event) - {Event.ASK, Event.ASK_AGAIN, Event.ENROL, Event.INVITE, Event.EXPIRE}
"""Events that somebody wants of a server that is there: said again, they find their result and change nothing."""


def after(state: State | None, event: Event) -> State:
    """The state an event leads to; one whose result already holds leads nowhere. Raises STATE_FORBIDS for a pair not listed."""
    to = TRANSITIONS[state].get(event)
    if to is None and event in DECISIONS and any(row.get(event) is state for row in TRANSITIONS.values()):
        to = state
    if to is None:
        raise Refused(Reason.STATE_FORBIDS, _why_not(state, event))
    return to


def _why_not(state: State | None, event: Event) -> str:
    possible = [e.value for e in TRANSITIONS[state] if e in DECISIONS - {Event.LEAVE}]
    hint = f"; possible is: {', '.join(possible)}" if possible else ""
    return f'The server is {state}, so "{event}" changes nothing here{hint}.'


def asking(state: State | None, since: int, has_api_key: bool, full: bool, now: int) -> Event:
    """Which event a registration is."""
    if full:
        return Event.ENROL
    rested = state is State.DENIED and now >= since + DENIAL_REST
    return Event.ASK_AGAIN if has_api_key or rested else Event.ASK


@dataclass(frozen=True)
class Server:
    """A server's row. Times are Unix seconds; `group` is the path, `revision` the journal number of its last decision.

    `labels` are words to choose servers by, sorted.
    """

    account: str
    id: str
    name: str | None
    group_id: str
    group: str
    state: State
    since: int
    created_at: int
    key: str | None = None
    public_key: bytes | None = None
    source: str | None = None
    server_address: str | None = None
    version: str | None = None
    expires_at: int | None = None
    asked_with: str | None = None
    revision: int = 0
    reason: str | None = None
    labels: tuple[str, ...] = ()

    may_have_secondaries: bool = False
    child_primary_id: str | None = None
    """The primary id of the primary on its host that stands under this one."""
    bequest: str | None = None
    """Of a removed one: what becomes of what was set for the servers below it."""

    def at(self, now: int) -> Server:
        """The server as it is to be judged at `now`: past its end, a request or invitation is over though no sweep came by."""
        if self.expires_at is None or now < self.expires_at:
            return self
        return replace(self, state=after(self.state, Event.EXPIRE), since=self.expires_at, expires_at=None)

    @property
    def shown_name(self) -> str:
        """The name for people; an invitation that keeps none is called by its id."""
        return self.name or f"({self.id})"
