"""Which server a command means: an id before a name, the living before the past, and nobody where it is not clear."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist.v1.account_pb2 import ListAccountsResponse
from enlist.v1.hierarchy_pb2 import ListServersRequest, ListServersResponse
from enlist.v1.policy_pb2 import ExplainPolicyResponse
from enlist.v1.server_pb2 import Server
from enlist.v1.task_pb2 import ListTaskResultsResponse, Task, TaskRun
from enlist_primary.cli.below import LISTED
from enlist_primary.cli.servers import LIVING, choose, state_of
from enlist_primary.model import servers as model
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import FakePrimary, server
from tests.primary.refusals import attempt, refused

STATES = sorted(model.State)
PAST = sorted(set(STATES) - {model.State(each) for each in LIVING})


def test_the_living_are_the_model_s() -> None:
    assert set(model.LIVING) == LIVING


@pytest.mark.parametrize("state", STATES)
def test_one_server_is_found_by_name_and_by_id_in_every_state(state: str) -> None:
    servers = [server("aaaaaaaaaa", "paris-1", state), server("bbbbbbbbbb", "rome-1")]
    for wanted in ("paris-1", "aaaaaaaaaa"):
        assert choose(servers, wanted).id == "aaaaaaaaaa"


@pytest.mark.parametrize("wanted", ["", "paris", "PARIS-1", "paris-1 ", "paris-%", "aaaaaaaaa", "AAAAAAAAAA", "*"])
def test_a_near_miss_finds_nobody(wanted: str) -> None:
    """Attacks row 5."""
    with refused(Reason.NOT_FOUND):
        choose([server("aaaaaaaaaa", "paris-1"), server("cccccccccc", "", "invited")], wanted)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(sorted(LIVING), 2)))
def test_a_name_that_two_living_servers_bear_does_nothing_and_lists_both(one: str, other: str) -> None:
    servers = [server("aaaaaaaaaa", "x", one, comparison_code="11111"), server("bbbbbbbbbb", "x", other, "beta.example")]
    with refused(Reason.AMBIGUOUS_NAME) as no:
        choose([*servers, server("cccccccccc", "x", "removed")], "x")
    message = no.value.message
    assert "nothing was done" in message
    assert all(word in message for word in ("aaaaaaaaaa", "bbbbbbbbbb", one, other, "beta.example", "11111"))
    assert "cccccccccc" not in message


@pytest.mark.parametrize("past", PAST)
@pytest.mark.parametrize("living", sorted(LIVING))
def test_the_living_come_before_the_past(past: str, living: str) -> None:
    """Attacks row 11: the name of a server that is gone is meant for the one that bears it now."""
    servers = [server("aaaaaaaaaa", "x", past), server("bbbbbbbbbb", "x", living)]
    assert choose(servers, "x").id == "bbbbbbbbbb"
    assert choose(servers, "aaaaaaaaaa").id == "aaaaaaaaaa"


def test_two_that_are_past_are_as_ambiguous() -> None:
    with refused(Reason.AMBIGUOUS_NAME):
        choose([server("aaaaaaaaaa", "x", "removed"), server("bbbbbbbbbb", "x", "denied")], "x")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("impostor", STATES)
def test_a_server_that_calls_itself_by_another_s_id_is_not_meant(state: str, impostor: str) -> None:
    """Else a stranger could put itself in the way of every command about a server - or be authorized in its place."""
    servers = [server("bbbbbbbbbb", "aaaaaaaaaa", impostor), server("aaaaaaaaaa", "paris-1", state)]
    for order in (servers, servers[::-1]):
        assert choose(order, "aaaaaaaaaa").id == "aaaaaaaaaa"


NAMES = st.sampled_from(["x", "y", "aaaaaaaaaa", "bbbbbbbbbb"])
SERVERS = st.lists(
    st.builds(server, st.sampled_from(["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"]), NAMES, st.sampled_from(STATES)),
    unique_by=lambda each: each.id,
)


@given(SERVERS, NAMES)
def test_whoever_is_chosen_is_the_only_one_who_could_be_meant(servers: list[Server], wanted: str) -> None:
    outcome = attempt(choose, servers, wanted)
    by_id = [each for each in servers if each.id == wanted]
    by_name = [each for each in servers if each.display_name == wanted]
    living = [each for each in by_name if state_of(each) in LIVING]
    meant = by_id or living or by_name
    if len(meant) == 1:
        assert outcome == meant[0]
    else:
        assert isinstance(outcome, Refused)
        assert outcome.reason is (Reason.AMBIGUOUS_NAME if meant else Reason.NOT_FOUND)


VERBS = ["show", "authorize", "deny", "suspend", "resume", "revoke", "remove", "withdraw", "rename"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_given_an_ambiguous_name_asks_the_primary_for_nothing(run: Run, verb: str, as_json: bool) -> None:
    primary = FakePrimary(ListServers=ListServersResponse(servers=[server("aaaaaaaaaa", "x"), server("bbbbbbbbbb", "x")]))
    ran = run("server", verb, "x", *["new"] * (verb == "rename"), *["--json"] * as_json, primary=primary)
    assert ran.status == 1
    assert [rpc for rpc, _ in primary.asked] == ["ListServers"]
    lines = ran.err.splitlines()
    assert lines[0].startswith("AMBIGUOUS_NAME: ")
    assert [line.split()[0] for line in lines[1:]] == ["aaaaaaaaaa", "bbbbbbbbbb"], "each id on a line of its own"
    if as_json:
        assert json.loads(ran.out)["reason"] == "AMBIGUOUS_NAME"


MANY = [server(f"s{number:09}", f"printer-{number}") for number in range(1000)]
PAGE = 100


class Counting:
    """A primary of a thousand servers that counts those that travel."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.sent = 0

    def listed(self, request: ListServersRequest) -> ListServersResponse:
        wanted = request.display_name_or_id
        meant = [s for s in self.servers if wanted in ("", s.id, s.display_name) and s.id > request.page_token]
        page, more = meant[:PAGE], len(meant) > PAGE
        self.sent += len(page)
        return ListServersResponse(servers=page, next_page_token=page[-1].id if more else "")


COMMANDS = [*(f"server {verb} {{}}" for verb in VERBS), "server move {} acme.example", "server label {} --add x"]
COMMANDS += ["policy explain {} --kind web", "task run {} --kind restart"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wanted", ["printer-7", "s000000007"])
def test_only_the_server_that_a_command_names_travels(run: Run, command: str, wanted: str) -> None:
    primary, verb = Counting(MANY), command.split()[1]
    answers: dict[str, Any] = {
        f"{verb.capitalize()}Server": MANY[7],
        "RunTask": Task(run=TaskRun()),
        "ExplainPolicy": ExplainPolicyResponse(),
    }
    answers["ListTaskResults"] = ListTaskResultsResponse()
    fake = FakePrimary(ListServers=primary.listed, ListAccounts=ListAccountsResponse(), **answers)
    ran = run(*command.format(wanted).split(), *["new"] * (verb == "rename"), primary=fake)
    assert (ran.status, primary.sent) == (0, 1), ran.err


def test_a_name_that_nobody_bears_makes_no_server_travel(run: Run) -> None:
    primary = Counting(MANY)
    assert run("server", "show", "printer", primary=FakePrimary(ListServers=primary.listed)).err.startswith("NOT_FOUND: ")
    assert primary.sent == 0


def test_an_ambiguous_name_is_refused_with_the_first_ids_of_many(run: Run) -> None:
    twins = [server(f"t{number:09}", "twin") for number in range(2 * PAGE + 50)]
    primary = Counting([*MANY, *twins])
    ran = run("server", "revoke", "twin", primary=FakePrimary(ListServers=primary.listed))
    assert ran.err.startswith("AMBIGUOUS_NAME: ")
    assert [line.split()[0] for line in ran.err.splitlines()[1:]] == [*(each.id for each in twins[:LISTED]), "and"]
    assert ran.err.splitlines()[-1].strip() == f"and {len(twins) - LISTED} more"
    assert primary.sent == len(twins)
