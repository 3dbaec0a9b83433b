"""The sweep: what ends by itself, what is forgotten, and what is kept for ever."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason
from enlist_primary.model.servers import State
from enlist_primary.store import observations
from enlist_primary.store.observations import Seen
from tests.primary.operations.desk import ACME, BETA, DAY, Desk, bring


@pytest.mark.parametrize(("waited", "ended"), [(7 * DAY - 1, False), (7 * DAY, True), (20 * DAY, True)])
def test_a_request_ends_after_seven_days(desk: Desk, waited: int, ended: bool) -> None:
    server = desk.ask()
    desk.later(waited)
    assert desk.sweep() == ([server.id] if ended else [])
    made = desk.load(server)
    assert (made.state, made.since) == ((State.EXPIRED, server.expires_at) if ended else (State.PENDING, server.since))


@pytest.mark.parametrize(("waited", "kept"), [(30 * DAY - 1, True), (30 * DAY, False), (31 * DAY, False)])
@pytest.mark.parametrize("how", ["expired", "taken back"])
def test_a_request_that_nobody_decided_about_is_forgotten_after_thirty_days(desk: Desk, how: str, waited: int, kept: bool) -> None:
    server = desk.ask()
    if how == "expired":
        desk.later(7 * DAY)
        desk.sweep()
    else:
        desk.leave()
    desk.later(waited)
    desk.sweep()
    assert (desk.row() is not None) == kept
    if not kept:
        assert desk.ask().id != server.id


@pytest.mark.parametrize("state", State)
def test_whatever_was_decided_about_is_kept_for_ever(desk: Desk, state: State) -> None:
    """The journal speaks of it."""
    server = bring(desk, state)
    if server.revision == 0:
        server = desk.rename(server, "renamed")
    for _ in range(20):
        desk.later(40 * DAY)
        desk.sweep()
    assert desk.load(server).revision >= server.revision > 0


def test_what_was_seen_of_a_forgotten_server_goes_with_it(desk: Desk) -> None:
    server = desk.ask()
    observations.save_seen(desk.tx, ACME, server.id, Seen(desk.now, None, "192.0.2.7", "1.0"))
    desk.leave()
    desk.later(30 * DAY)
    desk.sweep()
    assert desk.rows()["server_observation"] == []


def test_a_server_that_asked_anew_is_not_forgotten(desk: Desk) -> None:
    desk.ask()
    desk.later(7 * DAY)
    desk.sweep()
    desk.later(29 * DAY)
    server = desk.ask()
    desk.later(DAY)
    desk.sweep()
    assert desk.load(server) == server


def test_an_account_s_sweep_touches_no_other(desk: Desk) -> None:
    for account in (ACME, BETA):
        bring(desk, State.PENDING, account=account)
        bring(desk, State.INVITED, account=account)
    desk.later(8 * DAY)
    with desk.touching_only(ACME):
        assert len(desk.expire(ACME)) == 2
    assert len(desk.expire(BETA)) == 2


def test_a_large_backlog_is_swept_in_parts(desk: Desk) -> None:
    """One decision never holds the account for long."""
    for _ in range(7):
        desk.invite()
    desk.later(8 * DAY)
    assert [len(desk.expire(limit=3)) for _ in range(4)] == [3, 3, 1, 0]


def test_a_sweep_with_nothing_to_do_looks_at_no_account(desk: Desk) -> None:
    for state in State:
        bring(desk, state, key=state)
    with desk.unchanged():
        assert desk.sweep() == []


def test_a_sweep_of_an_account_that_is_not_there_is_refused(desk: Desk) -> None:
    with desk.refuses(Reason.ACCOUNT_UNKNOWN):
        desk.expire("nobody.example")
