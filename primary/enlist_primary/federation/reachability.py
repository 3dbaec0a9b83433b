"""How servers are reached: directly, or below a middle server. May be asked in any thread: it looks into dictionaries."""

from __future__ import annotations

from collections.abc import Collection

from enlist_primary.federation.descendants import Descendants
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.rollouts import Presence, Present


class Reach:
    """How the servers of an account are connected."""

    def __init__(self, hub: Hub, observations: Observations, below: Descendants, started: int) -> None:
        self._hub = hub
        self._observations = observations
        self._below = below
        self._started = started

    def account(self, account: str) -> Present:
        """The servers of one account. Safe in any thread: it looks into dictionaries, and changes nothing."""

        def present(id: str) -> Presence:
            via, _, path = id.partition("/")
            if path:
                return self._present_below(account, via, path, present(via))
            seen = self._observations.seen(account, id)
            if self._hub.connected(account, id):
                return Presence(True, seen.connected_at or self._started)  # the link is there a moment before it is written down
            return Presence(False, seen.disconnected_at)

        return present

    def _present_below(self, account: str, via: str, path: str, above: Presence) -> Presence:
        """A server below a middle server: of one that is cut off from here, nothing is known since that is so."""
        found = self._below.find(account, via, path)
        if found is None:
            return Presence(False, None)
        if not above.connected or found.unknown_since is not None:
            return Presence(False, _earliest(found.unknown_since, None if above.connected else above.since))
        since = max(found.connected_at or 0, above.since or 0) if found.connected else found.connected_at
        return Presence(found.connected, since)

    def cut_since(self, account: str, server: BelowServer) -> int | None:
        """Since when nothing is known of a server below, Unix seconds, 0 if it never was; None if it is known how it fares."""
        above = self.account(account)(server.via)
        if above.connected and server.unknown_since is None:
            return None
        return _earliest(server.unknown_since, None if above.connected else above.since) or 0

    def kinds(self, account: str, id: str) -> Collection[str] | None:
        """The kinds for which a server has handlers; None if it never said."""
        via, _, path = id.partition("/")
        if path:
            found = self._below.find(account, via, path)
            return None if found is None else found.kinds
        said = self._observations.seen(account, id).kinds
        return None if said is None else said.split()


def _earliest(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)
