"""How a policy fares at a server, by what the server said and what it should have said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enlist_primary.model.policies import NOT_YET, Counts, Fares, Placed, Policy, Report, Status, fares, meant, outcome, ways
from enlist_primary.model.rollouts import NONE, Outcome, Presence, Rollout, RolloutState, Stages, begin, place

T = 1_800_000_000
ME, OTHER = "aaaaaaaaaa", "bbbbbbbbbb"
HERE, AWAY = Presence(connected=True, since=T - 5), Presence(connected=False, since=T - 9)


def policy(revision: int, group: str = "Sites", before: int | None = None) -> Placed:
    """A policy; with `before`, one whose rollout has reached `OTHER` only."""
    row = Policy("acme.example", group, group, "chrony", revision, "d" * 64, T, "ann")
    if before is None:
        return Placed(row)
    started = place(revision, OTHER)
    rollout = Rollout("acme.example", revision, before, Stages(("1", "100%")), RolloutState.RUNNING, 1, started, NONE, T)
    return Placed(row, rollout)


def report(state: str = "applied", revisions: tuple[int, ...] = (5, 9), running: tuple[int, ...] = ()) -> Report:
    return Report(revisions, running, Status(state), "because", T)


UPPER, LOWER = policy(5, "/"), policy(9)
WAY = (UPPER, LOWER)


def late(revision: int) -> int:
    """A revision under which `ME` stands behind `OTHER`."""
    return next(each for each in range(revision, revision + 100) if place(each, ME) > place(each, OTHER))


def test_what_is_set_further_up_comes_first() -> None:
    groups = {"r": "/", "s": "Sites", "p": "Sites/Paris", "q": "Sites 2", "l": "Labs"}
    placed = [policy(9, "p"), policy(5, "r"), policy(7, "q")]
    found = {id: [each.policy.revision for each in way] for id, way in ways(groups, placed).items()}
    assert found == {"r": [5], "s": [5], "p": [5, 9], "q": [5, 7], "l": [5]}


@pytest.mark.parametrize(("before", "expected"), [(3, (5, 3)), (0, (5,))])
def test_who_is_not_in_the_stage_means_what_it_has(before: int, expected: tuple[int, ...]) -> None:
    staged = policy(late(9), before=before)
    assert meant((UPPER, staged), ME) == expected
    assert meant((UPPER, staged), OTHER) == (5, staged.policy.revision)


@pytest.mark.parametrize("state", sorted(set(Status) - {Status.PENDING, Status.UNREACHABLE}))
@pytest.mark.parametrize("placed", WAY)
def test_a_word_on_all_its_layers_is_a_word_on_each(placed: Placed, state: str) -> None:
    assert fares(placed, WAY, ME, report(state), HERE) == Fares(Status(state), 9, 0, "because", T)


@pytest.mark.parametrize("revisions", [(), (5,), (9,), (9, 5), (4, 9), (5, 8), (5, 9, 10), (5, 5, 9)])
def test_a_word_on_anything_else_leaves_it_pending(revisions: tuple[int, ...]) -> None:
    said = report(revisions=revisions, running=(5, 8))
    assert fares(LOWER, WAY, ME, said, HERE) == Fares(Status.PENDING, LOWER.policy.revision, 8, since=T)


def test_no_word_leaves_it_pending() -> None:
    assert fares(LOWER, WAY, ME, None, HERE) == Fares(Status.PENDING, LOWER.policy.revision, since=T)


@pytest.mark.parametrize(("linked", "staged_at", "since"), [(T - 5, 0, T), (T + 7, 0, T + 7), (T - 5, T + 3, T + 3)])
def test_it_is_pending_since_it_was_decided_or_the_server_came(linked: int, staged_at: int, since: int) -> None:
    stages = Stages(("1", "100%"))
    upper = UPPER if not staged_at else replace(UPPER, rollout=begin("acme.example", 5, 0, stages, [], staged_at))
    assert fares(LOWER, (upper, LOWER), ME, None, Presence(connected=True, since=linked)).since == since


@pytest.mark.parametrize("said", [None, report(), report("failed")])
def test_whoever_is_not_connected_is_unreachable_whatever_it_said(said: Report | None) -> None:
    """Never green: what was true then need not be true now."""
    found = fares(LOWER, WAY, ME, said, AWAY)
    assert (found.status, found.since, found.revision) == (Status.UNREACHABLE, T - 9, 9 if said else 0)


def test_of_a_stage_that_has_not_begun_there_is_nothing_to_say_yet() -> None:
    staged = policy(late(9), before=3)
    way = (UPPER, staged)
    applied = report(revisions=(5, 3), running=(5, 3))
    assert fares(staged, way, ME, applied, HERE) == Fares(Status.PENDING, staged.policy.revision, 5, NOT_YET, T)
    assert fares(UPPER, way, ME, applied, HERE).status is Status.APPLIED


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, Outcome.WAITING),
        (report("received"), Outcome.WAITING),
        (report("applied"), Outcome.IN_FORCE),
        (report("changed_locally"), Outcome.IN_FORCE),
        (report("failed"), Outcome.FAILED),
        (report("rolled_back"), Outcome.FAILED),
        (report("unsupported"), Outcome.IN_FORCE),
        (report("applied", (5, 8)), Outcome.WAITING),
        (report("failed", (5, 8)), Outcome.WAITING),
        (report("failed", (4, 9)), Outcome.WAITING),
        (report("received", (6, 9), running=(5, 9)), Outcome.IN_FORCE),
        (report("failed", (6, 9), running=(5, 9)), Outcome.IN_FORCE),
        (report("failed", running=(5, 8)), Outcome.FAILED),
    ],
)
def test_what_a_word_makes_of_a_rollout(said: Report | None, expected: Outcome) -> None:
    assert outcome(LOWER, WAY, ME, said) is expected


def test_counts_remember_the_first_who_went_away() -> None:
    counts = Counts()
    for since in (None, T, T - 7, T + 1):
        counts.add(Fares(Status.UNREACHABLE, since=since))
    counts.add(Fares(Status.APPLIED, since=T - 100))
    counts.add(Fares(Status.PENDING))
    assert (counts.desired, counts.by_status[Status.UNREACHABLE], counts.unreachable_since) == (6, 4, T - 7)


def test_counts_tell_of_the_pending_ones_those_whose_stage_has_not_begun() -> None:
    counts = Counts()
    for each in (Fares(Status.PENDING), Fares(Status.PENDING, message=NOT_YET), Fares(Status.FAILED, message=NOT_YET)):
        counts.add(each)
    assert (counts.by_status[Status.PENDING], counts.not_begun) == (2, 1)
