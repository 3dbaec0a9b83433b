"""Tasks as `--json` and people see them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enlist.outputs import left_out
from enlist_primary.cli import output
from enlist_primary.cli.groups import shown, span

if TYPE_CHECKING:
    from enlist.v1.task_pb2 import Task, TaskResult, TaskRun

ENDED = frozenset({"succeeded", "failed", "timed_out", "interrupted", "unsupported"})


def progress_of(task: Task) -> str:
    """Where a task stands: `planned`, `running`, `done`, `cancelled`."""
    from enlist.v1 import task_pb2

    return output.name_of_enum(task_pb2.TaskProgress.Name(task.progress), "TASK_PROGRESS_")


def state_of(result: TaskResult) -> str:
    """How a run fares at a server, as people write it."""
    return _state(result.state)


def _state(number: int) -> str:
    from enlist.v1 import document_pb2

    name = document_pb2.TaskState.Name(number)  # type: ignore[arg-type]  # the stubs tell an enum from the number it is
    return output.name_of_enum(name, "TASK_STATE_")


def counts(task: Task) -> dict[str, int]:
    """At how many servers the newest run fares how."""
    return {_state(each.state): each.count for each in task.run.counts}


def ended(task: Task) -> int:
    """At how many servers the newest run has ended."""
    return sum(count for state, count in counts(task).items() if state in ENDED)


def fares(task: Task) -> str:
    """How the newest run fares, in words: `under way at 1 of 3: 2 succeeded, 1 running`. All its servers are in it."""
    words = [f"{count} {state.replace('_', ' ')}" for state, count in counts(task).items()]
    servers, left = task.run.servers, task.run.servers - ended(task)
    where = f"under way at {left} of {servers}" if left else f"ended at {servers} of {servers}"
    return where + (f": {', '.join(words)}" if words else "")


def went_well(results: Sequence[TaskResult]) -> bool:
    """Whether it succeeded somewhere and failed nowhere: that a server has no handler is no failure, as in a rollout."""
    states = {state_of(each) for each in results}
    return "succeeded" in states and states <= {"succeeded", "unsupported"}


def names(results: Sequence[TaskResult]) -> list[str]:
    """What the servers are called, each so that it is no other's: `name`, or `name (id)` where two bear one name."""
    bearers = Counter(each.server.display_name for each in results)
    return [
        name if name and bearers[name] == 1 else f"{name} ({each.server.id})".lstrip()
        for each in results
        for name in [each.server.display_name]
    ]


def exit_code(result: TaskResult) -> int | None:
    """The exit status, None where there is none."""
    return result.exit_code if result.HasField("exit_code") else None


def text(result: TaskResult) -> str:
    """What it wrote; bytes that are no UTF-8 are replaced."""
    return result.output.decode("utf-8", "replace")


def results_as_json(results: Sequence[TaskResult]) -> list[dict[str, object]]:
    """What `task run --json` prints for each server."""
    return [
        {
            "server": name,
            "state": state_of(each),
            "exit_code": exit_code(each),
            "output": text(each),
            "message": each.message or None,
        }
        for name, each in zip(names(results), results, strict=True)
    ]


def as_json(task: Task) -> dict[str, object]:
    """A task as `task list --json` shows it. `server` is its name; what does not apply is null."""
    return {
        "id": task.id,
        "account": task.account,
        "kind": task.kind,
        "group": task.target.group or None,
        "server": task.target.server_name or None,
        "server_id": task.target.server_id or None,
        "label": task.target.label or None,
        "state": progress_of(task),
        "deadline_seconds": task.deadline_seconds,
        "schedule": task.schedule or None,
        "zone": task.time_zone or None,
        "stages": list(task.stages.sizes) if task.HasField("stages") else None,
        "stop_after": task.stages.stop_after if task.HasField("stages") else None,
        "created": output.time_of(task, "create_time"),
        "next": output.time_of(task, "next_time"),
        "revision": task.revision,
        "run": _run_as_json(task.run, counts(task)) if task.HasField("run") else None,
    }


def _run_as_json(run: TaskRun, counted: dict[str, int]) -> dict[str, object]:
    return {
        "id": run.id,
        "began": output.time_of(run, "time"),
        "deadline": output.time_of(run, "deadline_time"),
        "ended": output.time_of(run, "end_time"),
        "servers": run.servers,
        "counts": counted,
        "message": run.message or None,
    }


def whole_as_json(task: Task, results: Sequence[TaskResult]) -> dict[str, object]:
    """A task with its arguments and how a run of it fares at each server."""
    rows = [
        {"id": each.server.id, **row, "bytes_left_out": left_out(each.output), "since": output.time_of(each, "time")}
        for each, row in zip(results, results_as_json(results), strict=True)
    ]
    return as_json(task) | {"args": json.loads(task.args or b"{}"), "results": rows}


# --- For people ---------------------------------------------------------------------------------------------------------------


def target(task: Task) -> str:
    """Whom a task is for."""
    if task.target.server_id:
        return f"the server {task.target.server_name or task.target.server_id}"
    label = f", label {task.target.label}" if task.target.label else ""
    return shown(task.account, task.target.group) + label


def lines(task: Task) -> str:
    """A task, a line for each thing that is to be said of it."""
    said = {
        "task": f"{task.id}, {progress_of(task)}",
        "kind": task.kind,
        "arguments": (task.args or b"{}").decode(),
        "for": target(task),
        "deadline": f"{span(task.deadline_seconds)} from its beginning",
        "schedule": f"{task.schedule}, {task.time_zone or 'UTC'}" if task.schedule else "",
        "stages": ",".join(task.stages.sizes),
        "next": output.time_of(task, "next_time") or "",
        "run": f"{task.run.id}, began {output.time_of(task.run, 'time')}, {fares(task)}" if task.HasField("run") else "none yet",
        "stopped": task.run.message,
    }
    return "\n".join(f"{name:<10} {value}" for name, value in said.items() if value)


def rows(results: Sequence[TaskResult]) -> list[tuple[str, ...]]:
    """A table's rows, one for each server."""
    return [
        (name, state_of(each).replace("_", " "), output.shown(exit_code(each)), output.time_of(each, "time") or "-", each.message)
        for name, each in zip(names(results), results, strict=True)
    ]


def outputs(results: Sequence[TaskResult]) -> str:
    """What each server wrote, below its name; empty if nobody wrote anything."""
    said = [
        (f"{name}{_cut(each)}", text(each).expandtabs()) for name, each in zip(names(results), results, strict=True) if each.output
    ]
    return "\n".join(f"--- {heading}\n{_plain(written)}" for heading, written in said)


def _cut(result: TaskResult) -> str:
    count = left_out(result.output)
    return f" (cut: {count} bytes are left out)" if count else ""


def _plain(written: str) -> str:
    return "\n".join(line.rstrip("\r") for line in written.rstrip("\n").split("\n"))
