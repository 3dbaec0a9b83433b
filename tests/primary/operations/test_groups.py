"""Groups come with the first path that names them."""

from __future__ import annotations

import pytest

from enlist import names
from enlist.reasons import Reason
from enlist_primary.operations import groups
from enlist_primary.store import groups as rows
from tests.primary.operations.desk import ACME, ANN, BETA, Desk


def ensure(desk: Desk, path: str, account: str = ACME) -> str:
    return desk.do(groups.ensure, account, path, ANN, desk.new_id, desk.now)


def paths(desk: Desk, account: str = ACME) -> list[str]:
    return [group.path for group in rows.listed(desk.tx, account)]


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root_is_there(desk: Desk, path: str) -> None:
    with desk.unchanged():
        assert ensure(desk, path) == rows.root(desk.tx, ACME)


def test_what_is_missing_on_the_way_is_made_and_journalled_once(desk: Desk) -> None:
    with desk.touching_only(ACME):
        rome = ensure(desk, "Sites/Italy/Rome")
    assert paths(desk) == ["/", "Sites", "Sites/Italy", "Sites/Italy/Rome"]
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
    assert paths(desk) == ["/", "A", "A/A", "A/A/A", "B", "B/A", "a"]


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
    assert paths(desk)[-1] == path
    assert rows.child(desk.tx, ACME, rows.root(desk.tx, ACME), path.split("/", maxsplit=1)[0])


def test_a_path_has_its_place_down_to_the_deepest_level_and_no_further(desk: Desk) -> None:
    path = "/".join(f"level {number}" for number in range(names.GROUP_DEPTH))
    deepest = ensure(desk, path)
    assert paths(desk)[-1] == path
    assert ensure(desk, path) == deepest
    with desk.refuses(Reason.INVALID_ARGUMENT):
        ensure(desk, f"{path}/one more")


def test_siblings_are_listed_by_name_and_below_their_parent(desk: Desk) -> None:
    for path in ("b/x", "a b", "a", "a/z"):
        ensure(desk, path)
    assert paths(desk) == ["/", "a", "a/z", "a b", "b", "b/x"]
