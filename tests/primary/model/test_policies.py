"""How a policy fares at a server, by what the server said and what it should have said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enlist.documents import ItemVersion
from enlist_primary.model.policies import (
    NOT_YET,
    Counts,
    Fares,
    Placed,
    Policy,
    Report,
    Status,
    desired_items,
    fares,
    outcome,
    ways,
)
from enlist_primary.model.rollouts import NONE, Outcome, Presence, Rollout, RolloutState, Stages, begin, place

T = 1_800_000_000
ME, OTHER = "aaaaaaaaaa", "bbbbbbbbbb"
BODY, OTHER_BODY = "d" * 64, "e" * 64
HERE, AWAY = Presence(connected=True, since=T - 5), Presence(connected=False, since=T - 9)


def policy(revision: int, group: str = "Sites", before: int | None = None) -> Placed:
    """A policy; with `before`, one whose rollout has reached `OTHER` only."""
    row = Policy("acme.example", group, group, "chrony", revision, BODY, T, "ann")
    if before is None:
        return Placed(row)
    started = place(revision, OTHER)
    rollout = Rollout("acme.example", revision, before, Stages(("1", "100%")), RolloutState.RUNNING, 1, started, NONE, T)
    return Placed(row, rollout, BODY if before else None)


Versions = tuple[ItemVersion, ...]


def items(*revisions: int, body: str = BODY) -> Versions:
    return tuple(ItemVersion(revision, body) for revision in revisions)


def report(state: str = "applied", observed: Versions | None = None, applied: Versions | None = None) -> Report:
    """A report on the items 5 and 9, if not on others; they are in force, if it says nothing else and they came to be so."""
    observed = items(5, 9) if observed is None else observed
    if applied is None:
        applied = observed if state in ("applied", "changed_locally") else ()
    return Report(observed, applied, Status(state), "because", T)


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
    assert desired_items((UPPER, staged), ME) == items(*expected)
    assert desired_items((UPPER, staged), OTHER) == items(5, staged.policy.revision)


def test_a_server_outside_the_stage_keeps_the_body_it_has() -> None:
    staged = replace(policy(late(9), before=3), before_digest=OTHER_BODY)
    assert desired_items((UPPER, staged), ME) == (*items(5), *items(3, body=OTHER_BODY))


@pytest.mark.parametrize("state", sorted(set(Status) - {Status.PENDING, Status.UNREACHABLE}))
@pytest.mark.parametrize("placed", WAY)
def test_a_word_on_all_its_layers_is_a_word_on_each(placed: Placed, state: str) -> None:
    said = report(state)
    running = max((each.revision for each in said.applied), default=0)
    assert fares(placed, WAY, ME, said, HERE) == Fares(Status(state), 9, running, "because", T)


ELSE = [
    *(items(*each) for each in [(), (5,), (9,), (9, 5), (4, 9), (5, 8), (5, 9, 10), (5, 5, 9)]),
    *[items(5, 9, body=OTHER_BODY), (*items(5, body=OTHER_BODY), *items(9)), (*items(5), *items(9, body=OTHER_BODY))],
]
"""Items that are not those desired: among others with their revisions and another body."""


@pytest.mark.parametrize("observed", ELSE)
@pytest.mark.parametrize("applied", [items(5, 9), items(5, 8)])
def test_a_word_on_anything_else_leaves_it_pending(observed: Versions, applied: Versions) -> None:
    found = fares(LOWER, WAY, ME, report(observed=observed, applied=applied), HERE)
    assert found == Fares(Status.PENDING, LOWER.policy.revision, applied[-1].revision, since=T)


@pytest.mark.parametrize("applied", ELSE)
def test_applied_counts_only_with_exactly_the_desired_items_in_force(applied: Versions) -> None:
    for placed in WAY:
        assert fares(placed, WAY, ME, report(applied=applied), HERE).status is Status.PENDING


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
    applied = report(observed=items(5, 3))
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
        (report("applied", items(5, 8)), Outcome.WAITING),
        (report("applied", items(5, 9, body=OTHER_BODY)), Outcome.WAITING),
        (report("applied", applied=items(5, 9, body=OTHER_BODY)), Outcome.WAITING),
        (report("changed_locally", applied=items(5, 8)), Outcome.WAITING),
        (report("failed", items(5, 8)), Outcome.WAITING),
        (report("failed", items(4, 9)), Outcome.WAITING),
        (report("failed", items(5, 9, body=OTHER_BODY)), Outcome.WAITING),
        (report("unsupported", items(5, 9, body=OTHER_BODY)), Outcome.WAITING),
        (report("received", items(6, 9), applied=items(5, 9)), Outcome.IN_FORCE),
        (report("failed", items(6, 9), applied=items(5, 9)), Outcome.IN_FORCE),
        (report("failed", items(6, 9), applied=items(5, 9, body=OTHER_BODY)), Outcome.WAITING),
        (report("failed", applied=items(5, 8)), Outcome.FAILED),
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
