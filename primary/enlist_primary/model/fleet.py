"""What the primary sees of an account's servers at one moment: a plain value, for decisions and queries that ask about presence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from enlist_primary.model.rollouts import Presence

NEVER = Presence(connected=False, since=None)
"""How a server is connected that never opened a link."""
PLAIN = Presence(connected=True, since=None)
"""How most are: connected, and nothing is refused. Since when does not matter."""


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

    @cached_property
    def plain_ids(self) -> str:
        """The ids of the servers that are connected and refuse nothing, as JSON: queries count those together."""
        return json.dumps([id for id, presence in self.presence.items() if presence.connected and not presence.refusal])


EMPTY = FleetView()
