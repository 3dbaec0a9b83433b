"""What commands print: JSON with exact keys and types, text for people, and no secret but where it is asked for."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import TABLE, Reason, Refused
from enlist.v1 import account_pb2 as accounts
from enlist.v1 import hierarchy_pb2 as hierarchy
from enlist.v1 import journal_pb2 as journal
from enlist.v1 import server_pb2 as servers
from enlist.v1 import trust_pb2 as trust
from enlist_primary.cli import output
from enlist_primary.model.servers import State
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, FakePrimary, moment, server

ACCOUNT = accounts.Account(
    domain="acme.example", contact="helpdesk", default_api_key=False, create_time=moment(), head=7, landing_group="Sites"
)
FULL = accounts.API_KEY_KIND_FULL
KEY = accounts.ApiKey(id="kkkkkkkkkk", account="acme.example", kind=FULL, group="Sites/Paris", create_time=moment())
SECRET = "enl_kkkkkkkkkk_" + "s" * 32
ENTRY = journal.JournalEntry(
    account="acme.example",
    number=3,
    time=moment(),
    actor="ann (aaaaaaaaaa)",
    method="token",
    source="192.0.2.7",
    action="server.authorize",
    subject="servers/aaaaaaaaaa",
    evidence="code compared",
    detail={"name": "paris-1"},
    hash=b"\x01" * 32,
)
STATUS = hierarchy.PrimaryStatus(
    primary_name="main",
    fingerprint="f" * 64,
    ssl_port=13000,
    api_port=13299,
    addresses=["main.example"],
    version="0.1.0",
    start_time=moment(),
    certificate_expire_time=moment(),
    connected=2,
    servers=[hierarchy.StateCount(state=servers.SERVER_STATE_TRUSTED, count=2)],
    refusals=[
        hierarchy.RefusalCount(account="acme.example", reason="API_KEY_INVALID", count=4, last_time=moment(), last_source="::1")
    ],
)
BARE = server("aaaaaaaaaa", "paris-1", "pending")
RICH = server(
    "aaaaaaaaaa",
    "paris-1",
    "trusted",
    group="Sites/Paris",
    state_time=moment(),
    fingerprint="ab" * 32,
    comparison_code="11111-22222-33333-44444",
    connected=True,
    connected_time=moment(),
    source="192.0.2.7",
    server_address="paris.example",
    version="0.1.0",
    create_time=moment(),
    expire_time=moment(),
    revision=9,
    asked_with="default",
    reason="because",
    labels=["laser", "printer"],
    kinds=["policy/chrony", "task/reboot"],
    may_have_secondaries=True,
    lower_primary="cd" * 32,
    remnants=[servers.Remnant(kind="motd", message="It could not be ended: No.", time=moment())],
    set_refusal="The desired set is refused (SET_STALE): No.",
)
ROOT = hierarchy.Group(account="acme.example", id="rrrrrrrrrr", path="/")
PARIS = hierarchy.Group(account="acme.example", id="pppppppppp", path="Sites/Paris")
WINDOW = hierarchy.MaintenanceWindow(start="0 2 * * sat", duration_seconds=7200, time_zone="Europe/Paris")
WINDOW_UTC = hierarchy.MaintenanceWindow(start="@daily", duration_seconds=90)
SLEEPY = hierarchy.Group(account="acme.example", id="pppppppppp", path="Sites/Paris", window=WINDOW)
SLEEPY_UTC = hierarchy.Group(account="acme.example", id="pppppppppp", path="Sites/Paris", window=WINDOW_UTC)

ACCOUNT_JSON = {
    "domain": "acme.example",
    "contact": "helpdesk",
    "default_api_key": False,
    "landing_group": "Sites",
    "created": SHOWN,
    "head": 7,
}
KEY_JSON = {
    "id": "kkkkkkkkkk",
    "account": "acme.example",
    "kind": "full",
    "uses": 0,
    "max_uses": None,
    "networks": [],
    "group": "Sites/Paris",
    "created": SHOWN,
    "expires": None,
    "revoked": None,
    "server_id": None,
}
BARE_JSON: dict[str, object] = {
    "id": "aaaaaaaaaa",
    "name": "paris-1",
    "account": "acme.example",
    "group": "/",
    "state": "pending",
    "since": None,
    "connected": False,
    "connected_changed": None,
    "fingerprint": None,
    "comparison_code": None,
    "source": None,
    "server_address": None,
    "version": None,
    "asked_with": None,
    "created": None,
    "expires": None,
    "revision": 0,
    "reason": None,
    "labels": [],
    "kinds": [],
    "may_have_secondaries": False,
    "lower_primary": None,
    "remnants": [],
    "set_refusal": None,
}
RICH_JSON: dict[str, object] = {
    "id": "aaaaaaaaaa",
    "name": "paris-1",
    "account": "acme.example",
    "group": "Sites/Paris",
    "state": "trusted",
    "since": SHOWN,
    "connected": True,
    "connected_changed": SHOWN,
    "fingerprint": "ab" * 32,
    "comparison_code": "11111-22222-33333-44444",
    "source": "192.0.2.7",
    "server_address": "paris.example",
    "version": "0.1.0",
    "asked_with": "default",
    "created": SHOWN,
    "expires": SHOWN,
    "revision": 9,
    "reason": "because",
    "labels": ["laser", "printer"],
    "kinds": ["policy/chrony", "task/reboot"],
    "may_have_secondaries": True,
    "lower_primary": "cd" * 32,
    "remnants": [{"kind": "motd", "since": SHOWN, "message": "It could not be ended: No."}],
    "set_refusal": "The desired set is refused (SET_STALE): No.",
}
ROOT_JSON = {"account": "acme.example", "id": "rrrrrrrrrr", "path": "/", "window": None}
PARIS_JSON = {"account": "acme.example", "id": "pppppppppp", "path": "Sites/Paris", "window": None}
SLEEPY_JSON = {**PARIS_JSON, "window": {"start": "0 2 * * sat", "seconds": 7200, "zone": "Europe/Paris"}}
SLEEPY_UTC_JSON = {**PARIS_JSON, "window": {"start": "@daily", "seconds": 90, "zone": None}}
ENTRY_JSON = {
    "account": "acme.example",
    "number": 3,
    "time": SHOWN,
    "actor": "ann (aaaaaaaaaa)",
    "method": "token",
    "source": "192.0.2.7",
    "action": "server.authorize",
    "subject": "servers/aaaaaaaaaa",
    "evidence": "code compared",
    "detail": {"name": "paris-1"},
    "hash": "01" * 32,
}
STATUS_JSON = {
    "name": "main",
    "fingerprint": "f" * 64,
    "ssl_port": 13000,
    "api_port": 13299,
    "addresses": ["main.example"],
    "version": "0.1.0",
    "started": SHOWN,
    "certificate_expires": SHOWN,
    "connected": 2,
    "stalled": 0,
    "servers": {"trusted": 2},
    "refusals": [{"account": "acme.example", "reason": "API_KEY_INVALID", "count": 4, "last": SHOWN, "last_source": "::1"}],
    "above": [],
}
LISTED = hierarchy.ListServersResponse(servers=[BARE, RICH])
ONE = hierarchy.ListServersResponse(servers=[BARE])


def of_acme(**entries: Any) -> dict[str, Any]:
    return {"ListAccounts": accounts.ListAccountsResponse(accounts=[ACCOUNT]), **entries}


def decision(verb: str) -> tuple[str, dict[str, Message], Any, list[Message]]:
    """A decision's command line, the primary's answers, the JSON that comes of it, and what is asked last."""
    method = f"{verb.capitalize()}Server"
    request = getattr(trust, f"{method}Request")(name=BARE.name)
    flags = ""
    if verb == "authorize":
        request.comparison_code, request.group = "11111-22222-33333-44444", "Sites/Paris"
        flags = "--code 11111-22222-33333-44444 --group Sites/Paris"
    elif verb != "resume":
        request.reason, flags = "because", "--reason because"
    return f"server {verb} paris-1 {flags}", {"ListServers": ONE, method: RICH}, RICH_JSON, [request]


Case = tuple[str, dict[str, Any], Any, list[Message]]
ALL = hierarchy.ListServersRequest(parent="accounts/-")
COMMANDS: dict[str, Case] = {
    "status": ("status", {"GetStatus": STATUS}, STATUS_JSON, [hierarchy.GetStatusRequest()]),
    "account add": (
        "account add acme.example --contact helpdesk",
        {"CreateAccount": ACCOUNT},
        ACCOUNT_JSON,
        [accounts.CreateAccountRequest(domain="acme.example", contact="helpdesk")],
    ),
    "account list": ("account list", of_acme(), [ACCOUNT_JSON], [accounts.ListAccountsRequest()]),
    "account show": (
        "account show acme.example",
        {"GetAccount": ACCOUNT},
        ACCOUNT_JSON,
        [accounts.GetAccountRequest(name="accounts/acme.example")],
    ),
    "account set, switched off": (
        "account set acme.example --default-api-key off",
        {"UpdateAccount": ACCOUNT},
        ACCOUNT_JSON,
        [accounts.UpdateAccountRequest(name="accounts/acme.example", default_api_key=False)],
    ),
    "account set, switched on": (
        "account set acme.example --default-api-key on --contact=",
        {"UpdateAccount": ACCOUNT},
        ACCOUNT_JSON,
        [accounts.UpdateAccountRequest(name="accounts/acme.example", default_api_key=True, contact="")],
    ),
    "account set, a landing group": (
        "account set acme.example --landing-group Sites/New",
        {"UpdateAccount": ACCOUNT},
        ACCOUNT_JSON,
        [accounts.UpdateAccountRequest(name="accounts/acme.example", landing_group="Sites/New")],
    ),
    "api-key add": (
        "api-key add acme.example",
        {"CreateApiKey": accounts.CreateApiKeyResponse(api_key=KEY, secret=SECRET)},
        {**KEY_JSON, "api_key": SECRET},
        [accounts.CreateApiKeyRequest(parent="accounts/acme.example", kind=accounts.API_KEY_KIND_RESTRICTED)],
    ),
    "api-key add, all of it": (
        "api-key add . --full --uses 3 --expires 12h --network 10.0.0.0/8 --network ::/0 --group A/B",
        {"CreateApiKey": accounts.CreateApiKeyResponse(api_key=KEY, secret=SECRET)},
        {**KEY_JSON, "api_key": SECRET},
        [
            accounts.CreateApiKeyRequest(
                parent="accounts/.",
                kind=FULL,
                max_uses=3,
                networks=["10.0.0.0/8", "::/0"],
                group="A/B",
                lifetime_seconds=12 * 3600,
            )
        ],
    ),
    "api-key list": (
        "api-key list acme.example",
        {"ListApiKeys": accounts.ListApiKeysResponse(api_keys=[KEY])},
        [KEY_JSON],
        [accounts.ListApiKeysRequest(parent="accounts/acme.example")],
    ),
    "api-key revoke": (
        "api-key revoke acme.example kkkkkkkkkk",
        {"RevokeApiKey": KEY},
        KEY_JSON,
        [accounts.RevokeApiKeyRequest(name="accounts/acme.example/apiKeys/kkkkkkkkkk")],
    ),
    "server list": ("server list", {"ListServers": LISTED}, [BARE_JSON, RICH_JSON], [ALL]),
    "server list of one account": (
        "server list acme.example",
        {"ListServers": LISTED},
        [BARE_JSON, RICH_JSON],
        [hierarchy.ListServersRequest(parent="accounts/acme.example")],
    ),
    "server show": (
        "server show paris-1",
        {"ListServers": ONE},
        BARE_JSON,
        [hierarchy.ListServersRequest(parent="accounts/-", display_name_or_id="paris-1")],
    ),
    "server rename": (
        "server rename paris-1 rome-1",
        {"ListServers": ONE, "RenameServer": RICH},
        RICH_JSON,
        [hierarchy.RenameServerRequest(name=BARE.name, display_name="rome-1")],
    ),
    "server move": (
        "server move paris-1 acme.example/Sites/Paris",
        {"ListServers": ONE, "MoveServer": RICH},
        RICH_JSON,
        [
            hierarchy.ListServersRequest(parent="accounts/acme.example", display_name_or_id="paris-1"),
            hierarchy.MoveServerRequest(name=BARE.name, group="Sites/Paris"),
        ],
    ),
    "server move, to the root group": (
        "server move paris-1 acme.example",
        {"ListServers": ONE, "MoveServer": BARE},
        BARE_JSON,
        [hierarchy.MoveServerRequest(name=BARE.name, group="/")],
    ),
    "server label": (
        "server label paris-1 --add printer --add laser --remove spare",
        {"ListServers": ONE, "LabelServer": RICH},
        RICH_JSON,
        [hierarchy.LabelServerRequest(name=BARE.name, add=["printer", "laser"], remove=["spare"])],
    ),
    "group add": (
        "group add acme.example/Sites/Paris",
        {"CreateGroup": PARIS},
        PARIS_JSON,
        [hierarchy.CreateGroupRequest(parent="accounts/acme.example", path="Sites/Paris")],
    ),
    "group remove": (
        "group remove acme.example/Sites/Paris/",
        {"RemoveGroup": hierarchy.RemoveGroupResponse()},
        {"account": "acme.example", "path": "Sites/Paris", "removed": True},
        [hierarchy.RemoveGroupRequest(parent="accounts/acme.example", path="Sites/Paris")],
    ),
    "group move": (
        "group move acme.example/Paris acme.example/Sites/Paris",
        {"MoveGroup": PARIS},
        PARIS_JSON,
        [hierarchy.MoveGroupRequest(parent="accounts/acme.example", path="Paris", new_path="Sites/Paris")],
    ),
    "group set, a window by a clock": (
        "group set acme.example/Sites/Paris --window 0_2_*_*_sat --for 2h --zone Europe/Paris",
        {"UpdateGroup": SLEEPY},
        SLEEPY_JSON,
        [
            hierarchy.UpdateGroupRequest(
                parent="accounts/acme.example",
                path="Sites/Paris",
                window=hierarchy.MaintenanceWindow(start="0_2_*_*_sat", duration_seconds=7200, time_zone="Europe/Paris"),
            )
        ],
    ),
    "group set, a window": (
        "group set acme.example/Sites/Paris --window @daily --for 90s",
        {"UpdateGroup": SLEEPY_UTC},
        SLEEPY_UTC_JSON,
        [hierarchy.UpdateGroupRequest(parent="accounts/acme.example", path="Sites/Paris", window=WINDOW_UTC)],
    ),
    "group set, no window": (
        "group set acme.example --no-window",
        {"UpdateGroup": ROOT},
        ROOT_JSON,
        [hierarchy.UpdateGroupRequest(parent="accounts/acme.example", path="/")],
    ),
    "group list": (
        "group list acme.example",
        {"ListGroups": hierarchy.ListGroupsResponse(groups=[ROOT, SLEEPY])},
        [ROOT_JSON, SLEEPY_JSON],
        [hierarchy.ListGroupsRequest(parent="accounts/acme.example")],
    ),
    **{f"server {verb}": decision(verb) for verb in ("authorize", "deny", "suspend", "resume", "revoke", "remove", "withdraw")},
    **{
        f"server authorize {flags}": (
            f"server authorize paris-1 {flags}",
            {"ListServers": ONE, "AuthorizeServer": RICH},
            RICH_JSON,
            [trust.AuthorizeServerRequest(name=BARE.name, may_have_secondaries=may, bequest=bequest)],
        )
        for flags, may, bequest in (
            ("--may-have-secondaries", True, trust.BEQUEST_UNSPECIFIED),
            ("--no-may-have-secondaries", False, trust.BEQUEST_UNSPECIFIED),
            ("--no-may-have-secondaries --below freeze", False, trust.BEQUEST_FREEZE),
            ("--may-have-secondaries --below freeze", True, trust.BEQUEST_FREEZE),  # the primary refuses it
        )
    },
    **{
        f"server {verb} --below {word}": (
            f"server {verb} paris-1 --below {word}",
            {"ListServers": ONE, f"{verb.capitalize()}Server": RICH},
            RICH_JSON,
            [getattr(trust, f"{verb.capitalize()}ServerRequest")(name=BARE.name, bequest=bequest)],
        )
        for verb in ("remove", "revoke")
        for word, bequest in (("keep", trust.BEQUEST_KEEP), ("freeze", trust.BEQUEST_FREEZE), ("delete", trust.BEQUEST_DELETE))
    },
    "journal show": (
        "journal show acme.example",
        {"ListEntries": journal.ListEntriesResponse(entries=[ENTRY], head=3)},
        [ENTRY_JSON],
        [journal.ListEntriesRequest(parent="accounts/acme.example", after=0)],
    ),
    "origins list": (
        "origins list",
        {
            "ListOrigins": hierarchy.ListOriginsResponse(
                origins=[
                    hierarchy.RememberedOrigin(primary_id="ab" * 32, primary_name="Head office", above=True),
                    hierarchy.RememberedOrigin(primary_id="cd" * 32),
                ]
            )
        },
        [
            {"primary_id": "ab" * 32, "primary_name": "Head office", "above": True},
            {"primary_id": "cd" * 32, "primary_name": "", "above": False},
        ],
        [hierarchy.ListOriginsRequest()],
    ),
    "origins clear": (
        f"origins clear {'cd' * 32}",
        {"ClearOrigin": hierarchy.ClearOriginResponse()},
        {"cleared": "cd" * 32},
        [hierarchy.ClearOriginRequest(primary_id="cd" * 32)],
    ),
    "origins clear, all": (
        "origins clear --all",
        {"ClearOrigin": hierarchy.ClearOriginResponse()},
        {"cleared": "all"},
        [hierarchy.ClearOriginRequest(all=True)],
    ),
    "journal verify": (
        "journal verify acme.example",
        {"VerifyJournal": journal.VerifyJournalResponse(entries=3)},
        [{"account": "acme.example", "entries": 3, "sound": True}],
        [journal.VerifyJournalRequest(parent="accounts/acme.example")],
    ),
    "journal verify, all": (
        "journal verify",
        of_acme(VerifyJournal=journal.VerifyJournalResponse(entries=3)),
        [{"account": each, "entries": 3, "sound": True} for each in (".", "acme.example")],
        [journal.VerifyJournalRequest(parent=f"accounts/{each}") for each in (".", "acme.example")],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_json_has_exactly_these_keys_and_types(run: Run, name: str) -> None:
    """Numbers as numbers, false written out, null for what there is not."""
    line, answers, wanted, requests = COMMANDS[name]
    primary = FakePrimary(**answers)
    ran = run(*line.split(), "--json", primary=primary)
    assert (ran.status, ran.err) == (0, "")
    printed = json.loads(ran.out)
    assert printed == wanted
    assert json.dumps(printed) == json.dumps(wanted), "also the order, and True is not 1"
    assert [request for _, request in primary.asked][-len(requests) :] == requests


@pytest.mark.parametrize("name", COMMANDS)
def test_people_get_text(run: Run, name: str) -> None:
    line, answers, _, _ = COMMANDS[name]
    ran = run(*line.split(), primary=FakePrimary(**answers))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.endswith("\n")
    assert len(ran.out) > 5
    assert not ran.out.lstrip().startswith(("{", "["))
    assert (SECRET in ran.out) == name.startswith("api-key add")


def test_the_issue_s_keys_are_there() -> None:
    assert {"name", "fingerprint", "ssl_port", "api_port"} <= STATUS_JSON.keys()
    assert {"id", "name", "account", "group", "state", "connected", "fingerprint", "comparison_code"} <= BARE_JSON.keys()


def test_labels_and_kinds_are_shown_in_words(run: Run) -> None:
    rich = run("server", "show", "paris-1", primary=FakePrimary(ListServers=hierarchy.ListServersResponse(servers=[RICH]))).out
    bare = run("server", "show", "paris-1", primary=FakePrimary(ListServers=ONE)).out
    assert re.search("^labels +laser, printer$", rich, re.MULTILINE)
    assert re.search("^kinds +policy/chrony, task/reboot$", rich, re.MULTILINE)
    assert re.search("^labels +-$", bare, re.MULTILINE)


def test_a_group_and_its_window_are_shown_in_words(run: Run) -> None:
    listed = hierarchy.ListGroupsResponse(groups=[ROOT, SLEEPY, SLEEPY_UTC])
    lines = run("group", "list", "acme.example", primary=FakePrimary(ListGroups=listed)).out.splitlines()
    assert [line.split()[0] for line in lines] == ["GROUP", "/", "Sites/Paris", "Sites/Paris"]
    assert [line.rpartition("  ")[2] for line in lines[1:]] == [
        "none of its own",
        "0 2 * * sat for 2h, Europe/Paris",
        "@daily for 90s, UTC",
    ]
    added = run("group", "add", "acme.example/Sites/Paris", primary=FakePrimary(CreateGroup=PARIS)).out
    assert added == "The group acme.example/Sites/Paris is there.\n"


def test_an_api_key_stands_alone_on_the_last_line(run: Run) -> None:
    line, answers, _, _ = COMMANDS["api-key add"]
    *before, last = run(*line.split(), primary=FakePrimary(**answers)).out.splitlines()
    assert last == SECRET
    assert before
    assert SECRET not in "".join(before)


@pytest.mark.parametrize("state", State)
def test_a_state_is_shown_in_the_model_s_word(run: Run, state: State) -> None:
    listed = hierarchy.ListServersResponse(servers=[server("aaaaaaaaaa", "x", state)])
    [printed] = json.loads(run("server", "list", "--json", primary=FakePrimary(ListServers=listed)).out)
    assert printed["state"] == state
    assert f" {state} " in run("server", "list", primary=FakePrimary(ListServers=listed)).out


@pytest.mark.parametrize(
    "line", ["server list", "account list", "api-key list acme.example", "journal show acme.example", "group list acme.example"]
)
def test_nothing_is_an_empty_list_and_a_sentence(run: Run, line: str) -> None:
    primary = FakePrimary(
        ListServers=hierarchy.ListServersResponse(),
        ListAccounts=accounts.ListAccountsResponse(),
        ListApiKeys=accounts.ListApiKeysResponse(),
        ListEntries=journal.ListEntriesResponse(),
        ListGroups=hierarchy.ListGroupsResponse(),
    )
    assert json.loads(run(*line.split(), "--json", primary=primary).out) == []
    assert run(*line.split(), primary=primary).out.strip().endswith((".", "DOMAIN"))


def test_all_pages_of_servers_are_listed(run: Run) -> None:
    def page(request: hierarchy.ListServersRequest) -> hierarchy.ListServersResponse:
        number = int(request.page_token or "0")
        token = str(number + 1) if number < 3 else ""
        return hierarchy.ListServersResponse(servers=[server(f"{number}" * 10)], next_page_token=token)

    printed = json.loads(run("server", "list", "--json", primary=FakePrimary(ListServers=page)).out)
    assert [each["id"] for each in printed] == ["0" * 10, "1" * 10, "2" * 10, "3" * 10]


def test_all_pages_of_every_journal_are_shown(run: Run) -> None:
    def page(request: journal.ListEntriesRequest) -> journal.ListEntriesResponse:
        account = request.parent.removeprefix("accounts/")
        entries = [journal.JournalEntry(account=account, number=request.after + each) for each in (1, 2)]
        return journal.ListEntriesResponse(entries=entries, head=4)

    printed = json.loads(run("journal", "show", "--json", primary=FakePrimary(**of_acme(ListEntries=page))).out)
    assert [(each["account"], each["number"]) for each in printed] == [(a, n) for a in (".", "acme.example") for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_has_its_code_its_sentence_and_exit_1(run: Run, reason: Reason, as_json: bool) -> None:
    def refuse(_: Message) -> Message:
        raise Refused(reason, "It is so. Do this.")

    ran = run("status", *["--json"] * as_json, primary=FakePrimary(GetStatus=refuse))
    assert (ran.status, ran.err) == (1, f"{reason}: It is so. Do this.\n")
    if as_json:
        assert json.loads(ran.out) == {"reason": reason.value, "message": "It is so. Do this.", "retry": TABLE[reason].retry}
    else:
        assert ran.out == ""


HOSTILE = ["\x1b[2J", "\x1b]0;owned\x07", "\u202egpj.exe", "\u009b31m", "a\x00b", "a\rb", "\u2028", "\ud800"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_outsiders_wrote_reaches_no_terminal_as_it_is(run: Run, text: str) -> None:
    """Attacks row 41. A lone surrogate cannot come over the wire; the refusal's sentence could still hold one."""

    def refuse(_: Message) -> Message:
        raise Refused(Reason.INVALID_ARGUMENT, f"Not {text} so.")

    ran = run("status", "--json", primary=FakePrimary(GetStatus=refuse))
    assert not set(text) & set("\x1b\x07\u202e\u009b\x00\r\u2028\ud800") & set(ran.out + ran.err)
    assert json.loads(ran.out)["message"] == f"Not {text} so."


@pytest.mark.parametrize("text", [each for each in HOSTILE if each.isprintable() or "\ud800" not in each])
def test_nor_does_it_out_of_lists(run: Run, text: str) -> None:
    hostile = server(
        "aaaaaaaaaa", text, group=text, reason=text, version=text, source=text, server_address=text, labels=[text], kinds=[text]
    )
    group = hierarchy.Group(
        account=text, path=text, window=hierarchy.MaintenanceWindow(start=text, time_zone=text, duration_seconds=1)
    )
    entry = journal.JournalEntry(actor=text, action=text, subject=text, evidence=text, source=text, detail={text: text})
    primary = FakePrimary(
        ListServers=hierarchy.ListServersResponse(servers=[hostile]),
        ListAccounts=accounts.ListAccountsResponse(accounts=[accounts.Account(domain="acme.example", contact=text)]),
        ListEntries=journal.ListEntriesResponse(entries=[entry]),
        GetStatus=hierarchy.PrimaryStatus(primary_name=text, addresses=[text]),
        LabelServer=hostile,
        ListGroups=hierarchy.ListGroupsResponse(groups=[group]),
        UpdateGroup=group,
    )
    for line in (
        *("server list", "server show aaaaaaaaaa", "account list", "journal show acme.example", "status"),
        *("server label aaaaaaaaaa --add x", "group list acme.example", "group set acme.example --no-window"),
    ):
        for flags in ([], ["--json"]):
            out = run(*line.split(), *flags, primary=primary).out
            assert not set(text) & set("\x1b\x07\u202e\u009b\x00\r\u2028") & set(out), line


PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_json_is_ascii_and_comes_back(value: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output.print_json(value)
    printed = out.getvalue()
    assert all(" " <= character <= "~" or character == "\n" for character in printed)
    assert json.loads(printed) == value


def test_an_interrupted_command_says_so_and_ends_with_1(run: Run) -> None:
    def interrupted(_: Message) -> Message:
        raise KeyboardInterrupt

    ran = run("status", primary=FakePrimary(GetStatus=interrupted))
    assert (ran.status, ran.err) == (1, "INTERRUPTED: Interrupted.\n")
