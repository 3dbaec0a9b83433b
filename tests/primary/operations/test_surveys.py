"""What a server gets and why, and what a change would do: seen without changing anything."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enlist import layers, values
from enlist.layers import Layer
from enlist.reasons import Reason
from enlist_primary.model.policies import Status
from enlist_primary.model.rollouts import Presence, Stages
from enlist_primary.model.servers import Event, Server, State
from enlist_primary.store import groups, policies, surveys
from tests.primary.operations.desk import ACME, Desk
from tests.primary.operations.fleet import KIND, Fleet
from tests.primary.refusals import refused

STAGES = Stages(("1", "100%"))


@pytest.fixture
def fleet(desk: Desk) -> Fleet:
    return Fleet(desk, "Sites/Paris", "Sites/Rome", "Labs")


def explained(fleet: Fleet, server: Server) -> list[tuple[str, int, dict[str, Any]]]:
    found = surveys.explained(fleet.tx, ACME, server.id, KIND)
    return [(policy.group, policy.revision, dict(layer.settings)) for policy, layer in found]


def planned(fleet: Fleet, path: str, settings: dict[str, Any] | None, *locks: str) -> dict[str, tuple[Any, Any]]:
    layer = None if settings is None else Layer(settings, locks)
    changes = surveys.planned(fleet.tx, ACME, groups.find(fleet.tx, ACME, path).id, KIND, layer)
    assert len({(change.before, change.after) for change in changes}) == len(changes)
    return {target.name: (_read(change.before), _read(change.after)) for change in changes for target in change.targets}


def _read(text: bytes) -> Any:
    return json.loads(text) if text else None


# --- Below middle servers -----------------------------------------------------------------------------------------------------


def test_who_stands_below_a_suspended_middle_server_is_counted_as_unreachable(desk: Desk, fleet: Fleet) -> None:
    """It keeps what it has, and its own primary trusts it: the counts are complete."""
    middle, other = fleet.server("middle", "Sites/Paris"), fleet.server("other", "Sites/Paris")
    below = desk.below(middle, "bbbbbbbbbb", "b1")
    desk.below(middle, "cccccccccc", "new", State.PENDING)
    fleet.set("Sites", {"a": 1})
    assert set(fleet.fares("Sites")) == {"middle", "other", "middle / b1"}
    desk.decide(middle, Event.SUSPEND)
    for id in (middle.id, below.id):
        fleet.links[id] = Presence(connected=False, since=desk.now)
    fleet.say(other)
    counts = fleet.counts("Sites")
    assert counts.by_status == {Status.APPLIED: 1, Status.UNREACHABLE: 1}
    assert (counts.desired, counts.unreachable_since) == (2, desk.now)
    assert set(fleet.fares("Sites")) == {"other", "middle / b1"}
    desk.decide(middle, Event.REVOKE)
    assert set(fleet.fares("Sites")) == {"other"}


# --- Counted together ---------------------------------------------------------------------------------------------------------


def test_servers_that_said_the_same_are_one_row_and_the_others_have_one_each(fleet: Fleet) -> None:
    fleet.set("Sites", {"a": 1})
    servers = [fleet.server(f"s{number}", "Sites/Paris" if number < 5 else "Sites/Rome") for number in range(10)]
    for server in servers[1:]:
        fleet.say(server)
    fleet.down(servers[4])
    fleet.links[servers[5].id] = Presence(connected=True, since=fleet.desk.now, refusal="its clock is wrong")
    ids = fleet.view.plain_ids
    alike = policies.alike(fleet.tx, ACME, KIND, ids)
    said = {group_id: Counter[str | None]() for group_id, _, _ in alike}
    for group_id, report, number in alike:
        said[group_id][report and report.state] += number
    paris, rome = servers[0].group_id, servers[5].group_id
    assert said == {paris: {None: 1, Status.APPLIED: 3}, rome: {Status.APPLIED: 4}}
    assert len(alike) == 3
    assert {target.name for target, _ in policies.others(fleet.tx, ACME, KIND, ids, "[]")} == {"s4", "s5"}
    assert len(policies.others(fleet.tx, ACME, KIND, ids, json.dumps([paris]))) == 6


def test_who_is_counted_together_fares_as_each_by_itself(fleet: Fleet) -> None:
    """Also in a stage, without a link, refusing the set, and below a group with a policy of its own; `counts` compares."""
    fleet.set("Sites", {"a": 1})
    servers = [fleet.server(f"s{number}", ("Sites/Paris", "Sites/Rome", "Labs")[number // 4]) for number in range(12)]
    fleet.set("Sites/Rome", {"b": 1}, stages=STAGES)
    for number, server in enumerate(servers):
        if number % 4:
            fleet.say(server, "failed" if number % 4 == 3 else "applied", "why" if number % 4 == 3 else "")
    fleet.down(servers[1])
    for server in (servers[0], servers[2], servers[4]):
        fleet.links[server.id] = Presence(connected=True, since=fleet.desk.now, refusal="its clock is wrong")
    counts = fleet.counts("Sites")
    assert counts.desired == 8
    assert counts.by_status[Status.UNREACHABLE] == 1
    refusing = {name for name, fares in fleet.fares("Sites").items() if fares.message == "its clock is wrong"}
    assert refusing == {"s0", "s4"}, "what s2 reported counts more than that it refuses the set"
    assert counts.by_status[Status.FAILED] == len(refusing) + 2, "and those that reported it"
    assert fleet.counts("Sites/Rome").desired == 4


# --- What a server gets -------------------------------------------------------------------------------------------------------


def test_the_layers_of_a_server_are_shown_from_the_top_down(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    low, top = fleet.set("Sites/Paris", {"a": 1}), fleet.set("/", {"b": 2})
    fleet.set("Sites/Rome", {"c": 3})
    fleet.set("Sites", {"d": 4}, kind="other")
    assert explained(fleet, paris) == [("/", top.revision, {"b": 2}), ("Sites/Paris", low.revision, {"a": 1})]


def test_where_nothing_is_set_there_is_nothing(fleet: Fleet) -> None:
    assert explained(fleet, fleet.server("paris", "Sites/Paris")) == []


def test_who_is_not_in_the_stage_is_shown_what_it_has(fleet: Fleet) -> None:
    everybody = [fleet.server(f"s{number}", "Labs") for number in range(3)]
    first = fleet.set("Labs", {"a": 1})
    second = fleet.set("Labs", {"a": 2}, stages=STAGES)
    has = fleet.has(second, *everybody)
    for server in everybody:
        policy, settings = (second, {"a": 2}) if server.name in has else (first, {"a": 1})
        assert explained(fleet, server) == [("Labs", policy.revision, settings)]


def test_of_a_server_that_is_not_there_there_is_nothing_to_explain(fleet: Fleet) -> None:
    with refused(Reason.NOT_FOUND):
        surveys.explained(fleet.tx, ACME, "nobodyhere", KIND)


# --- What a change would do ---------------------------------------------------------------------------------------------------


def test_a_plan_says_who_would_change_and_how_and_stores_nothing(fleet: Fleet) -> None:
    for name, group in (("root", "/"), ("paris", "Sites/Paris"), ("rome", "Sites/Rome"), ("lab", "Labs")):
        fleet.server(name, group)
    fleet.set("Sites/Paris", {"port": 1})
    fleet.set("Sites/Rome", {"level": 9})
    with fleet.desk.unchanged():
        assert planned(fleet, "Sites", {"port": 2, "level": 3}) == {
            "paris": ({"port": 1}, {"port": 1, "level": 3}),
            "rome": ({"level": 9}, {"port": 2, "level": 9}),
        }
        assert planned(fleet, "Labs", {"x": None}) == {"lab": (None, {})}
        assert planned(fleet, "/", {}).keys() == {"root", "lab"}


def test_whoever_would_not_change_is_not_in_it(fleet: Fleet) -> None:
    fleet.server("paris", "Sites/Paris")
    fleet.set("Sites/Paris", {"port": 1})
    assert planned(fleet, "Sites", {"port": 2}) == {}
    assert planned(fleet, "Sites/Paris", {"port": 1}) == {}
    assert planned(fleet, "Sites/Paris", {"port": True}) == {"paris": ({"port": 1}, {"port": True})}


def test_an_end_is_planned_like_a_change(fleet: Fleet) -> None:
    for name, group in (("paris", "Sites/Paris"), ("rome", "Sites/Rome")):
        fleet.server(name, group)
    fleet.set("Sites", {"port": 1})
    fleet.set("Sites/Paris", {"level": 9})
    assert planned(fleet, "Sites", None) == {"paris": ({"port": 1, "level": 9}, {"level": 9}), "rome": ({"port": 1}, None)}


def test_locks_that_come_with_it_are_reckoned(fleet: Fleet) -> None:
    fleet.server("paris", "Sites/Paris")
    fleet.set("Sites/Paris", {"port": 1})
    assert planned(fleet, "Sites", {"port": 2}, "/port") == {"paris": ({"port": 1}, {"port": 2})}


def test_a_plan_sees_the_end_of_its_own_stages_and_leaves_others_as_they_are(fleet: Fleet) -> None:
    everybody = [fleet.server(f"s{number}", "Sites/Paris") for number in range(3)]
    fleet.set("Sites", {"a": 1})
    second = fleet.set("Sites", {"a": 2}, stages=STAGES)
    fleet.set("Sites/Paris", {"b": 1}, stages=STAGES)
    has = fleet.has(second, *everybody)
    after = {name: (2 if name in has else 1) for name in ("s0", "s1", "s2")}
    assert {name: then for name, (_, then) in planned(fleet, "Sites/Paris", {"b": 2}).items()} == {
        name: {"a": a, "b": 2} for name, a in after.items()
    }
    assert {name: then["a"] for name, (_, then) in planned(fleet, "Sites", {"a": 3}).items()} == dict.fromkeys(after, 3)


TINY = st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, 1, 2, {}, {"c": 1}]), max_size=2)
PATHS = ("/", "Sites", "Sites/Paris", "Sites/Rome", "Labs")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.dictionaries(st.sampled_from(PATHS), TINY), path=st.sampled_from(PATHS), change=st.none() | TINY)
def test_a_plan_says_what_then_happens(
    desk: Desk, said: dict[str, dict[str, Any]], path: str, change: dict[str, Any] | None
) -> None:
    """Whatever stands there: what `explain` shows after the change is what the plan said before it."""
    desk.tx.run("SAVEPOINT example")
    try:
        fleet = Fleet(desk, *PATHS[1:])
        everybody = [fleet.server(place, place) if place != "/" else fleet.server("root") for place in ("Labs", "/")]
        everybody += [fleet.server(name, place) for name, place in (("p1", PATHS[2]), ("p2", PATHS[2]), ("r1", PATHS[3]))]
        for place, settings_there in said.items():
            fleet.set(place, settings_there)
        before = _effective(fleet, everybody)
        plan = planned(fleet, path, change)
        if change is not None:
            fleet.set(path, change)
        elif path in said:
            fleet.remove(path)
        after = _effective(fleet, everybody)
        changed = {name for name in before if not values.same(before[name], after[name])}
        assert plan == {name: (before[name], after[name]) for name in changed}
    finally:
        desk.tx.run("ROLLBACK TO SAVEPOINT example")
        desk.tx.run("RELEASE SAVEPOINT example")


def _effective(fleet: Fleet, servers: list[Server]) -> dict[str, Any]:
    found = {}
    for server in servers:
        layers_of = [layer for _, layer in surveys.explained(fleet.tx, ACME, server.id, KIND)]
        found[server.name or ""] = layers.effective(layers_of) if layers_of else None
    return found
