"""What `enlist-secondary status` knows without asking anybody: the configuration, the identity, and the last state told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enlist import certificates
from enlist.runtime import files
from enlist.runtime.terminal import moment
from enlist_secondary import config as configs
from enlist_secondary import identity, policy_store, state, tasks
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.documents import Versions

TASKS = 10
"""Runs of tasks that are shown, at most."""

_SHUT_OUT = frozenset({"denied", "revoked", "expired", "withdrawn", "departed", "removed"})
"""Where a server stands whose certificate, good as it may be, opens nothing."""


@dataclass(frozen=True)
class Problem:
    """Why the last attempt failed."""

    reason: str
    message: str
    at: str


@dataclass(frozen=True)
class Alarm:
    """A stranger that answered where the primary should have been."""

    time: str
    address: str
    fingerprint: str


@dataclass(frozen=True)
class Policy:
    """How the policy of one kind fares here. Revisions are those of all primaries above, the top-most first."""

    kind: str
    state: str
    since: str
    revisions: tuple[int, ...]
    running: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class Task:
    """How a run of a task went here."""

    run: str
    kind: str
    state: str
    since: str
    exit_code: int | None
    message: str


@dataclass(frozen=True)
class Status:
    """Where this server stands; the fields are the keys of `status --json`. Times are `2026-11-21T14:02:00Z`, or None for never."""

    state: str
    connected: bool
    running: bool
    """Whether the daemon runs."""
    primary: str
    primary_name: str
    primary_fingerprint: str
    account: str
    name: str
    server_id: str
    fingerprint: str
    """This server's own, empty before it has a key."""
    comparison_code: str
    since: str | None
    told_at: str | None
    """When the primary last told the state."""
    expires_at: str | None
    contact: str
    reason: str
    """What the administrator who decided gave as the reason."""
    certificate_expires: str | None
    problem: Problem | None
    alarms: tuple[Alarm, ...]
    policies: tuple[Policy, ...] = ()
    tasks: tuple[Task, ...] = ()
    """The last ones, the newest first."""
    staged: Status | None = None
    """The same of a different primary that has yet to authorize this server."""


def status(path: Path) -> Status:
    """The status of the enrolment that the configuration at `path` names."""
    waiting = configs.next_path(path)
    staged = _enrolment(configs.load(waiting), None) if waiting.exists() else None
    return _enrolment(configs.load(path), staged)


def _enrolment(config: SecondaryConfig, staged: Status | None) -> Status:
    told = state.load(config.folder)
    mine = identity.load(config.folder)
    running = files.locked(config.lock)
    problem = told.last_problem
    return Status(
        state=told.state,
        connected=told.connected and running,
        running=running,
        primary=config.primary,
        primary_name=told.primary_name,
        primary_fingerprint=mine.authority.fingerprint if mine else "",
        account=config.account,
        name=told.display_name or config.name,
        server_id=told.server_id,
        fingerprint=mine.fingerprint if mine else "",
        comparison_code=mine.comparison_code(config.account) if mine else "",
        since=_moment(told.since),
        told_at=_moment(told.told_at),
        expires_at=_moment(told.expires_at),
        contact=told.contact,
        reason=told.reason,
        certificate_expires=_moment(certificates.ends_at(mine.certificate) if mine and mine.certificate else None),
        problem=Problem(problem.reason, problem.message, moment(problem.at)) if problem else None,
        alarms=tuple(Alarm(moment(alarm.time), alarm.address, alarm.fingerprint) for alarm in told.alarms),
        policies=tuple(_policies(config)),
        tasks=tuple(_tasks(config)),
        staged=staged,
    )


def _policies(config: SecondaryConfig) -> Iterator[Policy]:
    for kind, record in sorted(policy_store.read_all(config.folder / "policies").items()):
        revisions, running = (_numbers(each) for each in (record.versions, record.running.versions))
        yield Policy(kind, record.state, moment(record.at), revisions, running, record.message)


def _numbers(versions: Versions) -> tuple[int, ...]:
    return tuple(version.revision for of_origin in versions.values() for version in of_origin)


def _tasks(config: SecondaryConfig) -> Iterator[Task]:
    runs = sorted(tasks.read_all(config.folder / "tasks"), key=lambda run: (run.at, run.id), reverse=True)
    for run in runs[:TASKS]:
        yield Task(run.id, run.kind, run.state, moment(run.at), run.exit_code if run.exit_code >= 0 else None, run.message)


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else moment(seconds)


def lines(status: Status) -> list[tuple[str, str]]:
    """A status for people: headings and what stands there, not yet escaped. What has nothing to say is left out."""
    return [(heading, text) for heading, text in _all_lines(status) if text]


def _all_lines(status: Status) -> Iterator[tuple[str, str]]:
    yield "State", f"{status.state} since {status.since}" if status.since else status.state
    yield "Reason given", status.reason
    yield "Connected", "yes" if status.connected else "no" if status.running else "no (enlist-secondary does not run)"
    yield "Primary", f"{status.primary} ({status.primary_name})" if status.primary_name else status.primary
    yield "Primary's fingerprint", status.primary_fingerprint
    yield "Account", status.account
    yield "Name", status.name
    yield "Fingerprint", status.fingerprint
    yield "Comparison code", status.comparison_code
    yield "Whom to ask", status.contact if status.state == "pending" else ""
    yield "Request expires", status.expires_at or ""
    yield "Certificate expires", (status.certificate_expires or "") if status.state not in _SHUT_OUT else ""
    if status.problem:
        yield "Problem", f"{status.problem.reason}: {status.problem.message} ({status.problem.at})"
    for policy in status.policies:
        problem = f": {policy.message}" if policy.message else ""
        yield f"Policy {policy.kind}", f"{policy.state} since {policy.since}{problem}"
    for task in status.tasks[:1]:
        code = "" if task.exit_code is None else f" with exit status {task.exit_code}"
        yield "Last task", f"{task.kind} ({task.run}) {task.state}{code} at {task.since}"
    for alarm in status.alarms:
        yield "ALARM", f"{alarm.time}: a stranger answered at {alarm.address} {alarm.fingerprint}"
    if status.staged:
        yield "To take over", "a different primary, once it has authorized this server:"
        yield from (("  " + heading, text) for heading, text in lines(status.staged))
