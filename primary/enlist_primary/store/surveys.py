"""Queries about policies that look at many servers at once: how they fare, what a server gets and why, and what a change would do.

Each server is looked at once for each kind, and what many servers share is reckoned once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from enlist import layers, values
from enlist.layers import Layer
from enlist_primary.model.fleet import PLAIN, FleetView
from enlist_primary.model.policies import Counts, Fares, Placed, Policy, Report, Way, fares, ways
from enlist_primary.model.rollouts import Presence
from enlist_primary.store import accounts, groups, levels, policies, servers
from enlist_primary.store.database import Transaction
from enlist_primary.store.policies import Scene, Target


@dataclass(frozen=True)
class Surveyed:
    """A policy and how it fares."""

    placed: Placed
    counts: Counts


@dataclass(frozen=True)
class Reported:
    """How a policy fares at one server; `group` is the path of the one it stands in."""

    target: Target
    group: str
    fares: Fares


@dataclass(frozen=True)
class Change:
    """Servers that would change alike: their effective settings as canonical JSON, empty where there are none."""

    before: bytes
    after: bytes
    targets: Sequence[Target]


# --- How they fare ------------------------------------------------------------------------------------------------------------


def everything(tx: Transaction, account: str, view: FleetView) -> list[Surveyed]:
    """All policies of an account, by group and kind."""
    accounts.load(tx, account)
    paths = {group.id: group.path for group in groups.listed(tx, account)}
    found = policies.listed(tx, account)
    counts: dict[int, Counts] = defaultdict(Counts)
    for kind in {each.policy.kind for each in found}:
        placed = ways(paths, [each for each in found if each.policy.kind == kind])
        for alike in _alike(tx, account, kind, placed, view):
            way = placed[alike.group_id]
            for each in way:
                counts[each.policy.revision].add(alike.fares(each, way), alike.number)
    return [Surveyed(each, counts[each.policy.revision]) for each in found]


def one(tx: Transaction, account: str, group_id: str, kind: str, view: FleetView) -> Surveyed | None:
    """One policy; None if the group has none of this kind."""
    paths = {group.id: group.path for group in groups.listed(tx, account)}
    placed = ways(paths, policies.of_kind(tx, account, kind))
    found = _placed(placed[group_id], group_id)
    if found is None:
        return None
    below, counts = frozenset(groups.below(tx, account, group_id)), Counts()
    for alike in _alike(tx, account, kind, placed, view):
        if alike.group_id in below:
            counts.add(alike.fares(found, placed[alike.group_id]), alike.number)
    return Surveyed(found, counts)


class _Alike(NamedTuple):
    """Servers of a group that count alike, and how many they are; `server_id` is empty where it does not matter."""

    group_id: str
    server_id: str
    report: Report | None
    presence: Presence
    number: int

    def fares(self, placed: Placed, way: Way) -> Fares:
        """How a policy fares at each."""
        return fares(placed, way, self.server_id, self.report, self.presence)


def _alike(tx: Transaction, account: str, kind: str, placed: Mapping[str, Way], view: FleetView) -> Iterator[_Alike]:
    """All targets. Where a rollout decides, or a server is not connected or refuses something, it counts by itself."""
    staged = [group for group, way in placed.items() if any(each.rollout is not None for each in way)]
    for group_id, report, number in policies.alike(tx, account, kind, view.plain_ids):
        if group_id not in staged:
            yield _Alike(group_id, "", report, PLAIN, number)
    for target, report in policies.others(tx, account, kind, view.plain_ids, json.dumps(staged)):
        yield _Alike(target.group_id, target.id, report, view.of(target.id), 1)


def at_servers(tx: Transaction, account: str, group_id: str, kind: str, view: FleetView) -> list[Reported] | None:
    """How one policy fares at each server, by group and name; None if the group has none of this kind."""
    scene = policies.scene(tx, account, kind, group_id)
    placed = _placed(scene.ways[group_id], group_id)
    if placed is None:
        return None
    found = [Reported(each, scene.groups[each.group_id].path, _fares(scene, placed, each, view)) for each in scene.targets]
    return sorted(found, key=lambda each: (each.group.strip("/").split("/"), each.target.name, each.target.id))


def _placed(way: Way, group_id: str) -> Placed | None:
    return next((each for each in way if each.policy.group_id == group_id), None)


def _fares(scene: Scene, placed: Placed, target: Target, view: FleetView) -> Fares:
    return fares(placed, scene.ways[target.group_id], target.id, scene.reports.get(target.id), view.of(target.id))


# --- What a server gets -------------------------------------------------------------------------------------------------------


def explained(tx: Transaction, account: str, server_id: str, kind: str) -> list[tuple[Policy, Layer]]:
    """The layers of one kind that a server gets now, from the top down. Refused with NOT_FOUND if there is no such server."""
    server = servers.load(tx, account, server_id)
    way = policies.scene(tx, account, kind, server.group_id).ways[server.group_id]
    found = [policies.revision(tx, account, each.revision_at(server_id)) for each in way]
    return [(each, policies.layer(tx, account, each.digest)) for each in found if each is not None and each.digest is not None]


# --- What a change would do ---------------------------------------------------------------------------------------------------


def planned(tx: Transaction, account: str, group_id: str, kind: str, layer: Layer | None) -> list[Change]:
    """The servers whose effective settings would change if the group said this, with all stages done; None: if it said nothing.

    Other rollouts under way stay as they are. Servers that have the same layers are reckoned once.
    """
    scene = policies.scene(tx, account, kind, group_id)
    alike: dict[_Layered, list[Target]] = defaultdict(list)
    for target in scene.targets:
        alike[_layered(scene.ways[target.group_id], target.id)].append(target)
    from_above = [each.layer for each in levels.upper_layers(tx, kind)]
    reader = _Reader(tx, account)
    depth = _depth(scene, group_id)
    changes: dict[tuple[bytes, bytes], list[Target]] = defaultdict(list)
    for has, targets in alike.items():
        above = from_above + [reader.layer(revision) for place, revision in has if _depth(scene, place) < depth]
        here = [layer] if layer is not None else []
        below = [reader.layer(revision) for place, revision in has if _depth(scene, place) > depth]
        before = _effective([*from_above, *(reader.layer(revision) for _, revision in has)])
        after = _effective([*above, *here, *below])
        if not values.same(before, after):
            changes[_shown(before), _shown(after)] += targets
    return [Change(before, after, targets) for (before, after), targets in changes.items()]


_Layered = tuple[tuple[str, int], ...]
"""The layers that a server has, from the top down: each by its group's id and its revision."""


def _layered(way: Way, server_id: str) -> _Layered:
    return tuple((each.policy.group_id, revision) for each in way if (revision := each.revision_at(server_id)))


def _depth(scene: Scene, group_id: str) -> int:
    """How far below the root group a group stands."""
    path = scene.groups[group_id].path
    return 0 if path == "/" else path.count("/") + 1


class _Reader:
    """Reads each layer once."""

    def __init__(self, tx: Transaction, account: str) -> None:
        self._tx = tx
        self._account = account
        self.layer = cache(self._layer)

    def _layer(self, revision: int) -> Layer:
        policy = policies.revision(self._tx, self._account, revision)
        assert policy is not None, "what a server has is a revision"
        assert policy.digest is not None, "and one that says something"
        return policies.layer(self._tx, self._account, policy.digest)


def _effective(of: Sequence[Layer]) -> dict[str, Any] | None:
    return layers.effective(of) if of else None


def _shown(settings: dict[str, Any] | None) -> bytes:
    return b"" if settings is None else values.dumps(settings)
