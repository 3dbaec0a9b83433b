"""What the primary sees of an account's servers at one moment: a plain value, for decisions and queries that ask about presence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from enlist_primary.model.rollouts import Presence

NEVER = Presence(connected=False, since=None)
"""How a server is connected that never opened a link."""


@dataclass(frozen=True)
class FleetView:
    """How servers are connected, and for which kinds they have handlers; a server below another one is named `via/path`.

    A server that is missing in `presence` never had a link; one that is missing in `kinds` never said what it has.
    """

    presence: Mapping[str, Presence] = field(default_factory=dict)
    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, id: str) -> Presence:
        """How a server is connected."""
        return self.presence.get(id, NEVER)

    def connected(self, id: str) -> bool:
        """Whether a server can be reached."""
        return self.of(id).connected


EMPTY = FleetView()
