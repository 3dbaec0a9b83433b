"""The SQL of rollouts."""

from __future__ import annotations

from collections.abc import Collection

from enlist_primary.model.rollouts import Rollout, RolloutState, Stages
from enlist_primary.store.database import Row, Transaction

# A rollout that was replaced says nothing to any server, though it was never done.
_SPEAKS = """(
    revision IN (SELECT revision FROM policy WHERE policy.account = rollout.account)
    OR revision IN (SELECT revision FROM task_run WHERE task_run.account = rollout.account AND ended_at IS NULL)
)"""


def insert(tx: Transaction, rollout: Rollout) -> None:
    """A new row."""
    tx.run(
        """
        INSERT INTO rollout (account, revision, before, state, sizes, stop_after, confirm_seconds, stage, started, confirmed,
                             stage_at, message)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        rollout.account,
        rollout.revision,
        rollout.before,
        rollout.state.value,
        ",".join(rollout.stages.sizes),
        rollout.stages.stop_after,
        rollout.stages.confirm_seconds,
        rollout.stage,
        rollout.started,
        rollout.confirmed,
        rollout.stage_at,
        rollout.message or None,
    )


def update(tx: Transaction, rollout: Rollout) -> None:
    """How far it is now; what was asked for stays."""
    tx.run(
        """
        UPDATE rollout SET state = $3, stage = $4, started = $5, confirmed = $6, stage_at = $7, message = $8
        WHERE account = $1 AND revision = $2
        """,
        rollout.account,
        rollout.revision,
        rollout.state.value,
        rollout.stage,
        rollout.started,
        rollout.confirmed,
        rollout.stage_at,
        rollout.message or None,
    )


def find(tx: Transaction, account: str, revision: int) -> Rollout | None:
    """The rollout of this revision; None if it went to everybody at once."""
    row = tx.row("SELECT * FROM rollout WHERE account = $1 AND revision = $2", account, revision)
    return None if row is None else _rollout(row)


def running(tx: Transaction, accounts: Collection[str] | None = None) -> dict[str, list[int]]:
    """The revisions whose rollouts are still to be judged, by account: of these accounts, or of all."""
    # The state stands in the text, or the index of running rollouts could not be used.
    found: dict[str, list[int]] = {}
    for row in tx.rows("SELECT account, revision FROM rollout WHERE state = 'running' ORDER BY account, revision"):
        if accounts is None or row["account"] in accounts:
            found.setdefault(row["account"], []).append(row["revision"])
    return found


def unfinished(tx: Transaction, account: str) -> list[Rollout]:
    """An account's rollouts that decide who has what: of its present policies and its open runs, those that are not done."""
    sql = f"SELECT * FROM rollout WHERE account = $1 AND state <> $2 AND {_SPEAKS} ORDER BY revision"
    return [_rollout(row) for row in tx.rows(sql, account, RolloutState.DONE.value)]


def of_policies(tx: Transaction, account: str) -> dict[int, tuple[Rollout, str | None]]:
    """The rollouts of an account's present policies, done or not, by revision; each with the digest of its revision before."""
    sql = """
        SELECT rollout.*, earlier.digest AS before_digest FROM rollout JOIN policy USING (account, revision)
            LEFT JOIN policy_revision earlier ON earlier.account = rollout.account AND earlier.revision = rollout.before
        WHERE rollout.account = $1
    """
    return {row["revision"]: (_rollout(row), row["before_digest"]) for row in tx.rows(sql, account)}


def _rollout(row: Row) -> Rollout:
    return Rollout(
        account=row["account"],
        revision=row["revision"],
        before=row["before"],
        stages=Stages(tuple(row["sizes"].split(",")), row["stop_after"], row["confirm_seconds"]),
        state=RolloutState(row["state"]),
        stage=row["stage"],
        started=row["started"],
        confirmed=row["confirmed"],
        stage_at=row["stage_at"],
        message=row["message"] or "",
    )
