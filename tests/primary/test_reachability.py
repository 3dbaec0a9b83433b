"""What is seen of a fleet: a frozen value, the same until something of it changes."""

from __future__ import annotations

from typing import Any

import pytest

from enlist.v1 import hierarchy_pb2, server_pb2
from enlist_primary.changes.publisher import ChangePublisher, PresenceChange
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub, Link
from enlist_primary.model.reports import Asked
from enlist_primary.model.rollouts import Presence

ACME, BETA = "acme.example", "beta.example"
T = 1_800_000_000
PATH = "b" * 10


class Ground:
    """Links and observations that a test makes, and the views of them."""

    def __init__(self) -> None:
        nothing: Any = None  # nothing is written
        self.changes = ChangePublisher()
        self.hub = Hub()
        self.observations = Observations(nothing)
        self.below = Descendants(nothing, "", self.changes.publish)
        self.reach = Reachability(self.hub, self.observations, self.below, T, "")
        self.changes.subscribe(PresenceChange, self.reach.on_presence)

    def connect(self, id: str, now: int, kinds: str = "") -> Link:
        link = self.hub.open(ACME, id, T + 10**6)
        self.observations.connected(ACME, id, "192.0.2.1", "1.0", now, kinds=kinds)
        self.changes.publish(PresenceChange(ACME, [id]))
        return link

    def disconnect(self, id: str, link: Link, now: int) -> None:
        self.hub.close(link)
        self.observations.disconnected(ACME, id, now)
        self.changes.publish(PresenceChange(ACME, [id]))

    def name(self, via: str, *paths: str, **fields: Any) -> None:
        """A server says what stands below it."""
        trusted = server_pb2.SERVER_STATE_TRUSTED
        servers = [hierarchy_pb2.BelowServer(path=path, state=trusted, connected=True, kinds=["task/x"]) for path in paths]
        self.below.on_message(ACME, via, Asked(frozenset()), hierarchy_pb2.Below(servers=servers, **fields), T)


@pytest.fixture
async def ground() -> Ground:
    return Ground()


async def test_a_view_says_how_servers_are_connected_and_what_they_have(ground: Ground) -> None:
    assert ground.reach.view(ACME).of("one") == Presence(False, None)
    ground.connect("one", T + 5, "policy/chrony task/restart")
    ground.connect("two", T + 6)
    view = ground.reach.view(ACME)
    assert view.of("one") == Presence(True, T + 5)
    assert view.kinds == {"one": {"policy/chrony", "task/restart"}, "two": frozenset()}
    assert ground.reach.view(BETA).presence == {}


async def test_a_view_stays_the_same_until_presence_changes(ground: Ground) -> None:
    link = ground.connect("one", T)
    view = ground.reach.view(ACME)
    assert ground.reach.view(ACME) is view
    ground.changes.publish(PresenceChange(BETA, ["one"]))
    assert ground.reach.view(ACME) is view
    ground.disconnect("one", link, T + 9)
    assert ground.reach.view(ACME).of("one") == Presence(False, T + 9)
    assert view.of("one") == Presence(True, T), "a decision under way keeps what it was given"


async def test_a_server_that_goes_takes_what_is_known_below_it_along(ground: Ground) -> None:
    link = ground.connect("mid", T)
    ground.name("mid", PATH)
    assert ground.reach.view(ACME).connected(f"mid/{PATH}")
    assert ground.reach.view(ACME).kinds[f"mid/{PATH}"] == {"task/x"}
    ground.disconnect("mid", link, T + 9)
    assert ground.reach.view(ACME).of(f"mid/{PATH}") == Presence(False, T + 9)


async def test_servers_that_are_gone_below_take_no_room(ground: Ground) -> None:
    """Or a server that names others on and on fills memory (attacks row 37)."""
    ground.connect("mid", T)
    for letter in "cdefgh":
        ground.name("mid", letter * 10)
        assert ground.reach.view(ACME).connected(f"mid/{letter * 10}")
        ground.name("mid", gone=[letter * 10])
        assert list(ground.reach.view(ACME).presence) == list(ground.reach.view(ACME).kinds) == ["mid"]
