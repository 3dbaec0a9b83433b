"""Invitations: a place kept for one server, and the single-use full API key in its join line."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.servers import Event, State
from enlist_primary.store import api_keys as key_rows
from tests.primary.operations.desk import ACME, BETA, DAY, HOME, Desk, bring
from tests.primary.refusals import attempt

WITH_ROW = [State(each) for each in ("pending", "denied", "expired", "withdrawn", "departed", "removed")]


@pytest.mark.parametrize("name", [None, "", "rome-1"])
@pytest.mark.parametrize(("group", "shown"), [("/", "/"), ("Sites/Rome", "Sites/Rome"), ("/Sites/Rome/", "Sites/Rome")])
def test_an_invitation_keeps_a_name_and_a_group_for_seven_days(desk: Desk, name: str | None, group: str, shown: str) -> None:
    with desk.touching_only(ACME):
        server, text = desk.invite(name, group)
    assert desk.load(server) == server
    assert (server.name, server.group, server.state, server.key) == (name or None, shown, State.INVITED, None)
    assert (server.since, server.expires_at) == (desk.now, desk.now + 7 * DAY)
    key = key_rows.of_invitation(desk.tx, ACME, server.id)
    assert key is not None
    assert (key.kind, key.max_uses, key.uses, key.expires_at) == (Kind.FULL, 1, 0, server.expires_at)
    assert (key.group, key.networks, key.revoked_at) == (shown, (), None)
    assert text.split("_")[1] == key.id
    entry = desk.newest()
    assert (entry.action, entry.subject, entry.number) == ("server.invite", f"servers/{server.id}", server.revision)
    assert entry.detail["api key"] == key.id


def test_whoever_holds_the_join_line_takes_the_place(desk: Desk) -> None:
    server, text = desk.invite("rome-1", "Sites/Rome")
    made = desk.ask(name="it calls itself so", api_key=text)
    assert (made.id, made.name, made.group, made.state) == (server.id, "rome-1", "Sites/Rome", State.TRUSTED)
    entry = desk.newest()
    assert (entry.action, entry.evidence, entry.actor, entry.method) == (
        "server.register",
        "invited",
        f"server/{server.id}",
        "proof",
    )


def test_a_place_without_a_name_takes_the_server_s_own(desk: Desk) -> None:
    _, text = desk.invite()
    assert desk.ask(name="it calls itself so", api_key=text).name == "it calls itself so"


def test_a_join_line_is_good_for_one_server(desk: Desk) -> None:
    """Attacks row 13."""
    _, text = desk.invite()
    desk.ask("one", api_key=text)
    with desk.refuses(Reason.API_KEY_USED_UP):
        desk.ask("two", api_key=text)
    with desk.refuses(Reason.API_KEY_USED_UP):
        desk.validate(text)


def test_of_fifty_exactly_one_wins(desk: Desk) -> None:
    """Attacks row 13; the group commit runs them one after the other, in whatever order they came."""
    server, text = desk.invite()
    outcomes = [attempt(desk.ask, str(number), api_key=text) for number in range(50)]
    assert [each.reason if isinstance(each, Refused) else each.id for each in outcomes] == [
        server.id,
        *[Reason.API_KEY_USED_UP] * 49,
    ]


@pytest.mark.parametrize(("waited", "good"), [(7 * DAY - 1, True), (7 * DAY, False), (7 * DAY + 1, False)])
@pytest.mark.parametrize("swept", [True, False])
def test_a_join_line_ends_in_the_very_second(desk: Desk, waited: int, good: bool, swept: bool) -> None:
    """Attacks row 13: at expiry + 1 s none."""
    _, text = desk.invite()
    desk.later(waited)
    if swept:
        desk.sweep()
    if good:
        assert desk.ask(api_key=text).state is State.TRUSTED
        return
    with desk.refuses(Reason.API_KEY_EXPIRED):
        desk.ask(api_key=text)


@pytest.mark.parametrize("how", ["withdrawn", "API key revoked"])
def test_the_join_line_of_an_invitation_taken_back_is_dead(desk: Desk, how: str) -> None:
    server, text = desk.invite("rome-1")
    head = desk.head()
    desk.later(60)
    if how == "withdrawn":
        desk.decide(server, Event.WITHDRAW, "wrong site")
        assert [entry.action for entry in desk.journal(after=head)] == ["server.withdraw"]
    else:
        desk.revoke_api_key(text)
        assert [entry.action for entry in desk.journal(after=head)] == ["api-key.revoke", "server.withdraw"]
    made = desk.load(server)
    assert (made.state, made.since, made.expires_at, made.revision) == (State.WITHDRAWN, desk.now, None, desk.head())
    for call in (desk.validate, lambda key: desk.ask(api_key=key)):
        with desk.refuses(Reason.API_KEY_EXPIRED):
            call(text)
    with desk.unchanged():
        desk.revoke_api_key(text)
        desk.decide(server, Event.WITHDRAW)


def test_revoking_the_api_key_of_a_place_that_is_taken_leaves_the_server_trusted(desk: Desk) -> None:
    server, text = desk.invite()
    made = desk.ask(api_key=text)
    head = desk.head()
    desk.revoke_api_key(text)
    assert [entry.action for entry in desk.journal(after=head)] == ["api-key.revoke"]
    assert desk.load(server) == made


def test_revoking_the_api_key_of_a_place_that_expired_leaves_that_to_the_sweep(desk: Desk) -> None:
    server, text = desk.invite()
    desk.later(7 * DAY)
    desk.revoke_api_key(text)
    assert desk.newest().action == "api-key.revoke"
    desk.sweep()
    assert (desk.load(server).state, desk.newest().action) == (State.EXPIRED, "server.expire")


@pytest.mark.parametrize("state", WITH_ROW)
def test_a_key_that_has_a_row_takes_the_place_s_name_and_group_and_ends_it(desk: Desk, state: State) -> None:
    """One row per key; the end of an invitation, which was a decision, is one too."""
    server = bring(desk, state)
    place, text = desk.invite("rome-1", "Sites/Rome")
    made = desk.ask(name="own name", api_key=text)
    assert (made.id, made.name, made.group, made.reason) == (server.id, "rome-1", "Sites/Rome", None)
    assert made.state is (State.PENDING if state is State.DENIED else State.TRUSTED)
    ended = desk.load(place)
    entry = desk.newest()
    assert (ended.state, ended.since, ended.key) == (State.WITHDRAWN, desk.now, None)
    assert (entry.action, entry.subject, entry.number) == ("server.withdraw", f"servers/{place.id}", ended.revision)
    assert (entry.actor, entry.method, entry.source) == (f"server/{server.id}", "proof", HOME)
    with desk.refuses(Reason.API_KEY_USED_UP):
        desk.ask("two", api_key=text)


def test_a_denied_server_does_not_become_trusted_by_using_its_join_line_twice(desk: Desk) -> None:
    """An administrator said no; a lost reply and the question asked once more are no yes."""
    bring(desk, State.DENIED)
    _, text = desk.invite()
    made = desk.ask(api_key=text)
    for _ in range(3):
        desk.later(3600)
        with desk.unchanged():
            assert desk.ask(api_key=text) == made
    assert made.state is State.PENDING


def test_a_denied_server_does_not_become_trusted_by_using_a_full_api_key_twice(desk: Desk) -> None:
    bring(desk, State.DENIED)
    text = desk.api_key(Kind.FULL)
    made = desk.ask(api_key=text)
    with desk.unchanged():
        assert desk.ask(api_key=text) == made
    assert desk.ask(api_key=desk.api_key(Kind.FULL)).state is State.TRUSTED  # as the table says of one that waits


def test_a_denied_server_that_waits_again_can_be_authorized(desk: Desk) -> None:
    bring(desk, State.DENIED)
    assert desk.authorize(desk.ask(api_key=desk.invite()[1])).state is State.TRUSTED


@pytest.mark.parametrize("state", [State.TRUSTED, State.SUSPENDED])
def test_a_server_that_stands_does_not_take_a_place_of_others(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    place, text = desk.invite("rome-1")
    with desk.unchanged():
        assert desk.ask(api_key=text) == server
    assert desk.ask("two", api_key=text).id == place.id


def test_a_revoked_key_does_not_come_back_by_a_join_line(desk: Desk) -> None:
    bring(desk, State.REVOKED)
    place, text = desk.invite()
    with desk.refuses(Reason.SERVER_REVOKED):
        desk.ask(api_key=text)
    assert desk.ask("new key", api_key=text).id == place.id


def test_another_account_s_join_line_is_an_api_key_nobody_knows(desk: Desk) -> None:
    _, text = desk.invite(account=BETA)
    with desk.refuses(Reason.API_KEY_INVALID):
        desk.ask(account=ACME, api_key=text)


def test_a_place_can_be_given_another_name_before_it_is_taken(desk: Desk) -> None:
    server, text = desk.invite()
    desk.rename(server, "rome-2")
    assert desk.ask(api_key=text).name == "rome-2"


@pytest.mark.parametrize("name", ["a/b", "-x", " x", "a\x1bb", "x" * 64])
def test_an_invitation_under_a_hostile_name_is_refused(desk: Desk, name: str) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.invite(name)


@pytest.mark.parametrize("group", ["a//b", "-x", "a/ b", "a/../b\x00", "a/" + "x" * 64])
def test_an_invitation_into_a_hostile_group_is_refused(desk: Desk, group: str) -> None:
    """Attacks row 35: a path is a list of names, and each must be one."""
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.invite("rome-1", group)


def test_nobody_is_invited_to_the_primary_s_own_account(desk: Desk) -> None:
    """Its API keys count in every account: a join line from there would open them all."""
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.invite(account=PRIMARY)


def test_nobody_is_invited_to_an_account_that_is_not_there(desk: Desk) -> None:
    with desk.refuses(Reason.ACCOUNT_UNKNOWN):
        desk.invite(account="nobody.example")


def test_two_hundred_invitations_are_two_hundred_places(desk: Desk) -> None:
    invited = [desk.invite(f"server {number}", "Sites/Rome") for number in range(200)]
    assert len({server.id for server, _ in invited}) == len({text for _, text in invited}) == 200
    assert desk.head() == 1 + 2 + 200  # the account, two groups once, and every invitation
    made = [desk.ask(f"{number}", api_key=text) for number, (_, text) in enumerate(invited)]
    assert [server.name for server in made] == [f"server {number}" for number in range(200)]
