"""Decisions about policies: set, ended, set back. Everything is checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from enlist import layers, names
from enlist.layers import Layer
from enlist.reasons import Reason, Refused
from enlist_primary.model import desired
from enlist_primary.model import rollouts as model
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import Size
from enlist_primary.model.fleet import EMPTY, FleetView
from enlist_primary.model.journal import Detail
from enlist_primary.model.policies import Placed, Policy, ways, ways_down
from enlist_primary.model.rollouts import RolloutState, Stages
from enlist_primary.model.users import Actor
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, groups, levels, policies, rollouts
from enlist_primary.store.database import Transaction
from enlist_primary.store.groups import Group

HISTORY = 100
"""Revisions of a policy that are remembered, to be shown and gone back to."""


@dataclass(frozen=True)
class Place:
    """Where a policy stands: the group, and the kind."""

    group: Group
    kind: str

    @property
    def subject(self) -> str:
        """The journal's subject."""
        return about_policy(self.kind, self.group.id)


def about_policy(kind: str, group_id: str) -> str:
    """The journal's subject for a policy."""
    return f"policies/{kind}@{group_id}"


def find_place(tx: Transaction, account: str, path: str, kind: str) -> Place:
    """The place of a policy; refused if the group is not there, or the kind is none."""
    return Place(groups.find(tx, account, path), names.kind(kind))


def set_policy(
    tx: Transaction, account: str, path: str, kind: str, layer: Layer, stages: Stages | None, view: FleetView, by: Actor, now: int
) -> Policy:
    """Sets what a group says; what every server has, or is about to have, already is returned as it is.

    Refused: NOT_FOUND for the group, POLICY_INVALID, SETTING_LOCKED, DOCUMENT_TOO_LARGE.
    """
    place = _lock(tx, account, path, kind)
    body = layers.encode(layer)
    layers.check(layer, above(tx, place))
    digest = policies.save_body(tx, account, body)
    standing = _standing(tx, place)
    if standing is not None and standing.policy.digest == digest and not _unfinished(standing):
        return standing.policy
    return _change(tx, place, "policy.set", digest, stages, view, by, now)


def remove(tx: Transaction, account: str, path: str, kind: str, by: Actor, now: int) -> None:
    """Ends a group's policy; one that ended already stays so. Refused with NOT_FOUND if there never was one."""
    place = _lock(tx, account, path, kind)
    if _standing(tx, place) is not None:
        _change(tx, place, "policy.remove", None, None, EMPTY, by, now)
    elif not policies.history(tx, account, place.group.id, kind, 1):
        raise policies.unknown(place.group.path, kind)


def roll_back(
    tx: Transaction, account: str, path: str, kind: str, to: int, stages: Stages | None, view: FleetView, by: Actor, now: int
) -> Policy:
    """Sets a policy to what it was at the revision `to`; 0 for what it last was before it became what it is.

    It is a decision like any other: a new revision, refused for what has been locked above since.
    """
    place = _lock(tx, account, path, kind)
    standing = _standing(tx, place)
    earlier = _earlier(tx, place, to, standing)
    assert earlier.digest is not None, "a revision that ended the policy is none to go back to"
    layers.check(policies.layer(tx, account, earlier.digest), above(tx, place))
    if standing is not None and standing.policy.digest == earlier.digest and not _unfinished(standing):
        return standing.policy
    return _change(tx, place, "policy.rollback", earlier.digest, stages, view, by, now, to=earlier.revision)


def _earlier(tx: Transaction, place: Place, to: int, standing: Placed | None) -> Policy:
    """The revision to go back to."""
    digest = standing.policy.digest if standing else None
    past = [each for each in policies.history(tx, place.group.account, place.group.id, place.kind, HISTORY) if each.digest]
    found = [each for each in past if (each.revision == to if to else each.digest != digest)]
    if not found:
        what = f"revision {to}" if to else "earlier revision"
        sentence = f'The policy "{place.kind}" of "{place.group.path}" has no {what} to go back to. See: policy history'
        raise Refused(Reason.NOT_FOUND, sentence)
    return found[0]


def above(tx: Transaction, place: Place) -> list[Layer]:
    """What the primaries and the groups above say now of this kind, from the top down; a rollout under way counts as done."""
    account = place.group.account
    tree = {group.id: group.path for group in groups.listed(tx, account)}
    way = ways(tree, policies.of_kind(tx, account, place.kind))[place.group.id]
    digests = [each.policy.digest for each in way if each.policy.group_id != place.group.id and each.policy.digest]
    from_above = [each.said for each in levels.upper_layers(tx, place.kind) if each.said is not None]
    return from_above + [policies.layer(tx, account, digest) for digest in digests]


def _lock(tx: Transaction, account: str, path: str, kind: str) -> Place:
    accounts.lock(tx, account)
    if account == PRIMARY:
        raise Refused(Reason.INVALID_ARGUMENT, "The primary's own account has no servers, and no policies.")
    return find_place(tx, account, path, kind)


def _standing(tx: Transaction, place: Place) -> Placed | None:
    """The policy as it is, with the rollout that brings it."""
    account = place.group.account
    policy = policies.find(tx, account, place.group.id, place.kind)
    return None if policy is None else Placed(policy, rollouts.find(tx, account, policy.revision))


def _unfinished(standing: Placed) -> bool:
    """Whether servers are left that its stages have not reached."""
    return standing.rollout is not None and standing.rollout.state is not RolloutState.DONE


def _change(
    tx: Transaction,
    place: Place,
    action: str,
    digest: str | None,
    stages: Stages | None,
    view: FleetView,
    by: Actor,
    now: int,
    to: int | None = None,
) -> Policy:
    """Journals and writes what was decided; `stages` bring it to the servers, or it reaches all at once."""
    account, group = place.group.account, place.group
    standing = _standing(tx, place)
    about: dict[str, Detail] = {"group": group.path, "kind": place.kind, "digest": digest, "to_revision": to, **_words(stages)}
    number = record(tx, account, action, place.subject, by, now, "", **about)
    policy = Policy(account, group.id, group.path, place.kind, number, digest, now, by.who)
    if digest is not None:
        check_room(tx, account, group.id, (place.kind, policies.size(tx, account, digest)))
    policies.put(tx, policy)
    if standing is not None:
        _end_rollout(tx, standing, f"replaced by revision {number}" if digest else f"ended by revision {number}")
    if stages is not None:
        _begin_rollout(tx, policy, standing, stages, view, now)
    policies.forget(tx, policy, HISTORY)
    accounts.desires(tx, account, number)
    return policy


def check_room(tx: Transaction, account: str, group_id: str, new: tuple[str, int] | None = None) -> None:
    """Refuses, with DOCUMENT_TOO_LARGE, what would be more than servers in this group or below it take.

    `new` is what the group is about to say: the kind, and the bytes of the body. Part of the decision that leads there.
    """
    paths = {group.id: group.path for group in groups.listed(tx, account)}
    sizes = policies.sizes(tx, account)
    if new is not None:
        kept = [each for each in sizes.get(group_id, ()) if each[0] != new[0]]
        before = max((size for kind, size in sizes.get(group_id, ()) if kind == new[0]), default=0)
        sizes[group_id] = [*kept, (new[0], max(new[1], before))]
    for id, way in ways_down(paths).items():
        if group_id in way:
            desired.check_way(paths[id], [Size(kind, paths[step], size) for step in way for kind, size in sizes.get(step, ())])


def _words(stages: Stages | None) -> dict[str, Detail]:
    """Stages as the journal has them."""
    if stages is None:
        return {}
    return {
        "stages": ",".join(stages.sizes),
        "stop_after": stages.stop_after,
        "confirm_seconds": stages.confirm_seconds or None,
    }


def _end_rollout(tx: Transaction, standing: Placed, why: str) -> None:
    """What is replaced has nothing more to say to any server."""
    if standing.rollout is not None and standing.rollout.state is RolloutState.RUNNING:
        rollouts.update(tx, replace(standing.rollout, state=RolloutState.STOPPED, message=why))


def _begin_rollout(tx: Transaction, policy: Policy, standing: Placed | None, stages: Stages, view: FleetView, now: int) -> None:
    """Until its stage, a server has what everybody had for good: the present revision, or what that one's rollout began with."""
    before = 0
    if standing is not None:
        before = standing.rollout.before if standing.rollout and _unfinished(standing) else standing.policy.revision
    below = groups.below(tx, policy.account, policy.group_id)
    ids = [target.id for target in policies.targets(tx, policy.account, below)]
    reachable = [id for id in ids if view.connected(id)]
    rollouts.insert(tx, model.begin(policy.account, policy.revision, before, stages, reachable, now, ids))
