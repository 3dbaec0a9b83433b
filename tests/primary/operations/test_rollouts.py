"""The primary brings rollouts on by itself: on what servers say, and on nothing else."""

from __future__ import annotations

import pytest

from enlist.documents import ItemVersion
from enlist.runtime.schedules import Window
from enlist_primary.model.fleet import FleetView
from enlist_primary.model.policies import Policy
from enlist_primary.model.rollouts import ALL, PATIENCE, Presence, RolloutState, Stages, place
from enlist_primary.model.servers import Event, Server
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import rollouts
from enlist_primary.store import desired
from enlist_primary.store import servers as store
from tests.primary.operations.board import Board
from tests.primary.operations.desk import ACME, DAY, Desk
from tests.primary.operations.fleet import KIND, Fleet

STAGES = Stages(("1", "50%", "100%"))
HALF_A_MINUTE = 30


@pytest.fixture
def fleet(desk: Desk) -> Fleet:
    fleet = Fleet(desk, "Sites")
    for number in range(4):
        fleet.server(f"s{number}", "Sites")
    return fleet


def servers(fleet: Fleet, policy: Policy) -> list[Server]:
    """The servers in the order in which a policy reaches them."""
    rows = fleet.tx.rows("SELECT id FROM server WHERE account = $1 AND state = 'trusted'", ACME)
    found = [store.load(fleet.tx, ACME, row["id"]) for row in rows]
    return sorted(found, key=lambda server: place(policy.revision, server.id))


def begun(fleet: Fleet, stages: Stages = STAGES) -> tuple[Policy, list[Server]]:
    """A second revision, on its way in stages."""
    fleet.set("Sites", {"a": 1})
    policy = fleet.set("Sites", {"a": 2}, stages=stages)
    return policy, servers(fleet, policy)


def test_nothing_is_decided_while_the_stage_waits(fleet: Fleet) -> None:
    policy, (first, *_) = begun(fleet)
    assert fleet.look() == ([], fleet.desk.now + PATIENCE)
    with fleet.desk.unchanged():
        assert fleet.advance(policy.revision) is None
    fleet.say(first, "received")
    assert fleet.look() == ([], fleet.desk.now + PATIENCE)


def test_stage_after_stage_to_the_end(fleet: Fleet) -> None:
    policy, (first, second, third, fourth) = begun(fleet)
    everybody = (first, second, third, fourth)
    fleet.say(first)
    assert fleet.look() == ([policy.revision], None)
    fleet.desk.later(5)
    after = fleet.advance(policy.revision)
    assert after is not None
    assert (after.stage, after.stage_at, after.confirmed) == (2, fleet.desk.now, place(policy.revision, first.id))
    entry = fleet.desk.newest()
    assert (entry.action, entry.subject) == ("rollout.stage", f"policies/{KIND}@{policy.group_id}")
    assert (entry.actor, entry.method) == (PRIMARY_ITSELF.who, PRIMARY_ITSELF.method)
    assert entry.detail == {"revision": policy.revision, "stage": "2 of 3"}
    assert fleet.desk.desired() == entry.number
    assert fleet.has(policy, *everybody) == [first.name, second.name]
    fleet.say(second)
    fleet.advance(policy.revision)
    assert fleet.has(policy, *everybody) == [server.name for server in everybody]
    for server in everybody:
        fleet.say(server)
    done = fleet.advance(policy.revision)
    assert done is not None
    assert (done.state, done.confirmed) == (RolloutState.DONE, ALL)
    assert fleet.desk.newest().action == "rollout.done"
    assert fleet.look() == ([], None)
    with fleet.desk.unchanged():
        assert fleet.advance(policy.revision) is None


@pytest.mark.parametrize("state", ["failed", "rolled_back"])
def test_it_stops_where_one_fails(fleet: Fleet, state: str) -> None:
    policy, (first, *others) = begun(fleet)
    fleet.say(first, state, "syntax error")
    stopped = fleet.advance(policy.revision)
    assert stopped is not None
    assert stopped.state is RolloutState.STOPPED
    entry = fleet.desk.newest()
    assert (entry.action, entry.detail["message"]) == ("rollout.stop", "1 server failed in stage 1 of 3")
    for server in others:
        fleet.say(server)
    fleet.desk.later(DAY)
    assert fleet.look() == ([], None)
    assert fleet.has(policy, *others) == []


def test_what_was_changed_locally_had_been_put_in_force(fleet: Fleet) -> None:
    policy, (first, *_) = begun(fleet)
    fleet.say(first, "changed_locally")
    assert fleet.look()[0] == [policy.revision]


def test_a_word_on_another_revision_is_none_on_this_one(fleet: Fleet) -> None:
    """A late word of the revision before, or one that was made up, brings nothing on."""
    policy, (first, *_) = begun(fleet)
    [now] = fleet.desired(first)
    before = ItemVersion(policy.revision - 1, now.digest)
    other_body = ItemVersion(policy.revision, "d" * 64)
    for observed in ((before,), (), (now, before), (ItemVersion(10**6, now.digest),), (other_body,)):
        for applied in (before, other_body):
            fleet.say(first, "applied", observed=observed, applied=(applied,))
            assert fleet.look()[0] == []
        fleet.say(first, "failed", observed=observed)
        assert fleet.look()[0] == []


def test_a_change_further_up_does_not_undo_what_was_proved(fleet: Fleet) -> None:
    policy, (first, second, *_) = begun(fleet)
    fleet.say(first)
    fleet.set("/", {"b": 1})
    assert fleet.look()[0] == [policy.revision]
    fleet.advance(policy.revision)
    fleet.say(second)
    assert fleet.look()[0] == [policy.revision]


def test_who_says_nothing_has_failed_when_its_time_is_up(fleet: Fleet) -> None:
    policy, _ = begun(fleet, Stages(("1", "100%"), 1, HALF_A_MINUTE * 4 // 3))
    fleet.desk.later(HALF_A_MINUTE - 1)
    assert fleet.look() == ([], fleet.desk.now + 1)
    fleet.desk.later(1)
    assert fleet.look()[0] == [policy.revision]
    stopped = fleet.advance(policy.revision)
    assert stopped is not None
    assert stopped.state is RolloutState.STOPPED


def test_who_was_away_when_it_began_holds_nobody_up(fleet: Fleet) -> None:
    everybody = servers(fleet, fleet.set("Sites", {"a": 1}))
    fleet.down(everybody[0])
    fleet.desk.later(1)
    policy = fleet.set("Sites", {"a": 2}, stages=Stages(("100%",)))
    for server in everybody[1:]:
        fleet.say(server)
    done = fleet.advance(policy.revision)
    assert done is not None
    assert done.state is RolloutState.DONE
    fleet.up(everybody[0])
    assert fleet.has(policy, everybody[0])


def test_who_goes_away_in_the_middle_may_come_back_and_prove_it(fleet: Fleet) -> None:
    """The link of the first one breaks while it applies: that is waited for, and not taken for success."""
    policy, (first, *_) = begun(fleet)
    fleet.desk.later(5)
    fleet.down(first)
    assert fleet.look() == ([], policy.created_at + PATIENCE)
    fleet.up(first)
    fleet.say(first)
    assert fleet.look()[0] == [policy.revision]


def test_a_primary_that_sees_no_link_decides_nothing(fleet: Fleet) -> None:
    """After a restart every link is down at first."""
    policy, everybody = begun(fleet)
    for server in everybody:
        fleet.links[server.id] = Presence(connected=False, since=None)
    assert fleet.look() == ([], None)
    with fleet.desk.unchanged():
        fleet.advance(policy.revision)


def test_who_joins_the_group_has_what_its_place_says(fleet: Fleet) -> None:
    policy, _ = begun(fleet)
    fleet.server("late", "Sites")
    everybody = servers(fleet, policy)
    has = fleet.has(policy, *everybody)
    assert has == [server.name for server in everybody[: len(has)]]


def test_who_waits_for_its_maintenance_window_has_its_time_from_then(fleet: Fleet) -> None:
    fleet.desk.set_window("Sites", Window("0 3 * * *", 3600))
    policy, (first, *_) = begun(fleet)
    fleet.say(first, "received", "waits for its maintenance window")
    assert fleet.look()[0] == []
    fleet.desk.later(PATIENCE)
    ready, due = fleet.look()
    assert ready == []
    assert due is not None
    opens = due - PATIENCE
    assert opens > fleet.desk.now
    assert opens % DAY == 3 * 3600
    fleet.desk.now = due
    assert fleet.look()[0] == [policy.revision]


def test_confirmation_is_asked_of_those_who_are_new_and_of_nobody_else(fleet: Fleet) -> None:
    policy, everybody = begun(fleet, Stages(("1", "50%", "100%"), 1, 60))

    def confirms() -> list[int | None]:
        sets = [desired.layout(fleet.tx, ACME).desired(server.id, server.group_id) for server in everybody]
        return [next((i.confirm_seconds for i in each.items if i.revision == policy.revision), None) for each in sets]

    assert confirms() == [60, None, None, None]
    fleet.say(everybody[0])
    fleet.advance(policy.revision)
    assert confirms() == [0, 60, None, None]
    fleet.say(everybody[1])
    fleet.advance(policy.revision)
    assert confirms() == [0, 0, 60, 60]
    for server in everybody:
        fleet.say(server)
    fleet.advance(policy.revision)
    assert confirms() == [0, 0, 0, 0]


def test_there_is_nothing_to_decide_about_what_is_not_there(fleet: Fleet) -> None:
    with fleet.desk.unchanged():
        assert fleet.advance(7) is None


# --- Runs of tasks ------------------------------------------------------------------------------------------------------------


class StagedRun:
    """A task in stages at three servers."""

    def __init__(self, desk: Desk) -> None:
        self.board = Board(desk)
        self.desk = desk
        self.run = self.board.newest(self.board.run(stages=Stages(("1", "100%")), deadline_seconds=3600))
        everybody = (self.board.paris, self.board.lyon, self.board.rome)
        self.servers = sorted(everybody, key=lambda server: place(self.run.revision, server.id))

    @property
    def view(self) -> FleetView:
        up, down = Presence(True, self.run.begun_at - 1), Presence(False, None)
        return FleetView({each.id: down if each.id in self.board.down else up for each in self.servers})

    def advance(self) -> RolloutState | None:
        after = self.desk.do(rollouts.advance, ACME, self.run.revision, self.view, self.desk.now)
        return after.state if after else None


def test_a_run_of_a_task_goes_on_when_it_succeeded(desk: Desk) -> None:
    staged = StagedRun(desk)
    first, second, third = staged.servers
    assert staged.advance() is None
    staged.board.say(first, staged.run, "running")
    assert staged.advance() is None
    staged.board.say(first, staged.run, "succeeded")
    assert staged.advance() is RolloutState.RUNNING
    assert desk.newest().subject == f"tasks/{staged.run.task_id}"
    staged.board.say(second, staged.run, "succeeded")
    assert staged.advance() is None
    staged.board.say(third, staged.run, "succeeded")
    assert staged.advance() is RolloutState.DONE


@pytest.mark.parametrize("state", ["failed", "timed_out", "interrupted"])
def test_a_run_of_a_task_stops_where_it_did_not(desk: Desk, state: str) -> None:
    staged = StagedRun(desk)
    staged.board.say(staged.servers[0], staged.run, state)
    assert staged.advance() is RolloutState.STOPPED


def test_a_server_without_a_handler_stops_no_run_of_a_task(desk: Desk) -> None:
    """As of a policy: that tells nothing of the change."""
    staged = StagedRun(desk)
    staged.board.say(staged.servers[0], staged.run, "unsupported")
    assert staged.advance() is RolloutState.RUNNING


def test_a_run_of_a_task_has_until_its_deadline(desk: Desk) -> None:
    staged = StagedRun(desk)
    desk.now = staged.run.deadline_at - 1
    assert staged.advance() is None
    desk.later(1)
    assert staged.advance() is RolloutState.STOPPED


def test_of_a_run_that_is_over_nothing_is_decided(desk: Desk) -> None:
    staged = StagedRun(desk)
    staged.board.say(staged.servers[0], staged.run, "failed")
    staged.board.stages(staged.run, state=RolloutState.RUNNING)
    desk.tx.run("UPDATE task_run SET ended_at = $1 WHERE id = $2", desk.now, staged.run.id)
    with desk.unchanged():
        assert staged.advance() is None


def test_who_stands_below_a_suspended_middle_server_fails_no_rollout(desk: Desk) -> None:
    """No more than the middle server itself, which is not asked while it is suspended."""
    fleet = Fleet(desk, "Sites/Paris")
    middle, other = fleet.server("middle", "Sites/Paris"), fleet.server("other", "Sites/Paris")
    below = desk.below(middle, "bbbbbbbbbb", "b1")
    fleet.links[below.id] = Presence(connected=True, since=desk.now - 100)
    policy = fleet.set("Sites", {"a": 2}, stages=Stages(("100%",)))
    fleet.say(other)
    desk.later(60)
    desk.decide(middle, Event.SUSPEND)
    for id in (middle.id, below.id):
        fleet.links[id] = Presence(connected=False, since=desk.now)
    desk.later(PATIENCE)
    after = fleet.advance(policy.revision)
    assert after is not None
    assert (after.state, after.message) == (RolloutState.DONE, "")
