"""Policies: what a group says of one kind, which of it a server gets, and how it fares there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from enlist import names
from enlist.documents import ItemVersion
from enlist_primary.model import rollouts
from enlist_primary.model.rollouts import Outcome, Presence, Rollout


class Status(StrEnum):
    """How a policy fares at a server. `PENDING` and `UNREACHABLE` are the primary's own findings; a server reports the others."""

    PENDING = "pending"
    RECEIVED = "received"
    APPLIED = "applied"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CHANGED_LOCALLY = "changed_locally"
    UNREACHABLE = "unreachable"
    UNSUPPORTED = "unsupported"


REFUSED = frozenset({Status.FAILED, Status.ROLLED_BACK})

NOT_YET = "its stage has not begun"
_NO_VERSION = ItemVersion(0, "")


@dataclass(frozen=True)
class Policy:
    """What a group says of one kind since the decision `revision`. `group` is the path; without `digest`, it says nothing since."""

    account: str
    group_id: str
    group: str
    kind: str
    revision: int
    digest: str | None
    created_at: int
    actor: str

    @cached_property
    def version(self) -> ItemVersion | None:
        """By what reports name it; None if it says nothing."""
        return None if self.digest is None else ItemVersion(self.revision, self.digest)


@dataclass(frozen=True)
class Placed:
    """A group's present policy, with the rollout that brings it; None if it went to all servers at once.

    `before_digest` is the body of the revision that `rollout.before` names; None if that says nothing.
    """

    policy: Policy
    rollout: Rollout | None = None
    before_digest: str | None = None

    def revision_at(self, server_id: str) -> int:
        """The revision of this policy that a server has; 0 for none."""
        if self.rollout is None:  # as revision_for says too; asked for every server and layer at each look
            return self.policy.revision
        return rollouts.revision_for(self.policy.revision, self.rollout, server_id)[0]

    def version_at(self, server_id: str) -> ItemVersion | None:
        """The version of this policy that a server has; None for none."""
        if self.rollout is None or (revision := self.revision_at(server_id)) == self.policy.revision:
            return self.policy.version
        return None if self.before_digest is None else ItemVersion(revision, self.before_digest)


Way = Sequence[Placed]
"""The policies of one kind on the way from the root group down to a server's."""


class Report(NamedTuple):
    """The last word of a server on the policy of one kind, Unix seconds: what it holds, and what is in force there."""

    observed: tuple[ItemVersion, ...]
    applied: tuple[ItemVersion, ...]
    state: Status
    message: str
    at: int


class Fares(NamedTuple):
    """How a policy fares at a server. Revisions are 0 for none; `since` is Unix seconds, None where it is not known."""

    status: Status
    revision: int = 0
    running: int = 0
    message: str = ""
    since: int | None = None


@dataclass
class Counts:
    """How a policy fares at all servers it is for."""

    by_status: Counter[Status] = field(default_factory=Counter)
    unreachable_since: int | None = None
    not_begun: int = 0
    """Of the pending ones, those whose stage has not begun."""

    def add(self, fares: Fares, number: int = 1) -> None:
        """Counts in so many servers that fare so."""
        self.by_status[fares.status] += number
        if fares.status is Status.PENDING and fares.message == NOT_YET:
            self.not_begun += number
        if fares.status is Status.UNREACHABLE and fares.since is not None:
            self.unreachable_since = min(fares.since, self.unreachable_since or fares.since)

    @property
    def desired(self) -> int:
        """How many servers it is for."""
        return self.by_status.total()


def ways(groups: Mapping[str, str], placed: Iterable[Placed]) -> dict[str, tuple[Placed, ...]]:
    """For every group (id -> path) the policies on the way down to it, of those given, which are of one kind."""
    here = {each.policy.group_id: each for each in placed}
    return {id: tuple(here[step] for step in way if step in here) for id, way in ways_down(groups).items()}


def ways_down(groups: Mapping[str, str]) -> dict[str, list[str]]:
    """For every group (id -> path) the ids from the root group down to it."""
    ids = {path: id for id, path in groups.items()}
    return {id: [ids[step] for step in _steps(path)] for id, path in groups.items()}


def _steps(path: str) -> list[str]:
    """The paths of a group and of all above it, from the root group down."""
    parts = path.split("/") if path != names.ROOT_GROUP else []
    return [names.show_group(tuple(parts[:depth])) for depth in range(len(parts) + 1)]


def desired_items(way: Way, server_id: str) -> tuple[ItemVersion, ...]:
    """What is desired at a server now, from the top down: what its report must name to count."""
    return tuple(version for each in way if (version := each.version_at(server_id)))


def fares(placed: Placed, way: Way, server_id: str, report: Report | None, presence: Presence) -> Fares:
    """How one policy of a server's way fares there. All of a kind are in force together or not at all."""
    revision, running = (_newest(report.observed), _newest(report.applied)) if report else (0, 0)
    if not presence.connected:
        return Fares(Status.UNREACHABLE, revision, running, since=presence.since)
    begun = placed.revision_at(server_id) == placed.policy.revision
    if not begun or report is None or not _counts(report, desired_items(way, server_id)):
        if begun and presence.refusal:
            return Fares(Status.FAILED, placed.policy.revision, running, presence.refusal, _asked(way, presence))
        return Fares(Status.PENDING, placed.policy.revision, running, "" if begun else NOT_YET, _asked(way, presence))
    return Fares(report.state, revision, running, report.message, report.at)


def _newest(versions: Iterable[ItemVersion]) -> int:
    return max(versions, default=_NO_VERSION).revision


def _counts(report: Report, desired: tuple[ItemVersion, ...]) -> bool:
    """Whether a report is about exactly what is desired. That it is applied counts only if that is what is in force, too."""
    return report.observed == desired and (report.state is not Status.APPLIED or report.applied == desired)


def _asked(way: Way, presence: Presence) -> int:
    """Since when a server has had to say something new: what it shall have was decided, or its link opened, whichever came last."""
    decided = (max(each.policy.created_at, each.rollout.stage_at if each.rollout else 0) for each in way)
    return max(presence.since or 0, *decided)


def outcome(placed: Placed, way: Way, server_id: str, report: Report | None) -> Outcome:
    """What a server's last word makes of the rollout of a policy.

    Where it came to be in force it has proved itself, even among others that have changed since, or if somebody at the server
    changed it later. Where it failed, it failed together with exactly what is desired at the server now.
    """
    version = placed.policy.version
    if report is None:
        return Outcome.WAITING
    if version in report.applied:
        return Outcome.IN_FORCE
    if version not in report.observed or report.observed != desired_items(way, server_id):
        return Outcome.WAITING
    if report.state is Status.UNSUPPORTED:  # it has no handler, whatever the change says: that tells nothing of the change
        return Outcome.IN_FORCE
    return Outcome.FAILED if report.state in REFUSED else Outcome.WAITING
