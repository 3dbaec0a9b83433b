"""`policy`: what the commands ask of a primary, and what they make of its answers."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from enlist.documents import BODY_LIMIT
from enlist.v1 import document_pb2
from enlist.v1 import policy_pb2 as pb
from enlist.v1.hierarchy_pb2 import ListServersResponse
from enlist_primary.cli import policy_shown
from enlist_primary.cli.policy_watch import Progress, over
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, FakePrimary, moment, server

KEY = pb.PolicyKey(parent="accounts/acme.example", group="Sites/Paris", kind="chrony")
LAYER = pb.Layer(settings=b'{"ntp":{"port":123}}', locks=["/ntp/port"], put_back=True)
STAGES = pb.Stages(sizes=["1", "10%", "100%"], stop_after=2, confirm_seconds=600)
WHERE = ("acme.example/Sites/Paris", "--kind", "chrony")


def policy(rollout: pb.Rollout | None = None, revision: int = 12, **counts: Any) -> pb.Policy:
    counts = counts or {"desired": 3, "applied": 3}
    return pb.Policy(
        account="acme.example",
        group="Sites/Paris",
        kind="chrony",
        revision=revision,
        layer=LAYER,
        create_time=moment(),
        actor="ann (aaaaaaaaaa)",
        counts=pb.PolicyCounts(**counts),
        rollout=rollout,
    )


def rollout(state: str = "RUNNING", stage: int = 2, message: str = "") -> pb.Rollout:
    number = pb.RolloutState.Value(f"ROLLOUT_STATE_{state}")
    return pb.Rollout(state=number, stages=STAGES, stage=stage, stage_time=moment(), message=message)


def label(name: str, id: str = "aaaaaaaaaa") -> pb.ServerLabel:
    return pb.ServerLabel(id=id, display_name=name)


def report(name: str, state: str = "APPLIED", message: str = "", **fields: Any) -> pb.PolicyReport:
    number = document_pb2.DocumentState.Value(f"DOCUMENT_STATE_{state}")
    return pb.PolicyReport(server=label(name), group="Sites/Paris", state=number, message=message, **fields)


MANY = policy(rollout(), desired=43, applied=38, failed=1, rolled_back=1, received=1, unreachable=2, unreachable_since=moment())
MANY_JSON = {
    "account": "acme.example",
    "group": "Sites/Paris",
    "kind": "chrony",
    "revision": 12,
    "locks": ["/ntp/port"],
    "put_back": True,
    "created": SHOWN,
    "by": "ann (aaaaaaaaaa)",
    "desired": 43,
    "pending": 0,
    "received": 1,
    "applied": 38,
    "failed": 1,
    "rolled_back": 1,
    "changed_locally": 0,
    "unreachable": 2,
    "unsupported": 0,
    "unreachable_since": SHOWN,
    "rollout": {
        "state": "running",
        "stage": 2,
        "sizes": ["1", "10%", "100%"],
        "stop_after": 2,
        "confirm_seconds": 600,
        "stage_since": SHOWN,
        "message": None,
    },
}
ALL = policy()
ALL_JSON = {
    **dict.fromkeys(policy_shown.STATES, 0),
    **{key: MANY_JSON[key] for key in ("account", "group", "kind", "revision", "locks", "put_back", "created", "by")},
    "desired": 3,
    "applied": 3,
    "unreachable_since": None,
    "rollout": None,
}


class Primary(FakePrimary):
    """A primary that answers streams too: with a list of messages, and then ends them."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(**answers)
        self._streams: dict[str, Sequence[Message]] = answers

    def unary_stream(self, method: str, *_: object, **__: object) -> Any:
        name = method.rpartition("/")[2]

        async def stream(request: Message) -> AsyncIterator[Message]:
            self.asked.append((name, request))
            for message in self._streams[name]:
                await asyncio.sleep(0)
                yield message

        return stream


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "settings.json"
    path.write_bytes(b'{"ntp": {"port": 123}}\n')
    return str(path)


# --- set, rollback, remove ------------------------------------------------------------------------------------------------------


def test_set_sends_the_file_as_it_is_with_locks_and_stages(run: Run, settings: str) -> None:
    primary = Primary(SetPolicy=MANY)
    flags = ("--lock", "/ntp/port", "--lock", "", "--put-back", "--stages", "1, 10%,100%", "--stop-after", "2", "--confirm", "10m")
    ran = run("policy", "set", *WHERE, "--file", settings, *flags, "--json", primary=primary)
    assert (ran.status, json.loads(ran.out), ran.err) == (0, MANY_JSON, "")
    layer = pb.Layer(settings=b'{"ntp": {"port": 123}}\n', locks=["/ntp/port", ""], put_back=True)
    assert primary.asked == [("SetPolicy", pb.SetPolicyRequest(key=KEY, layer=layer, stages=STAGES))]


def test_set_without_flags_is_for_all_at_once(run: Run, settings: str) -> None:
    primary = Primary(SetPolicy=ALL)
    ran = run("policy", "set", *WHERE, "--file", settings, primary=primary)
    assert ran.out == "The policy chrony of acme.example/Sites/Paris is set: revision 12, applied 3 of 3.\n"
    [(_, request)] = primary.asked
    assert isinstance(request, pb.SetPolicyRequest)
    assert not request.HasField("stages")


def test_a_hyphen_is_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a":1}')))
    primary = Primary(SetPolicy=ALL)
    assert run("policy", "set", *WHERE, "--file", "-", primary=primary).status == 0
    assert primary.asked == [("SetPolicy", pb.SetPolicyRequest(key=KEY, layer=pb.Layer(settings=b'{"a":1}')))]


@pytest.mark.parametrize("verb", ["set", "plan"])
def test_what_is_too_large_is_not_even_sent(run: Run, tmp_path: Path, verb: str) -> None:
    (tmp_path / "large").write_bytes(b" " * (BODY_LIMIT + 1))
    primary = Primary()
    ran = run("policy", verb, *WHERE, "--file", str(tmp_path / "large"), primary=primary)
    assert (ran.status, ran.err.partition(":")[0], primary.asked) == (1, "DOCUMENT_TOO_LARGE", [])


@pytest.mark.parametrize(("name", "reason"), [("missing", "INVALID_ARGUMENT"), ("", "FILE_FAILED")])
def test_a_file_that_cannot_be_read_is_named(run: Run, tmp_path: Path, name: str, reason: str) -> None:
    ran = run("policy", "set", *WHERE, "--file", str(tmp_path / name), primary=Primary())
    assert (ran.status, ran.err.partition(":")[0], str(tmp_path) in ran.err) == (1, reason, True)


@pytest.mark.parametrize(
    "flags",
    ["--stages 1", "--stages 10%,1,100%", "--stages ,", "--stages 1,100% --confirm 10", "--stages 1,100% --confirm 30d"],
)
@pytest.mark.parametrize("verb", ["set", "plan", "rollback"])
def test_bad_stages_are_refused_before_anybody_is_asked(run: Run, settings: str, verb: str, flags: str) -> None:
    primary = Primary()
    file = () if verb == "rollback" else ("--file", settings)
    ran = run("policy", verb, *WHERE, *file, *flags.split(), primary=primary)
    assert (ran.status, ran.err.partition(":")[0], primary.asked) == (1, "INVALID_ARGUMENT", [])


@pytest.mark.parametrize(
    "line",
    [
        "set acme.example --kind x",
        "set acme.example --file x",
        "set --kind x --file x",
        "set acme.example --kind x --file /dev/null --stop-after 2",
        "set acme.example --kind x --file /dev/null --confirm 10m",
        "set acme.example --kind x --file /dev/null --stages 1,100% --stop-after 0",
        "set acme.example --kind x --file /dev/null --stages 1,100% --stop-after many",
        "remove acme.example --kind x --watch",
        "rollback acme.example --kind x --revision newest",
        "show acme.example",
        "explain --kind x",
    ],
)
def test_what_does_not_go_together_is_wrong_usage(run: Run, line: str) -> None:
    ran = run("policy", *line.split(), primary=Primary())
    assert (ran.status, ran.out) == (2, "")


def test_rollback_names_the_revision_if_one_is_given(run: Run) -> None:
    primary = Primary(RollBackPolicy=ALL)
    ran = run("policy", "rollback", *WHERE, "--json", primary=primary)
    assert (ran.status, json.loads(ran.out)) == (0, ALL_JSON)
    ran = run("policy", "rollback", *WHERE, "--revision", "7", "--stages", "100%", primary=primary)
    assert "is set back: revision 12" in ran.out
    stages = pb.Stages(sizes=["100%"], stop_after=1)
    assert [request for _, request in primary.asked] == [
        pb.RollBackPolicyRequest(key=KEY),
        pb.RollBackPolicyRequest(key=KEY, revision=7, stages=stages),
    ]


def test_remove_says_what_is_gone(run: Run) -> None:
    primary = Primary(RemovePolicy=pb.RemovePolicyResponse())
    assert json.loads(run("policy", "remove", *WHERE, "--json", primary=primary).out) == {
        "account": "acme.example",
        "group": "Sites/Paris",
        "kind": "chrony",
        "removed": True,
    }
    assert run("policy", "remove", *WHERE, primary=primary).out == "The policy chrony of acme.example/Sites/Paris is removed.\n"
    assert primary.asked == [("RemovePolicy", pb.RemovePolicyRequest(key=KEY))] * 2


# --- list, show, history --------------------------------------------------------------------------------------------------------


def test_list_has_all_counts(run: Run) -> None:
    primary = Primary(ListPolicies=pb.ListPoliciesResponse(policies=[MANY, ALL]))
    ran = run("policy", "list", "acme.example", "--json", primary=primary)
    assert json.loads(ran.out) == [MANY_JSON, ALL_JSON]
    assert {"desired", "applied", "failed", "unreachable"} <= ALL_JSON.keys()
    run("policy", "list", primary=primary)
    parents = ["accounts/acme.example", "accounts/-"]
    assert [request for _, request in primary.asked] == [pb.ListPoliciesRequest(parent=parent) for parent in parents]


def test_counts_in_words_are_complete(run: Run) -> None:
    stopped = policy(rollout("STOPPED", 1, "1 server failed in stage 1 of 3"), desired=43, applied=41, unreachable=2)
    ran = run("policy", "list", primary=Primary(ListPolicies=pb.ListPoliciesResponse(policies=[MANY, ALL, stopped])))
    _, first, second, third = ran.out.splitlines()
    words = f"applied 38 of 43, 1 failed, 1 rolled back, 1 received, 2 unreachable since {SHOWN}"
    assert re.split("  +", first) == ["acme.example/Sites/Paris", "chrony", "12", words, "stage 2 of 3 (10%)"]
    assert second.rstrip().endswith("-")
    assert "applied 41 of 43, 2 unreachable" in third
    assert third.endswith("stopped in stage 1 of 3 (1): 1 server failed in stage 1 of 3")


def test_an_empty_list_says_how_to_go_on(run: Run) -> None:
    assert "policy set" in run("policy", "list", primary=Primary(ListPolicies=pb.ListPoliciesResponse())).out


def test_show_has_the_settings_and_every_server(run: Run) -> None:
    reports = [
        report("paris-1", revision=12, running_revision=12, time=moment()),
        report("paris-2", "FAILED", "line 3: \x1b[2Jbad", revision=12, running_revision=7, time=moment()),
        report("", "PENDING"),
    ]
    primary = Primary(GetPolicy=MANY, ListPolicyReports=pb.ListPolicyReportsResponse(reports=reports))
    shown = json.loads(run("policy", "show", *WHERE, "--json", primary=primary).out)
    servers = shown.pop("servers")
    assert shown == {**MANY_JSON, "settings": {"ntp": {"port": 123}}}
    bad = {"state": "failed", "revision": 12, "running_revision": 7, "since": SHOWN, "message": "line 3: \x1b[2Jbad"}
    assert servers[1] == {"id": "aaaaaaaaaa", "name": "paris-2", "group": "Sites/Paris", **bad}
    nothing = {"revision": None, "running_revision": None, "since": None, "message": None}
    assert servers[2] == {"id": "aaaaaaaaaa", "name": None, "group": "Sites/Paris", "state": "pending", **nothing}
    text = run("policy", "show", *WHERE, primary=primary).out
    assert '"port": 123' in text
    assert "12 (running 7)" in text
    assert "(aaaaaaaaaa)" in text
    assert "\x1b" not in text


def test_history_is_a_list_of_what_it_was(run: Run) -> None:
    ended = pb.Policy(revision=13, removed=True, create_time=moment(), actor="ann")
    large = pb.Policy(revision=12, create_time=moment(), actor="ann", layer=pb.Layer(locks=[""]))
    first = pb.Policy(revision=9, create_time=moment(), actor="ann", layer=LAYER, rollout=rollout("DONE", 3))
    primary = Primary(ListPolicyRevisions=pb.ListPolicyRevisionsResponse(revisions=[ended, large, first]))
    shown = json.loads(run("policy", "history", *WHERE, "--json", primary=primary).out)
    keys = ["revision", "created", "by", "removed", "settings", "locks", "put_back", "rollout"]
    assert [list(each) for each in shown] == [keys] * 3
    assert [(each["removed"], each["settings"], each["locks"]) for each in shown] == [
        (True, None, []),
        (False, None, [""]),
        (False, {"ntp": {"port": 123}}, ["/ntp/port"]),
    ]
    text = run("policy", "history", *WHERE, primary=primary).out
    for word in ("(removed)", "(large)", '{"ntp":{"port":123}}', "all stages done"):
        assert word in text


# --- explain --------------------------------------------------------------------------------------------------------------------

LAYERS = pb.ExplainPolicyResponse(
    layers=[
        pb.ExplainedLayer(
            layer="acme.example",
            revision=5,
            says=pb.Layer(settings=b'{"ntp":{"port":123,"pool":null},"log":true}', locks=["/ntp/port", "/ntp/pool"]),
        ),
        pb.ExplainedLayer(
            layer="acme.example/Sites/Paris",
            revision=9,
            says=pb.Layer(settings=b'{"ntp":{"port":124,"servers":["a"]},"log":1}'),
        ),
    ]
)
ONE = ListServersResponse(servers=[server("aaaaaaaaaa", "paris-1")])


def test_explain_shows_each_value_with_the_layer_that_set_it(run: Run) -> None:
    primary = Primary(ListServers=ONE, ExplainPolicy=LAYERS)
    shown = json.loads(run("policy", "explain", "paris-1", "--kind", "chrony", "--json", primary=primary).out)
    paris = {"layer": "acme.example/Sites/Paris", "revision": 9, "locked": False}
    root = {"layer": "acme.example", "revision": 5, "locked": True}
    assert shown == {
        "effective": {"ntp": {"port": 123, "servers": ["a"]}, "log": 1},
        "origin": {"/log": paris, "/ntp/pool": root, "/ntp/port": root, "/ntp/servers": paris},
        "overridden": [{"pointer": "/ntp/port", "layer": "acme.example/Sites/Paris", "revision": 9}],
    }
    assert primary.asked[-1][1] == pb.ExplainPolicyRequest(name="accounts/acme.example/servers/aaaaaaaaaa", kind="chrony")
    lines = run("policy", "explain", "paris-1", "--kind", "chrony", primary=primary).out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["/log", "1", "acme.example/Sites/Paris", "9"],
        ["/ntp/pool", "(absent)", "acme.example", "5", "locked"],
        ["/ntp/port", "123", "acme.example", "5", "locked"],
        ["/ntp/servers", '["a"]', "acme.example/Sites/Paris", "9"],
        ["/ntp/port", "124", "acme.example/Sites/Paris", "9", "overridden"],
    ]


def test_where_no_policy_reaches_there_is_nothing(run: Run) -> None:
    primary = Primary(ListServers=ONE, ExplainPolicy=pb.ExplainPolicyResponse())
    shown = json.loads(run("policy", "explain", "paris-1", "--kind", "chrony", "--json", primary=primary).out)
    assert shown == {"effective": {}, "origin": {}, "overridden": []}
    assert 'No policy of the kind "chrony"' in run("policy", "explain", "paris-1", "--kind", "chrony", primary=primary).out


# --- plan -----------------------------------------------------------------------------------------------------------------------

PLAN = [
    pb.PlanPolicyResponse(before=b'{"a":1,"b":{}}', after=b'{"a":true}', servers=[label("rome"), label("twin", "tttttttttt")]),
    pb.PlanPolicyResponse(after=b'{"a":true}', servers=[label("twin", "uuuuuuuuuu"), label("", "nnnnnnnnnn"), label("oslo")]),
]


def test_a_plan_is_a_list_of_servers_with_before_and_after(run: Run, settings: str) -> None:
    primary = Primary(PlanPolicy=PLAN)
    shown = json.loads(run("policy", "plan", *WHERE, "--file", settings, "--lock", "/ntp", "--json", primary=primary).out)
    before, after = {"a": 1, "b": {}}, {"a": True}
    assert shown == [
        {"server": "(nnnnnnnnnn)", "before": None, "after": after},
        {"server": "oslo", "before": None, "after": after},
        {"server": "rome", "before": before, "after": after},
        {"server": "twin (tttttttttt)", "before": before, "after": after},
        {"server": "twin (uuuuuuuuuu)", "before": None, "after": after},
    ]
    layer = pb.Layer(settings=b'{"ntp": {"port": 123}}\n', locks=["/ntp"])
    assert primary.asked == [("PlanPolicy", pb.PlanPolicyRequest(key=KEY, layer=layer))]


def test_a_plan_says_of_which_servers_it_knows_not_all(run: Run, settings: str) -> None:
    """What a primary further down sets for its own servers is known there alone."""
    servers = [pb.ServerLabel(id="m" * 10, display_name="m1"), pb.ServerLabel(id="m" * 10 + "/" + "k" * 10, display_name="m1 / k1")]
    primary = Primary(PlanPolicy=[pb.PlanPolicyResponse(before=b"", after=b"{}", servers=servers)])
    shown = json.loads(run("policy", "plan", *WHERE, "--file", settings, "--json", primary=primary).out)
    assert [(each["server"], each.get("partial", False)) for each in shown] == [("m1", False), ("m1 / k1", True)]
    assert run("policy", "plan", *WHERE, "--file", settings, primary=primary).out.rstrip().endswith("plan there shows.")


def test_a_plan_in_words_shows_each_value_that_changes(run: Run, settings: str) -> None:
    text = run("policy", "plan", *WHERE, "--file", settings, primary=Primary(PlanPolicy=PLAN)).out
    first, second = text.rstrip("\n").split("\n\n")
    assert first.splitlines() == ["2 servers: rome, twin", "  /a: 1 -> true", "  /b: {} -> (absent)"]
    assert second.splitlines() == ["3 servers: (nnnnnnnnnn), oslo, twin", "  /a: (absent) -> true"]
    assert run("policy", "plan", *WHERE, "--file", settings, primary=Primary(PlanPolicy=[])).out == "No server would change.\n"


def test_a_plan_of_very_many_names_a_few(run: Run, settings: str) -> None:
    change = pb.PlanPolicyResponse(after=b"{}", servers=[label(f"s{number}") for number in range(10)])
    text = run("policy", "plan", *WHERE, "--file", settings, primary=Primary(PlanPolicy=[change])).out
    assert text.startswith("10 servers: s0, s1, s2, s3, s4, s5, s6, s7 and 2 more\n")


# --- --watch --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "ended"),
    [
        (policy(desired=3, applied=2, pending=1), False),
        (policy(desired=3, applied=2, received=1), False),
        (policy(desired=3, applied=2, failed=1), True),
        (policy(desired=3, applied=2, unreachable=1), True),
        (policy(desired=0), True),
        (policy(rollout(), desired=3, applied=3), False),
        (policy(rollout(), desired=3, applied=1, pending=2), False),
        (policy(rollout(), desired=3, unreachable=3), True),
        (policy(rollout("STOPPED"), desired=3, pending=3, not_begun=3), True),
        (policy(rollout("STOPPED"), desired=3, failed=1, pending=2, not_begun=1), False),
        (policy(rollout("STOPPED"), desired=3, failed=1, pending=1, not_begun=1, received=1), False),
        (policy(rollout("STOPPED"), desired=3, failed=1, pending=1, not_begun=1, unreachable=1), True),
        (policy(rollout("DONE"), desired=3, applied=3), True),
    ],
)
def test_when_there_is_nothing_more_to_wait_for(seen: pb.Policy, ended: bool) -> None:
    assert over(seen) is ended


def watched(*seen: pb.Policy, reports: Sequence[pb.PolicyReport] = ()) -> Primary:
    answers = pb.ListPolicyReportsResponse(reports=reports)
    return Primary(SetPolicy=policy(desired=3, pending=3), WatchPolicy=list(seen), ListPolicyReports=answers)


def test_watching_draws_a_line_for_each_change_and_ends_well(run: Run, settings: str) -> None:
    half, whole = policy(desired=3, applied=1, pending=1, received=1), policy(desired=3, applied=2, unreachable=1)
    primary = watched(policy(desired=3, pending=3), half, half, whole, half, reports=[report("a"), report("b", "UNREACHABLE")])
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", primary=primary)
    assert ran.err.splitlines() == [
        "[........................] applied 0 of 3, 3 pending",
        "[########................] applied 1 of 3, 1 received, 1 pending",
        "[########################] applied 2 of 3, 1 unreachable",
    ]
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "Now: applied 2 of 3, 1 unreachable.")


def test_watching_names_who_failed_and_why(run: Run, settings: str) -> None:
    reports = [report("a"), report("b", "FAILED", "no such \x1b file"), report("c", "ROLLED_BACK")]
    primary = watched(policy(desired=3, applied=1, failed=1, rolled_back=1), reports=reports)
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", "--json", primary=primary)
    assert ran.status == 1
    assert ran.err.splitlines()[1:] == ["b: failed: no such \\x1b file", "c: rolled back"]
    assert json.loads(ran.out)["failed"] == 1


def test_a_rollout_that_stopped_is_no_success(run: Run, settings: str) -> None:
    stopped = policy(rollout("STOPPED", 1, "1 server failed in stage 1 of 3"), desired=3, applied=3)
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", primary=watched(stopped))
    assert ran.status == 1
    assert ran.err.endswith("applied 3 of 3, stopped in stage 1 of 3 (1): 1 server failed in stage 1 of 3\n")


def test_who_has_the_change_is_heard_out_when_a_rollout_stops(run: Run, settings: str) -> None:
    why = "1 server failed in stage 1 of 3"
    late = rollout("STOPPED", 1, why)
    late.stage_time.GetCurrentTime()
    first = policy(late, desired=3, failed=1, pending=2, not_begun=1)
    then = policy(late, desired=3, failed=1, applied=1, pending=1, not_begun=1)
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", primary=watched(first, then, policy()))
    assert (ran.status, ran.out.splitlines()[-1]) == (
        1,
        f"Now: applied 1 of 3, 1 failed, 1 pending, stopped in stage 1 of 3 (1): {why}.",
    )


def test_who_says_nothing_in_the_time_of_its_stage_is_not_waited_for_once_the_rollout_stopped(run: Run, settings: str) -> None:
    class Silent(Primary):
        def unary_stream(self, method: str, *rest: object, **more: object) -> Any:
            rpc = super().unary_stream(method, *rest, **more)

            async def endless(request: Message) -> AsyncIterator[Message]:
                async for message in rpc(request):
                    yield message
                await asyncio.Event().wait()

            return endless

    long_ago = rollout("STOPPED", 1)
    long_ago.stage_time.seconds = 1
    seen = policy(long_ago, desired=1, received=1)
    answers = pb.ListPolicyReportsResponse(reports=[report("a", "RECEIVED")])
    primary = Silent(SetPolicy=seen, WatchPolicy=[seen], ListPolicyReports=answers)
    assert run("policy", "set", *WHERE, "--file", settings, "--watch", primary=primary).status == 1


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("APPLIED", 0),
        ("UNREACHABLE", 0),
        ("UNSUPPORTED", 0),
        ("CHANGED_LOCALLY", 0),
        ("FAILED", 1),
        ("ROLLED_BACK", 1),
        ("RECEIVED", 1),
        ("PENDING", 1),
    ],
)
def test_the_exit_status_says_of_each_server_what_a_rollout_makes_of_it(run: Run, settings: str, state: str, status: int) -> None:
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", primary=watched(policy(), reports=[report("a", state)]))
    assert ran.status == status
    assert ("a: " in ran.err) is (state not in ("APPLIED", "UNREACHABLE"))


def test_another_revision_ends_the_watching(run: Run, settings: str) -> None:
    ran = run("policy", "set", *WHERE, "--file", settings, "--watch", primary=watched(policy(revision=13)))
    assert (ran.status, "revision 13" in ran.err) == (1, True)


def test_on_a_terminal_one_line_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    drawn = Terminal()
    progress = Progress(drawn)
    for seen in (policy(desired=3, pending=3), policy(desired=3, pending=3), policy()):
        progress.show(seen)
    progress.end()
    first, second = "[........................] applied 0 of 3", "[########################] applied 3 of 3"
    assert drawn.getvalue() == f"\r\x1b[K{first[:39]}\r\x1b[K{second[:39]}\n"


def test_the_end_of_watching_without_a_word_is_no_line() -> None:
    drawn = io.StringIO()
    Progress(drawn).end()
    assert drawn.getvalue() == ""
