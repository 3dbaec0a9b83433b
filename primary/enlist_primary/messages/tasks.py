"""Tasks into messages."""

from __future__ import annotations

from typing import NamedTuple

from enlist.names import resource
from enlist.v1 import document_pb2, policy_pb2
from enlist.v1 import task_pb2 as pb
from enlist_primary.messages.servers import moment
from enlist_primary.model.rollouts import Presence, Stages
from enlist_primary.model.tasks import Progress, Result, Run, Task, TaskState

STATES = {state: document_pb2.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState}
PROGRESS = {state: pb.TaskProgress.Value(f"TASK_PROGRESS_{state.name}") for state in Progress}


class Fare(NamedTuple):
    """A task with its newest run, if there was one, and at how many servers that fares how."""

    task: Task
    run: Run | None
    counts: dict[TaskState, int]


def task(fare: Fare, whole: bool = True) -> pb.Task:
    """A task; its arguments may be large, and are left out unless it is shown whole."""
    row = fare.task
    return pb.Task(
        name=resource("accounts", row.account, "tasks", row.id),
        id=row.id,
        account=row.account,
        kind=row.kind,
        args=row.args.encode() if whole else b"",
        target=pb.TaskTarget(group=row.group, server_id=row.server_id or "", label=row.label, server_name=row.server),
        deadline_seconds=row.deadline_seconds,
        schedule=row.schedule,
        time_zone=row.zone,
        stages=stages(row.stages),
        progress=PROGRESS[row.state],
        create_time=moment(row.created_at),
        next_time=moment(row.next_at),
        run=None if fare.run is None else _run(fare.run, fare.counts),
        revision=row.revision,
    )


def stages(given: Stages | None) -> policy_pb2.Stages | None:
    """Stages as they were asked for."""
    return None if given is None else policy_pb2.Stages(sizes=given.sizes, stop_after=given.stop_after)


def _run(row: Run, counts: dict[TaskState, int]) -> pb.TaskRun:
    return pb.TaskRun(
        id=row.id,
        time=moment(row.begun_at),
        deadline_time=moment(row.deadline_at),
        end_time=moment(row.ended_at),
        servers=sum(counts.values()),
        counts=[pb.TaskCount(state=STATES[state], count=count) for state, count in counts.items()],
        message=row.message,
    )


def result(row: Result, presence: Presence) -> pb.TaskResult:
    """How a run fares at a server; of one that it has not reached, also why the server does not take it."""
    return pb.TaskResult(
        server=policy_pb2.ServerLabel(id=row.server_id, display_name=row.name),
        state=STATES[row.state],
        exit_code=row.exit_code,
        output=row.output or b"",
        message=(presence.refusal if row.state is TaskState.QUEUED else "") or row.message,
        time=moment(row.at),
    )
