"""Decisions about tasks: made, begun, ended, cancelled. And what servers say of them, which is no decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from enlist import documents
from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import moment
from enlist_primary.model import desired
from enlist_primary.model import rollouts as stages
from enlist_primary.model import tasks as model
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.reports import Word
from enlist_primary.model.rollouts import Rollout, RolloutState
from enlist_primary.model.servers import Server, State
from enlist_primary.model.tasks import Progress, Result, Run, Task, TaskState, Wanted
from enlist_primary.model.users import PRIMARY_ITSELF, Actor
from enlist_primary.operations.journalling import record as journal
from enlist_primary.store import accounts, groups, levels, policies, rollouts, servers, tasks
from enlist_primary.store.database import Transaction

PLANNED_TASKS = 1000
KEPT_RUNS = 20
"""Runs of a task that are remembered, besides those under way."""
KEPT_TASKS = 1000
"""Tasks of an account that are remembered once they are over."""
FORGOTTEN_AT_ONCE = 10

NOBODY = "no trusted server is there"
STILL = "the run before is still under way"
TOO_MANY = f"{desired.RUNS} runs are under way already, or their arguments take up all the room there is"


def about_task(id: str) -> str:
    """The journal's subject for a task."""
    return f"tasks/{id}"


# --- Made -------------------------------------------------------------------------------------------------------------------


def run(tx: Transaction, account: str, wanted: Wanted, view: FleetView, by: Actor, new_id: Callable[[], str], now: int) -> Task:
    """Makes a task; one for now begins its run in the same decision. `wanted` comes from `model.tasks.checked`.

    Refused: NOT_FOUND for a group or a server that is not there and where nobody is trusted, STATE_FORBIDS for a server that is
    not, KIND_UNSUPPORTED, OVERLOADED.
    """
    accounts.lock(tx, account)
    if account == PRIMARY:
        raise Refused(Reason.INVALID_ARGUMENT, "The primary's own account has no servers, and no tasks.")
    task = _made(tx, account, wanted, new_id(), now)
    server_ids = _targets(tx, task, now)
    _check_kind(task, server_ids, view)
    _check_room(tx, account, task)
    number = _journal(tx, task, "task.run", by, now, **_described(task, server_ids))
    task = replace(task, revision=number)
    tasks.insert(tx, task)
    if task.next_at is None:
        task = _begun(tx, replace(task, state=Progress.RUNNING), server_ids, view, new_id(), now)
    tasks.forget_tasks(tx, account, KEPT_TASKS, FORGOTTEN_AT_ONCE)
    return task


def _made(tx: Transaction, account: str, wanted: Wanted, id: str, now: int) -> Task:
    group = groups.find(tx, account, wanted.group) if wanted.group else None
    task = Task(
        account=account,
        id=id,
        kind=wanted.kind,
        args=wanted.args.decode(),
        group_id=group.id if group else None,
        group=group.path if group else "",
        server_id=wanted.server_id or None,
        label=wanted.label,
        deadline_seconds=wanted.deadline_seconds,
        schedule=wanted.schedule,
        zone=wanted.zone,
        stages=wanted.stages,
        next_at=wanted.time,
        state=Progress.PLANNED,
        created_at=now,
        revision=0,
    )
    return replace(task, next_at=task.following(now)) if task.schedule else task


def _targets(tx: Transaction, task: Task, now: int) -> list[str]:
    """The servers a run is for if it begins now; refused if there are none."""
    if task.server_id is not None:
        _check_trusted(tx, task.account, task.server_id, now)
        return [task.server_id]
    assert task.group_id is not None, "a task is for a group or for a server"
    below = servers.trusted_below(tx, task.account, groups.below(tx, task.account, task.group_id))
    found = [server.id for server in below if _fits(server, task.label)]
    if not task.label:
        there = frozenset(found)
        found += [each.id for each in levels.below(tx, task.account) if each.via in there and each.state is State.TRUSTED]
    if not found:
        which = f' that bears the label "{task.label}"' if task.label else ""
        raise Refused(Reason.NOT_FOUND, f'No trusted server{which} stands in "{task.group}" or below.')
    return found


def _check_trusted(tx: Transaction, account: str, id: str, now: int) -> None:
    """Refuses a server that is not there or not trusted; so must one below be, and the middle server on the way to it."""
    via, _, path = id.partition("/")
    server = servers.load(tx, account, via).at(now)
    if server.state is not State.TRUSTED:
        raise Refused(Reason.STATE_FORBIDS, f"The server {server.shown_name} is {server.state}: only trusted ones run tasks.")
    below = levels.find_below(tx, account, via, path) if path else None
    if "/" in id and below is None:
        raise Refused(Reason.NOT_FOUND, f'No server "{path}" stands below {server.shown_name}. See: enlist-primary tree {account}')
    if below is not None and below.state is not State.TRUSTED:
        raise Refused(Reason.STATE_FORBIDS, f"The server {below.name} is {below.state} there: only trusted ones run tasks.")


def _fits(server: Server, label: str) -> bool:
    return not label or label in server.labels


def _check_kind(task: Task, server_ids: Sequence[str], view: FleetView) -> None:
    """Refuses a kind for which none of these servers has a handler. One that never said what it has, may have it."""
    needed = documents.TASK + task.kind
    said = [view.kinds.get(id) for id in server_ids]
    if not any(kinds is None or needed in kinds for kinds in said):
        whom = "The server has no" if len(said) == 1 else f"None of the {len(said)} servers has a"
        where = f"its owner configures one in secondary.toml, [handlers.task.{task.kind}]"
        raise Refused(Reason.KIND_UNSUPPORTED, f'{whom} handler for tasks of the kind "{task.kind}": {where}.')


def _check_room(tx: Transaction, account: str, task: Task) -> None:
    if task.next_at is None and _full(tx, task):
        raise Refused(Reason.OVERLOADED, f"In this account {TOO_MANY}. Wait for one to end, or cancel one.")
    if task.next_at is not None and tasks.planned(tx, account) >= PLANNED_TASKS:
        raise Refused(Reason.OVERLOADED, f"In this account {PLANNED_TASKS} tasks are planned already. Cancel one.")


def _full(tx: Transaction, task: Task) -> bool:
    """Whether there is no room for another run with this task's arguments in the sets of its servers."""
    count, size = tasks.open_load(tx, task.account)
    return count >= desired.RUNS or size + len(task.args.encode()) > desired.RUNS_BYTES


def _described(task: Task, server_ids: Sequence[str]) -> dict[str, str | int | None]:
    """What the journal says of a task. Not its arguments: nobody knows what stands in them."""
    return {
        "kind": task.kind,
        "group": task.group,
        "server": task.server_id,
        "label": task.label,
        "time": moment(task.next_at) if task.next_at is not None and not task.schedule else None,
        "schedule": task.schedule,
        "zone": task.zone,
        "deadline_seconds": task.deadline_seconds,
        "stages": ",".join(task.stages.sizes) if task.stages else None,
        "servers": len(server_ids) if task.next_at is None else None,
    }


# --- Begun ------------------------------------------------------------------------------------------------------------------


def _begun(tx: Transaction, task: Task, server_ids: Sequence[str], view: FleetView, run_id: str, now: int) -> Task:
    """The task with a run begun by the decision that is its revision."""
    deadline_at = now + task.deadline_seconds
    deep = task.group_id is not None and not task.label  # of servers below nobody here knows the labels
    only = task.server_id if task.server_id is not None and "/" in task.server_id else ""
    digest = policies.save_body(tx, task.account, model.body(run_id, task.kind, task.args, deadline_at, deep, only))
    tasks.insert_run(tx, Run(task.account, run_id, task.id, task.revision, digest, now, deadline_at), server_ids)
    if task.stages is not None:
        reachable = [id for id in server_ids if view.connected(id)]
        rollouts.insert(tx, stages.begin(task.account, task.revision, 0, task.stages, reachable, now, server_ids))
    tasks.forget_runs(tx, task.account, task.id, KEPT_RUNS)
    tasks.update(tx, task)
    accounts.desires(tx, task.account, task.revision)
    return task


def begin_due(tx: Transaction, account: str, id: str, view: FleetView, new_id: Callable[[], str], now: int) -> Task | None:
    """Begins a run of a task whose time has come; None if it has not. Times that were missed make one run together.

    What cannot begin now, because the run before is under way or nobody is there, is skipped, and the journal says so.
    """
    accounts.lock(tx, account)
    task = tasks.load(tx, account, id)
    if task.next_at is None or task.next_at > now:
        return None
    due, task = task.next_at, replace(task, next_at=task.following(now))
    try:
        server_ids = _targets(tx, task, now)
        why = STILL if task.state is Progress.RUNNING else TOO_MANY if _full(tx, task) else ""
    except Refused:
        server_ids, why = [], NOBODY
    if why:
        return _skipped(tx, task, due, why, now)
    number = _journal(tx, task, "task.begin", PRIMARY_ITSELF, now, kind=task.kind, due=moment(due), servers=len(server_ids))
    return _begun(tx, replace(task, state=Progress.RUNNING, revision=number), server_ids, view, new_id(), now)


def _skipped(tx: Transaction, task: Task, due: int, why: str, now: int) -> Task:
    number = _journal(tx, task, "task.skip", PRIMARY_ITSELF, now, kind=task.kind, due=moment(due), why=why)
    changed = replace(task if task.state is Progress.RUNNING else task.resting(), revision=number)
    tasks.update(tx, changed)
    return changed


# --- Ended ------------------------------------------------------------------------------------------------------------------


def end_run(tx: Transaction, account: str, run_id: str, view: FleetView, now: int) -> Task | None:
    """Ends a run that is over; None if it is not, or was ended before. Of whom no end was heard, it is presumed."""
    accounts.lock(tx, account)
    ended = tasks.open_run(tx, account, run_id)
    if ended is None or not tasks.over(tx, ended, now):
        return None
    task = tasks.load(tx, account, ended.task_id)
    message = _finish_rollout(tx, ended)
    rollout = rollouts.find(tx, account, ended.revision)
    for server_id, state in tasks.open_results(tx, account, run_id).items():
        stopped = not model.reached(rollout, server_id)
        verdict = TaskState.INTERRUPTED if stopped else TaskState.TIMED_OUT
        unreached = view.of(server_id).refusal or model.UNREACHED
        words = model.STOPPED if stopped else unreached if state is TaskState.QUEUED else model.SILENT
        tasks.presume(tx, account, run_id, server_id, verdict, words, now)
    return _ended(tx, task.resting(), ended, "task.end", PRIMARY_ITSELF, message, now)


def _finish_rollout(tx: Transaction, ended: Run) -> str:
    """Ends the stages of a run that is over, and says why it stopped before all servers had it; empty if it did not."""
    rollout = rollouts.find(tx, ended.account, ended.revision)
    if rollout is None or rollout.state is RolloutState.DONE:
        return ""
    if rollout.state is RolloutState.STOPPED:
        return rollout.message
    every = rollout.last_stage
    _stop(tx, rollout, "" if every else model.LATE, RolloutState.DONE if every else RolloutState.STOPPED)
    return "" if every else model.LATE


def _stop(tx: Transaction, rollout: Rollout, why: str, state: RolloutState = RolloutState.STOPPED) -> None:
    rollouts.update(tx, replace(rollout, state=state, message=why))


def _ended(tx: Transaction, task: Task, ended: Run, action: str, by: Actor, message: str, now: int) -> Task:
    """Journals that a run is over, with how it fared, and writes it down."""
    counts = {state.value: count for state, count in tasks.tally(tx, task.account, ended.id).items()}
    number = _journal(tx, task, action, by, now, kind=task.kind, run=ended.id, why=message, **counts)
    tasks.end_run(tx, replace(ended, ended_at=now, message=message))
    changed = replace(task, revision=number)
    tasks.update(tx, changed)
    accounts.desires(tx, task.account, number)
    return changed


def cancel(tx: Transaction, account: str, id: str, by: Actor, now: int) -> Task:
    """Ends a task, and its run where one is under way: the document is taken back, and where it runs it is stopped.

    A cancelled one is returned as it is; of one that is done there is nothing to cancel. That results are `interrupted` is
    presumed: a server that was faster still says so.
    """
    accounts.lock(tx, account)
    task = tasks.load(tx, account, id)
    if task.state is Progress.CANCELLED:
        return task
    if task.state is Progress.DONE:
        raise Refused(Reason.STATE_FORBIDS, "The task is over: there is nothing to cancel.")
    cancelled = replace(task, state=Progress.CANCELLED, next_at=None)
    newest = tasks.find_run(tx, account, id)
    if newest is None or newest.ended_at is not None:
        number = _journal(tx, task, "task.cancel", by, now, kind=task.kind)
        cancelled = replace(cancelled, revision=number)
        tasks.update(tx, cancelled)
        return cancelled
    rollout = rollouts.find(tx, account, newest.revision)
    if rollout is not None and rollout.state is RolloutState.RUNNING:
        _stop(tx, rollout, model.CANCELLED)
    for server_id in tasks.open_results(tx, account, newest.id):
        tasks.presume(tx, account, newest.id, server_id, TaskState.INTERRUPTED, model.CANCELLED, now)
    return _ended(tx, cancelled, newest, "task.cancel", by, model.CANCELLED, now)


def _journal(tx: Transaction, task: Task, action: str, by: Actor, now: int, **detail: str | int | None) -> int:
    return journal(tx, task.account, action, about_task(task.id), by, now, "", **detail)


# --- What servers say ---------------------------------------------------------------------------------------------------------


def record(tx: Transaction, account: str, server_id: str, said: Sequence[Word]) -> list[str]:
    """What a server says of runs: an observation. The ids of the runs of which it changed something.

    It can speak of itself only, in runs that are for it, and never takes back what it said: whatever else it says, nothing changes.
    """
    for word in said:
        tasks.join_run(tx, account, word.name, server_id, word.of_end, word.at)
    return [word.name for word in said if (result := _result(server_id, word)) and tasks.save_word(tx, account, word.name, result)]


def _result(server_id: str, word: Word) -> Result | None:
    state = model.STATES.get(word.state)
    if state is None:
        return None
    ended = state in model.ENDED
    output = word.output if ended else None
    return Result(server_id, "", state, word.exit_code if ended else None, output, word.message, word.at)
