"""The primary's own decisions about rollouts: the next stage, the stop, the end. Each is reckoned from the database when made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from enlist.runtime import schedules
from enlist.runtime.schedules import Window
from enlist_primary.model import policies as policy_model
from enlist_primary.model import rollouts as model
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.journal import Detail
from enlist_primary.model.policies import Placed, Policy
from enlist_primary.model.rollouts import Outcome, Presence, Rollout, RolloutState, Tally
from enlist_primary.model.tasks import TaskState
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations.journalling import record
from enlist_primary.operations.policies import about_policy
from enlist_primary.operations.tasks import about_task
from enlist_primary.store import accounts, policies, rollouts, tasks
from enlist_primary.store.database import Transaction

_ACTIONS = {RolloutState.RUNNING: "rollout.stage", RolloutState.STOPPED: "rollout.stop", RolloutState.DONE: "rollout.done"}

_OUTCOMES = {
    TaskState.SUCCEEDED: Outcome.IN_FORCE,
    TaskState.FAILED: Outcome.FAILED,
    TaskState.TIMED_OUT: Outcome.FAILED,
    TaskState.INTERRUPTED: Outcome.FAILED,
    TaskState.UNSUPPORTED: Outcome.IN_FORCE,  # as for policies: that a server has no handler tells nothing of the change
}


@dataclass(frozen=True)
class Subject:
    """What a rollout brings: the journal's subject for it, when it began, and what has come of it at each server it is for.

    `windows` are the maintenance windows that servers wait for; `patience` is how long each has, where the stages do not say so.
    """

    about: str
    begun: int
    outcomes: Mapping[str, Outcome]
    windows: Mapping[str, Window] = field(default_factory=dict)
    patience: int | None = None


def due(tx: Transaction, account: str, revision: int, view: FleetView, now: int) -> int | None:
    """When there is something to decide about a rollout, Unix seconds: `now` if there is already.

    None while only a change brings that, and for a rollout that is not under way.
    """
    rollout = rollouts.find(tx, account, revision)
    subject = _subject(tx, rollout) if rollout is not None and rollout.state is RolloutState.RUNNING else None
    if rollout is None or subject is None:
        return None
    after, tally = _judged(rollout, subject, view, now)
    return tally.due if after is None else now


def advance(tx: Transaction, account: str, revision: int, view: FleetView, now: int) -> Rollout | None:
    """Decides about a rollout, if there is something to decide, and returns it as it is then."""
    accounts.lock(tx, account)
    rollout = rollouts.find(tx, account, revision)
    subject = _subject(tx, rollout) if rollout is not None else None
    if rollout is None or subject is None:
        return None
    after, _ = _judged(rollout, subject, view, now)
    if after is None:
        return None
    stage = f"{after.stage} of {len(after.stages.sizes)}"
    detail: dict[str, Detail] = {"revision": revision, "stage": stage, "message": after.message}
    number = record(tx, account, _ACTIONS[after.state], subject.about, PRIMARY_ITSELF, now, "", **detail)
    rollouts.update(tx, after)
    accounts.desires(tx, account, number)
    return after


def _judged(rollout: Rollout, subject: Subject, view: FleetView, now: int) -> tuple[Rollout | None, Tally]:
    opens = cache(schedules.opens)  # most servers of a group ask about the same moment

    def patiently(id: str) -> Presence:
        """A server that waits for its window has its time from when that opens."""
        presence = view.of(id)
        window = subject.windows.get(id)
        if window is None or not presence.connected:
            return presence
        return presence._replace(opens=opens(window, max(rollout.stage_at, presence.since or 0)))

    tally = model.count(rollout, subject.begun, subject.outcomes, patiently, now, subject.patience)
    ids = list(subject.outcomes)
    return model.judge(rollout, tally, [id for id in ids if view.connected(id)], now, ids), tally


def _subject(tx: Transaction, rollout: Rollout) -> Subject | None:
    """What a rollout brings; None if that is no more."""
    policy = policies.revision(tx, rollout.account, rollout.revision)
    return _run(tx, rollout) if policy is None else _policy(tx, policy, rollout)


def _policy(tx: Transaction, policy: Policy, rollout: Rollout) -> Subject:
    scene = policies.scene(tx, policy.account, policy.kind, policy.group_id)
    placed = Placed(policy, rollout)
    outcomes, windows = {}, {}
    there = {target.id for target in scene.targets}
    for target in scene.targets:
        id, way = target.id, scene.ways[target.group_id]
        if id.partition("/")[0] not in there:
            continue  # its middle server is suspended: no more than that one it fails, for it is not asked
        outcomes[id] = policy_model.outcome(placed, way, id, scene.reports.get(id))
        if target.group_id in scene.windows:
            windows[id] = scene.windows[target.group_id]
    return Subject(about_policy(policy.kind, policy.group_id), policy.created_at, outcomes, windows)


def _run(tx: Transaction, rollout: Rollout) -> Subject | None:
    """A run of a task: its own deadline says how long servers have. One that is over needs no more stages."""
    run = next((run for run in tasks.open_runs(tx, rollout.account) if run.revision == rollout.revision), None)
    if run is None:
        return None
    tally = tasks.tally_ids(tx, rollout.account, rollout.revision)
    outcomes = {id: _OUTCOMES.get(state, Outcome.WAITING) for state, ids in tally.items() for id in ids}
    return Subject(about_task(run.task_id), run.begun_at, outcomes, patience=max(0, run.deadline_at - rollout.stage_at))
