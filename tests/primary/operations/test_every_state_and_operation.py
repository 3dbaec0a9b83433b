"""Every operation on a server in every state: where the design's table says it leads, and what it may and may not touch.

In each test the same key stands trusted in another account, under the same name, and must not notice anything
(attacks rows 10, 11, 12 and 47).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enlist.reasons import Reason
from enlist.runtime import standings
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.servers import Event, Server, State
from tests.primary.design import leads_to
from tests.primary.operations.desk import ACME, AWAY, BETA, DAY, HOME, Desk, bring, fingerprint

STANDING = (State.TRUSTED, State.SUSPENDED)
WITH_KEY = (None, *sorted(set(State) - {State.INVITED}))

# How a server may register: the API key it gets for it, and which event that is.
WAYS: dict[str, tuple[Callable[[Desk], str], Event]] = {
    "without an API key": (lambda desk: "", Event.ASK),
    "with a restricted API key": (lambda desk: desk.api_key(group="Sites/Paris"), Event.ASK_AGAIN),
    "with a restricted API key for one": (lambda desk: desk.api_key(max_uses=1, group="Sites/Paris"), Event.ASK_AGAIN),
    "with the vendor's restricted API key": (lambda desk: desk.api_key(account=PRIMARY), Event.ASK_AGAIN),
    "with a full API key": (lambda desk: desk.api_key(Kind.FULL, group="Sites/Paris"), Event.ENROL),
    "with a full API key for one": (lambda desk: desk.api_key(Kind.FULL, max_uses=1, group="Sites/Paris"), Event.ENROL),
    "with the vendor's full API key": (lambda desk: desk.api_key(Kind.FULL, PRIMARY), Event.ENROL),
    "with a join line": (lambda desk: desk.invite("invited name", "Sites/Paris")[1], Event.ENROL),
    "with a join line without a name": (lambda desk: desk.invite(None, "Sites/Paris")[1], Event.ENROL),
}
DECISIONS = (Event.AUTHORIZE, Event.DENY, Event.SUSPEND, Event.RESUME, Event.REVOKE, Event.WITHDRAW, Event.REMOVE)


@pytest.fixture
def other(desk: Desk) -> Server:
    """The same key and name in the other account, trusted."""
    return bring(desk, State.TRUSTED, account=BETA)


def before(desk: Desk, state: State | None) -> Server | None:
    """The server as it stands before, if there is one; an hour passes."""
    server = bring(desk, state) if state else None
    desk.later(3600)
    return server


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", WITH_KEY)
def test_registering(desk: Desk, other: Server, state: State | None, way: str) -> None:
    server = before(desk, state)
    make, event = WAYS[way]
    api_key = make(desk)
    vendors = "vendor" in way
    owner = PRIMARY if vendors else ACME
    to, head = leads_to(state, event), desk.head()

    def register() -> Server:
        return desk.ask("one", ACME, "new name", api_key, AWAY, server_address="new.example", version="2.0")

    if to is None:
        assert state is not None
        with desk.refuses(standings.not_trusted(state, 0).reason) as no:
            register()
        assert "an old reason" in no.value.message
        return

    stands = state in STANDING or (state is State.PENDING and event is not Event.ENROL)
    if stands:
        with desk.unchanged():
            assert register() == server
        return

    with desk.touching_only(ACME, *[PRIMARY] * vendors):
        made = register()
    assert made.state is to
    assert desk.load(made) == made
    assert api_key == "" or desk.uses(api_key, owner) == 1
    assert_nothing_is_inherited(desk, made, server, way, api_key)
    assert_joining_trusted_is_a_decision(desk, made, server, way, head)

    # Registering once more in the same way changes nothing, and uses nothing up (attacks row 9).
    desk.later(60)
    with desk.unchanged():
        assert register() == made


def assert_nothing_is_inherited(desk: Desk, made: Server, server: Server | None, way: str, api_key: str) -> None:
    """But the id: name and group are those of this request, or of the invitation."""
    in_paris = api_key != "" and "vendor" not in way
    assert made.group == ("Sites/Paris" if in_paris else "/")
    assert made.name == ("invited name" if way == "with a join line" else "new name")
    assert made.reason is None
    assert (made.since, made.created_at) == (desk.now, desk.now)
    assert (made.source, made.server_address, made.version) == (AWAY, "new.example", "2.0")
    assert (made.key, made.public_key) == (fingerprint("one"), b"one")
    assert made.expires_at == (desk.now + 7 * DAY if made.state is State.PENDING else None)
    assert made.asked_with == (f"api-key/{api_key.split('_')[1]}" if api_key else "default")
    if server is not None:
        assert made.id == server.id


def assert_joining_trusted_is_a_decision(desk: Desk, made: Server, server: Server | None, way: str, head: int) -> None:
    """And so is the end of an invitation; a stranger's request is none."""
    entries = desk.journal(after=head)
    actions = ["server.register"] * (made.state is State.TRUSTED)
    taken_over = "join line" in way and server is not None
    assert [entry.action for entry in entries] == actions + ["server.withdraw"] * taken_over
    if made.state is State.TRUSTED:
        assert made.revision == entries[0].number
        assert entries[0].evidence == ("invited" if "join line" in way else "full API key")


@pytest.mark.parametrize("way", ["without an API key", "with a full API key"])
def test_what_is_past_its_end_and_was_not_swept_yet_begins_anew(desk: Desk, other: Server, way: str) -> None:
    """As `Server.at` judges it; the sweep may be a minute late."""
    pending = bring(desk, State.PENDING)
    desk.later(7 * DAY)
    made = desk.ask(name="new name", api_key=WAYS[way][0](desk))
    assert (made.id, made.name, made.group) == (pending.id, "new name", "/" if way == "without an API key" else "Sites/Paris")
    assert made.state is leads_to(State.EXPIRED, WAYS[way][1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("waited", [7 * DAY - 1, 7 * DAY, 400 * DAY])
def test_a_denial_holds_for_seven_days_where_there_is_no_api_key(desk: Desk, other: Server, way: str, waited: int) -> None:
    bring(desk, State.DENIED)
    desk.later(waited)
    api_key = WAYS[way][0](desk)
    if api_key == "" and waited < 7 * DAY:
        with desk.refuses(Reason.SERVER_DENIED):
            desk.ask()
        return
    assert desk.ask(name="again", api_key=api_key).state is State.PENDING


@pytest.mark.parametrize("event", DECISIONS)
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", ["", "disk to be wiped"])
def test_deciding(desk: Desk, other: Server, state: State, event: Event, reason: str) -> None:
    server = before(desk, state)
    assert server is not None
    to, head = leads_to(state, event), desk.head()
    if event is Event.AUTHORIZE:
        reason = ""
    if to is None:
        with desk.refuses(Reason.STATE_FORBIDS):
            desk.decide(server, event, reason)
        return
    if to is state:
        with desk.unchanged():
            assert desk.decide(server, event, reason) == server
        return
    with desk.touching_only(ACME):
        made = desk.decide(server, event, reason)
    assert desk.load(made) == made
    assert (made.state, made.since, made.expires_at, made.reason) == (to, desk.now, None, reason or None)
    assert (made.name, made.group, made.key) == (server.name, server.group, server.key)
    [entry] = desk.journal(after=head)
    assert entry.number == made.revision == desk.head()
    assert (entry.action, entry.subject, entry.time) == (f"server.{event}", f"servers/{made.id}", desk.now)
    assert (entry.actor, entry.method, entry.source) == ("ann (aaaaaaaaaa)", "token", "203.0.113.9")
    assert entry.detail.get("name") == server.name
    assert entry.detail.get("reason", "") == reason
    assert entry.evidence == ("none" if event is Event.AUTHORIZE else "")

    # Said once more, it is the same decision: it leaves no second entry, and no gap.
    desk.later(60)
    with desk.unchanged():
        assert desk.decide(made, event, "another reason") == made
    desk.set_account(contact="next")
    assert desk.newest().number == entry.number + 1


@pytest.mark.parametrize("event", DECISIONS)
@pytest.mark.parametrize("state", [State.PENDING, State.INVITED])
def test_nothing_is_decided_about_what_is_past_its_end(desk: Desk, other: Server, state: State, event: Event) -> None:
    server = bring(desk, state)
    desk.later(7 * DAY)
    with desk.refuses(Reason.STATE_FORBIDS):
        desk.decide(server, event)


@pytest.mark.parametrize("state", WITH_KEY)
def test_leaving(desk: Desk, other: Server, state: State | None) -> None:
    server = before(desk, state)
    head = desk.head()
    if server is None:
        with desk.refuses(Reason.SERVER_UNKNOWN):
            desk.leave()
        return
    to = leads_to(state, Event.LEAVE)
    if to is None:
        with desk.refuses(Reason.STATE_FORBIDS):
            desk.leave()
        return
    if to is state:
        with desk.unchanged():
            assert desk.leave() == server
        return
    with desk.touching_only(ACME):
        made = desk.leave(source=AWAY)
    assert desk.load(made) == made
    assert (made.state, made.since, made.expires_at, made.reason) == (to, desk.now, None, None)
    entries = desk.journal(after=head)
    if state is State.PENDING:  # a stranger's request was no decision, so taking it back is none
        assert entries == []
    else:
        [entry] = entries
        assert (entry.action, entry.actor, entry.method) == ("server.leave", f"server/{made.id}", "proof")
        assert (entry.source, entry.number) == (AWAY, made.revision)
    desk.later(60)
    with desk.unchanged():
        assert desk.leave() == made


@pytest.mark.parametrize("state", State)
def test_time_alone_ends_only_requests_and_invitations(desk: Desk, other: Server, state: State) -> None:
    server = bring(desk, state)
    head = desk.head()
    desk.later(7 * DAY)
    if leads_to(state, Event.EXPIRE) is None:
        with desk.unchanged():
            assert desk.sweep() == []
        return
    end = server.expires_at
    desk.later(30)
    with desk.touching_only(ACME):
        assert desk.sweep() == [server.id]
    made = desk.load(server)
    assert (made.state, made.since, made.expires_at) == (State.EXPIRED, end, None)
    entries = desk.journal(after=head)
    assert [entry.action for entry in entries] == ["server.expire"] * (state is State.INVITED)
    if entries:
        assert (entries[0].actor, entries[0].method, entries[0].number) == ("primary", "itself", made.revision)
    with desk.unchanged():
        assert desk.sweep() == []


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("by_stranger", [True, False])
def test_renaming_changes_the_name_and_nothing_else(desk: Desk, other: Server, state: State, by_stranger: bool) -> None:
    server = before(desk, state)
    assert server is not None
    if by_stranger:  # a name that another row bears is anybody's to bear (attacks row 11)
        desk.ask("two", name="new name", source=HOME)
    with desk.touching_only(ACME):
        made = desk.rename(server, "new name")
    entry = desk.newest()
    assert (entry.action, entry.detail["before"], entry.detail["name"]) == ("server.rename", "old", "new name")
    assert made.revision == entry.number
    assert (made.name, made.state, made.since, made.key, made.group) == (
        "new name",
        server.state,
        server.since,
        server.key,
        server.group,
    )
    with desk.unchanged():
        assert desk.rename(made, "new name") == made
