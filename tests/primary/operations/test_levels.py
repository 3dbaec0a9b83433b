"""Decisions about levels: each cross-certificate over a key begins later than the one before, in any account."""

from __future__ import annotations

import pytest

from enlist import ancestry, certificates
from enlist.certificates import CLOCK_TOLERANCE
from enlist.reasons import Reason, Refused
from enlist_primary.authority.signer import Signer
from enlist_primary.model.levels import Bequest
from enlist_primary.model.servers import Event, State
from enlist_primary.operations import levels
from tests.primary.operations.desk import ACME, ANN, BETA, START, Desk, bring
from tests.support.pretender import new_signer

OWN, CHILD = new_signer(), new_signer()


def middle(desk: Desk, account: str) -> str:
    """A server whose host may run a primary."""
    id = bring(desk, State.TRUSTED, account=account).id
    desk.do(levels.allow, account, id, True, None, ANN, desk.now)
    return id


def certified(desk: Desk, account: str, id: str, child: Signer = CHILD) -> int:
    """The child is certified for this server; when its certificate begins."""

    def make(not_before: int) -> bytes:
        return OWN.cross_certificate(child.authority, account, id, not_before)

    made = desk.do(levels.certify, account, id, child.authority, {OWN.authority.primary_id}, make, desk.now)
    cross = certificates.load(made)
    assert ancestry.certified(cross, OWN.authority, child.authority).place == (OWN.authority.primary_id, account, id)
    return certificates.begins_at(cross)


def test_first_cross_certificate_begins_a_clock_tolerance_ago(desk: Desk) -> None:
    assert certified(desk, ACME, middle(desk, ACME)) == START - CLOCK_TOLERANCE


def test_child_that_asks_again_gets_the_certificate_it_has(desk: Desk) -> None:
    id = middle(desk, ACME)
    begins = certified(desk, ACME, id)
    desk.now += 100
    assert certified(desk, ACME, id) == begins


def test_child_that_moves_between_accounts_gets_a_later_step_each_time(desk: Desk) -> None:
    """Within one second, and also back to a server for which it was certified before."""
    here, there = middle(desk, ACME), middle(desk, BETA)
    steps = [certified(desk, ACME, here), certified(desk, BETA, there), certified(desk, ACME, here), certified(desk, BETA, there)]
    assert steps == list(range(steps[0], steps[0] + 4))


def test_step_is_later_even_if_the_clock_went_back(desk: Desk) -> None:
    begins = certified(desk, ACME, middle(desk, ACME))
    desk.now -= 1000
    assert certified(desk, BETA, middle(desk, BETA)) == begins + 1


def test_step_is_later_even_if_the_server_before_was_removed(desk: Desk) -> None:
    id = middle(desk, ACME)
    begins = certified(desk, ACME, id)
    desk.do(levels.allow, ACME, id, False, Bequest.DELETE, ANN, desk.now)
    row = desk.row(account=ACME)
    assert row is not None
    desk.decide(row, Event.REMOVE)
    assert certified(desk, BETA, middle(desk, BETA)) == begins + 1


def test_children_are_counted_each_by_itself(desk: Desk) -> None:
    begins = certified(desk, ACME, middle(desk, ACME))
    assert certified(desk, BETA, middle(desk, BETA), new_signer()) == begins


def test_another_primary_than_the_one_below_is_refused(desk: Desk) -> None:
    id = middle(desk, ACME)
    certified(desk, ACME, id)
    with pytest.raises(Refused) as caught:
        certified(desk, ACME, id, new_signer())
    assert caught.value.reason is Reason.NOT_ALLOWED
