"""Tasks in any order of decisions, words, lies, crashes and time: no run begins twice, no result goes back, nothing stays open."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from enlist.reasons import Refused
from enlist_primary.model.servers import Event, State
from enlist_primary.model.tasks import ENDED, GRACE, Progress, Task, TaskState, takes
from enlist_primary.store import tasks as rows
from enlist_primary.store.sqlite import SqliteEngine
from tests.primary.operations.board import STAGES, Board
from tests.primary.operations.desk import ACME, BETA, Desk
from tests.primary.refusals import attempt


class Tasks(RuleBasedStateMachine):
    """Each example has a transaction of its own."""

    engine: SqliteEngine
    board: Board

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []
        self.known: dict[tuple[str, str], tuple[str, bool]] = {}
        self.fired: set[tuple[str, int]] = set()

    @initialize()
    def open(self) -> None:
        self.board = Board(Desk(self.engine.begin()))
        self.stranger = self.board.server("stranger", account=BETA)

    @rule(
        group=st.sampled_from(["/", "Sites/Paris", "Sites/Rome", "Empty"]),
        when=st.sampled_from(["now", "at", "cron"]),
        staged=st.booleans(),
    )
    def make(self, group: str, when: str, staged: bool) -> None:
        wanted: dict[str, Any] = {"deadline_seconds": 90, "stages": STAGES if staged else None}
        if when == "at":
            wanted["time"] = self.board.desk.now + 60
        elif when == "cron":
            wanted["schedule"] = "*/2 * * * *"
        made = attempt(self.board.run, group, **wanted)
        assert isinstance(made, Refused) is (group == "Empty" or not self._anybody(group))
        self.tasks += [] if isinstance(made, Refused) else [made]

    def _anybody(self, group: str) -> bool:
        trusted = [server for server in self._servers() if self.board.desk.load(server).state is State.TRUSTED]
        return any(group == "/" or self.board.desk.load(server).group == group for server in trusted)

    def _servers(self) -> list[Any]:
        return [self.board.paris, self.board.lyon, self.board.rome]

    @rule(seconds=st.sampled_from([1, 30, 61, 125, 3600]))
    def wait(self, seconds: int) -> None:
        self.board.desk.later(seconds)

    @rule()
    def turn(self) -> None:
        """The scheduler comes by; asked again at once, it finds nothing more to do."""
        due = {(id, self._task(id).next_at or 0) for id in rows.schedule(self.board.tx, ACME, self.board.desk.now).due}
        assert not due & self.fired
        self.fired |= due
        self.board.turn()
        assert self.board.turn() == 0

    def _task(self, id: str) -> Task:
        return rows.load(self.board.tx, ACME, id)

    @rule(crash=st.booleans(), data=st.data())
    @precondition(lambda self: self.tasks)
    def begin_with_a_crash(self, crash: bool, data: st.DataObject) -> None:
        """Faults row 27: what was not committed did not happen; what was, happens once."""
        task = data.draw(st.sampled_from(self.tasks))
        before = len(self.board.tx.rows("SELECT 1 FROM task_run WHERE task_id = $1", task.id))
        self.board.tx.run("SAVEPOINT crash")
        begun = self.board.begin(task)
        if crash:
            self.board.tx.run("ROLLBACK TO SAVEPOINT crash")
        self.board.tx.run("RELEASE SAVEPOINT crash")
        after = len(self.board.tx.rows("SELECT 1 FROM task_run WHERE task_id = $1", task.id))
        ran = begun is not None and self.board.desk.newest().action == "task.begin" and not crash
        assert after - before == int(ran)

    @rule(
        who=st.integers(0, 3),
        word=st.sampled_from([*(state.value for state in TaskState), "nonsense"]),
        forged=st.booleans(),
        data=st.data(),
    )
    @precondition(lambda self: self.tasks)
    def say(self, who: int, word: str, forged: bool, data: st.DataObject) -> None:
        """A server speaks of a run, its own or another's."""
        ids = [row["id"] for row in self.board.tx.rows("SELECT id FROM task_run ORDER BY revision")]
        if not ids:
            return
        run = "zzzzzzzzzz" if forged else data.draw(st.sampled_from(ids))
        server = [*self._servers(), self.stranger][who]
        was = self.known.get((run, server.id))
        taken = self.board.say(server, run, word, output=b"said")
        expected = was is not None and word != "nonsense" and takes(TaskState(was[0]), was[1], TaskState(word))
        assert taken is expected

    @rule(data=st.data())
    @precondition(lambda self: self.tasks)
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.tasks))
        done = self.board.task(task).state is Progress.DONE
        assert isinstance(attempt(self.board.cancel, task), Refused) is done

    @rule(who=st.integers(0, 2), group=st.sampled_from(["Sites/Paris", "Sites/Rome"]))
    def move(self, who: int, group: str) -> None:
        self.board.desk.move(self._servers()[who], group)

    @rule(who=st.integers(0, 2), event=st.sampled_from([Event.SUSPEND, Event.RESUME]))
    def trust(self, who: int, event: Event) -> None:
        attempt(self.board.desk.decide, self._servers()[who], event)

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "board"):
            self.board.check()
            self._check_results()

    def _check_results(self) -> None:
        for row in self.board.tx.rows("SELECT run_id, server_id, state, output FROM task_result"):
            key, now = (row["run_id"], row["server_id"]), (row["state"], row["output"] is None)
            was = self.known.get(key, now)
            if was != now:
                state, presumed = TaskState(was[0]), was[1]
                given_up = now[1] and TaskState(now[0]) in ENDED and state not in ENDED
                assert given_up or takes(state, presumed and state in ENDED, TaskState(now[0])), (was, now)
            self.known[key] = now

    def teardown(self) -> None:
        """In the end everything that was begun is over, whoever said what."""
        if not hasattr(self, "board"):
            return
        try:
            for task in self.tasks:
                attempt(self.board.cancel, task)
            self.board.desk.later(90 + GRACE)
            self.board.turn()
            assert rows.planning(self.board.tx) == []
            assert self.board.open_runs() == []
            self.board.desk.check_rows()
        finally:
            self.engine.rollback()


def test_nothing_begins_twice_goes_back_or_stays_open(engine: SqliteEngine) -> None:
    """Faults rows 25 and 27, attacks row 37."""
    machine = type("OnThisFile", (Tasks,), {"engine": engine})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40))
