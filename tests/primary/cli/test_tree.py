"""The tree: every group and every living server in its place, and each state a word."""

from __future__ import annotations

import itertools
import json

import pytest
from google.protobuf.message import Message

from enlist.v1.account_pb2 import Account, ListAccountsResponse
from enlist.v1.hierarchy_pb2 import (
    BelowServer,
    Group,
    ListBelowResponse,
    ListedBelow,
    ListGroupsRequest,
    ListGroupsResponse,
    ListServersResponse,
)
from enlist.v1.server_pb2 import SERVER_STATE_PENDING, SERVER_STATE_TRUSTED
from enlist_primary.cli.servers import LIVING
from enlist_primary.cli.tree import draw, plant
from enlist_primary.model.servers import State
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, FakePrimary, moment, server

GROUPS = {"acme.example": ["/", "Sites", "Sites/Paris", "Sites/Rome"], "beta.example": ["/"]}
CODE = "11111-22222-33333-44444"
SERVERS = [
    server("aaaaaaaaaa", "paris-1", "trusted", group="Sites/Paris", connected=True, connected_time=moment()),
    server("bbbbbbbbbb", "paris-2", "trusted", group="Sites/Paris", connected_time=moment()),
    server("cccccccccc", "alone", "trusted"),
    server("dddddddddd", "rome-1", "pending", group="Sites/Rome", comparison_code=CODE),
    server("eeeeeeeeee", "", "invited", group="Sites/Rome", state_time=moment()),
    server("ffffffffff", "old", "suspended", account="beta.example", state_time=moment()),
]

ACME = f"""\
acme.example
├── Sites
│   ├── Paris
│   │   ├── paris-1  [trusted]  connected
│   │   └── paris-2  [trusted]  NOT connected, since {SHOWN}
│   └── Rome
│       ├── (eeeeeeeeee)  [invited]  since {SHOWN}
│       └── rome-1  [pending]  NOT trusted: authorize or deny it; comparison code {CODE}
└── alone  [trusted]  NOT connected, never seen"""
BETA = f"""\
beta.example
└── old  [suspended]  since {SHOWN}"""


def test_a_tree_is_drawn_as_a_tree() -> None:
    assert ["\n".join(draw(root)) for root in plant(GROUPS, SERVERS)] == [ACME, BETA]


@pytest.mark.parametrize("order", [*itertools.permutations(range(len(SERVERS)))][::97])
def test_the_order_in_which_servers_come_does_not_show(order: tuple[int, ...]) -> None:
    roots = plant(GROUPS, [SERVERS[place] for place in order])
    assert ["\n".join(draw(root)) for root in roots] == [ACME, BETA]


@pytest.mark.parametrize("state", State)
def test_the_living_are_shown_and_the_past_is_not(state: State) -> None:
    [root] = plant({"acme.example": ["/"]}, [server("aaaaaaaaaa", "x", state)])
    assert [each.server.id for each in root.servers] == ["aaaaaaaaaa"] * (state in LIVING)
    assert (f"[{state}]" in "\n".join(draw(root))) == (state in LIVING)


BELOW = [
    ListedBelow(
        account="acme.example", via="cccccccccc", server=BelowServer(state=SERVER_STATE_TRUSTED, place="low.example", **fields)
    )
    for fields in (
        {"path": "kkkkkkkkkk/llllllllll", "display_name": "deep", "connected": True},
        {"path": "kkkkkkkkkk", "display_name": "host", "connected": True, "connected_time": moment()},
        {"path": "mmmmmmmmmm", "display_name": "lost", "connected_time": moment()},
        {"path": "nnnnnnnnnn", "display_name": "cut", "connected": True, "unknown_since": moment()},
        {"path": "oooooooooo", "display_name": "new", "comparison_code": CODE},
    )
]
BELOW[-1].server.state = SERVER_STATE_PENDING


def test_what_stands_below_a_middle_server_hangs_on_it_and_a_cut_is_never_shown_as_connected() -> None:
    [root] = plant({"acme.example": ["/"]}, [SERVERS[2]], BELOW)
    drawn = f"""\
acme.example
└── alone  [trusted]  NOT connected, never seen
    ├── cut  [trusted]  UNKNOWN since {SHOWN}  (low.example)
    ├── host  [trusted]  connected  (low.example)
    │   └── deep  [trusted]  connected  (low.example)
    ├── lost  [trusted]  NOT connected, since {SHOWN}  (low.example)
    └── new  [pending]  NOT trusted there: its primary must authorize or deny it; comparison code {CODE}  (low.example)"""
    assert "\n".join(draw(root)) == drawn


def test_a_server_below_whose_way_up_is_missing_is_shown_all_the_same() -> None:
    [root] = plant({"acme.example": ["/"]}, [SERVERS[2]], BELOW[:1])
    assert [each.server.display_name for each in root.servers[0].below] == ["deep"]


def test_an_empty_account_is_its_name() -> None:
    assert [list(draw(root)) for root in plant({"acme.example": ["/"]}, [])] == [["acme.example"]]
    assert plant({}, []) == []


def test_a_server_whose_account_was_made_a_moment_ago_waits_for_the_next_look() -> None:
    assert plant({}, SERVERS) == []


def test_a_group_and_a_server_of_one_name_are_two() -> None:
    [root] = plant({"acme.example": ["/", "x"]}, [server("aaaaaaaaaa", "x"), server("bbbbbbbbbb", "x", group="x")])
    assert [line.strip("├└│─ ").split("  ")[0] for line in draw(root)] == ["acme.example", "x", "x", "x"]


def answers(**more: Message) -> FakePrimary:
    past = [server("gggggggggg", "gone", "removed"), server("hhhhhhhhhh", "gone", "removed"), server("iiiiiiiiii", "no", "denied")]

    def groups(request: ListGroupsRequest) -> ListGroupsResponse:
        account = request.parent.removeprefix("accounts/")
        return ListGroupsResponse(groups=[Group(account=account, path=path) for path in GROUPS[account]])

    return FakePrimary(
        ListAccounts=ListAccountsResponse(accounts=[Account(domain=domain) for domain in GROUPS]),
        ListGroups=groups,
        ListServers=ListServersResponse(servers=[*SERVERS, *past]),
        **more,
    )


def test_the_command_prints_every_account_and_counts_what_it_does_not_show(run: Run) -> None:
    ran = run("tree", primary=answers())
    assert ran.status == 0
    assert ran.out == f"{ACME}\n{BETA}\nNot shown: 1 denied, 2 removed (see: enlist-primary server list)\n"


def test_one_account_is_asked_for_alone(run: Run) -> None:
    primary = answers()
    ran = run("tree", "beta.example", primary=primary)
    assert ran.out.startswith(BETA)
    asked = {rpc: getattr(request, "parent", "") for rpc, request in primary.asked}
    assert (asked["ListGroups"], asked["ListServers"]) == ("accounts/beta.example", "accounts/beta.example")


def test_json_has_the_same_tree(run: Run) -> None:
    roots = json.loads(run("tree", "--json", primary=answers(ListBelow=ListBelowResponse(servers=BELOW))).out)
    assert [set(root) for root in roots] == [{"name", "groups", "servers"}] * 2
    sites = roots[0]["groups"][0]
    assert [group["name"] for group in sites["groups"]] == ["Paris", "Rome"]
    assert [each["name"] for each in sites["groups"][0]["servers"]] == ["paris-1", "paris-2"]
    assert sites["groups"][0]["servers"][1]["connected"] is False
    alone = roots[0]["servers"][0]
    assert {each["name"]: each["connected"] for each in alone["below"]} == {"cut": False, "host": True, "lost": False, "new": False}
    assert [each["name"] for each in alone["below"][1]["below"]] == ["deep"]


def test_no_account_is_said_in_words_and_is_an_empty_list(run: Run) -> None:
    primary = FakePrimary(ListAccounts=ListAccountsResponse(), ListServers=ListServersResponse())
    assert "There are no accounts" in run("tree", primary=primary).out
    assert json.loads(run("tree", "--json", primary=primary).out) == []


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31mred", "\u202eevil", "\x07", "\u009b31m", "\x00"])
def test_a_hostile_name_reaches_no_terminal(run: Run, name: str) -> None:
    """Attacks row 41: the primary refuses such names, and the command would not show them either."""
    primary = FakePrimary(
        ListAccounts=ListAccountsResponse(accounts=[Account(domain="acme.example")]),
        ListGroups=ListGroupsResponse(groups=[Group(path=f"a{name}")]),
        ListServers=ListServersResponse(servers=[server("aaaaaaaaaa", name, group=f"a{name}")]),
    )
    for flags in ([], ["--json"]):
        out = run("tree", *flags, primary=primary).out
        assert not set(name) & set("\x1b\u202e\x07\u009b\x00") & set(out)
