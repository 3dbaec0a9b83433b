"""The SQL of tasks, their runs, and how these fare at servers.

A result whose `output` is null is one of which the server has not said how it ended; if it has ended all the same, the primary
presumed so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from enlist.reasons import Reason, Refused
from enlist_primary.model import desired
from enlist_primary.model import tasks as model
from enlist_primary.model.rollouts import Rollout, Stages
from enlist_primary.model.tasks import ENDED, GRACE, OPEN, PRESUMED, Progress, Result, Run, Task, TaskState
from enlist_primary.store import rollouts
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import path_of


def _name_of(table: str) -> str:
    """The SQL expression for the name of the server that a table names, `middle / name` for one below; NULL if it is not there.

    Ids have ten characters.
    """
    return f"""coalesce(
        (SELECT name FROM server WHERE server.account = {table}.account AND server.id = {table}.server_id),
        (
            SELECT middle.name || ' / ' || below.name FROM below_server below
                JOIN server middle ON middle.account = below.account AND middle.id = below.via
            WHERE below.account = {table}.account AND below.via = substr({table}.server_id, 1, 10)
                AND below.path = substr({table}.server_id, 12)
        )
    )"""


_SELECT = f"SELECT task.*, {path_of('task')} AS group_path, {_name_of('task')} AS server FROM task WHERE task.account = $1"


def _words(states: Iterable[TaskState]) -> str:
    return ", ".join(f"'{state}'" for state in states)


# --- Tasks ------------------------------------------------------------------------------------------------------------------


def unknown(id: str) -> Refused:
    """The answer for a task that is not there, or not for the asker's eyes: one and the same."""
    return Refused(Reason.NOT_FOUND, f'There is no task "{id}". See: enlist-primary task list')


def insert(tx: Transaction, task: Task) -> None:
    """A new row."""
    stages = task.stages
    tx.run(
        """
        INSERT INTO task (account, id, kind, args, group_id, server_id, label, deadline_seconds, schedule, zone, sizes, stop_after,
                          next_at, state, created_at, revision)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        """,
        task.account,
        task.id,
        task.kind,
        task.args,
        task.group_id,
        task.server_id,
        task.label or None,
        task.deadline_seconds,
        task.schedule or None,
        task.zone or None,
        ",".join(stages.sizes) if stages else None,
        stages.stop_after if stages else 0,
        task.next_at,
        task.state.value,
        task.created_at,
        task.revision,
    )


def update(tx: Transaction, task: Task) -> None:
    """What of a task changes."""
    sql = "UPDATE task SET next_at = $3, state = $4, revision = $5 WHERE account = $1 AND id = $2"
    tx.run(sql, task.account, task.id, task.next_at, task.state.value, task.revision)


def load(tx: Transaction, account: str, id: str) -> Task:
    """A task; refused with NOT_FOUND if the account has none of this id."""
    row = tx.row(f"{_SELECT} AND task.id = $2", account, id)
    if row is None:
        raise unknown(id)
    return _task(row)


def accounts_with(tx: Transaction, id: str) -> list[str]:
    """The accounts that have a task of this id."""
    return [row["account"] for row in tx.rows("SELECT account FROM task WHERE id = $1", id)]


def listed(tx: Transaction, account: str, limit: int) -> list[Task]:
    """The account's tasks, those made or changed last first."""
    return [_task(row) for row in tx.rows(f"{_SELECT} ORDER BY task.created_at DESC, task.id LIMIT $2", account, limit)]


def planned(tx: Transaction, account: str) -> int:
    """How many of the account's tasks wait for their time."""
    return int(tx.rows("SELECT count(*) AS n FROM task WHERE account = $1 AND next_at IS NOT NULL", account)[0]["n"])


def _task(row: Row) -> Task:
    return Task(
        account=row["account"],
        id=row["id"],
        kind=row["kind"],
        args=row["args"],
        group_id=row["group_id"],
        group=row["group_path"] or "",
        server_id=row["server_id"],
        label=row["label"] or "",
        deadline_seconds=row["deadline_seconds"],
        schedule=row["schedule"] or "",
        zone=row["zone"] or "",
        stages=Stages(tuple(row["sizes"].split(",")), row["stop_after"]) if row["sizes"] else None,
        next_at=row["next_at"],
        state=Progress(row["state"]),
        created_at=row["created_at"],
        revision=row["revision"],
        server=row["server"] or "",
    )


# --- Runs -------------------------------------------------------------------------------------------------------------------


def insert_run(tx: Transaction, run: Run, server_ids: Sequence[str]) -> None:
    """A new run, queued at each of these servers."""
    sql = """
        INSERT INTO task_run (account, id, task_id, revision, digest, begun_at, deadline_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
    """
    tx.run(sql, run.account, run.id, run.task_id, run.revision, run.digest, run.begun_at, run.deadline_at)
    sql = "INSERT INTO task_result (account, run_id, server_id, state, at) VALUES ($1, $2, $3, $4, $5)"
    for server_id in server_ids:
        tx.run(sql, run.account, run.id, server_id, TaskState.QUEUED.value, run.begun_at)


def end_run(tx: Transaction, run: Run) -> None:
    """Notes that a run is over, and why if that was before all servers had it."""
    sql = "UPDATE task_run SET ended_at = $3, message = $4 WHERE account = $1 AND id = $2"
    tx.run(sql, run.account, run.id, run.ended_at, run.message or None)


def find_run(tx: Transaction, account: str, task_id: str, run_id: str = "") -> Run | None:
    """A run of a task: the one of this id, or else the newest; None if there is none."""
    sql = "SELECT * FROM task_run WHERE account = $1 AND task_id = $2 AND (id = $3 OR $3 = '') ORDER BY revision DESC LIMIT 1"
    row = tx.row(sql, account, task_id, run_id)
    return None if row is None else _run(row)


def open_run(tx: Transaction, account: str, run_id: str) -> Run | None:
    """The run of this id, if it is under way."""
    row = tx.row("SELECT * FROM task_run WHERE account = $1 AND id = $2 AND ended_at IS NULL", account, run_id)
    return None if row is None else _run(row)


def open_runs(tx: Transaction, account: str) -> list[Run]:
    """The account's runs under way."""
    return [_run(row) for row in tx.rows("SELECT * FROM task_run WHERE ended_at IS NULL AND account = $1", account)]


def open_load(tx: Transaction, account: str) -> tuple[int, int]:
    """How many runs of an account are under way, and the bytes of their documents."""
    sql = """
        SELECT count(*) AS runs, coalesce(sum(length(body.body)), 0) AS bytes FROM task_run
            JOIN body ON body.account = task_run.account AND body.digest = task_run.digest
        WHERE task_run.account = $1 AND task_run.ended_at IS NULL
    """
    row = tx.rows(sql, account)[0]
    return int(row["runs"]), int(row["bytes"])


def _run(row: Row) -> Run:
    return Run(
        account=row["account"],
        id=row["id"],
        task_id=row["task_id"],
        revision=row["revision"],
        digest=row["digest"],
        begun_at=row["begun_at"],
        deadline_at=row["deadline_at"],
        ended_at=row["ended_at"],
        message=row["message"] or "",
    )


def open_items(tx: Transaction, account: str, known: Mapping[str, frozenset[str]]) -> list[desired.Run]:
    """The runs under way, with all servers they are for: what they said so far makes no difference to what they shall get.

    For whom a run is never changes. `known` has that of runs read before, by id: there may be many runs for many servers.
    """
    sql = """
        SELECT run.id, task.kind, run.revision, run.digest FROM task_run run
            JOIN task ON task.account = run.account AND task.id = run.task_id
        WHERE run.account = $1 AND run.ended_at IS NULL ORDER BY run.revision
    """
    return [
        desired.Run(r["id"], r["kind"], r["revision"], r["digest"], known.get(r["id"]) or _servers_of(tx, account, r["id"]))
        for r in tx.rows(sql, account)
    ]


def _servers_of(tx: Transaction, account: str, run_id: str) -> frozenset[str]:
    rows = tx.rows("SELECT server_id FROM task_result WHERE account = $1 AND run_id = $2", account, run_id)
    return frozenset(row["server_id"] for row in rows)


def ended_runs(tx: Transaction, account: str) -> frozenset[str]:
    """The ids of the runs that are over and remembered: servers may still say how they ended there."""
    rows = tx.rows("SELECT id FROM task_run WHERE account = $1 AND ended_at IS NOT NULL", account)
    return frozenset(row["id"] for row in rows)


# --- Results ----------------------------------------------------------------------------------------------------------------


def save_word(tx: Transaction, account: str, run_id: str, said: Result) -> bool:
    """A server's word on a run, if the run is for it and the word leads on from what is known: see `model.tasks.takes`."""
    earlier = model.before(said.state)
    if not earlier:
        return False
    presumed = f"OR state IN ({_words(sorted(PRESUMED))}) AND output IS NULL" if said.state in ENDED else ""
    sql = f"""
        UPDATE task_result SET state = $4, exit_code = $5, output = $6, message = $7, at = $8
        WHERE account = $1 AND run_id = $2 AND server_id = $3 AND (state IN ({_words(earlier)}) {presumed})
    """
    values = (said.state.value, said.exit_code, said.output, said.message, said.at)
    return tx.run(sql, account, run_id, said.server_id, *values) > 0


def join_run(tx: Transaction, account: str, run_id: str, server_id: str, ended: bool, now: int) -> None:
    """A server below that speaks of an open run for all below its middle server: it came, or was resumed there, since it began.

    With `ended`, it says how the run ended there: that counts also if the run is over by now.
    """
    via, _, path = server_id.partition("/")
    if not path:
        return
    still_open = "" if ended else "AND run.ended_at IS NULL"
    sql = f"""
        INSERT INTO task_result (account, run_id, server_id, state, at)
        SELECT run.account, run.id, $3, $5, $6 FROM task_run run
            JOIN task ON task.account = run.account AND task.id = run.task_id AND task.server_id IS NULL AND task.label IS NULL
            JOIN task_result middle ON middle.account = run.account AND middle.run_id = run.id AND middle.server_id = $4
            JOIN below_server below ON below.account = run.account AND below.via = $4 AND below.path = $7
        WHERE run.account = $1 AND run.id = $2 {still_open}
        ON CONFLICT DO NOTHING
    """
    tx.run(sql, account, run_id, server_id, via, TaskState.QUEUED.value, now, path)


def presume(tx: Transaction, account: str, run_id: str, server_id: str, state: TaskState, message: str, now: int) -> None:
    """Ends a result that is open, without the server's word."""
    sql = f"""
        UPDATE task_result SET state = $4, message = $5, at = $6
        WHERE account = $1 AND run_id = $2 AND server_id = $3 AND state IN ({_words(OPEN)})
    """
    tx.run(sql, account, run_id, server_id, state.value, message, now)


def open_results(tx: Transaction, account: str, run_id: str) -> dict[str, TaskState]:
    """The servers of a run at which it has not ended, with how it fares there."""
    sql = f"SELECT server_id, state FROM task_result WHERE account = $1 AND run_id = $2 AND state IN ({_words(OPEN)})"
    return {row["server_id"]: TaskState(row["state"]) for row in tx.rows(sql, account, run_id)}


def tally(tx: Transaction, account: str, run_id: str) -> dict[TaskState, int]:
    """At how many servers a run fares how."""
    sql = "SELECT state, count(*) AS n FROM task_result WHERE account = $1 AND run_id = $2 GROUP BY state"
    counts = {TaskState(row["state"]): int(row["n"]) for row in tx.rows(sql, account, run_id)}
    return {state: counts[state] for state in TaskState if state in counts}


def tally_ids(tx: Transaction, account: str, revision: int) -> dict[TaskState, list[str]]:
    """At which servers the run of this revision fares how; empty if no run is of this revision."""
    sql = """
        SELECT server_id, task_result.state FROM task_run JOIN task_result ON task_result.account = task_run.account
            AND task_result.run_id = task_run.id
        WHERE task_run.account = $1 AND task_run.revision = $2 ORDER BY server_id
    """
    found: dict[TaskState, list[str]] = {}
    for row in tx.rows(sql, account, revision):
        found.setdefault(TaskState(row["state"]), []).append(row["server_id"])
    return found


def results(tx: Transaction, account: str, run_id: str, after: str, limit: int) -> list[Result]:
    """How a run fares at its servers, those behind the id `after`."""
    sql = f"""
        SELECT result.*, {_name_of("result")} AS name FROM task_result result
        WHERE result.account = $1 AND result.run_id = $2 AND result.server_id > $3 ORDER BY result.server_id LIMIT $4
    """
    return [_result(row) for row in tx.rows(sql, account, run_id, after, limit)]


def _result(row: Row) -> Result:
    output = None if row["output"] is None else bytes(row["output"])
    state = TaskState(row["state"])
    return Result(row["server_id"], row["name"] or "", state, row["exit_code"], output, row["message"], row["at"])


# --- What is due --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """An account's planned tasks: the ids of those whose time has come, and when the next of the others is due, Unix seconds."""

    due: tuple[str, ...] = ()
    following: int | None = None


def planning(tx: Transaction) -> list[str]:
    """The accounts that have planned tasks."""
    return [row["account"] for row in tx.rows("SELECT DISTINCT account FROM task WHERE next_at IS NOT NULL ORDER BY account")]


def schedule(tx: Transaction, account: str, now: int) -> Schedule:
    """What is due of an account's planned tasks."""
    due = "SELECT id FROM task WHERE account = $1 AND next_at <= $2 ORDER BY next_at, id"
    upcoming = tx.row("SELECT min(next_at) AS at FROM task WHERE account = $1 AND next_at > $2", account, now)
    return Schedule(tuple(row["id"] for row in tx.rows(due, account, now)), upcoming["at"] if upcoming else None)


def schedules(tx: Transaction, accounts: Iterable[str], now: int) -> dict[str, Schedule]:
    """The same of several accounts."""
    return {account: schedule(tx, account, now) for account in accounts}


def open_run_ids(tx: Transaction, accounts: Collection[str] | None = None) -> dict[str, list[str]]:
    """The runs under way, by account: of these accounts, or of all."""
    found: dict[str, list[str]] = {}
    for row in tx.rows("SELECT account, id FROM task_run WHERE ended_at IS NULL ORDER BY account, revision"):
        if accounts is None or row["account"] in accounts:
            found.setdefault(row["account"], []).append(row["id"])
    return found


def run_due(tx: Transaction, account: str, run_id: str, now: int) -> int | None:
    """When a run is to be ended, Unix seconds, unless a server reports before: `now` if it is over; None if it was ended."""
    run = open_run(tx, account, run_id)
    if run is None:
        return None
    return now if over(tx, run, now) else next(time for time in (run.deadline_at, run.deadline_at + GRACE) if time > now)


def over(tx: Transaction, run: Run, now: int) -> bool:
    """Whether a run is to be ended."""
    rollout = rollouts.find(tx, run.account, run.revision)
    return model.over(run, _some_open(tx, run, rollout, model.awaited(run, now)), rollout, now)


def _some_open(tx: Transaction, run: Run, rollout: Rollout | None, states: Collection[TaskState]) -> frozenset[str]:
    """The servers at which a run is in one of these states; one of them is enough to know, unless it depends on which."""
    if rollout is not None:
        return frozenset(id for id, state in open_results(tx, run.account, run.id).items() if state in states)
    sql = f"SELECT server_id FROM task_result WHERE account = $1 AND run_id = $2 AND state IN ({_words(states)}) LIMIT 1"
    return frozenset(row["server_id"] for row in tx.rows(sql, run.account, run.id))


# --- What is forgotten ----------------------------------------------------------------------------------------------------------


def forget_runs(tx: Transaction, account: str, task_id: str, keep: int) -> None:
    """Drops the runs of a task that are over, but for the newest so many, with all that was said of them."""
    sql = """
        SELECT id, revision, digest FROM task_run WHERE account = $1 AND task_id = $2 AND ended_at IS NOT NULL
        ORDER BY revision DESC
    """
    for row in tx.rows(sql, account, task_id)[keep:]:
        tx.run("DELETE FROM task_result WHERE account = $1 AND run_id = $2", account, row["id"])
        tx.run("DELETE FROM task_run WHERE account = $1 AND id = $2", account, row["id"])
        tx.run("DELETE FROM rollout WHERE account = $1 AND revision = $2", account, row["revision"])
        tx.run("DELETE FROM body WHERE account = $1 AND digest = $2", account, row["digest"])


def forget_tasks(tx: Transaction, account: str, keep: int, at_once: int) -> None:
    """Drops tasks that are over, at most so many at once, but for the newest so many, with their runs."""
    sql = "SELECT id FROM task WHERE account = $1 AND state IN ('done', 'cancelled') ORDER BY revision DESC"
    for row in tx.rows(sql, account)[keep : keep + at_once]:
        forget_runs(tx, account, row["id"], 0)
        tx.run("DELETE FROM task WHERE account = $1 AND id = $2", account, row["id"])
