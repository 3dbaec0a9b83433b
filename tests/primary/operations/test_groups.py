"""Groups: made by hand or with the first path that names them, and ended when nothing needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from enlist import names
from enlist.layers import Layer
from enlist.reasons import Reason
from enlist.runtime.schedules import Window
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import parse
from enlist_primary.model.fleet import EMPTY
from enlist_primary.model.servers import LIVING, Event, State
from enlist_primary.operations import api_keys, groups, policies
from enlist_primary.store import api_keys as key_rows
from enlist_primary.store import groups as rows
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, Desk, bring


def ensure(desk: Desk, path: str, account: str = ACME) -> str:
    return desk.do(groups.ensure, account, path, ANN, desk.new_id, desk.now)


@pytest.mark.parametrize("path", ["", "/"])
def test_the_root_is_there(desk: Desk, path: str) -> None:
    with desk.unchanged():
        assert ensure(desk, path) == rows.root(desk.tx, ACME)


def test_what_is_missing_on_the_way_is_made_and_journalled_once(desk: Desk) -> None:
    with desk.touching_only(ACME):
        rome = ensure(desk, "Sites/Italy/Rome")
    assert desk.paths() == ["/", "Sites", "Sites/Italy", "Sites/Italy/Rome"]
    entries = desk.journal()[-3:]
    assert [(entry.action, entry.detail["path"]) for entry in entries] == [
        ("group.create", "Sites"),
        ("group.create", "Sites/Italy"),
        ("group.create", "Sites/Italy/Rome"),
    ]
    assert entries[-1].subject == f"groups/{rome}"
    with desk.unchanged():
        assert ensure(desk, "/Sites/Italy/Rome/") == rome
    ensure(desk, "Sites/Italy/Milan")
    assert desk.newest().detail["path"] == "Sites/Italy/Milan"


def test_groups_of_one_name_are_one_below_one_parent_only(desk: Desk) -> None:
    ids = {ensure(desk, path) for path in ("A", "A/A", "A/A/A", "B/A", "a")}
    assert len(ids) == 5
    assert desk.paths() == ["/", "A", "A/A", "A/A/A", "B", "B/A", "a"]


def test_accounts_share_no_groups(desk: Desk) -> None:
    mine = ensure(desk, "Sites")
    with desk.touching_only(BETA):
        theirs = ensure(desk, "Sites", BETA)
    assert mine != theirs
    assert rows.child(desk.tx, ACME, rows.root(desk.tx, BETA), "Sites") is None


@pytest.mark.parametrize(
    "path", ["a//b", "-a", "a/-b", " a", "..", "../etc", "a/.", "a/\x00", "a/\x1b[2J", "a/\u202eb", "x" * 64, "a/e\u0301"]
)
def test_every_name_on_the_way_is_a_name(desk: Desk, path: str) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        ensure(desk, path)


@pytest.mark.parametrize("path", ["..a", "%2e%2e", "C:\\", "a.b"])
def test_a_name_is_only_a_name_and_leads_nowhere(desk: Desk, path: str) -> None:
    """Attacks row 35: a group is a row below its parent, whatever it is called."""
    ensure(desk, path)
    assert desk.paths()[-1] == path
    assert rows.child(desk.tx, ACME, rows.root(desk.tx, ACME), path.split("/", maxsplit=1)[0])


def test_a_path_has_its_place_down_to_the_deepest_level_and_no_further(desk: Desk) -> None:
    path = "/".join(f"level {number}" for number in range(names.GROUP_DEPTH))
    deepest = ensure(desk, path)
    assert desk.paths()[-1] == path
    assert ensure(desk, path) == deepest
    with desk.refuses(Reason.INVALID_ARGUMENT):
        ensure(desk, f"{path}/one more")


def test_siblings_are_listed_by_name_and_below_their_parent(desk: Desk) -> None:
    for path in ("b/x", "a b", "a", "a/z"):
        ensure(desk, path)
    assert desk.paths() == ["/", "a", "a/z", "a b", "b", "b/x"]


# --- By hand --------------------------------------------------------------------------------------------------------------------


def test_a_group_is_made_with_what_is_missing_above_it(desk: Desk) -> None:
    with desk.touching_only(ACME):
        paris = desk.add_group("Sites/Paris")
    assert (paris.account, paris.path, paris.window) == (ACME, "Sites/Paris", None)
    assert desk.paths() == ["/", "Sites", "Sites/Paris"]
    assert [entry.detail for entry in desk.journal()[-2:]] == [{"path": "Sites"}, {"path": "Sites/Paris"}]
    assert rows.by_id(desk.tx, ACME, paris.id) == rows.find(desk.tx, ACME, "/Sites/Paris/") == paris


@pytest.mark.parametrize("path", ["Sites/Paris", "Sites", "/", ""])
def test_a_group_that_is_there_is_returned_and_nothing_journalled(desk: Desk, path: str) -> None:
    desk.add_group("Sites/Paris")
    with desk.unchanged():
        assert desk.add_group(path).path == (path if path else "/")


def test_whatever_changes_the_tree_says_so_to_the_links(desk: Desk) -> None:
    """A server may be moved into a new group right away, and the links reckon with the tree that they know."""
    for change in (
        lambda: desk.add_group("A/B"),
        lambda: desk.invite(group="C/D"),
        lambda: desk.api_key(group="E"),
        lambda: desk.move_group("A/B", "B"),
        lambda: desk.set_window("B", Window("0 2 * * *", 60)),
        lambda: desk.set_window("B", None),
        lambda: desk.remove_group("B"),
    ):
        before = desk.desired()
        change()
        about_groups = [entry.number for entry in desk.journal(after=before) if entry.subject.startswith("groups/")]
        assert desk.desired() == about_groups[-1] > before
    server = desk.ask()
    before = desk.desired()
    desk.move(desk.label(desk.authorize(server, group="A"), "x"), "/")
    desk.set_account(landing_group="A")
    assert desk.desired() == before, "none of these changes what others get"


@pytest.mark.parametrize("path", ["A", "A/B"])
def test_an_empty_group_ends(desk: Desk, path: str) -> None:
    group = desk.add_group(path)
    with desk.touching_only(ACME):
        desk.remove_group(path)
    assert desk.paths() == ["/", "A"][: 1 + (path == "A/B")]
    entry = desk.newest()
    assert (entry.action, entry.subject, entry.detail) == ("group.remove", f"groups/{group.id}", {"path": path})
    with desk.refuses(Reason.NOT_FOUND):
        desk.remove_group(path)
    assert desk.add_group(path).id != group.id


@pytest.mark.parametrize("path", ["/", ""])
def test_the_root_group_is_the_account_and_stays(desk: Desk, path: str) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.remove_group(path)
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.move_group(path, "A")


@pytest.mark.parametrize("state", State)
def test_only_who_is_or_may_soon_be_part_of_the_tree_holds_a_group(desk: Desk, state: State) -> None:
    server = bring(desk, state)
    for key in [row["id"] for row in desk.tx.rows("SELECT id FROM api_key WHERE server_id IS NULL")]:
        desk.do(api_keys.revoke, ACME, key, ANN, desk.now)
    if state in LIVING:
        with desk.refuses(Reason.GROUP_NOT_EMPTY) as no:
            desk.remove_group("Old")
        assert "1 server stands in it" in no.value.message
        return
    desk.remove_group("Old")
    assert desk.load(server) == replace(server, group="/", group_id=rows.root(desk.tx, ACME))
    assert desk.paths() == ["/"]


def test_who_is_past_goes_to_the_group_above(desk: Desk) -> None:
    key = desk.api_key(group="A/B")
    server = desk.decide(desk.ask(api_key=key), Event.DENY)
    desk.revoke_api_key(key)
    desk.remove_group("A/B")
    assert desk.load(server).group == "A"
    assert key_rows.load(desk.tx, ACME, parse(key).id).group == "A"


@pytest.mark.parametrize("state", [State.PENDING, State.INVITED])
def test_what_is_past_its_end_holds_nothing_though_no_sweep_came_by(desk: Desk, state: State) -> None:
    desk.add_group("Old")
    server = desk.move(desk.ask(), "Old") if state is State.PENDING else desk.invite(group="Old")[0]
    desk.later(7 * DAY - 1)
    with desk.refuses(Reason.GROUP_NOT_EMPTY):
        desk.remove_group("Old")
    desk.later(1)
    desk.remove_group("Old")
    assert desk.sweep() == [server.id]
    assert desk.load(server).group == "/"


def use(desk: Desk, api_key: str) -> None:
    """A server asks with it, and is soon gone."""
    desk.ask(api_key=api_key)
    desk.leave()


def age(desk: Desk, seconds: int) -> None:
    """An API key for a day, and then so many seconds."""
    desk.api_key(group="A", lifetime=DAY)
    desk.later(seconds)


API_KEYS: dict[str, tuple[bool, Callable[[Desk], object]]] = {
    "good": (True, lambda desk: desk.api_key(group="A")),
    "used, but not up": (True, lambda desk: use(desk, desk.api_key(group="A", max_uses=2))),
    "used up": (False, lambda desk: use(desk, desk.api_key(group="A", max_uses=1))),
    "revoked": (False, lambda desk: desk.revoke_api_key(desk.api_key(group="A"))),
    "about to expire": (True, lambda desk: age(desk, DAY - 1)),
    "expired": (False, lambda desk: age(desk, DAY)),
    "elsewhere": (False, lambda desk: (desk.api_key(group="B"), desk.api_key(account=BETA, group="A"))),
}


@pytest.mark.parametrize("what", API_KEYS)
def test_an_api_key_that_still_leads_to_a_group_holds_it(desk: Desk, what: str) -> None:
    desk.add_group("A")
    holds, make = API_KEYS[what]
    make(desk)
    if not holds:
        desk.remove_group("A")
        return
    with desk.refuses(Reason.GROUP_NOT_EMPTY) as no:
        desk.remove_group("A")
    [id] = [row["id"] for row in desk.tx.rows("SELECT id FROM api_key WHERE account = $1", ACME)]
    assert f"servers that use the API key {id} land in it" in no.value.message


def test_everything_that_holds_a_group_is_named(desk: Desk) -> None:
    group = desk.add_group("A/B")
    desk.add_group("A/B/C")
    desk.add_group("A/B/D")
    desk.invite(group="A/B")
    keys = [parse(desk.api_key(group="A/B")).id for _ in range(7)]
    desk.set_account(landing_group="A/B")
    for id, state in (("tttttttttt", "planned"), ("uuuuuuuuuu", "running"), ("vvvvvvvvvv", "done"), ("wwwwwwwwww", "cancelled")):
        desk.tx.run(
            """
            INSERT INTO task (account, id, kind, args, group_id, deadline_seconds, state, created_at, revision)
            VALUES ($1, $2, 'reboot', '{}', $3, 60, $4, $5, 1)
            """,
            ACME,
            id,
            group.id,
            state,
            desk.now,
        )
    with desk.refuses(Reason.GROUP_NOT_EMPTY) as no:
        desk.remove_group("A/B")
    assert no.value.message == (
        'The group "A/B" is still needed: 2 groups stand in it; 1 server stands in it; '
        f"servers that use the API keys {', '.join(sorted(keys)[:5])} and 2 more land in it; "
        "the tasks tttttttttt, uuuuuuuuuu are for it; it is the account's landing group. "
        "Give all that another place, or end it, first."
    )


def test_a_group_s_policies_end_with_it(desk: Desk) -> None:
    group = desk.add_group("A")
    layer = Layer({"servers": ["ntp.acme.example"]})
    for path, kind in (("A", "chrony"), ("A", "nginx"), ("/", "chrony")):
        desk.do(policies.set_policy, ACME, path, kind, layer, None, EMPTY, ANN, desk.now)
    head = desk.head()
    with desk.touching_only(ACME):
        desk.remove_group("A")
    entries = desk.journal(after=head)
    assert [(entry.action, entry.subject) for entry in entries] == [
        ("policy.remove", f"policies/chrony@{group.id}"),
        ("policy.remove", f"policies/nginx@{group.id}"),
        ("group.remove", f"groups/{group.id}"),
    ]
    assert desk.tx.rows("SELECT group_id, kind FROM policy") == [{"group_id": rows.root(desk.tx, ACME), "kind": "chrony"}]
    left = desk.tx.rows("SELECT group_id, kind FROM policy_revision")
    assert left == [{"group_id": rows.root(desk.tx, ACME), "kind": "chrony"}], "what they were is forgotten with the group"
    assert desk.desired() == head + 3


# --- Whose --------------------------------------------------------------------------------------------------------------------


def test_another_account_s_groups_are_not_there(desk: Desk) -> None:
    """Attacks row 15."""
    theirs = desk.add_group("Theirs", BETA)
    with desk.refuses(Reason.NOT_FOUND):
        desk.remove_group("Theirs")
    with desk.refuses(Reason.NOT_FOUND):
        desk.move_group("Theirs", "Mine")
    with desk.refuses(Reason.NOT_FOUND):
        desk.set_window("Theirs", None)
    with desk.refuses(Reason.NOT_FOUND):
        rows.by_id(desk.tx, ACME, theirs.id)
    assert rows.below(desk.tx, ACME, theirs.id) == []


@pytest.mark.parametrize("account", [PRIMARY, "nobody.example", "", "ACME.example"])
def test_groups_are_a_tenant_s(desk: Desk, account: str) -> None:
    reason = Reason.INVALID_ARGUMENT if account == PRIMARY else Reason.ACCOUNT_UNKNOWN
    with desk.refuses(reason):
        desk.add_group("A", account)
    with desk.refuses(reason):
        desk.remove_group("A", account)
    with desk.refuses(reason):
        desk.move_group("A", "B", account)
    with desk.refuses(reason):
        desk.set_window("/", None, account)


def test_a_group_that_is_not_there_comes_with_the_way_to_make_it(desk: Desk) -> None:
    with desk.refuses(Reason.NOT_FOUND) as no:
        desk.set_window("/New York/5th/", None)
    make = "enlist-primary group add 'acme.example/New York/5th'"
    assert no.value.message == f'There is no group "New York/5th" in acme.example. Make it with: {make}'


# --- Maintenance windows --------------------------------------------------------------------------------------------------------

NIGHT = Window("0 2 * * sat", 7200, "Europe/Paris")


def test_a_window_is_set_changed_and_ended(desk: Desk) -> None:
    desk.add_group("A")
    for window, words in (
        (NIGHT, "0 2 * * sat for 7200 s by Europe/Paris"),
        (Window("0 3 * * *", 60), "0 3 * * * for 60 s by UTC"),
        (None, "no window"),
    ):
        with desk.touching_only(ACME):
            group = desk.set_window("A", window)
        entry = desk.newest()
        assert (group.window, group.window_revision) == (window, entry.number)
        assert (entry.action, entry.subject, entry.detail["path"]) == ("group.update", f"groups/{group.id}", "A")
        assert entry.detail["after"] == words
        assert rows.by_id(desk.tx, ACME, group.id) == rows.listed(desk.tx, ACME)[1] == group
        with desk.unchanged():
            assert desk.set_window("A", window) == group


def test_the_root_group_may_have_a_window_and_one_that_never_had_one_has_none_to_end(desk: Desk) -> None:
    with desk.unchanged():
        assert desk.set_window("/", None).window is None
    assert desk.set_window("/", NIGHT).window == NIGHT


@pytest.mark.parametrize(
    "window",
    [
        Window("", 3600),
        Window("every night", 3600),
        Window("0 2 30 2 *", 3600),
        Window("61 2 * * *", 3600),
        Window("0 2 * * *", 0),
        Window("0 2 * * *", -60),
        Window("0 2 * * *", 2**63 - 1),
        Window("0 2 * * *", 3600, "Mars/Olympus"),
        Window("0 2 * * *", 3600, "../../etc/passwd"),
        Window("0 2 * * *\x1b[2J", 3600),
    ],
)
def test_a_window_that_never_opens_or_is_none_is_refused(desk: Desk, window: Window) -> None:
    with desk.refuses(Reason.SCHEDULE_INVALID):
        desk.set_window("/", window)


def test_a_window_goes_where_its_group_goes(desk: Desk) -> None:
    desk.add_group("A/B")
    group = desk.set_window("A/B", NIGHT)
    assert desk.move_group("A/B", "C") == replace(group, path="C")
