"""Policies and how they fare, as messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from enlist import names, values
from enlist.layers import Layer
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2
from enlist.v1 import policy_pb2 as pb
from enlist_primary.messages.servers import moment
from enlist_primary.model.levels import UpperLayer
from enlist_primary.model.policies import Counts, Placed, Policy, Status
from enlist_primary.model.rollouts import Rollout, RolloutState, Stages
from enlist_primary.store.policies import Target
from enlist_primary.store.surveys import Change, Reported

LARGEST = 3 * 1024 * 1024
"""Bytes in a message, at most: clients take a megabyte more."""
SHOWN_IN_HISTORY = 8 * 1024
"""Bytes of settings that stand in a list of a hundred revisions; larger ones are left out."""
SHORT_MESSAGE = 60
"""Characters of what a server says, where there are very many of them."""
NAMED_TOGETHER = 1000
"""Servers in one message of a plan."""

M = TypeVar("M", pb.PlanPolicyResponse, pb.ExplainPolicyResponse)

_STATES = {status: document_pb2.DocumentState.Value(f"DOCUMENT_STATE_{status.name}") for status in Status}
_ROLLOUTS = {state: pb.RolloutState.Value(f"ROLLOUT_STATE_{state.name}") for state in RolloutState}


def policy(row: Policy, layer: Layer | None, settings: bytes | None, rollout: Rollout | None, counts: Counts | None) -> pb.Policy:
    """A policy as it is or was; `settings` are left out where they are None."""
    return pb.Policy(
        account=row.account,
        group=row.group,
        kind=row.kind,
        revision=row.revision,
        layer=None if layer is None else pb.Layer(settings=settings or b"", locks=layer.locks, put_back=layer.put_back),
        create_time=moment(row.created_at),
        counts=None if counts is None else _counts(counts),
        rollout=None if rollout is None else _rollout(rollout),
        removed=row.digest is None,
        actor=row.actor,
    )


def present(placed: Placed, layer: Layer, counts: Counts, whole: bool) -> pb.Policy:
    """A policy as it is, and how it fares; its settings only if it is to be shown whole."""
    return policy(placed.policy, layer, _settings(layer) if whole else None, placed.rollout, counts)


def past(row: Policy, layer: Layer | None, rollout: Rollout | None) -> pb.Policy:
    """A policy as it was."""
    settings = _settings(layer) if layer is not None else b""
    return policy(row, layer, settings if len(settings) <= SHOWN_IN_HISTORY else None, rollout, None)


def _settings(layer: Layer) -> bytes:
    return values.dumps(dict(layer.settings))


def _counts(counts: Counts) -> pb.PolicyCounts:
    by_status = {status.value: count for status, count in counts.by_status.items()}
    since = moment(counts.unreachable_since)
    return pb.PolicyCounts(desired=counts.desired, **by_status, unreachable_since=since, not_begun=counts.not_begun)


def _rollout(rollout: Rollout) -> pb.Rollout:
    return pb.Rollout(
        state=_ROLLOUTS[rollout.state],
        stages=stages(rollout.stages),
        stage=rollout.stage,
        stage_time=moment(rollout.stage_at),
        message=rollout.message,
    )


def stages(row: Stages) -> pb.Stages:
    """Stages as they were set."""
    return pb.Stages(sizes=row.sizes, stop_after=row.stop_after, confirm_seconds=row.confirm_seconds)


def reports(rows: Sequence[Reported]) -> pb.ListPolicyReportsResponse:
    """How a policy fares at each server; where all that they say would be too much, the beginning of it."""
    whole = pb.ListPolicyReportsResponse(reports=map(_report, rows))
    if whole.ByteSize() > LARGEST:
        for each in whole.reports:
            each.message = each.message[:SHORT_MESSAGE]
    return whole


def _report(row: Reported) -> pb.PolicyReport:
    return pb.PolicyReport(
        server=label(row.target),
        group=row.group,
        state=_STATES[row.fares.status],
        revision=row.fares.revision,
        running_revision=row.fares.running,
        message=row.fares.message,
        time=moment(row.fares.since),
    )


def label(target: Target) -> pb.ServerLabel:
    """A server by id and name."""
    return pb.ServerLabel(id=target.id, display_name=target.name)


def explained(row: Policy, layer: Layer) -> pb.ExplainedLayer:
    """A layer as it reaches a server."""
    where = row.account if row.group == names.ROOT_GROUP else f"{row.account}/{row.group}"
    says = pb.Layer(settings=_settings(layer), locks=layer.locks, put_back=layer.put_back)
    return pb.ExplainedLayer(layer=where, revision=row.revision, says=says)


def from_above(row: UpperLayer) -> pb.ExplainedLayer:
    """A layer of a primary above."""
    says = pb.Layer(settings=_settings(row.layer), locks=row.layer.locks, put_back=row.layer.put_back)
    return pb.ExplainedLayer(layer=row.label, revision=row.revision, says=says)


def changes(row: Change) -> Iterator[pb.PlanPolicyResponse]:
    """What would change, in messages that name some of the servers each."""
    for begin in range(0, len(row.targets), NAMED_TOGETHER):
        some = map(label, row.targets[begin : begin + NAMED_TOGETHER])
        yield checked(pb.PlanPolicyResponse(before=row.before, after=row.after, servers=some))


def checked(message: M) -> M:
    """The message, or the refusal where it is larger than anybody takes."""
    if message.ByteSize() > LARGEST:
        raise Refused(Reason.DOCUMENT_TOO_LARGE, "All the layers of this policy together are too large to be shown.")
    return message
