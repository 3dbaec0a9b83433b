"""Decisions about tasks, and what servers say of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from enlist.reasons import Reason
from enlist_primary.model import desired
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.reports import Word
from enlist_primary.model.rollouts import RolloutState, Stages, place
from enlist_primary.model.servers import Event, State
from enlist_primary.model.tasks import ENDED, GRACE, OPEN, Progress, TaskState
from enlist_primary.operations import tasks
from enlist_primary.store import desired as desired_rows
from enlist_primary.store import rollouts
from enlist_primary.store import tasks as rows
from tests.primary.operations.board import STAGES, Board
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, START, Desk, bring

WORDS = [state.value for state in TaskState if state is not TaskState.QUEUED]


@pytest.fixture
def board(desk: Desk) -> Iterator[Board]:
    """Three servers, and what holds whatever is done."""
    board = Board(desk)
    yield board
    board.check()


# --- Made -------------------------------------------------------------------------------------------------------------------


def test_a_task_for_now_begins_in_the_same_decision(desk: Desk, board: Board) -> None:
    with desk.touching_only(ACME):
        task = board.run("Sites/Paris", args=b'{"unit": "nginx"}', deadline_seconds=30)
    entry, run = desk.newest(), board.newest(task)
    assert (entry.action, entry.subject, entry.actor) == ("task.run", f"tasks/{task.id}", ANN.who)
    assert entry.detail == {"kind": "restart", "group": "Sites/Paris", "deadline seconds": 30, "servers": 2}
    assert (task.state, task.revision, run.revision, desk.desired()) == (Progress.RUNNING, *[entry.number] * 3)
    assert board.states(run) == {"paris": "queued", "lyon": "queued"}
    assert (run.begun_at, run.deadline_at, run.ended_at) == (START, START + 30, None)
    assert board.body(run) == {
        "run": run.id,
        "kind": "restart",
        "args": {"unit": "nginx"},
        "below": True,
        "deadline": START + 30,
        "only": "",
    }
    assert board.task(task) == task


def test_the_document_is_known_by_its_hash(board: Board) -> None:
    run = board.newest(board.run())
    (row,) = board.tx.rows("SELECT body FROM body WHERE digest = $1", run.digest)
    assert hashlib.sha256(row["body"]).hexdigest() == run.digest


def test_open_runs_are_told_with_all_servers_they_are_for(board: Board) -> None:
    """What a server shall get follows from decisions, not from what it said."""
    first, second = board.run("Sites/Paris"), board.run(group="", server_id=board.rome.id, kind="ping")
    run, other = board.newest(first), board.newest(second)
    board.say(board.paris, run, "succeeded", exit_code=0)
    assert rows.open_items(board.tx, ACME, {}) == [
        desired.Run(run.id, "restart", run.revision, run.digest, frozenset({board.paris.id, board.lyon.id})),
        desired.Run(other.id, "ping", other.revision, other.digest, frozenset({board.rome.id})),
    ]
    known = {run.id: frozenset({"known"})}
    again = {each.id: each.servers for each in rows.open_items(board.tx, ACME, known)}
    assert again == {run.id: frozenset({"known"}), other.id: frozenset({board.rome.id})}, "for whom a run is, is read once"
    assert rows.open_items(board.tx, BETA, {}) == []


def test_a_task_is_for_trusted_servers_below_its_group_that_bear_its_label(desk: Desk, board: Board) -> None:
    bring(desk, State.PENDING, "pending")
    bring(desk, State.SUSPENDED, "suspended")
    desk.label(board.rome, "printer")
    desk.label(board.paris, "printer")
    assert set(board.states(board.newest(board.run()))) == {"paris", "lyon", "rome"}
    assert set(board.states(board.newest(board.run("Sites", label="printer")))) == {"paris", "rome"}
    assert set(board.states(board.newest(board.run("Sites/Rome")))) == {"rome"}


def test_a_planned_task_waits(desk: Desk, board: Board) -> None:
    head = desk.desired()
    task = board.run(time=START + 60)
    assert (task.state, task.next_at, desk.desired()) == (Progress.PLANNED, START + 60, head)
    assert desk.newest().detail["time"] == "2027-01-15T08:01:00Z"
    cron = board.run(schedule="0 2 * * *", zone="Europe/Paris")
    assert cron.next_at == START + 17 * 3600  # START is 9:00 in Paris
    assert rows.find_run(board.tx, ACME, task.id) is rows.find_run(board.tx, ACME, cron.id) is None


REFUSED: dict[str, tuple[Reason, dict[str, Any]]] = {
    "a group that is not there": (Reason.NOT_FOUND, {"group": "Sites/Oslo"}),
    "a group without servers": (Reason.NOT_FOUND, {"group": "Empty"}),
    "a label that nobody bears": (Reason.NOT_FOUND, {"label": "printer"}),
    "a server that is not there": (Reason.NOT_FOUND, {"group": "", "server_id": "aaaaaaaaaa"}),
    "an account that is not there": (Reason.ACCOUNT_UNKNOWN, {"account": "nobody.example"}),
    "the primary's own account": (Reason.INVALID_ARGUMENT, {"account": PRIMARY}),
    "a kind nobody has": (Reason.KIND_UNSUPPORTED, {"kind": "reboot"}),
    "a policy's kind": (Reason.KIND_UNSUPPORTED, {"kind": "chrony"}),
    "no arguments": (Reason.INVALID_ARGUMENT, {"args": b"[]"}),
    "a past time": (Reason.INVALID_ARGUMENT, {"time": START - 1}),
    "a schedule that never fires": (Reason.SCHEDULE_INVALID, {"schedule": "0 0 30 2 *"}),
    "a deadline without end": (Reason.INVALID_ARGUMENT, {"deadline_seconds": 7 * DAY + 1}),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("when", [{}, {"time": START + 60}])
def test_it_is_refused_before_anything_is_stored(desk: Desk, board: Board, what: str, when: dict[str, int]) -> None:
    reason, wanted = REFUSED[what]
    with desk.refuses(reason):
        board.run(**(wanted if "schedule" in wanted else when | wanted))


@pytest.mark.parametrize("state", sorted(set(State) - {State.TRUSTED}))
def test_a_server_that_is_not_trusted_runs_nothing(desk: Desk, board: Board, state: State) -> None:
    server = bring(desk, state)
    with desk.refuses(Reason.STATE_FORBIDS) as no:
        board.run(group="", server_id=server.id)
    assert state.value in no.value.message


def test_a_server_below_gets_a_task_of_its_own_with_what_its_middle_server_gets(desk: Desk, board: Board) -> None:
    below = board.below(board.paris, "bbbbbbbbbb/cccccccccc", "deep")
    board.below(board.paris, "bbbbbbbbbb", "host")
    task = board.run(group="", server_id=below.id)
    run = board.newest(task)
    assert board.task(task).server == "paris / deep"
    assert board.states(run) == {"paris / deep": "queued"}
    assert (board.body(run)["only"], board.body(run)["below"]) == (below.id, False)
    wanted = desired_rows.layout(board.tx, ACME)
    got = {server.name: wanted.desired(server.id, server.group_id).subjects for server in (board.paris, board.lyon, board.rome)}
    assert got == {"paris": {("task/restart", run.id)}, "lyon": set(), "rome": set()}
    assert not board.say(board.paris, run, "succeeded")
    assert board.say(below, run, "succeeded", exit_code=0)
    board.turn()
    assert board.states(run) == {"paris / deep": "succeeded"}


def test_a_server_below_runs_nothing_unless_it_and_the_middle_server_are_trusted(desk: Desk, board: Board) -> None:
    below = board.below(board.paris, "bbbbbbbbbb", "host", State.PENDING)
    with desk.refuses(Reason.STATE_FORBIDS):
        board.run(group="", server_id=below.id)
    with desk.refuses(Reason.NOT_FOUND):
        board.run(group="", server_id=f"{board.paris.id}/dddddddddd")
    with desk.refuses(Reason.NOT_FOUND):
        board.run(group="", server_id=f"{board.paris.id}/")
    other = board.below(board.lyon, "bbbbbbbbbb", "other")
    desk.decide(board.lyon, Event.SUSPEND)
    with desk.refuses(Reason.STATE_FORBIDS):
        board.run(group="", server_id=other.id)


def test_a_task_for_a_server_bears_its_name(board: Board) -> None:
    assert board.task(board.run(group="", server_id=board.rome.id)).server == "rome"
    assert board.task(board.run("Sites/Rome")).server == ""


def test_a_server_of_another_account_is_not_there(desk: Desk, board: Board) -> None:
    other = board.server("other", account=BETA)
    with desk.refuses(Reason.NOT_FOUND):
        board.run(group="", server_id=other.id)


def test_a_kind_is_refused_only_where_all_said_that_they_do_not_have_it(desk: Desk, board: Board) -> None:
    with desk.refuses(Reason.KIND_UNSUPPORTED) as no:
        board.run(kind="reboot")
    assert "None of the 3 servers" in no.value.message
    assert "[handlers.task.reboot]" in no.value.message
    board.said[board.rome.id] = None
    assert len(board.states(board.newest(board.run(kind="reboot")))) == 3
    board.said[board.rome.id] = frozenset({"task/reboot"})
    board.run(kind="reboot")
    with desk.refuses(Reason.KIND_UNSUPPORTED):
        board.run("Sites/Paris", kind="reboot")
    board.said[board.paris.id] = frozenset()
    with desk.refuses(Reason.KIND_UNSUPPORTED):
        board.run(group="", server_id=board.paris.id)


def test_so_many_runs_at_once_and_no_more(desk: Desk, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set holds 1,000 items: beyond that its servers would take none of it."""
    monkeypatch.setattr(desired, "RUNS", 2)
    monkeypatch.setattr(tasks, "PLANNED_TASKS", 2)
    first, _ = board.run(), board.run("Sites/Rome")
    with desk.refuses(Reason.OVERLOADED):
        board.run()
    planned, _ = board.run(time=START + 1), board.run(time=START + 1)
    with desk.refuses(Reason.OVERLOADED):
        board.run(time=START + 1)
    desk.later(1)
    skipped = board.begin(planned)
    assert skipped is not None
    assert (skipped.state, desk.newest().action) == (Progress.DONE, "task.skip")
    board.cancel(first)
    board.run()


def test_runs_under_way_share_a_bounded_room(desk: Desk, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server would refuse the whole set, and its policies with it."""
    monkeypatch.setattr(desired, "RUNS_BYTES", 1000)
    first = board.run(args=b'{"text":"' + b"x" * 700 + b'"}')
    board.run("Sites/Rome")
    with desk.refuses(Reason.OVERLOADED):
        board.run(args=b'{"text":"' + b"x" * 300 + b'"}')
    board.cancel(first)
    board.run(args=b'{"text":"' + b"x" * 300 + b'"}')


# --- Due --------------------------------------------------------------------------------------------------------------------


def test_a_task_begins_once_at_its_time(desk: Desk, board: Board) -> None:
    """Faults row 27: whoever asks again finds that it has begun."""
    task = board.run("Sites/Paris", time=START + 60)
    with desk.unchanged():
        assert board.begin(task) is None
    desk.later(60)
    begun = board.begin(task)
    assert begun is not None
    entry, run = desk.newest(), board.newest(task)
    assert (entry.action, entry.actor, entry.detail["servers"]) == ("task.begin", "primary", 2)
    assert (begun.state, begun.next_at, run.revision, desk.desired()) == (Progress.RUNNING, None, entry.number, entry.number)
    with desk.unchanged():
        assert board.begin(task) is None
    assert board.runs(task) == [run]


def test_whom_it_is_for_is_decided_when_it_begins(desk: Desk, board: Board) -> None:
    task = board.run("Sites/Paris", time=START + 60)
    desk.move(board.paris, "Sites/Rome")
    desk.decide(board.lyon, Event.SUSPEND)
    board.server("new", "Sites/Paris")
    desk.later(60)
    board.begin(task)
    assert set(board.states(board.newest(task))) == {"new"}


def test_what_was_missed_runs_once(desk: Desk, board: Board) -> None:
    """The primary was down for three days."""
    task = board.run(schedule="0 2 * * *")
    desk.later(3 * DAY)
    assert board.turn() == 1
    assert board.turn() == 0
    again = board.task(task)
    assert (again.state, len(board.runs(task))) == (Progress.RUNNING, 1)
    assert again.next_at is not None
    assert desk.now < again.next_at <= desk.now + DAY


def test_a_firing_while_the_run_before_is_under_way_is_skipped_and_the_journal_says_so(desk: Desk, board: Board) -> None:
    task = board.run(schedule="* * * * *", deadline_seconds=3600)
    desk.later(60)
    board.turn()
    run = board.newest(task)
    desk.later(60)
    desired = desk.desired()
    assert board.turn() == 1
    entry = desk.newest()
    assert (entry.action, entry.detail["why"]) == ("task.skip", tasks.STILL)
    assert (board.newest(task), desk.desired()) == (run, desired)
    assert board.task(task).next_at == desk.now + 60
    for server in (board.paris, board.lyon, board.rome):
        board.say(server, run, "succeeded", exit_code=0)
    board.turn()
    assert board.task(task).state is Progress.PLANNED
    desk.later(60)
    board.turn()
    assert board.newest(task).revision > run.revision


@pytest.mark.parametrize("when", [{"time": START + 60}, {"schedule": "* * * * *"}])
def test_where_nobody_is_left_nothing_begins(desk: Desk, board: Board, when: dict[str, Any]) -> None:
    task = board.run(group="", server_id=board.rome.id, **when)
    desk.decide(board.rome, Event.REVOKE)
    desk.later(60)
    board.turn()
    entry = desk.newest()
    assert (entry.action, entry.detail["why"]) == ("task.skip", tasks.NOBODY)
    assert board.task(task).state is (Progress.DONE if "time" in when else Progress.PLANNED)
    assert board.turn() == 0


def test_a_schedule_says_when_time_alone_brings_a_task(desk: Desk, board: Board) -> None:
    assert rows.schedule(board.tx, ACME, desk.now) == rows.Schedule((), None)
    first = board.run(time=START + 60)
    second = board.run(time=START + 90)
    assert rows.schedule(board.tx, ACME, desk.now) == rows.Schedule((), START + 60)
    assert rows.schedule(board.tx, ACME, START + 60) == rows.Schedule((first.id,), START + 90)
    assert rows.schedule(board.tx, ACME, START + 90) == rows.Schedule((first.id, second.id), None)
    assert rows.schedules(board.tx, [ACME, BETA], START)[BETA] == rows.Schedule()
    assert rows.planning(board.tx) == [ACME]


def test_a_run_is_due_at_its_deadline_and_once_its_grace_is_over(desk: Desk, board: Board) -> None:
    run = board.newest(board.run(deadline_seconds=100))
    assert rows.open_run_ids(board.tx) == rows.open_run_ids(board.tx, [ACME]) == {ACME: [run.id]}
    assert rows.open_run_ids(board.tx, [BETA]) == {}
    assert rows.run_due(board.tx, ACME, run.id, desk.now) == START + 100
    board.say(board.paris, run, "running")
    assert rows.run_due(board.tx, ACME, run.id, START + 100) == START + 100 + GRACE
    assert rows.run_due(board.tx, ACME, run.id, START + 100 + GRACE) == START + 100 + GRACE
    desk.later(100 + GRACE)
    board.end(run)
    assert rows.run_due(board.tx, ACME, run.id, desk.now) is None


# --- Ended ------------------------------------------------------------------------------------------------------------------


def test_a_run_ends_when_all_its_servers_have(desk: Desk, board: Board) -> None:
    task = board.run()
    run = board.newest(task)
    board.say(board.paris, run, "succeeded", exit_code=0)
    board.say(board.lyon, run, "failed", exit_code=2, message="no such unit")
    with desk.unchanged():
        assert board.end(run) is None
    assert board.turn() == 0
    board.say(board.rome, run, "succeeded", exit_code=0)
    assert board.turn() == 1
    entry = desk.newest()
    assert (entry.action, entry.actor, entry.subject) == ("task.end", "primary", f"tasks/{task.id}")
    assert entry.detail == {"kind": "restart", "run": run.id, "succeeded": 2, "failed": 1}
    assert (board.task(task).state, board.newest(task).ended_at) == (Progress.DONE, desk.now)
    assert (desk.desired(), rows.open_items(board.tx, ACME, {})) == (entry.number, [])
    with desk.unchanged():
        assert board.end(run) is None


def test_when_its_time_is_up_what_has_not_ended_has_timed_out(desk: Desk, board: Board) -> None:
    run = board.newest(board.run(deadline_seconds=60))
    board.say(board.paris, run, "running")
    board.say(board.lyon, run, "succeeded", exit_code=0)
    desk.later(60 + GRACE - 1)
    assert board.turn() == 0
    desk.later(1)
    assert board.turn() == 1
    assert board.states(run) == {"paris": "timed_out", "lyon": "succeeded", "rome": "timed_out"}
    found = board.results(run)
    assert "did not say" in found["paris"].message
    assert "not reached" in found["rome"].message
    assert desk.newest().detail == {"kind": "restart", "run": run.id, "succeeded": 1, "timed out": 2}
    assert board.turn() == 0


def test_run_that_a_server_would_not_take_says_why_it_timed_out(desk: Desk, board: Board) -> None:
    run = board.newest(board.run(deadline_seconds=60))
    board.refusals = {board.paris.id: "its clock is wrong", board.lyon.id: "its clock is wrong"}
    board.say(board.lyon, run, "running")
    desk.later(60 + GRACE)
    board.turn()
    found = board.results(run)
    assert (found["paris"].state.value, found["paris"].message) == ("timed_out", "its clock is wrong")
    assert "did not say" in found["lyon"].message, "it has the run: what it refuses is a later set"
    assert "not reached" in found["rome"].message


def test_for_servers_that_it_was_never_sent_to_a_run_waits_no_longer_than_its_time(desk: Desk, board: Board) -> None:
    run = board.newest(board.run(deadline_seconds=3))
    board.say(board.paris, run, "succeeded", exit_code=0)
    desk.later(2)
    assert board.turn() == 0
    desk.later(1)
    assert board.turn() == 1
    assert board.states(run) == {"paris": "succeeded", "lyon": "timed_out", "rome": "timed_out"}


@pytest.mark.parametrize("word", WORDS)
def test_a_server_that_was_only_late_to_say_so_is_believed_once(desk: Desk, board: Board, word: str) -> None:
    run = board.newest(board.run(deadline_seconds=1))
    board.say(board.paris, run, "running")
    desk.later(1 + GRACE)
    board.turn()
    taken = board.say(board.paris, run, word, exit_code=3, output=b"late")
    assert taken is (TaskState(word) in ENDED)
    if taken:
        assert (board.states(run)["paris"], board.results(run)["paris"].output) == (word, b"late")
        assert not any(board.say(board.paris, run, other) for other in WORDS)


# --- Cancelled --------------------------------------------------------------------------------------------------------------


def test_a_cancelled_task_is_taken_back_everywhere(desk: Desk, board: Board) -> None:
    task = board.run()
    run = board.newest(task)
    board.say(board.paris, run, "running")
    board.say(board.lyon, run, "succeeded", exit_code=0)
    cancelled = board.cancel(task)
    entry = desk.newest()
    assert (entry.action, entry.actor) == ("task.cancel", ANN.who)
    assert (cancelled.state, cancelled.revision, desk.desired()) == (Progress.CANCELLED, entry.number, entry.number)
    assert board.states(run) == {"paris": "interrupted", "lyon": "succeeded", "rome": "interrupted"}
    assert rows.open_items(board.tx, ACME, {}) == []
    with desk.unchanged():
        assert board.cancel(task) == cancelled
    assert board.say(board.paris, run, "succeeded", exit_code=0)  # it was faster than the news
    assert board.states(run)["paris"] == "succeeded"


def test_a_planned_task_that_is_cancelled_never_begins(desk: Desk, board: Board) -> None:
    task = board.run(schedule="* * * * *")
    board.cancel(task)
    desk.later(DAY)
    assert board.turn() == 0
    with desk.unchanged():
        assert board.begin(task) is None


def test_a_scheduled_task_is_cancelled_with_its_run(desk: Desk, board: Board) -> None:
    task = board.run(schedule="* * * * *")
    desk.later(60)
    board.turn()
    board.cancel(task)
    desk.later(DAY)
    assert board.turn() == 0
    assert set(board.states(board.newest(task)).values()) == {"interrupted"}


def test_of_what_is_over_there_is_nothing_to_cancel(desk: Desk, board: Board) -> None:
    task = board.run("Sites/Rome")
    board.say(board.rome, board.newest(task), "failed")
    board.turn()
    with desk.refuses(Reason.STATE_FORBIDS):
        board.cancel(task)
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(tasks.cancel, ACME, "aaaaaaaaaa", ANN, desk.now)
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(tasks.cancel, BETA, task.id, ANN, desk.now)


# --- In stages ----------------------------------------------------------------------------------------------------------------


def staged(board: Board) -> tuple[Any, list[Any]]:
    """A run in two stages, and its servers in the order of their places."""
    run = board.newest(board.run(stages=STAGES))
    return run, sorted((board.paris, board.lyon, board.rome), key=lambda server: place(run.revision, server.id))


def test_a_run_in_stages_has_a_rollout_of_its_own(board: Board) -> None:
    run, (first, *others) = staged(board)
    rollout = rollouts.find(board.tx, ACME, run.revision)
    assert rollout is not None
    assert (rollout.before, rollout.stages, rollout.stage, rollout.state) == (0, STAGES, 1, RolloutState.RUNNING)
    assert place(run.revision, first.id) <= rollout.started < min(place(run.revision, other.id) for other in others)


def test_a_run_whose_stages_stopped_ends_when_those_it_reached_have(desk: Desk, board: Board) -> None:
    run, (first, *_) = staged(board)
    board.say(first, run, "running")
    board.stages(run, state=RolloutState.STOPPED, message="1 server failed in stage 1 of 2")
    assert board.turn() == 0
    board.say(first, run, "failed", exit_code=1)
    assert board.turn() == 1
    assert sorted(board.states(run).values()) == ["failed", "interrupted", "interrupted"]
    ended = rows.find_run(board.tx, ACME, run.task_id)
    assert ended is not None
    assert ended.message == desk.newest().detail["why"] == "1 server failed in stage 1 of 2"


def test_a_run_whose_time_is_up_before_its_last_stage_says_so(desk: Desk, board: Board) -> None:
    run, (first, *_) = staged(board)
    board.say(first, run, "succeeded", exit_code=0)
    desk.later(600 + GRACE)
    board.turn()
    assert sorted(board.states(run).values()) == ["interrupted", "interrupted", "succeeded"]
    assert board.rollout_state(run) is RolloutState.STOPPED
    assert "time was up" in str(desk.newest().detail["why"])


def test_a_run_that_is_over_leaves_no_rollout_to_be_judged(board: Board) -> None:
    run, servers = staged(board)
    board.stages(run, stage=2, started="g")
    for server in servers:
        board.say(server, run, "succeeded", exit_code=0)
    board.turn()
    assert board.rollout_state(run) is RolloutState.DONE
    other, _ = staged(board)
    board.cancel(board.task(rows.load(board.tx, ACME, other.task_id)))
    assert board.rollout_state(other) is RolloutState.STOPPED
    assert rollouts.running(board.tx) == {}


def test_the_tally_says_at_which_servers_a_run_fares_how(board: Board) -> None:
    run = board.newest(board.run())
    board.say(board.rome, run, "failed")
    found = rows.tally_ids(board.tx, ACME, run.revision)
    assert found == {TaskState.FAILED: [board.rome.id], TaskState.QUEUED: sorted((board.paris.id, board.lyon.id))}
    assert rows.tally(board.tx, ACME, run.id) == {TaskState.QUEUED: 2, TaskState.FAILED: 1}
    assert rows.tally_ids(board.tx, ACME, run.revision + 1) == rows.tally_ids(board.tx, BETA, run.revision) == {}


# --- What servers say ---------------------------------------------------------------------------------------------------------


def test_what_servers_say_is_no_decision(desk: Desk, board: Board) -> None:
    run = board.newest(board.run())
    head = desk.head()
    for word in ("sent", "running", "succeeded"):
        desk.later(1)
        assert board.say(board.paris, run, word, exit_code=0, output=b"done\n", message="so it is")
        found = board.results(run)["paris"]
        assert (found.state, found.at) == (word, desk.now)
        ended = word == "succeeded"
        assert (found.exit_code, found.output) == ((0, b"done\n") if ended else (None, None))
    assert desk.head() == head


@pytest.mark.parametrize("last", WORDS)
@pytest.mark.parametrize("next", WORDS)
def test_a_result_never_goes_backwards(board: Board, last: str, next: str) -> None:
    run = board.newest(board.run())
    board.say(board.paris, run, last, output=b"first")
    before = board.results(run)["paris"]
    order = [*OPEN, *ENDED]
    on = TaskState(last) in OPEN and (TaskState(next) in ENDED or order.index(TaskState(next)) > order.index(TaskState(last)))
    assert board.say(board.paris, run, next, output=b"second") is on
    assert (board.results(run)["paris"] == before) is not on


def hostile(board: Board) -> dict[str, Callable[[], bool]]:
    """What an authorized server may try: each must change nothing."""
    desk, run, mine = board.desk, board.newest(board.run("Sites/Rome")), board.newest(board.run("Sites/Paris"))
    stranger = board.server("stranger", account=BETA)
    foreign = board.newest(board.run(account=BETA))
    board.say(board.paris, mine, "failed", exit_code=1)
    said = {
        "a run for another server": (board.paris, run.id, "succeeded"),
        "a run of another account": (board.paris, foreign.id, "succeeded"),
        "a run from another account": (stranger, run.id, "succeeded"),
        "a run that is not there": (board.paris, "zzzzzzzzzz", "succeeded"),
        "no id": (board.paris, "", "succeeded"),
        "SQL for an id": (board.paris, "' OR 1=1 --", "succeeded"),
        "a wild card": (board.paris, "%", "succeeded"),
        "its own end taken back": (board.paris, mine.id, "succeeded"),
        "its own beginning again": (board.paris, mine.id, "running"),
        "a state that is the primary's": (board.lyon, mine.id, "queued"),
        "a state that is none": (board.lyon, mine.id, "applied"),
        "an empty state": (board.lyon, mine.id, ""),
    }
    desk.later(1)
    return {what: lambda each=each: board.say(*each) for what, each in said.items()}  # type: ignore[misc]  # bound early


def test_a_hostile_server_speaks_for_itself_only(desk: Desk, board: Board) -> None:
    """Attacks row 37: forged ids, other servers' runs, other accounts' runs."""
    for what, attack in hostile(board).items():
        with desk.unchanged():
            assert attack() is False, what


def test_of_many_words_those_that_changed_something_are_told(board: Board) -> None:
    first, second = board.newest(board.run()), board.newest(board.run())
    words = [Word(board.paris.id, "task/restart", id, "running", START) for id in (first.id, "zzzzzzzzzz", second.id, first.id)]
    assert board.desk.do(tasks.record, ACME, board.paris.id, words) == [first.id, second.id]


# --- What is forgotten --------------------------------------------------------------------------------------------------------


def test_of_a_task_that_runs_for_ever_the_newest_runs_are_kept(desk: Desk, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "KEPT_RUNS", 3)
    task = board.run("Sites/Rome", schedule="* * * * *", stages=Stages(("100%",)))
    for _ in range(6):
        desk.later(60)
        board.turn()
        board.say(board.rome, board.newest(task), "succeeded")
        board.turn()
    counts = {table: len(board.tx.rows(f"SELECT 1 FROM {table}")) for table in ("task_run", "task_result", "rollout", "body")}
    assert set(counts.values()) == {4}
    assert board.newest(task).begun_at == desk.now


def test_of_tasks_that_are_over_the_newest_are_kept(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "KEPT_TASKS", 2)
    planned, made = board.run(time=START + DAY), []
    for _ in range(5):
        made.append(board.run("Sites/Rome"))
        board.say(board.rome, board.newest(made[-1]), "failed")
        board.turn()
    assert {task.id for task in rows.listed(board.tx, ACME, 100)} == {planned.id, *(task.id for task in made[2:])}


def test_who_came_below_a_middle_server_since_a_run_began_and_does_it_is_counted(board: Board) -> None:
    """The document is for everybody there while the run is open; what it came to is not lost."""
    first = board.below(board.paris, "bbbbbbbbbb", "first")
    everybody, alone = board.newest(board.run()), board.newest(board.run(group="", server_id=first.id))
    newcomer = board.below(board.paris, "cccccccccc", "newcomer")
    assert board.say(newcomer, everybody, "succeeded", exit_code=0)
    assert board.states(everybody)["paris / newcomer"] == "succeeded"
    assert not board.say(newcomer, alone, "succeeded", exit_code=0)
    stranger = Word(f"{board.paris.id}/dddddddddd", "task/restart", everybody.id, "succeeded", START)
    assert board.desk.do(tasks.record, ACME, stranger.server_id, [stranger]) == []


def test_newcomer_below_that_says_only_later_how_a_run_ended_is_counted(desk: Desk, board: Board) -> None:
    """It was cut off until the run was over; what it did is not lost."""
    run = board.newest(board.run(deadline_seconds=60))
    newcomer = board.below(board.paris, "cccccccccc", "newcomer")
    desk.later(60 + GRACE)
    board.turn()
    assert not board.say(newcomer, run, "running")
    assert "paris / newcomer" not in board.states(run)
    assert board.say(newcomer, run, "succeeded", exit_code=0)
    assert board.states(run)["paris / newcomer"] == "succeeded"
