"""Servers below middle servers: how a command names one, and who is never meant."""

from __future__ import annotations

import json

import pytest

from enlist.reasons import Reason
from enlist.v1.account_pb2 import Account, ListAccountsResponse
from enlist.v1.hierarchy_pb2 import (
    BelowServer,
    ListBelowRequest,
    ListBelowResponse,
    ListedBelow,
    ListServersRequest,
    ListServersResponse,
)
from enlist.v1.server_pb2 import SERVER_STATE_TRUSTED, Server
from enlist.v1.task_pb2 import ListTaskResultsResponse, RunTaskRequest, Task, TaskRun
from enlist_primary.cli.below import choose, id_of
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, FakePrimary, moment, server
from tests.primary.refusals import refused

MIDDLES = [server("aaaaaaaaaa", "m1"), server("bbbbbbbbbb", "m2"), server("cccccccccc", "twin"), server("dddddddddd", "twin")]


def below(via: str, path: str, name: str) -> ListedBelow:
    """A server below, as the primary lists it."""
    shown = BelowServer(path=path, display_name=name, place="low.example", state=SERVER_STATE_TRUSTED, connected_time=moment())
    return ListedBelow(account="acme.example", via=via, server=shown)


HOST, DEEP = below("aaaaaaaaaa", "hhhhhhhhhh", "host"), below("aaaaaaaaaa", "hhhhhhhhhh/kkkkkkkkkk", "deep")
TWINS = [below("cccccccccc", "eeeeeeeeee", "x"), below("dddddddddd", "eeeeeeeeee", "x")]
SLY = below("bbbbbbbbbb", "ssssssssss", "y")
BELOW = [HOST, DEEP, *TWINS, SLY]


def _meant(request: ListServersRequest, each: Server) -> bool:
    return request.display_name_or_id in ("", each.id, each.display_name)


def _called(request: ListBelowRequest) -> list[ListedBelow]:
    """Those that are meant, and HOST on the way to DEEP."""
    wanted = request.display_name_or_id
    found = [each for each in BELOW if wanted in ("", each.server.display_name, each.server.path.rpartition("/")[2])]
    return [HOST, *found] if found == [DEEP] else found


def primary() -> FakePrimary:
    """A primary with an account, middle servers, and what stands below them."""
    return FakePrimary(
        ListAccounts=ListAccountsResponse(accounts=[Account(domain="acme.example")]),
        ListServers=lambda request: ListServersResponse(servers=[each for each in MIDDLES if _meant(request, each)]),
        ListBelow=lambda request: ListBelowResponse(servers=_called(request)),
        RunTask=Task(id="tttttttttt", run=TaskRun(servers=1)),
        ListTaskResults=ListTaskResultsResponse(),
    )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("m1/host", HOST),
        ("m1 / host", HOST),
        ("m1/deep", DEEP),
        ("m1/host/deep", DEEP),
        ("aaaaaaaaaa/hhhhhhhhhh", HOST),
        ("aaaaaaaaaa/hhhhhhhhhh/kkkkkkkkkk", DEEP),
        ("dddddddddd/eeeeeeeeee", TWINS[1]),
        ("m2/deep", None),
        ("m1/host/host", None),
        ("m1/", None),
        ("m1", None),
    ],
)
def test_a_server_below_is_named_by_the_way_to_it(wanted: str, found: ListedBelow | None) -> None:
    chosen = choose(MIDDLES, BELOW, wanted)
    assert (None if chosen is None else chosen.listed) == found


def test_where_several_could_be_meant_none_is_and_their_ids_are_named() -> None:
    with refused(Reason.AMBIGUOUS_NAME) as no:
        choose(MIDDLES, BELOW, "twin/x")
    assert all(id_of(each) in no.value.message for each in TWINS)


def test_a_server_below_that_calls_itself_by_another_s_way_is_not_meant_in_its_place() -> None:
    """A primary below calls its servers what it likes."""
    liar = below("aaaaaaaaaa", "llllllllll", "hhhhhhhhhh")
    found = choose([server("aaaaaaaaaa", "aaaaaaaaaa")], [liar, HOST], "aaaaaaaaaa/hhhhhhhhhh")
    assert found is not None
    assert found.listed == HOST


def test_it_is_shown_with_what_is_known_of_it(run: Run) -> None:
    shown = json.loads(run("server", "show", "m1/host/deep", "--json", primary=primary()).out)
    assert (shown["id"], shown["via"], shown["account"], shown["name"]) == (id_of(DEEP), "aaaaaaaaaa", "acme.example", "deep")
    assert (shown["state"], shown["connected"], shown["connected_changed"]) == ("trusted", False, SHOWN)


@pytest.mark.parametrize("target", ["m1/host/deep", "m1/deep", id_of(DEEP)])
def test_a_task_is_run_there_by_the_ids_on_the_way(run: Run, target: str) -> None:
    fake = primary()
    assert run("task", "run", target, "--kind", "restart", primary=fake).status == 0
    [request] = [each for _, each in fake.asked if isinstance(each, RunTaskRequest)]
    assert (request.parent, request.target.server_id, request.target.group) == ("accounts/acme.example", id_of(DEEP), "")


def test_nobody_below_a_server_is_not_taken_for_a_group(run: Run) -> None:
    ran = run("task", "run", "m1/nobody", "--kind", "restart", primary=primary())
    assert (ran.status, ran.err.startswith('NOT_FOUND: No server "nobody" stands below m1.')) == (1, True)


def test_a_group_is_meant_where_an_account_s_domain_begins_the_name(run: Run) -> None:
    fake = primary()
    run("task", "run", "acme.example/host", "--kind", "restart", primary=fake)
    [request] = [each for _, each in fake.asked if isinstance(each, RunTaskRequest)]
    assert (request.target.server_id, request.target.group) == ("", "host")


@pytest.mark.parametrize(
    "words",
    [
        "policy explain m1/deep --kind web",
        "policy explain deep --kind web",
        "server show deep",
        "server suspend m1/deep",
        "server rename m1/deep new",
        "server label m1/deep --add x",
        "task run deep --kind restart",
    ],
)
def test_whatever_cannot_be_said_or_decided_from_here_is_said_to_be_asked_there(run: Run, words: str) -> None:
    fake = primary()
    ran = run(*words.split(), primary=fake)
    assert ran.status == 1
    assert ran.err.startswith("NOT_ALLOWED: deep stands below m1: its own primary decides about it")
    assert 'server show "m1/deep"' in ran.err
    assert {name for name, _ in fake.asked} <= {"ListAccounts", "ListServers", "ListBelow"}


@pytest.mark.parametrize("words", ["server show m1/deep", "server show m1/host/deep", "task run m1/deep --kind restart"])
def test_only_what_a_way_names_is_asked_for(run: Run, words: str) -> None:
    fake = primary()
    assert run(*words.split(), primary=fake).status == 0
    asked = {each.display_name_or_id for _, each in fake.asked if isinstance(each, (ListBelowRequest, ListServersRequest))}
    assert asked <= {"m1", "deep", words.split()[2]}
    assert "" not in asked


@pytest.mark.parametrize("wanted", ["/deep", "m1//", "m1/ /deep", "/"])
def test_a_way_with_an_empty_part_names_nobody(run: Run, wanted: str) -> None:
    assert run("server", "show", wanted, primary=primary()).err.startswith("NOT_FOUND: ")
