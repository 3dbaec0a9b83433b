"""What must hold of servers, policies, tasks and logs after a storm. Each function returns its violations, as sentences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enlist.v1 import document_pb2, policy_pb2, task_pb2
from scripts.soaking.decisions import Decision
from scripts.soaking.journalled import Entry
from scripts.soaking.tree import KINDS, Server
from tests.support.processes import PrimaryProcess

Shown = tuple[policy_pb2.Policy, Sequence[policy_pb2.PolicyReport]]
Ended = tuple[task_pb2.Task, Sequence[task_pb2.TaskResult]]

_ENDED = {
    document_pb2.TASK_STATE_SUCCEEDED,
    document_pb2.TASK_STATE_FAILED,
    document_pb2.TASK_STATE_TIMED_OUT,
    document_pb2.TASK_STATE_INTERRUPTED,
    document_pb2.TASK_STATE_UNSUPPORTED,
}


def policies(name: str, shown: Sequence[Shown], entries: Sequence[Entry], made: Sequence[Decision]) -> list[str]:
    """Each policy is what its last entry made it, and is reported applied at every server.

    A report names the newest revision of all layers of that kind, so it may be a later one than this policy's own.
    """
    newest = {
        (each["detail"]["kind"], each["detail"]["group"]): each["number"] for each in entries if each["action"] == "policy.set"
    }
    asked = [(decision.number, decision.settings) for decision in made if decision.action == "policy.set"]
    found = []
    for policy, reports in shown:
        number = newest.get((policy.kind, policy.group), policy.revision)
        what = f"{name}: policy {policy.kind} of {policy.group}"
        settings = json.loads(policy.layer.settings)
        likely = [each for acknowledged, each in asked if acknowledged == number]
        if policy.revision != number or (likely and settings not in likely):
            found.append(f"{what} is {settings} as of {policy.revision}; entry {number} made it {likely}")
        found += [
            f"{what} is {document_pb2.DocumentState.Name(each.state)} with revision {each.revision} at {each.server.display_name}"
            for each in reports
            if each.state != document_pb2.DOCUMENT_STATE_APPLIED or each.revision < number
        ]
    return found


def servers(primary: PrimaryProcess, under: Sequence[Server], entries: Sequence[Entry]) -> list[str]:
    """Each server has the id that it had, and what its last entries made it; its files are what the policies say."""
    listed = {server["id"]: server for server in primary.json("server", "list")}
    found = []
    if set(listed) != {server.id for server in under}:
        found.append(f"the servers were {[server.id for server in under]}, and are {list(listed)}")
    for server in under:
        found += _arranged(server, listed.get(server.id, {}), entries)
        found += _files(primary, server)
    return found


def _arranged(server: Server, shown: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    found = []
    about = [entry for entry in entries if entry["subject"] == f"servers/{server.id}"]
    for action, detail, key in (("server.rename", "name", "name"), ("server.move", "after", "group")):
        last = [entry["detail"][detail] for entry in about if entry["action"] == action][-1:]
        if last and shown.get(key) != last[0]:
            found.append(f"{server.name} has the {key} {shown.get(key)}, and its last entry made it {last[0]}")
    if shown.get("state") != "trusted":
        found.append(f"{server.name} is {shown.get('state')}, and was trusted")
    return found


def _files(primary: PrimaryProcess, server: Server) -> list[str]:
    found = []
    for kind in KINDS:
        effective = primary.json("policy", "explain", server.id, "--kind", kind)["effective"]
        if server.settings(kind) != effective:
            found.append(f"{server.name} has {server.settings(kind)} for {kind}, and the policies say {effective}")
    return found


def runs(all_servers: Sequence[Server]) -> list[str]:
    """No task ran twice at a server."""
    return [
        f"{server.name} ran {token} {count} times"
        for server in all_servers
        for token, count in Counter(server.runs).items()
        if count > 1
    ]


def results(name: str, ended: Sequence[Ended]) -> list[str]:
    """Each task is over at each server, and no decision made two tasks."""
    doubled = [args for args, count in Counter(task.args for task, _ in ended).items() if count > 1]
    return [f"{name}: there are several tasks {args.decode()}" for args in doubled] + [
        f"{name}: task {task.id} is {document_pb2.TaskState.Name(each.state)} at {each.server.display_name}"
        for task, all_results in ended
        for each in all_results
        if each.state not in _ENDED
    ]


def outcomes(server: Server, ended: Sequence[Ended]) -> list[str]:
    """Its id is what it was, and what it says of its newest runs is what the primary that began them says.

    A server that was suspended when a run began, and was resumed before its end, may run it without being counted.
    """
    status = server.daemon.status()
    found = [] if status["server_id"] == server.id else [f"{server.name} was {server.id} and is {status['server_id']}"]
    believed = {(task.run.id, each.server.id.rpartition("/")[2]): each.state for task, results in ended for each in results}
    for run in status["tasks"]:
        state = believed.get((run["run"], server.id))
        word = document_pb2.TaskState.Name(state).removeprefix("TASK_STATE_").lower() if state else run["state"]
        if word != run["state"]:
            found.append(f"{server.name} says that run {run['run']} {run['state']} ({run['message']}); its primary says {word}")
    return found


def logs(folder: Path) -> list[str]:
    """No log has a traceback."""
    found = []
    for path in sorted(folder.rglob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        at = [number for number, line in enumerate(lines) if "Traceback" in line]
        found += ["\n    ".join([f"{path.name} has a traceback:", *lines[max(0, n - 1) : n + 40]]) for n in at[:3]]
    return found
