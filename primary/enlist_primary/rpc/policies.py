"""PolicyService: what groups say, how it fares, and what a change would do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from enlist import layers, names, values
from enlist.layers import Layer
from enlist.v1 import policy_pb2 as pb
from enlist.v1 import policy_pb2_grpc
from enlist_primary.messages import policies as render
from enlist_primary.model import accounts as model
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.levels import UpperLayer
from enlist_primary.model.policies import Policy
from enlist_primary.model.rollouts import Rollout, Stages, parse_stages
from enlist_primary.operations import policies
from enlist_primary.operations.policies import HISTORY, Place
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.rpc.hierarchy import domains_of, server_of
from enlist_primary.store import accounts, levels, rollouts, surveys
from enlist_primary.store import policies as rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.surveys import Change, Reported, Surveyed

PACE = 0.1
"""Seconds from one look of a watch to the next: a lone change is told at once, of many in a row all but the first together."""


class Key(NamedTuple):
    """Which policy is meant, as it was sent."""

    account: str
    group: str
    kind: str


class Policies(policy_pb2_grpc.PolicyServiceServicer):
    """Decides about policies and shows them; links and rollouts learn of it from the database."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reach = context.reach

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: Any) -> pb.Policy:
        own, key, actor = self._context, _key(request.key), caller().actor
        layer = await asyncio.to_thread(_layer, request.layer)
        stages = _stages(request)
        view = self._reach.view(key.account)
        await own.database.write(key.account, policies.set_policy, *key, layer, stages, view, actor, own.now())
        return await self._shown(key)

    async def RollBackPolicy(self, request: pb.RollBackPolicyRequest, context: Any) -> pb.Policy:
        own, key, actor = self._context, _key(request.key), caller().actor
        stages, to = _stages(request), request.revision
        view = self._reach.view(key.account)
        await own.database.write(key.account, policies.roll_back, *key, to, stages, view, actor, own.now())
        return await self._shown(key)

    async def RemovePolicy(self, request: pb.RemovePolicyRequest, context: Any) -> pb.RemovePolicyResponse:
        own, key = self._context, _key(request.key)
        await own.database.write(key.account, policies.remove, *key, caller().actor, own.now())
        return pb.RemovePolicyResponse()

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.Policy:
        return await self._shown(_key(request.key))

    async def _shown(self, key: Key, whole: bool = True) -> pb.Policy:
        surveyed, layer = await self._context.database.read(_one, key, self._reach.view(key.account))
        return render.present(surveyed.placed, layer, surveyed.counts, whole)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        database = self._context.database
        domains = await domains_of(database, request.parent)
        found = [each for domain in domains for each in await database.read(_listed, domain, self._reach.view(domain))]
        return pb.ListPoliciesResponse(
            policies=[render.present(each.placed, layer, each.counts, whole=False) for each, layer in found]
        )

    async def ListPolicyRevisions(self, request: pb.ListPolicyRevisionsRequest, context: Any) -> pb.ListPolicyRevisionsResponse:
        found = await self._context.database.read(_history, _key(request.key))
        return pb.ListPolicyRevisionsResponse(revisions=[render.past(*each) for each in found])

    async def ListPolicyReports(self, request: pb.ListPolicyReportsRequest, context: Any) -> pb.ListPolicyReportsResponse:
        key = _key(request.key)
        found = await self._context.database.read(_reports, key, self._reach.view(key.account))
        return render.reports(found)

    async def WatchPolicy(self, request: pb.WatchPolicyRequest, context: Any) -> AsyncIterator[pb.Policy]:
        key, shown, loop = _key(request.key), None, asyncio.get_running_loop()
        while True:
            changed = self._context.changes.changed(key.account)  # before reading, so that nothing is missed
            began = loop.time()
            policy = await self._shown(key, whole=False)
            if policy != shown:
                yield policy
                shown = policy
            earliest = loop.time() + max(PACE, loop.time() - began)  # a look at very many servers takes its time
            await changed
            await asyncio.sleep(earliest - loop.time())

    async def ExplainPolicy(self, request: pb.ExplainPolicyRequest, context: Any) -> pb.ExplainPolicyResponse:
        account, id = server_of(request.name)
        above, here = await self._context.database.read(_explained, account, id, names.kind(request.kind))
        shown = [*(render.from_above(each) for each in above), *(render.explained(*each) for each in here)]
        return render.checked(pb.ExplainPolicyResponse(layers=shown))

    async def PlanPolicy(self, request: pb.PlanPolicyRequest, context: Any) -> AsyncIterator[pb.PlanPolicyResponse]:
        key = _key(request.key)
        layer = await asyncio.to_thread(_layer, request.layer) if request.HasField("layer") else None
        for change in await self._context.database.read(_planned, key, layer):
            for message in render.changes(change):
                yield message


def _key(key: pb.PolicyKey) -> Key:
    return Key(caller().require(model.from_resource(key.parent)), key.group or names.ROOT_GROUP, names.kind(key.kind))


def _layer(given: pb.Layer) -> Layer:
    return Layer(values.parse(given.settings), tuple(given.locks), given.put_back)


def _stages(request: pb.SetPolicyRequest | pb.RollBackPolicyRequest) -> Stages | None:
    if not request.HasField("stages"):
        return None
    given = request.stages
    return parse_stages(tuple(given.sizes), given.stop_after, given.confirm_seconds)


# --- Queries ------------------------------------------------------------------------------------------------------------------


def _place(tx: Transaction, key: Key) -> Place:
    accounts.load(tx, key.account)
    return policies.find_place(tx, *key)


def _one(tx: Transaction, key: Key, view: FleetView) -> tuple[Surveyed, Layer]:
    place = _place(tx, key)
    found = surveys.one(tx, key.account, place.group.id, key.kind, view)
    if found is None:
        raise rows.unknown(place.group.path, key.kind)
    return found, _layer_of(tx, found.placed.policy)


def _listed(tx: Transaction, account: str, view: FleetView) -> list[tuple[Surveyed, Layer]]:
    return [(each, _layer_of(tx, each.placed.policy)) for each in surveys.everything(tx, account, view)]


def _layer_of(tx: Transaction, policy: Policy) -> Layer:
    assert policy.digest is not None, "a present policy says something"
    return rows.layer(tx, policy.account, policy.digest)


def _history(tx: Transaction, key: Key) -> list[tuple[Policy, Layer | None, Rollout | None]]:
    place = _place(tx, key)
    found = rows.history(tx, key.account, place.group.id, key.kind, HISTORY)
    if not found:
        raise rows.unknown(place.group.path, key.kind)
    read = rows.layers(tx, key.account, (each.digest for each in found if each.digest))
    return [(each, read.get(each.digest or ""), rollouts.find(tx, key.account, each.revision)) for each in found]


def _reports(tx: Transaction, key: Key, view: FleetView) -> list[Reported]:
    place = _place(tx, key)
    found = surveys.at_servers(tx, key.account, place.group.id, key.kind, view)
    if found is None:
        raise rows.unknown(place.group.path, key.kind)
    return found


def _explained(tx: Transaction, account: str, id: str, kind: str) -> tuple[list[UpperLayer], list[tuple[Policy, Layer]]]:
    return levels.upper_layers(tx, kind), surveys.explained(tx, account, id, kind)


def _planned(tx: Transaction, key: Key, layer: Layer | None) -> list[Change]:
    """What is refused when it is set, is refused here."""
    place = _place(tx, key)
    if layer is not None:
        policies.check_room(tx, key.account, place.group.id, (key.kind, len(layers.encode(layer))))
        layers.check(layer, policies.above(tx, place))
    elif rows.find(tx, key.account, place.group.id, key.kind) is None:
        raise rows.unknown(place.group.path, key.kind)
    return surveys.planned(tx, key.account, place.group.id, key.kind, layer)
