"""How commands name a group, and what they say about servers and groups that are not where somebody looks."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason
from enlist.v1.hierarchy_pb2 import Group, ListServersResponse
from enlist_primary.cli.groups import group_of, shown, span
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import FakePrimary, server
from tests.primary.refusals import refused


@pytest.mark.parametrize(
    ("text", "domain", "path"),
    [
        ("acme.example/Sites/Paris", "acme.example", "Sites/Paris"),
        ("acme.example/Sites/Paris/", "acme.example", "Sites/Paris"),
        ("acme.example/New York", "acme.example", "New York"),
        ("acme.example", "acme.example", "/"),
        ("acme.example/", "acme.example", "/"),
        ("localhost/acme.example", "localhost", "acme.example"),
    ],
)
def test_a_group_is_named_by_its_account_and_its_path(text: str, domain: str, path: str) -> None:
    assert group_of(text) == (domain, path)
    assert group_of(shown(domain, path)) == (domain, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/Sites",
        "Sites/Paris",
        "ACME.example/Sites",
        "acme.example./Sites",
        "./Sites",
        "acme.example/a//b",
        "acme.example//a",
        "acme.example//",
        "acme.example/a//",
        "acme.example/-a",
    ],
)
def test_what_names_no_group_is_refused_before_anybody_is_asked(run: Run, text: str) -> None:
    with refused(Reason.INVALID_ARGUMENT):
        group_of(text)
    for line in (["group", "add"], ["group", "remove"], ["group", "move", "acme.example/A"], ["server", "move", "x"]):
        primary = FakePrimary()
        ran = run(*line, text, primary=primary)
        assert (ran.status, ran.out, primary.asked) == (1, "", [])
        assert ran.err.startswith("INVALID_ARGUMENT: ")


def test_a_group_stays_in_its_account(run: Run) -> None:
    primary = FakePrimary()
    ran = run("group", "move", "acme.example/A", "beta.example/A", primary=primary)
    assert (ran.status, primary.asked) == (1, [])
    assert "stays in its account" in ran.err


@pytest.mark.parametrize("duration", ["2", "h", "0h", "-1h", "1 h", "2w", "1.5h"])
def test_a_window_is_open_for_a_duration(run: Run, duration: str) -> None:
    primary = FakePrimary()
    ran = run("group", "set", "acme.example", "--window", "0 2 * * *", f"--for={duration}", primary=primary)
    assert (ran.status, primary.asked) == (1, [])
    assert ran.err.startswith("INVALID_ARGUMENT: ")


@pytest.mark.parametrize(
    ("seconds", "words"), [(60, "1m"), (90, "90s"), (3600, "1h"), (5400, "90m"), (86400, "1d"), (90000, "25h"), (604800, "7d")]
)
def test_a_duration_is_shown_as_it_is_typed(seconds: int, words: str) -> None:
    assert span(seconds) == words


def test_a_server_that_is_moved_is_looked_for_in_the_group_s_account(run: Run) -> None:
    """Its name may be borne in another account too, and there is no way from one into the other."""
    elsewhere = [server("aaaaaaaaaa", "paris-1", account="beta.example")]

    def of_account(request: object) -> ListServersResponse:
        parent = getattr(request, "parent", "")
        return ListServersResponse(servers=[each for each in elsewhere if parent == f"accounts/{each.account}"])

    ran = run("server", "move", "paris-1", "acme.example/Sites", primary=FakePrimary(ListServers=of_account))
    assert (ran.status, ran.err) == (
        1,
        'NOT_FOUND: There is no server "paris-1" in acme.example. See: enlist-primary server list\n',
    )


def test_where_a_server_and_a_group_are_now_is_said_in_words(run: Run) -> None:
    moved = server("aaaaaaaaaa", "paris-1", group="Sites/Paris", labels=["laser", "printer"])
    answers = FakePrimary(
        ListServers=ListServersResponse(servers=[moved]),
        MoveServer=moved,
        LabelServer=moved,
        MoveGroup=Group(account="acme.example", path="Paris"),
    )
    said = run("server", "move", "paris-1", "acme.example/Sites/Paris", primary=answers).out
    assert said == "paris-1 (aaaaaaaaaa) stands in acme.example/Sites/Paris.\n"
    assert (
        run("server", "label", "paris-1", "--add", "laser", primary=answers).out == "paris-1 (aaaaaaaaaa) bears: laser, printer.\n"
    )
    said = run("group", "move", "acme.example/Sites/Paris", "acme.example/Paris", primary=answers).out
    assert said == "The group acme.example/Sites/Paris is acme.example/Paris now.\n"
