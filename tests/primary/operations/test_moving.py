"""Groups and servers that change their place: in one step, never in a loop, and with nothing else about them changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from enlist import names
from enlist.reasons import Reason
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind, parse
from enlist_primary.model.servers import LIVING, Event, Server, State
from enlist_primary.operations import servers
from enlist_primary.store import api_keys as key_rows
from enlist_primary.store import groups as rows
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, Desk, bring

# --- Groups ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "new_path", "paths"),
    [
        ("A/B", "A/Bee", ["/", "A", "A/Bee", "A/Bee/C", "D"]),
        ("A/B", "B", ["/", "A", "B", "B/C", "D"]),
        ("A/B", "D/x", ["/", "A", "D", "D/x", "D/x/C"]),
        ("A", "D/A", ["/", "D", "D/A", "D/A/B", "D/A/B/C"]),
        ("A/B/C", "A/C", ["/", "A", "A/B", "A/C", "D"]),
        ("A", "/Aa/", ["/", "Aa", "Aa/B", "Aa/B/C", "D"]),
    ],
)
def test_a_group_moves_with_all_that_stands_below_it(desk: Desk, path: str, new_path: str, paths: list[str]) -> None:
    desk.add_group("A/B/C")
    desk.add_group("D")
    ids = {group.id for group in rows.listed(desk.tx, ACME)}
    server = desk.authorize(desk.ask(), group="A/B/C")
    inside = rows.find(desk.tx, ACME, path)
    with desk.touching_only(ACME):
        moved = desk.move_group(path, new_path)
    assert desk.paths() == paths
    assert moved == replace(inside, path=new_path.strip("/")) == rows.find(desk.tx, ACME, new_path)
    assert {group.id for group in rows.listed(desk.tx, ACME)} == ids
    assert replace(desk.load(server), group="") == replace(server, group="")
    assert rows.by_id(desk.tx, ACME, server.group_id).path == desk.load(server).group
    entry = desk.newest()
    assert (entry.action, entry.subject) == ("group.move", f"groups/{moved.id}")
    assert entry.detail == {"before": path, "after": new_path.strip("/")}
    with desk.unchanged():
        assert desk.move_group(new_path, new_path) == moved


@pytest.mark.parametrize("new_path", ["A/B", "A/B/C/D", "A/A", "A/not there/x"])
def test_nothing_stands_below_itself(desk: Desk, new_path: str) -> None:
    desk.add_group("A/B/C")
    with desk.refuses(Reason.WOULD_LOOP):
        desk.move_group("A", new_path)


REFUSED = {
    "a name that is taken": ("A", "D", Reason.ALREADY_EXISTS),
    "a name that is taken below": ("D", "A/B", Reason.ALREADY_EXISTS),
    "a parent that is not there": ("A", "Nowhere/A", Reason.NOT_FOUND),
    "a group that is not there": ("Nowhere", "X", Reason.NOT_FOUND),
    "the root group's place": ("A", "/", Reason.INVALID_ARGUMENT),
    "no name": ("A", "", Reason.INVALID_ARGUMENT),
    "a hostile name": ("A", "D/\x1b[2J", Reason.INVALID_ARGUMENT),
    "an empty name": ("A", "D//A", Reason.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_changes_nothing(desk: Desk, what: str) -> None:
    desk.add_group("A/B/C")
    desk.add_group("D")
    path, new_path, reason = REFUSED[what]
    with desk.refuses(reason):
        desk.move_group(path, new_path)


def test_a_name_is_taken_only_where_it_stands_and_as_it_is_written(desk: Desk) -> None:
    for path in ("A", "B/A", "C/a"):
        desk.add_group(path)
    desk.move_group("B/A", "C/A")
    assert desk.paths() == ["/", "A", "B", "C", "C/A", "C/a"]


def test_a_subtree_moves_down_to_the_deepest_level_and_no_further(desk: Desk) -> None:
    levels = [f"level {number}" for number in range(names.GROUP_DEPTH)]
    desk.add_group("A/B")
    desk.add_group("/".join(levels[:-1]))
    with desk.refuses(Reason.INVALID_ARGUMENT) as no:
        desk.move_group("A", "/".join([*levels[:-1], "A"]))
    assert f"more than {names.GROUP_DEPTH} levels deep" in no.value.message
    desk.move_group("A", "/".join([*levels[:-2], "A"]))
    assert max(path.count("/") + 1 for path in desk.paths()) == names.GROUP_DEPTH


# --- Servers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_a_living_server_moves_and_nothing_else_of_it_changes(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    bring(desk, State.TRUSTED, account=BETA)
    group = desk.add_group("Sites/Paris")
    if state not in LIVING:
        with desk.refuses(Reason.STATE_FORBIDS):
            desk.move(server, "Sites/Paris")
        return
    with desk.touching_only(ACME):
        moved = desk.move(server, "Sites/Paris")
    entry = desk.newest()
    assert desk.load(server) == moved
    assert moved == replace(server, group_id=group.id, group="Sites/Paris", revision=entry.number)
    assert (entry.action, entry.subject) == ("server.move", f"servers/{server.id}")
    assert entry.detail == {"name": "old", "before": "Old", "after": "Sites/Paris"}
    with desk.unchanged():
        assert desk.move(server, "/Sites/Paris/") == moved
    assert desk.move(server, "/").group == "/"


@pytest.mark.parametrize("group", ["Nowhere", "Old/Nowhere", "old"])
def test_a_server_moves_to_no_group_that_is_not_there(desk: Desk, group: str) -> None:
    """A group that somebody mistyped would hold none of the policies the server shall get."""
    server = bring(desk, State.TRUSTED)
    with desk.refuses(Reason.NOT_FOUND) as no:
        desk.move(server, group)
    assert no.value.message.endswith(f"Make it with: enlist-primary group add acme.example/{group}")


def test_nor_to_another_account_s(desk: Desk) -> None:
    """Attacks row 15."""
    server = bring(desk, State.TRUSTED)
    desk.add_group("Theirs", BETA)
    with desk.refuses(Reason.NOT_FOUND):
        desk.move(server, "Theirs")
    for account in (BETA, PRIMARY):
        with desk.refuses(Reason.NOT_FOUND):
            desk.do(servers.move, account, server.id, "/", ANN, desk.now)


@pytest.mark.parametrize("state", [State.PENDING, State.INVITED])
def test_who_is_past_its_end_is_not_moved(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    desk.later(7 * DAY)
    with desk.refuses(Reason.STATE_FORBIDS):
        desk.move(server, "/")


def test_an_invitation_that_was_moved_is_taken_up_where_it_stands(desk: Desk) -> None:
    server, api_key = desk.invite("rome-1", "Sites/Paris")
    desk.add_group("Sites/Rome")
    desk.move(server, "Sites/Rome")
    assert desk.validate(api_key).group == "Sites/Rome"
    assert key_rows.load(desk.tx, ACME, parse(api_key).id).group == "Sites/Rome"
    desk.remove_group("Sites/Paris")
    assert desk.ask(api_key=api_key).group == "Sites/Rome"


def test_an_invitation_goes_along_with_its_group(desk: Desk) -> None:
    _, api_key = desk.invite("rome-1", "Sites/Rome")
    desk.move_group("Sites", "Places")
    assert desk.validate(api_key).group == "Places/Rome"
    assert desk.ask(api_key=api_key).group == "Places/Rome"


def test_an_api_key_goes_along_with_its_group(desk: Desk) -> None:
    api_key = desk.api_key(Kind.FULL, group="Sites/Rome")
    desk.move_group("Sites/Rome", "Rome")
    assert desk.ask(api_key=api_key).group == "Rome"


# --- Authorized into a group ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "shown"), [("Sites/Paris", "Sites/Paris"), ("/Sites/Paris/", "Sites/Paris"), ("/", "/")])
def test_authorizing_into_a_group_is_one_decision(desk: Desk, group: str, shown: str) -> None:
    server = bring(desk, State.PENDING)
    desk.add_group("Sites/Paris")
    head = desk.head()
    with desk.touching_only(ACME):
        made = desk.authorize(server, True, group=group)
    [entry] = desk.journal(after=head)
    assert (entry.action, entry.evidence, entry.detail) == ("server.authorize", "code compared", {"name": "old", "group": shown})
    assert (made.state, made.group, made.revision) == (State.TRUSTED, shown, entry.number)
    assert desk.load(server) == made
    with desk.unchanged():
        assert desk.authorize(server, True, group=group) == made
        assert desk.authorize(server) == made


@pytest.mark.parametrize(("code_matches", "reason"), [(None, Reason.NOT_FOUND), (False, Reason.CODE_MISMATCH)])
def test_who_is_not_put_into_the_group_is_not_trusted_either(desk: Desk, code_matches: bool | None, reason: Reason) -> None:
    server = bring(desk, State.PENDING)
    with desk.refuses(reason):
        desk.authorize(server, code_matches, group="Nowhere")


def test_who_is_trusted_already_is_only_moved(desk: Desk) -> None:
    server = bring(desk, State.TRUSTED)
    head = desk.head()
    assert desk.authorize(server, group="/").group == "/"
    assert [entry.action for entry in desk.journal(after=head)] == ["server.move"]


@pytest.mark.parametrize("state", sorted(set(State) - {State.PENDING, State.TRUSTED}))
def test_a_group_opens_no_way_into_trust(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    with desk.refuses(Reason.STATE_FORBIDS):
        desk.authorize(server, group="/")


# --- Where servers land ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def landing(desk: Desk) -> str:
    """A landing group."""
    desk.add_group("New/Arrivals")
    return desk.set_account(landing_group="/New/Arrivals").landing_path


def test_the_landing_group_is_kept_shown_and_journalled(desk: Desk, landing: str) -> None:
    account = desk.set_account()
    assert (landing, account.landing_path) == ("New/Arrivals", "New/Arrivals")
    assert rows.by_id(desk.tx, ACME, account.landing_group or "").path == landing
    assert desk.newest().detail == {"default api key": "on", "landing group": landing}
    with desk.unchanged():
        desk.set_account(landing_group=landing)
    assert desk.move_group("New", "Old").path == "Old"
    assert desk.set_account().landing_path == "Old/Arrivals"
    with desk.refuses(Reason.GROUP_NOT_EMPTY) as no:
        desk.remove_group("Old/Arrivals")
    assert "it is the account's landing group" in no.value.message
    back = desk.set_account(landing_group="/")
    assert (back.landing_group, back.landing_path, desk.newest().detail["landing group"]) == (None, "/", "/")
    desk.remove_group("Old/Arrivals")


@pytest.mark.parametrize("path", ["Nowhere", "New/Nowhere"])
def test_a_landing_group_is_there_before_it_is_one(desk: Desk, landing: str, path: str) -> None:
    with desk.refuses(Reason.NOT_FOUND) as no:
        desk.set_account(landing_group=path)
    assert "group add" in no.value.message
    desk.add_group("Theirs", BETA)
    with desk.refuses(Reason.NOT_FOUND):
        desk.set_account(landing_group="Theirs")


WAYS: dict[str, tuple[Callable[[Desk], str], str]] = {
    "without an API key": (lambda desk: "", "New/Arrivals"),
    "with one that names no group": (lambda desk: desk.api_key(), "New/Arrivals"),
    "with a full one that names no group": (lambda desk: desk.api_key(Kind.FULL), "New/Arrivals"),
    "with the vendor's": (lambda desk: desk.api_key(account=PRIMARY), "New/Arrivals"),
    "with one for a group": (lambda desk: desk.api_key(group="Sites"), "Sites"),
    "with an invitation that names no group": (lambda desk: desk.invite()[1], "New/Arrivals"),
    "with an invitation to a group": (lambda desk: desk.invite(group="Sites")[1], "Sites"),
}


@pytest.mark.parametrize("way", WAYS)
def test_who_is_given_no_other_place_lands_there_and_is_told_so_before(desk: Desk, landing: str, way: str) -> None:
    make, group = WAYS[way]
    api_key = make(desk)
    desk.add_group("Theirs", BETA)
    desk.set_account(BETA, landing_group="Theirs")
    with desk.unchanged():
        assert desk.validate(api_key).group == group
    made = desk.ask(api_key=api_key)
    assert made.group == group
    assert desk.load(made) == made


def test_an_invitation_shows_the_place_where_its_server_will_stand(desk: Desk, landing: str) -> None:
    server, api_key = desk.invite()
    assert (server.group, desk.load(server).group) == (landing, landing)
    desk.set_account(landing_group="/")
    assert desk.ask(api_key=api_key).group == landing


def test_who_is_there_stays_when_the_landing_group_changes(desk: Desk, landing: str) -> None:
    servers = [desk.ask("one"), desk.authorize(desk.ask("two"))]
    desk.set_account(landing_group="/")
    assert [desk.load(server) for server in servers] == servers
    assert desk.ask("one").group == landing


def test_who_comes_back_lands_again_wherever_it_stood_before(desk: Desk, landing: str) -> None:
    """Attacks row 12."""
    server = desk.authorize(desk.ask(), group="New")
    desk.decide(server, Event.REMOVE)
    back: Server = desk.ask()
    assert (back.id, back.group) == (server.id, landing)
