"""Labels: words that people give a server, to choose servers by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from enlist.reasons import Reason
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.servers import LIVING, Event, Server, State
from enlist_primary.operations import servers
from enlist_primary.store import servers as rows
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, Desk, bring


@pytest.mark.parametrize("state", State)
def test_a_living_server_gets_labels_and_nothing_else_of_it_changes(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    bring(desk, State.TRUSTED, account=BETA)
    if state not in LIVING:
        with desk.refuses(Reason.STATE_FORBIDS):
            desk.label(server, "printer")
        return
    with desk.touching_only(ACME):
        made = desk.label(server, "printer", "laser", "printer")
    entry = desk.newest()
    assert made == replace(server, labels=("laser", "printer"), revision=entry.number)
    assert (entry.action, entry.subject) == ("server.label", f"servers/{server.id}")
    assert entry.detail == {"name": "old", "added": "laser printer"}
    assert desk.load(server) == made
    with desk.unchanged():
        assert desk.label(server, "laser", remove=["ink"]) == made
        assert desk.label(server) == made
    desk.later(60)
    assert desk.label(server, "site=paris", remove=["printer", "ink"]).labels == ("laser", "site=paris")
    assert desk.newest().detail == {"name": "old", "added": "site=paris", "removed": "printer"}
    assert desk.label(server, remove=["laser", "site=paris"]).labels == desk.load(server).labels == ()


@pytest.mark.parametrize(
    "label", ["", "Printer", "a b", "a,b", "-a", "a-", "x" * 64, "dr\u00fccker", "a\x00", "a\x1b[2J", "../x", "'"]
)
def test_what_is_no_label_is_refused_wherever_it_is_said(desk: Desk, label: str) -> None:
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.label(server, "printer", label)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.label(server, remove=[label])


def test_a_label_is_not_added_and_taken_away_at_once(desk: Desk) -> None:
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.label(server, "a", "b", remove=["b", "c"])


def test_a_server_bears_at_most_32(desk: Desk) -> None:
    server = desk.label(bring(desk, State.TRUSTED), *(f"l{number}" for number in range(32)))
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.label(server, "one-more")
    assert len(desk.label(server, "one-more", remove=["l0"]).labels) == 32


def test_labels_are_each_server_s_own(desk: Desk) -> None:
    """Also of two servers in two accounts that chance gave one id."""
    desk.new_id = lambda: "aaaaaaaaaa"  # type: ignore[method-assign]  # chance, for once
    mine, theirs = (bring(desk, State.TRUSTED, account=account) for account in (ACME, BETA))
    with desk.touching_only(ACME):
        desk.label(mine, "mine")
    assert (desk.load(mine).labels, desk.load(theirs).labels) == (("mine",), ())
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(servers.label, ".", mine.id, ["x"], [], ANN, desk.now)


def test_all_ways_to_read_servers_bring_their_labels(desk: Desk) -> None:
    labelled = {key: desk.label(desk.authorize(desk.ask(key)), key, "all") for key in ("one", "two", "three")}
    bare = desk.authorize(desk.ask("four"))
    expected = {server.id: server.labels for server in (*labelled.values(), bare)}
    assert {server.id: server.labels for server in rows.page(desk.tx, ACME, "", 10)} == expected
    assert {server.id: server.labels for server in rows.trusted_below(desk.tx, ACME, [bare.group_id])} == expected
    found = desk.row("two")
    assert found is not None
    assert found.labels == ("all", "two")


def test_decisions_leave_labels_as_they_are(desk: Desk) -> None:
    server = desk.label(desk.ask(), "printer")
    desk.add_group("A")
    steps: list[Callable[[], Server]] = [
        lambda: desk.authorize(server, group="A"),
        lambda: desk.rename(server, "rome-1"),
        lambda: desk.decide(server, Event.SUSPEND),
        lambda: desk.decide(server, Event.RESUME),
        lambda: desk.move(server, "/"),
        lambda: desk.ask(),
        lambda: desk.leave(),
    ]
    for step in steps:
        assert step().labels == desk.load(server).labels == ("printer",)


def test_a_request_that_runs_out_and_is_forgotten_takes_its_labels_along(desk: Desk) -> None:
    server = desk.ask()
    desk.tx.run("INSERT INTO server_label VALUES ($1, $2, 'printer')", ACME, server.id)  # no decision: such a row is forgotten
    desk.later(7 * DAY)
    desk.sweep()
    assert desk.load(server).labels == ("printer",)
    desk.later(30 * DAY)
    desk.sweep()
    assert desk.tx.rows("SELECT * FROM server_label") == []


@pytest.mark.parametrize("event", [Event.REMOVE, Event.LEAVE])
@pytest.mark.parametrize("full", [True, False])
def test_who_comes_back_inherits_no_label(desk: Desk, event: Event, full: bool) -> None:
    """Attacks row 12."""
    server = desk.label(bring(desk, State.TRUSTED), "printer")
    if event is Event.LEAVE:
        desk.leave()
    else:
        desk.decide(server, event)
    back = desk.ask(api_key=desk.api_key(Kind.FULL) if full else "")
    assert back.id == server.id
    assert back.labels == desk.load(back).labels == ()


@pytest.mark.parametrize("known", [True, False])
def test_an_invitation_s_labels_are_for_whoever_takes_it_up(desk: Desk, known: bool) -> None:
    if known:
        desk.label(desk.ask(), "asked")
    invited, api_key = desk.invite("rome-1")
    desk.label(invited, "rome")
    made = desk.ask(api_key=api_key)
    assert made.labels == desk.load(made).labels == ("rome",)
