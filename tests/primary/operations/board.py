"""Tasks at a desk: three servers in two groups, a clock, and everything that may be decided about a task or said of it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from enlist_primary.model.fleet import FleetView
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.reports import Word
from enlist_primary.model.rollouts import Presence, RolloutState, Stages
from enlist_primary.model.servers import Server, State
from enlist_primary.model.tasks import OPEN, Progress, Result, Run, Task, TaskState, Wanted, checked
from enlist_primary.operations import tasks
from enlist_primary.store import rollouts
from enlist_primary.store import tasks as rows
from tests.primary.operations.desk import ACME, ANN, Desk

STAGES = Stages(("1", "100%"))
HAS = frozenset({"task/restart", "task/ping", "policy/chrony"})


class Board:
    """The account's tasks. `said` holds the kinds servers said to have, `down` those whose link is not open."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.tx = desk.tx
        self.said: dict[str, Collection[str] | None] = {}
        self.down: set[str] = set()
        self.refusals: dict[str, str] = {}
        """Why servers refuse what is desired there."""
        for path in ("Sites/Paris", "Sites/Rome", "Empty"):
            desk.add_group(path)
        self.paris, self.lyon = self.server("paris", "Sites/Paris"), self.server("lyon", "Sites/Paris")
        self.rome = self.server("rome", "Sites/Rome")

    def server(self, name: str, group: str = "/", account: str = ACME) -> Server:
        """A trusted server in a group."""
        server = self.desk.authorize(self.desk.ask(name, account, name), group=group)
        self.said[server.id] = HAS
        return server

    def below(self, middle: Server, path: str, name: str, state: State = State.TRUSTED) -> BelowServer:
        """A server below a middle server, as that says."""
        below = self.desk.below(middle, path, name, state)
        self.said[below.id] = HAS
        return below

    @property
    def view(self) -> FleetView:
        """What is seen of the servers now."""
        presence = {id: Presence(id not in self.down, self.desk.now, refusal=self.refusals.get(id, "")) for id in self.said}
        return FleetView(presence, {id: frozenset(kinds) for id, kinds in self.said.items() if kinds is not None})

    # --- Decisions ----------------------------------------------------------------------------------------------------------

    def run(self, group: str = "/", account: str = ACME, **wanted: Any) -> Task:
        """Makes a task: `restart`, for the root group, now."""
        asked = checked(Wanted(**{"kind": "restart", "group": group, **wanted}), self.desk.now)
        return self.desk.do(tasks.run, account, asked, self.view, ANN, self.desk.new_id, self.desk.now)

    def begin(self, task: Task) -> Task | None:
        """Begins a run of a task that is due."""
        return self.desk.do(tasks.begin_due, task.account, task.id, self.view, self.desk.new_id, self.desk.now)

    def end(self, run: Run) -> Task | None:
        """Ends a run that is over."""
        return self.desk.do(tasks.end_run, run.account, run.id, self.view, self.desk.now)

    def cancel(self, task: Task) -> Task:
        """Somebody cancels a task."""
        return self.desk.do(tasks.cancel, task.account, task.id, ANN, self.desk.now)

    def turn(self) -> int:
        """What the scheduler does: all that is due now. How much that was."""
        now = self.desk.now
        begin = [(account, id) for account in rows.planning(self.tx) for id in rows.schedule(self.tx, account, now).due]
        end = [run for run in self.open_runs() if rows.run_due(self.tx, *run, now) == now]
        for account, id in begin:
            self.desk.do(tasks.begin_due, account, id, self.view, self.desk.new_id, now)
        for account, id in end:
            self.desk.do(tasks.end_run, account, id, self.view, now)
        return len(begin) + len(end)

    def open_runs(self) -> list[tuple[str, str]]:
        """The runs under way, of all accounts."""
        return [(account, id) for account, ids in rows.open_run_ids(self.tx).items() for id in ids]

    def stages(self, run: Run, **changes: Any) -> None:
        """Brings the stages of a run on, as whoever watches rollouts does."""
        rollout = rollouts.find(self.tx, run.account, run.revision)
        assert rollout is not None
        rollouts.update(self.tx, replace(rollout, **changes))

    # --- Words --------------------------------------------------------------------------------------------------------------

    def say(self, server: Server | BelowServer, run: Run | str, state: str, **fields: Any) -> bool:
        """A server says how a run fares; whether that changed anything."""
        id = run if isinstance(run, str) else run.id
        word = Word(server.id, "task/restart", id, state, self.desk.now, **fields)
        return self.desk.do(tasks.record, server.account, server.id, [word]) == [id]

    # --- What there is ------------------------------------------------------------------------------------------------------

    def task(self, task: Task) -> Task:
        """The task as it stands."""
        return rows.load(self.tx, task.account, task.id)

    def newest(self, task: Task) -> Run:
        """The newest run of a task."""
        found = rows.find_run(self.tx, task.account, task.id)
        assert found is not None
        return found

    def runs(self, task: Task) -> list[Run]:
        """The runs of a task under way."""
        return [run for run in rows.open_runs(self.tx, task.account) if run.task_id == task.id]

    def results(self, run: Run) -> dict[str, Result]:
        """How a run fares, by the servers' names."""
        return {result.name: result for result in rows.results(self.tx, run.account, run.id, "", 1000)}

    def states(self, run: Run) -> dict[str, str]:
        """The same, shorter."""
        return {name: result.state.value for name, result in self.results(run).items()}

    def body(self, run: Run) -> Any:
        """The run's document."""
        row = self.tx.row("SELECT body FROM body WHERE account = $1 AND digest = $2", run.account, run.digest)
        assert row is not None
        return json.loads(bytes(row["body"]))

    def rollout_state(self, run: Run) -> RolloutState | None:
        """Where the run's stages stand."""
        rollout = rollouts.find(self.tx, run.account, run.revision)
        return rollout.state if rollout else None

    # --- What must hold -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What holds after every step, whatever was done and said."""
        for row in self.tx.rows("SELECT account, id FROM task"):
            task = rows.load(self.tx, row["account"], row["id"])
            under_way = self.runs(task)
            assert len(under_way) <= 1
            assert bool(under_way) is (task.state is Progress.RUNNING)
            assert not (task.over and task.next_at is not None)
            assert not (task.state is Progress.PLANNED and task.next_at is None)
        for row in self.tx.rows("SELECT account, id, task_id FROM task_run WHERE ended_at IS NOT NULL"):
            assert not rows.open_results(self.tx, row["account"], row["id"])
        for row in self.tx.rows("SELECT state, exit_code, output FROM task_result"):
            if TaskState(row["state"]) in OPEN:
                assert (row["exit_code"], row["output"]) == (None, None)
