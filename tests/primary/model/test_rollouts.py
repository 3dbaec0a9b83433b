"""Rollouts: who has a change, when a stage is over, and when it goes no further."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from enlist.reasons import Reason
from enlist_primary.model.rollouts import (
    ALL,
    HEARD,
    NONE,
    PATIENCE,
    Outcome,
    Presence,
    Rollout,
    RolloutState,
    Stages,
    Tally,
    begin,
    count,
    judge,
    parse_stages,
    place,
    revision_for,
)
from tests.primary.refusals import refused

ACME = "acme.example"
T = 1_800_000_000
IDS = [f"server{number:04}" for number in range(100)]
STAGES = Stages(("1", "10%", "100%"))
SOON = Presence(connected=True, since=T - 100)


def ordered(revision: int = 7) -> list[str]:
    """The servers as they stand in the order of a change."""
    return sorted(IDS, key=lambda id: place(revision, id))


def holders(rollout: Rollout, ids: list[str] = IDS) -> set[str]:
    return {id for id in ids if revision_for(rollout.revision, rollout, id)[0] == rollout.revision}


def tally(rollout: Rollout, words: dict[str, Outcome], now: int = T, present: Callable[[str], Presence] = lambda _: SOON) -> Tally:
    return count(rollout, T, dict.fromkeys(IDS, Outcome.WAITING) | words, present, now)


# --- What is asked for ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "stop_after", "confirm", "stages"),
    [
        (["100%"], 0, 0, Stages(("100%",), 1, 0)),
        (["1", "10%", "100%"], 1, 600, Stages(("1", "10%", "100%"), 1, 600)),
        (["1", "2", "5", "1%", "99%", "100%"], 3, 1, Stages(("1", "2", "5", "1%", "99%", "100%"), 3, 1)),
    ],
)
def test_stages_are_numbers_then_percentages_up_to_all(sizes: list[str], stop_after: int, confirm: int, stages: Stages) -> None:
    assert parse_stages(sizes, stop_after, confirm) == stages


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        ["1"],
        ["10%"],
        ["100%", "10%"],
        ["10%", "10%", "100%"],
        ["2", "1", "100%"],
        ["10%", "5", "100%"],
        ["100%", "100%"],
        ["0", "100%"],
        ["0%", "100%"],
        ["101%", "100%"],
        ["-1", "100%"],
        ["1.5", "100%"],
        ["01", "100%"],
        ["", "100%"],
        ["all", "100%"],
        [" 1", "100%"],
        ["١", "100%"],
        ["12345678", "100%"],
        [*map(str, range(1, 21)), "100%"],
    ],
)
def test_stages_that_make_no_sense_are_refused(sizes: list[str]) -> None:
    with refused(Reason.INVALID_ARGUMENT):
        parse_stages(sizes, 1, 0)


@pytest.mark.parametrize(("stop_after", "confirm"), [(-1, 0), (10**7, 0), (1, -1), (1, 8 * 86400)])
def test_numbers_that_make_no_sense_are_refused(stop_after: int, confirm: int) -> None:
    with refused(Reason.INVALID_ARGUMENT):
        parse_stages(["100%"], stop_after, confirm)


# --- Who has it -------------------------------------------------------------------------------------------------------------


def test_a_place_is_the_hash_of_revision_and_id_and_lies_between_none_and_all() -> None:
    assert place(7, "abc") == hashlib.sha256(b"7/abc").hexdigest()
    places = [place(7, id) for id in IDS]
    assert NONE < min(places) <= max(places) < ALL
    assert ordered(7) != ordered(8)


def test_without_a_rollout_everybody_has_the_revision_for_good() -> None:
    assert revision_for(7, None, "abc") == (7, 0)


@pytest.mark.parametrize(
    ("where", "state", "confirm", "expected"),
    [
        ("confirmed", RolloutState.RUNNING, 60, (7, 0)),
        ("started", RolloutState.RUNNING, 60, (7, 60)),
        ("started", RolloutState.RUNNING, 0, (7, 0)),
        ("not yet", RolloutState.RUNNING, 60, (3, 0)),
        ("confirmed", RolloutState.STOPPED, 60, (7, 0)),
        ("started", RolloutState.STOPPED, 60, (7, 60)),
        ("not yet", RolloutState.STOPPED, 60, (3, 0)),
        ("not yet", RolloutState.DONE, 60, (7, 0)),
    ],
)
def test_who_has_which_revision(where: str, state: RolloutState, confirm: int, expected: tuple[int, int]) -> None:
    first, second, third = ordered()[:3]
    stages = replace(STAGES, confirm_seconds=confirm)
    rollout = Rollout(ACME, 7, 3, stages, state, 2, place(7, second), place(7, first), T)
    who = {"confirmed": first, "started": second, "not yet": third}[where]
    assert revision_for(7, rollout, who) == expected


def test_another_revision_s_rollout_says_nothing() -> None:
    rollout = begin(ACME, 7, 3, STAGES, IDS, T)
    assert revision_for(8, rollout, IDS[0]) == (8, 0)


@pytest.mark.parametrize(
    ("size", "servers", "expected"),
    [("1", 1, 1), ("1", 100, 1), ("5", 3, 3), ("10%", 100, 10), ("10%", 11, 2), ("10%", 1, 1), ("1%", 100, 1), ("99%", 100, 99)],
)
def test_a_stage_is_so_many_servers_and_a_part_of_one_counts_whole(size: str, servers: int, expected: int) -> None:
    ids = IDS[:servers]
    rollout = begin(ACME, 7, 0, Stages((size, "100%")), ids, T)
    assert len(holders(rollout, ids)) == expected
    assert (rollout.stage, rollout.confirmed, rollout.stage_at) == (1, NONE, T)


def test_a_single_stage_starts_everybody() -> None:
    rollout = begin(ACME, 7, 0, Stages(("100%",)), IDS, T)
    assert rollout.started == ALL
    assert holders(rollout) == set(IDS)


def test_percentages_are_of_all_servers_it_is_for() -> None:
    rollout = begin(ACME, 7, 0, Stages(("10%", "100%")), ordered()[:5], T, IDS)
    assert holders(rollout) == set(ordered()[:10])


def test_no_stage_is_without_a_reachable_server() -> None:
    """The canary is somebody who can sing."""
    twentieth = ordered()[19]
    rollout = begin(ACME, 7, 0, STAGES, [twentieth], T, IDS)
    assert rollout.started == place(7, twentieth)


def test_nobody_reachable_nobody_started() -> None:
    rollout = begin(ACME, 7, 0, STAGES, [], T, IDS)
    assert rollout.started == NONE
    assert holders(rollout) == set()


# --- Counting ---------------------------------------------------------------------------------------------------------------


def test_only_those_who_have_it_are_counted() -> None:
    rollout = begin(ACME, 7, 0, Stages(("10", "100%")), IDS, T)
    first, second, *_ = ordered()
    words = dict.fromkeys(ordered()[10:], Outcome.FAILED) | {first: Outcome.IN_FORCE, second: Outcome.FAILED}
    assert tally(rollout, words) == Tally(1, 1, 8, T + PATIENCE)


@pytest.mark.parametrize(
    ("presence", "confirmed", "later", "expected"),
    [
        (Presence(True, T - 100), False, 0, Tally(0, 0, 1, T + 60)),
        (Presence(True, T - 100), False, 59, Tally(0, 0, 1, T + 60)),
        (Presence(True, T - 100), False, 60, Tally(0, 1, 0)),  # says nothing
        (Presence(True, T + 50), False, 55, Tally(0, 0, 1, T + 60)),
        (Presence(True, T + 50), False, 60, Tally(0, 0, 0, T + 110)),  # came late: holds nobody up, and has its own time
        (Presence(True, T + 50), False, 110, Tally(0, 1, 0)),
        (Presence(False, T + 5), False, 10, Tally(0, 0, 1, T + 60)),  # went away: it may come back
        (Presence(False, T + 5), False, 60, Tally(0, 1, 0)),
        (Presence(False, T - 1), False, 60, Tally(0, 0, 0)),  # was away before the rollout began
        (Presence(False, None), False, 60, Tally(0, 0, 0)),  # never was there
        (Presence(False, T + 5), True, 10, Tally(0, 0, 0, T + 65)),  # its stage is over: it holds nobody up
        (Presence(False, T + 5), True, 65, Tally(0, 1, 0)),
        (Presence(False, T - 1), True, 70, Tally(0, 0, 0)),
        (Presence(True, T + 5), True, 10, Tally(0, 0, 0, T + 65)),
        (Presence(True, T + 5), True, 65, Tally(0, 1, 0)),
        (Presence(False, T + 5, unheard=True), False, 59, Tally(0, 0, 1, T + 60)),  # as one that connected then
        (Presence(False, T + 5, unheard=True), False, 65, Tally(0, 1, 0)),
        (Presence(False, T - 1, unheard=True), False, 59, Tally(0, 0, 1, T + 60)),
        (Presence(False, T + 50, unheard=True), False, 60, Tally(0, 0, 0, T + 110)),  # not held against one that came late
    ],
)
def test_who_waits_how_long(presence: Presence, confirmed: bool, later: int, expected: Tally) -> None:
    first = ordered()[0]
    rollout = replace(begin(ACME, 7, 0, replace(STAGES, confirm_seconds=80), IDS, T), confirmed=place(7, first) * confirmed)
    assert count(rollout, T, {first: Outcome.WAITING}, lambda _: presence, T + later) == expected


@pytest.mark.parametrize(
    ("presence", "later", "expected"),
    [
        (Presence(True, T - 100), 1, Tally(1, 0, 0)),
        (Presence(True, T), 1, Tally(1, 0, 0)),
        (Presence(False, T + 5), 6, Tally(0, 0, 1, T + 60)),  # the change may be what cut it off
        (Presence(False, T + 5), 60, Tally(0, 1, 0)),
        (Presence(True, T + 5), 6, Tally(0, 0, 1, T + 5 + HEARD)),  # it may have gone back, and has yet to say so
        (Presence(True, T + 5), 5 + HEARD, Tally(1, 0, 0)),
        (Presence(False, T + 70), 75, Tally(0, 1, 0)),  # the primary was away for longer than the change could wait
        (Presence(True, T + 70), 71, Tally(0, 0, 0, T + 70 + HEARD)),
        (Presence(True, T + 70), 70 + HEARD, Tally(1, 0, 0)),
        (Presence(False, T + 5, unheard=True), 6, Tally(0, 0, 1, T + 60)),
        (Presence(False, T + 5, unheard=True), 65, Tally(0, 1, 0)),
    ],
)
def test_what_is_yet_to_be_confirmed_counts_while_its_server_is_there_to_say_so(
    presence: Presence, later: int, expected: Tally
) -> None:
    """Faults row 9: it goes back by itself, and nobody hears of it before the next link has told everything."""
    first = ordered()[0]
    rollout = begin(ACME, 7, 0, replace(STAGES, confirm_seconds=80), IDS, T)
    assert count(rollout, T, {first: Outcome.IN_FORCE}, lambda _: presence, T + later) == expected
    for final in (replace(rollout, confirmed=place(7, first)), begin(ACME, 7, 0, STAGES, IDS, T)):
        assert count(final, T, {first: Outcome.IN_FORCE}, lambda _: presence, T + later) == Tally(1, 0, 0)


def test_a_window_that_opens_later_keeps_nobody_s_word_from_counting() -> None:
    """What was in force already needs no window."""
    rollout = begin(ACME, 7, 0, replace(STAGES, confirm_seconds=80), IDS, T)
    waits = Presence(connected=True, since=T - 100, opens=T + 7 * 86400)
    first = ordered()[0]
    assert count(rollout, T, {first: Outcome.IN_FORCE}, lambda _: waits, T + 1) == Tally(1, 0, 0)
    assert count(rollout, T, {first: Outcome.WAITING}, lambda _: waits, T + 1) == Tally(0, 0, 1, T + 60)


def test_a_run_of_a_task_has_the_time_that_the_task_gives_it() -> None:
    first = ordered()[0]
    rollout = begin(ACME, 7, 0, STAGES, IDS, T)
    counted = [count(rollout, T, {first: Outcome.WAITING}, lambda _: SOON, T + later, 3600) for later in (3599, 3600)]
    assert counted == [Tally(0, 0, 1, T + 3600), Tally(0, 1, 0)]


# --- Judging ----------------------------------------------------------------------------------------------------------------

RUNNING = begin(ACME, 7, 3, STAGES, IDS, T)


@pytest.mark.parametrize("tally", [Tally(0, 0, 1), Tally(5, 0, 1)])
def test_a_stage_waits_for_everybody(tally: Tally) -> None:
    assert judge(RUNNING, tally, IDS, T + 5) is None


def test_a_stage_that_is_over_is_confirmed_and_the_next_begins() -> None:
    after = judge(RUNNING, Tally(1, 0, 0), IDS, T + 5)
    assert after == replace(RUNNING, stage=2, confirmed=RUNNING.started, started=place(7, ordered()[9]), stage_at=T + 5)
    last = judge(after, Tally(10, 0, 0), IDS, T + 9)
    assert last == replace(after, stage=3, confirmed=after.started, started=ALL, stage_at=T + 9)
    done = judge(last, Tally(100, 0, 0), IDS, T + 11)
    assert done == replace(last, state=RolloutState.DONE, confirmed=ALL)
    assert holders(done) == set(IDS)


@pytest.mark.parametrize(
    ("stop_after", "failed", "stops"), [(1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True), (3, 4, True)]
)
def test_it_stops_when_so_many_failed_even_while_others_wait(stop_after: int, failed: int, stops: bool) -> None:
    rollout = replace(RUNNING, stages=replace(STAGES, stop_after=stop_after))
    after = judge(rollout, Tally(4, failed, 1), IDS, T + 5)
    if not stops:
        assert after is None
    else:
        assert after == replace(rollout, state=RolloutState.STOPPED, message=after.message if after else "")
        assert after.message == f"{failed} server{'s' * (failed > 1)} failed in stage 1 of 3"


def test_fewer_failures_hold_nothing_up() -> None:
    rollout = replace(RUNNING, stages=replace(STAGES, stop_after=3))
    after = judge(rollout, Tally(0, 2, 0), IDS, T + 5)
    assert after is not None
    assert after.stage == 2


@pytest.mark.parametrize("state", [RolloutState.STOPPED, RolloutState.DONE])
def test_what_is_over_is_judged_no_more(state: RolloutState) -> None:
    assert judge(replace(RUNNING, state=state), Tally(1, 5, 0), IDS, T + 5) is None


def test_where_nobody_could_try_it_nothing_is_proved() -> None:
    """A primary that has just started sees no link: that is not success."""
    assert judge(RUNNING, Tally(0, 0, 0), [], T + 5) is None
    last = replace(RUNNING, stage=3, started=ALL)
    assert judge(last, Tally(0, 0, 0), [], T + 5) is None


def test_a_stage_that_found_nobody_begins_when_somebody_comes() -> None:
    empty = begin(ACME, 7, 3, STAGES, [], T, IDS)
    thirtieth = ordered()[29]
    after = judge(empty, Tally(0, 0, 0), [thirtieth], T + 5, IDS)
    assert after == replace(empty, started=place(7, thirtieth), stage_at=T + 5)


def test_a_stage_never_shrinks() -> None:
    """Servers that went away, or were moved, take nothing back from those who have it."""
    rollout = replace(RUNNING, started=place(7, ordered()[50]))
    after = judge(rollout, Tally(50, 0, 0), ordered()[:10], T + 5)
    assert after is not None
    assert after.started == rollout.started


@given(
    sizes=st.lists(st.integers(1, 99), max_size=5, unique=True).map(sorted),
    servers=st.integers(1, 100),
    revision=st.integers(1, 10**6),
)
def test_if_nobody_fails_everybody_ends_with_it(sizes: list[int], servers: int, revision: int) -> None:
    ids = IDS[:servers]
    stages = parse_stages([*(f"{size}%" for size in sizes), "100%"], 1, 0)
    rollout = begin(ACME, revision, 0, stages, ids, T)
    for size in sizes:
        assert len(holders(rollout, ids)) == -(-servers * size // 100)
        following = judge(rollout, count(rollout, T, dict.fromkeys(ids, Outcome.IN_FORCE), lambda _: SOON, T), ids, T)
        assert following is not None
        rollout = following
    assert holders(rollout, ids) == set(ids)
    done = judge(rollout, Tally(servers, 0, 0), ids, T)
    assert done is not None
    assert done.state is RolloutState.DONE


# --- Any history ------------------------------------------------------------------------------------------------------------


class Fleet(RuleBasedStateMachine):
    """Servers come and go, apply and fail, while somebody judges; the model is a set of who ever had it."""

    @initialize(
        servers=st.integers(1, 12),
        sizes=st.sampled_from([("1", "100%"), ("1", "3", "50%", "100%"), ("10%", "100%"), ("100%",)]),
        stop_after=st.integers(1, 3),
        confirm=st.sampled_from([0, 30]),
        there=st.sets(st.integers(0, 11)),
    )
    def start(self, servers: int, sizes: tuple[str, ...], stop_after: int, confirm: int, there: set[int]) -> None:
        self.now = T
        self.ids = IDS[:servers]
        self.stages = parse_stages(sizes, stop_after, confirm)
        self.links = {id: Presence(number in there, T - 5 if number in there else None) for number, id in enumerate(self.ids)}
        self.words = dict.fromkeys(self.ids, Outcome.WAITING)
        self.rollout = begin(ACME, 7, 3, self.stages, self.reachable(), self.now, self.ids)
        self.first_of_stage = Counter({1: self.now})
        self.ever: set[str] = set()

    def reachable(self) -> list[str]:
        return [id for id in self.ids if self.links[id].connected]

    @rule(number=st.integers(0, 11), there=st.booleans())
    def link(self, number: int, there: bool) -> None:
        id = self.ids[number % len(self.ids)]
        if self.links[id].connected != there:
            self.links[id] = Presence(there, self.now)

    @rule(number=st.integers(0, 11), word=st.sampled_from([Outcome.IN_FORCE, Outcome.IN_FORCE, Outcome.FAILED]))
    def report(self, number: int, word: Outcome) -> None:
        id = self.ids[number % len(self.ids)]
        if self.links[id].connected and id in holders(self.rollout, self.ids):
            self.words[id] = word

    @rule(seconds=st.sampled_from([1, 20, 31, 601]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def look(self) -> None:
        self.step()

    @rule()
    def everybody_comes_and_does_it(self) -> None:
        """From anywhere: with everybody there and nobody failing, it comes to an end."""
        before = self.rollout
        failed = sum(word is Outcome.FAILED for word in self.words.values())
        self.links = {id: Presence(connected=True, since=self.now) for id in self.ids}
        self.now += HEARD
        for _ in self.stages.sizes * 2:
            for id in holders(self.rollout, self.ids):
                self.words[id] = self.words[id] if self.words[id] is Outcome.FAILED else Outcome.IN_FORCE
            self.step()
        ends = RolloutState.STOPPED if failed >= self.stages.stop_after else RolloutState.DONE
        assert self.rollout.state is (ends if before.state is RolloutState.RUNNING else before.state)
        assert self.rollout.state is RolloutState.STOPPED or holders(self.rollout, self.ids) == set(self.ids)

    def step(self) -> None:
        before = self.rollout
        tally = count(before, T, self.words, self.links.__getitem__, self.now)
        after = judge(before, tally, self.reachable(), self.now, self.ids)
        if after is None:
            return
        assert before.state is RolloutState.RUNNING
        assert (after.stage, after.state) != (before.stage, before.state) or before.started < after.started
        assert after.stage - before.stage in (0, 1)
        if after.stage > before.stage or after.state is RolloutState.DONE:
            assert self.stage_was_over(before)
        if after.state is RolloutState.STOPPED:
            assert tally.failed >= self.stages.stop_after
        self.rollout = after

    def stage_was_over(self, rollout: Rollout) -> bool:
        """Nobody was waited for who is there and had less than its time, and somebody has tried it."""
        has = holders(rollout, self.ids)
        new = {id for id in has if place(7, id) > rollout.confirmed}
        over = self.now >= rollout.stage_at + self.stages.patience
        tried = {id for id in has if self.words[id] is not Outcome.WAITING}
        silent = {id for id in new - tried if self.links[id].connected}
        if rollout.stages.confirm_seconds:
            silent |= {id for id in new if self.words[id] is Outcome.IN_FORCE and not self.links[id].connected}
        return (over or not silent) and bool(tried or over)

    @invariant()
    def never_more_servers_than_the_stage_says(self) -> None:
        if not hasattr(self, "rollout"):
            return
        rollout, has = self.rollout, holders(self.rollout, self.ids)
        size = rollout.stages.sizes[rollout.stage - 1]
        limit = -(-len(self.ids) * int(size[:-1]) // 100) if size.endswith("%") else int(size)
        beyond = sorted(has, key=lambda id: place(7, id))[limit:]
        if rollout.state is not RolloutState.DONE and beyond:
            # Only so far as to the first one that was reachable when a stage began: all before it were not.
            assert rollout.started == place(7, beyond[-1])
        assert self.ever <= has
        self.ever = has

    @invariant()
    def what_is_confirmed_has_started_and_only_what_is_new_is_to_be_confirmed(self) -> None:
        if not hasattr(self, "rollout"):
            return
        assert self.rollout.confirmed <= self.rollout.started
        for id in self.ids:
            revision, confirm = revision_for(7, self.rollout, id)
            assert revision in (3, 7)
            assert confirm == 0 or (revision == 7 and place(7, id) > self.rollout.confirmed)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
