"""How servers are reached: directly, or below another server. What decisions and queries get of it is a frozen view."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

from enlist_primary.changes.publisher import PresenceChange
from enlist_primary.federation.descendants import Descendants
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.rollouts import Presence

T = TypeVar("T")


class Reachability:
    """How the servers of each account are connected. Lives in the event loop; its views may go to any thread."""

    def __init__(self, hub: Hub, observations: Observations, below: Descendants, started: int, own_id: str) -> None:
        self._hub = hub
        self._observations = observations
        self._below = below
        self._started = started
        self._own_id = own_id
        self._views: dict[str, FleetView] = {}
        self._stale: dict[str, set[str]] = defaultdict(set)

    def on_presence(self, change: PresenceChange) -> None:
        """The next view of the account looks at these servers again."""
        if change.account in self._views:
            self._stale[change.account].update(change.ids)

    def view(self, account: str) -> FleetView:
        """What is seen of an account's servers now: the same value until something of it changes."""
        known = self._views.get(account)
        stale = self._stale.pop(account, set())
        if known is None:
            self._views[account] = self._looked(account, FleetView(), self._all(account))
        elif stale:
            self._views[account] = self._looked(account, known, self._with_descendants(account, stale))
        return self._views[account]

    def _all(self, account: str) -> Iterator[str]:
        yield from self._observations.ids(account)
        yield from (link.key[1] for link in self._hub.of(account))
        yield from (each.id for each in self._below.of(account))

    def _with_descendants(self, account: str, ids: Iterable[str]) -> Iterator[str]:
        """How a server is connected decides what is known of those below it."""
        for id in ids:
            yield id
            if "/" not in id:
                yield from (each.id for each in self._below.of(account, id))

    def _looked(self, account: str, before: FleetView, ids: Iterable[str]) -> FleetView:
        """The view before, with these servers as they are now."""
        presence = dict(before.presence)
        kinds = dict(before.kinds)
        for id in ids:
            _set(presence, id, self._presence(account, id))
            _set(kinds, id, self._kinds(account, id))
        return FleetView(presence, kinds)

    def _presence(self, account: str, id: str) -> Presence | None:
        """How a server is connected; None for one of which nothing is known, such as one that is gone."""
        via, _, path = id.partition("/")
        if path:
            return self._presence_below(account, via, path)
        return self._presence_here(account, id)

    def _presence_here(self, account: str, id: str) -> Presence:
        seen = self._observations.seen(account, id)
        if self._hub.connected(account, id):
            link = self._hub.find(account, id)
            why = link.refusal if link is not None else ""
            return Presence(True, seen.connected_at or self._started, refusal=why)  # the link is there before that is written down
        return Presence(False, seen.disconnected_at)

    def _presence_below(self, account: str, via: str, path: str) -> Presence | None:
        """A server below another one: while that is cut off from here, nothing is known."""
        found = self._below.find(account, via, path)
        if found is None:
            return None
        above = self._presence_here(account, via)
        if not above.connected or found.unknown_since is not None:
            if found.unheard and above.connected:  # nobody can say that it has gone
                return Presence(False, found.unknown_since if found.connected else found.connected_at, unheard=found.connected)
            return Presence(False, _earliest(found.unknown_since, None if above.connected else above.since))
        since = max(found.connected_at or 0, above.since or 0) if found.connected else found.connected_at
        refusal = found.refusal(self._own_id) or above.refusal  # what the server on the way refuses, nobody below it gets
        return Presence(found.connected, since, refusal=refusal)

    def cut_since(self, account: str, server: BelowServer) -> int | None:
        """Since when nothing is known of a server below, Unix seconds, 0 if it never was; None if its state is known."""
        above = self._presence_here(account, server.via)
        if above.connected and server.unknown_since is None:
            return None
        return _earliest(server.unknown_since, None if above.connected else above.since) or 0

    def _kinds(self, account: str, id: str) -> frozenset[str] | None:
        """The kinds for which a server has handlers; None if it never said."""
        via, _, path = id.partition("/")
        if path:
            found = self._below.find(account, via, path)
            return None if found is None else frozenset(found.kinds)
        reported = self._observations.seen(account, id).kinds
        return None if reported is None else frozenset(reported.split())


def _set(values: dict[str, T], id: str, value: T | None) -> None:
    if value is None:
        values.pop(id, None)
    else:
        values[id] = value


def _earliest(*moments: int | None) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)
