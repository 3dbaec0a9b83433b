"""`task`: what it asks of the primary, and what it makes of the answers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from enlist import outputs
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, policy_pb2, task_pb2
from enlist_primary.cli import task_shown
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, FakePrimary, T, moment, server

ID = "aaaaaaaaaa"
NAME = f"accounts/acme.example/tasks/{ID}"
SERVERS = [server("sssssssss2", "paris"), server("sssssssss3", "rome", account="beta.example")]


class Primary(FakePrimary):
    """One whose streams say several things."""

    def __init__(self, watched: list[task_pb2.WatchTaskResponse], **answers: Any) -> None:
        super().__init__(**answers)
        self._watched = watched

    def unary_stream(self, method: str, *_: object, **__: object) -> Callable[[Message], AsyncIterator[Message]]:
        """What a stub is made of."""

        async def rpc(request: Message) -> AsyncIterator[Message]:
            self.asked.append((method.rpartition("/")[2], request))
            for message in self._watched:
                yield message

        return rpc


def count(state: str, number: int) -> task_pb2.TaskCount:
    """At so many servers it fares so."""
    return task_pb2.TaskCount(state=document_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}"), count=number)


def task(progress: str = "running", *counts: task_pb2.TaskCount, **fields: Any) -> task_pb2.Task:
    """A task as the primary shows it; with a run if anything is counted."""
    run = None
    if counts:
        ended = moment() if progress in ("done", "cancelled") else None
        total = sum(each.count for each in counts)
        run = task_pb2.TaskRun(id="rrrrrrrrrr", time=moment(), deadline_time=moment(), end_time=ended, servers=total, counts=counts)
    shown: dict[str, Any] = {"kind": "restart", "deadline_seconds": 600, "target": task_pb2.TaskTarget(group="/"), **fields}
    number = task_pb2.TaskProgress.Value(f"TASK_PROGRESS_{progress.upper()}")
    return task_pb2.Task(name=NAME, id=ID, account="acme.example", progress=number, create_time=moment(), run=run, **shown)


def result(id: str, name: str, state: str = "succeeded", **fields: Any) -> task_pb2.TaskResult:
    """How it fares at a server."""
    number = document_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}")
    label = policy_pb2.ServerLabel(id=id, display_name=name)
    return task_pb2.TaskResult(server=label, state=number, time=moment(), **fields)


def primary(
    made: task_pb2.Task | None = None,
    results: tuple[task_pb2.TaskResult, ...] = (),
    watched: tuple[task_pb2.Task, ...] = (),
) -> Primary:
    """A primary with an account, two servers, and a task."""
    made = made or task("running", count("queued", 1))
    return Primary(
        [task_pb2.WatchTaskResponse(task=each) for each in watched],
        ListAccounts=account_pb2.ListAccountsResponse(accounts=[account_pb2.Account(domain="acme.example")]),
        ListServers=hierarchy_pb2.ListServersResponse(servers=SERVERS),
        RunTask=made,
        GetTask=made,
        CancelTask=made,
        ListTasks=task_pb2.ListTasksResponse(tasks=[made]),
        ListTaskResults=task_pb2.ListTaskResultsResponse(results=results),
    )


def asked(fake: FakePrimary, rpc: str = "RunTask") -> Any:
    """The one request of this kind that was made."""
    (request,) = [request for name, request in fake.asked if name == rpc]
    return request


# --- What is asked for ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "account", "group", "server_id"),
    [
        ("acme.example/Sites/Paris", "acme.example", "Sites/Paris", ""),
        ("acme.example/", "acme.example", "/", ""),
        ("acme.example", "acme.example", "/", ""),
        ("other.example/Sites", "other.example", "Sites", ""),
        ("paris", "acme.example", "", "sssssssss2"),
        ("sssssssss3", "beta.example", "", "sssssssss3"),
    ],
)
def test_a_target_is_a_group_or_a_server(run: Run, target: str, account: str, group: str, server_id: str) -> None:
    fake = primary()
    assert run("task", "run", target, "--kind", "restart", primary=fake).status == 0
    request = asked(fake)
    assert (request.parent, request.target.group, request.target.server_id) == (f"accounts/{account}", group, server_id)


def test_all_that_may_be_said_is_sent(run: Run) -> None:
    fake = primary(task("planned", next_time=moment()))
    words = "acme.example --kind restart --deadline 30s --label printer --stages 1,10%,100% --stop-after 2 --schedule"
    ran = run("task", "run", *words.split(), "0 2 * * *", "--zone", "Europe/Paris", "--args", '{"a":1}', primary=fake)
    request = asked(fake)
    assert (request.kind, request.deadline_seconds, request.target.label, request.args) == ("restart", 30, "printer", b'{"a":1}')
    assert (list(request.stages.sizes), request.stages.stop_after) == (["1", "10%", "100%"], 2)
    assert (request.schedule, request.time_zone, request.HasField("time")) == ("0 2 * * *", "Europe/Paris", False)
    assert ran.out == f"The task {ID} is planned; it runs next at {SHOWN}.\n"


def test_what_is_not_said_is_not_sent(run: Run) -> None:
    fake = primary()
    run("task", "run", "acme.example", "--kind", "restart", primary=fake)
    request = asked(fake)
    assert request == task_pb2.RunTaskRequest(parent="accounts/acme.example", kind="restart", target=task_pb2.TaskTarget(group="/"))


@pytest.mark.parametrize("text", [SHOWN, "2027-01-15T09:00:00+01:00", "20270115T080000Z"])
def test_a_time_names_its_distance_from_utc(run: Run, text: str) -> None:
    fake = primary()
    run("task", "run", "acme.example", "--kind", "restart", "--at", text, primary=fake)
    assert asked(fake).time.seconds == T


def test_arguments_are_read_from_a_file_or_from_standard_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"b":2}')))
    for name, expected in ((str(tmp_path / "a.json"), b'{"a": "\xff"}'), ("-", b'{"b":2}')):
        fake = primary()
        run("task", "run", "acme.example", "--kind", "restart", "--args-file", name, primary=fake)
        assert asked(fake).args == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("acme.example --kind x --at yesterday", "INVALID_ARGUMENT"),
        ("acme.example --kind x --at 2026-11-22T02:00:00", "INVALID_ARGUMENT"),
        ("acme.example --kind x --deadline forever", "INVALID_ARGUMENT"),
        ("acme.example --kind x --deadline -1s", "INVALID_ARGUMENT"),
        ("acme.example --kind x --deadline=-1s", "INVALID_ARGUMENT"),
        ("Acme/Sites --kind x", "INVALID_ARGUMENT"),
        ("acme.example/a --kind x --account beta.example", "INVALID_ARGUMENT"),
        ("nobody --kind x", "NOT_FOUND"),
        ("rome --kind x --account acme.example", "NOT_FOUND"),
        ("acme.example --kind x --args-file /no/such/file", "INVALID_ARGUMENT"),
        ("acme.example --kind x --args-file /", "FILE_FAILED"),
        ("acme.example --kind x --args-file /dev/zero", "DOCUMENT_TOO_LARGE"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_task_is_made(run: Run, words: str, reason: str) -> None:
    fake = primary()
    if "--account acme.example" in words:
        fake._answers["ListServers"] = hierarchy_pb2.ListServersResponse(servers=SERVERS[:1])
    ran = run("task", "run", *words.split(), "--json", primary=fake)
    assert (ran.status, json.loads(ran.out)["reason"]) == (1, reason)
    assert "RunTask" not in dict(fake.asked)


@pytest.mark.parametrize(
    "words",
    [
        "task run acme.example",
        "task run --kind x",
        "task run acme.example --kind x --args {} --args-file a",
        "task run acme.example --kind x --at 2027-01-15T08:00:00Z --schedule @daily",
        "task run acme.example --kind x --zone Europe/Paris",
        "task run acme.example --kind x --stop-after 2",
        "task run acme.example --kind x --stages 100% --stop-after 0",
        "task show",
        "task cancel",
        "task",
    ],
)
def test_wrong_usage(run: Run, words: str) -> None:
    assert run(*words.split(), primary=primary()).status == 2


# --- What is shown --------------------------------------------------------------------------------------------------------------

RESULTS = (
    result("sssssssss1", "rome", "failed", exit_code=3, output=b"a\xffb\n", message="no such unit"),
    result("sssssssss2", "paris", exit_code=0, output=b"fine\n"),
    result("sssssssss4", "twin", "timed_out"),
    result("sssssssss3", "twin", "queued"),
    result("sssssssss5", "", "running"),
)


def test_json_has_the_issue_s_keys_and_what_went_wrong_per_server(run: Run) -> None:
    ran = run("task", "run", "acme.example", "--kind", "restart", "--json", primary=primary(results=RESULTS))
    assert ran.status == 0
    task = {"task": "aaaaaaaaaa"}
    assert json.loads(ran.out) == [
        {"server": "(sssssssss5)", "state": "running", "exit_code": None, "output": "", "message": None, **task},
        {"server": "paris", "state": "succeeded", "exit_code": 0, "output": "fine\n", "message": None, **task},
        {"server": "rome", "state": "failed", "exit_code": 3, "output": "a\ufffdb\n", "message": "no such unit", **task},
        {"server": "twin (sssssssss3)", "state": "queued", "exit_code": None, "output": "", "message": None, **task},
        {"server": "twin (sssssssss4)", "state": "timed_out", "exit_code": None, "output": "", "message": None, **task},
    ]


def test_without_waiting_it_says_where_to_look(run: Run) -> None:
    ran = run("task", "run", "acme.example", "--kind", "restart", primary=primary())
    assert ran.out == f"The task {ID} is on its way to 1 server. See: enlist-primary task show {ID}\n"


WAITED = [
    (("succeeded", "succeeded"), 0),
    (("succeeded", "failed"), 1),
    (("timed_out", "succeeded"), 1),
    (("interrupted", "interrupted"), 1),
    (("succeeded", "unsupported"), 0),
    (("unsupported", "unsupported"), 1),
    (("failed", "unsupported"), 1),
]


@pytest.mark.parametrize(("states", "status"), WAITED)
def test_waiting_ends_with_0_only_if_it_succeeded_somewhere_and_failed_nowhere(
    run: Run, states: tuple[str, str], status: int
) -> None:
    results = tuple(result(f"sssssssss{n}", f"n{n}", state) for n, state in enumerate(states))
    over = task("done", count("succeeded", states.count("succeeded")), count("failed", 2 - states.count("succeeded")))
    fake = primary(results=results, watched=(task("running", count("sent", 2)), over))
    ran = run("task", "run", "acme.example", "--kind", "restart", "--wait", "--json", primary=fake)
    assert ran.status == status
    assert [each["state"] for each in json.loads(ran.out)] == list(states)
    assert asked(fake, "WatchTask").name == NAME
    assert ran.err == ""


def test_who_was_waited_for_in_vain_is_no_success(run: Run) -> None:
    fake = primary(task("planned"), watched=(task("cancelled"),))
    assert run("task", "run", "acme.example", "--kind", "restart", "--wait", primary=fake).status == 1


def test_on_a_terminal_the_waiting_shows_how_far_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(drawn, "isatty", lambda: True, raising=False)
    steps = (task("planned"), task("running", count("running", 1), count("succeeded", 1)), task("done", count("succeeded", 2)))
    fake = primary(results=RESULTS[1:2], watched=steps)
    real = sys.stderr
    monkeypatch.setattr(sys, "stderr", drawn)
    ran = run("task", "run", "acme.example", "--kind", "restart", "--wait", primary=fake)
    monkeypatch.setattr(sys, "stderr", real)
    assert ran.status == 0
    lines = drawn.getvalue().removesuffix("\n").split("\r\x1b[K")[1:]
    assert lines == [
        "[........................] waits for its time",
        "[############............] under way at 1 of 2: 1 running, 1 succeeded",
        "[########################] ended at 2 of 2: 2 succeeded",
    ]
    assert "--- paris\nfine\n" in ran.out


def test_a_list_and_its_json(run: Run) -> None:
    made = task(
        "done",
        count("succeeded", 2),
        schedule="0 2 * * *",
        time_zone="Europe/Paris",
        next_time=moment(),
        revision=7,
        stages={"sizes": ["1", "100%"], "stop_after": 2},
        target=task_pb2.TaskTarget(group="Sites", label="printer"),
    )
    row = run("task", "list", primary=primary(made)).out.splitlines()[1]
    assert row.split("  ")[0] == ID
    assert "acme.example/Sites, label printer" in row
    (listed,) = json.loads(run("task", "list", "acme.example", "--json", primary=primary(made)).out)
    assert listed == {
        "id": ID,
        "account": "acme.example",
        "kind": "restart",
        "group": "Sites",
        "server": None,
        "server_id": None,
        "label": "printer",
        "state": "done",
        "deadline_seconds": 600,
        "schedule": "0 2 * * *",
        "zone": "Europe/Paris",
        "stages": ["1", "100%"],
        "stop_after": 2,
        "created": SHOWN,
        "next": SHOWN,
        "revision": 7,
        "run": {
            "id": "rrrrrrrrrr",
            "began": SHOWN,
            "deadline": SHOWN,
            "ended": SHOWN,
            "servers": 2,
            "counts": {"succeeded": 2},
            "message": None,
        },
    }


def test_no_tasks_are_said_in_words_and_are_an_empty_list(run: Run) -> None:
    fake = FakePrimary(ListTasks=task_pb2.ListTasksResponse())
    assert "There are no tasks" in run("task", "list", primary=fake).out
    assert json.loads(run("task", "list", "--json", primary=fake).out) == []


def test_one_task_is_shown_with_its_results(run: Run) -> None:
    fake = primary(task("running", count("queued", 1), args=b'{"unit":"nginx"}'), results=RESULTS)
    found = json.loads(run("task", "show", ID, "--json", primary=fake).out)
    assert (asked(fake, "GetTask").name, asked(fake, "ListTaskResults").name) == (f"accounts/-/tasks/{ID}", NAME)
    assert (found["args"], found["state"]) == ({"unit": "nginx"}, "running")
    assert found["results"][2] == {
        "id": "sssssssss1",
        "server": "rome",
        "state": "failed",
        "exit_code": 3,
        "output": "a\ufffdb\n",
        "message": "no such unit",
        "bytes_left_out": 0,
        "since": SHOWN,
    }
    text = run("task", "show", ID, "--run", "rrrrrrrrrr", primary=fake).out
    assert all(
        part in text for part in ('{"unit":"nginx"}', "timed out", "no such unit", "--- rome\na\ufffdb\n", "twin (sssssssss3)")
    )
    assert [r.run for name, r in fake.asked if name == "ListTaskResults"] == ["", "rrrrrrrrrr"]  # type: ignore[attr-defined]  # Message


def test_a_task_for_one_server_is_listed_with_the_server_s_name(run: Run) -> None:
    for name, row_says in (("paris", "the server paris"), ("", "the server sssssssss2")):
        made = task("running", count("running", 1), target=task_pb2.TaskTarget(server_id="sssssssss2", server_name=name))
        row = run("task", "list", primary=primary(made)).out.splitlines()[1]
        assert row_says in row
        assert row.endswith("under way at 1 of 1: 1 running")
        (listed,) = json.loads(run("task", "list", "--json", primary=primary(made)).out)
        assert (listed["server"], listed["server_id"]) == (name or None, "sssssssss2")


def test_output_that_was_cut_is_marked_as_cut(run: Run) -> None:
    results = (result("sssssssss1", "rome", output=outputs.cut(b"x" * 70_000)), result("sssssssss2", "paris", output=b"whole"))
    fake = primary(task("done", count("succeeded", 2)), results=results)
    text = run("task", "show", ID, primary=fake).out
    assert "--- rome (cut: 4528 bytes are left out)\n" in text
    assert "--- paris\n" in text
    shown = json.loads(run("task", "show", ID, "--json", primary=fake).out)["results"]
    assert [(each["server"], each["bytes_left_out"]) for each in shown] == [("paris", 0), ("rome", 4528)]


def test_a_cancelled_task_is_named(run: Run) -> None:
    fake = primary(task("cancelled", count("interrupted", 1)))
    assert run("task", "cancel", ID, primary=fake).out == f"The task {ID} is cancelled.\n"
    assert asked(fake, "CancelTask").name == NAME
    assert json.loads(run("task", "cancel", ID, "--json", primary=fake).out)["state"] == "cancelled"


@pytest.mark.parametrize("id", ["", "x", "../x", "a/b", "AAAAAAAAAA"])
def test_what_is_no_id_is_no_task(run: Run, id: str) -> None:
    fake = primary()
    for verb in ("show", "cancel"):
        assert run("task", verb, id, primary=fake).err.startswith("NOT_FOUND")
    assert fake.asked == []


def test_what_servers_write_reaches_no_terminal_as_it_is(run: Run) -> None:
    """Attacks rows 37 and 41: output, message and name are a hostile server's."""
    evil = "\x1b[2J\x1b]0;x\x07\u202e\u009b31m\x00"
    results = (result("sssssssss1", evil, "failed", output=evil.encode(), message=evil),)
    made = task("done", count("failed", 1), kind=evil, args=json.dumps({"a": evil}, ensure_ascii=False).encode())
    fake = primary(made, results, watched=(made,))
    for words in (["run", "acme.example", "--kind", "x", "--wait"], ["show", ID], ["list"], ["cancel", ID]):
        for flags in ([], ["--json"]):
            ran = run("task", *words, *flags, primary=fake)
            assert not set(evil) - set("[2J]0;x31m") & set(ran.out + ran.err), words


def test_every_state_has_its_word() -> None:
    words = {task_shown._state(number) for number in document_pb2.TaskState.values() if number}
    assert words == {"queued", "sent", "running", *task_shown.ENDED}


@pytest.mark.parametrize("option", ["--label", "--schedule", "--args", "--zone"])
def test_an_empty_value_is_refused_and_never_taken_for_none(run: Run, option: str) -> None:
    """It is most often a variable that was never set: the task would run at once, and everywhere."""
    ran = run("task", "run", "acme.example", "--kind", "restart", option, "", primary=primary())
    assert ran.status == 2
    assert "it is empty" in ran.err
