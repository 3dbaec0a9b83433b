"""Tasks over the wire: run, watched, listed and cancelled, with servers that are only links: `rpc.tasks`, `links.scheduler`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from enlist import documents
from enlist.reasons import Reason
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, journal_pb2, task_pb2, task_pb2_grpc
from enlist.v1.document_pb2 import TaskState
from enlist_primary.rpc import tasks as rpc
from tests.support.inprocess import ACCOUNT, Asker, Running, refused_by, running_primary, serving
from tests.support.links import LinkClient, linked
from tests.support.waiting import eventually

KINDS = ("task/restart", "task/ping")
STATE = {number: name.removeprefix("TASK_STATE_").lower() for name, number in TaskState.items()}


@dataclass
class Worker:
    """A server whose daemon is this test: its link, the sets it got, and what they hold."""

    id: str
    asker: Asker
    link: LinkClient

    @property
    def wanted(self) -> set[str]:
        """The runs in its newest set."""
        return {item.name for item in self.link.items if item.kind.startswith("task/")}

    async def gets(self, run: str) -> Any:
        """Waits until it has a run's document."""
        await eventually(lambda: run in self.wanted, what="the run's document")
        (item,) = (item for item in self.link.items if item.name == run)
        return json.loads(self.link.bodies[item.digest])

    async def say(self, run: str, state: str, kind: str = "task/restart", **fields: Any) -> None:
        """Reports how a run fares."""
        number = TaskState.Value(f"TASK_STATE_{state.upper()}")
        report = document_pb2.Report(kind=kind, name=run, task_state=number, **{"exit_code": -1, **fields})
        await self.link.report(report)


@dataclass
class Yard:
    """A primary with servers in it."""

    running: Running
    stub: task_pb2_grpc.TaskServiceAsyncStub
    stack: AsyncExitStack

    async def worker(self, name: str) -> Worker:
        """A trusted server with an open link."""
        asker = Asker(self.running, name)
        async with self.running.stranger() as stranger:
            key = await self.running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
            id = (await asker.register(stranger, key)).server_id
        return await self.connect(asker, id)

    async def connect(self, asker: Asker, id: str, **hello: Any) -> Worker:
        """The same server's link, opened again."""
        link = await self.stack.enter_async_context(linked(asker, listening=True, kinds=KINDS, **hello))
        return Worker(id, asker, link)

    async def run(self, **fields: Any) -> task_pb2.Task:
        """Makes a task: `restart`, for the root group, now."""
        target = task_pb2.TaskTarget(group="/") if "target" not in fields else fields.pop("target")
        asked = {"parent": f"accounts/{ACCOUNT}", "kind": "restart", "target": target, **fields}
        return await self.stub.RunTask(task_pb2.RunTaskRequest(**asked))

    async def task(self, task: task_pb2.Task) -> task_pb2.Task:
        """The task as it stands."""
        return await self.stub.GetTask(task_pb2.GetTaskRequest(name=task.name))

    async def results(self, task: task_pb2.Task, **fields: Any) -> dict[str, task_pb2.TaskResult]:
        """How its run fares, by names."""
        answer = await self.stub.ListTaskResults(task_pb2.ListTaskResultsRequest(name=task.name, **fields))
        return {each.server.display_name: each for each in answer.results}

    async def states(self, task: task_pb2.Task) -> dict[str, str]:
        """The same, shorter."""
        return {name: STATE[each.state] for name, each in (await self.results(task)).items()}

    async def over(self, task: task_pb2.Task) -> list[task_pb2.Task]:
        """Everything that a watch tells until the run is over."""
        return [each.task async for each in self.stub.WatchTask(task_pb2.WatchTaskRequest(name=task.name))]


@asynccontextmanager
async def opened(running: Running) -> AsyncIterator[Yard]:
    """The yard of a primary."""
    async with AsyncExitStack() as stack:
        target = f"unix:{running.folder.admin_socket}"
        on = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        yield Yard(running, task_pb2_grpc.TaskServiceStub(on), stack)


@pytest.fixture
async def yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    """A primary without servers."""
    async with running_primary(tmp_path_factory.mktemp("t")) as running, opened(running) as yard:
        yield yard


async def test_acknowledged_set_says_nothing_of_a_run_that_came_after_it(yard: Yard) -> None:
    """Should the link break now, the server never had that run."""
    one = await yard.worker("one")
    one.link.answers = False
    task = await yard.run(deadline_seconds=60)
    await one.gets(task.run.id)
    answered = one.link.held[-1]
    (sequence,) = {each.sequence for each in one.link.got if each.HasField("desired")}
    later = await yard.run(deadline_seconds=60)
    await one.gets(later.run.id)
    version, origin = answered.version, answered.origin
    ack = hierarchy_pb2.SetAck(origin=origin, epoch=version.epoch, number=version.number, sequence=sequence)
    await one.link.send(set_acks=[ack])
    await eventually(lambda: _is(yard, task, {"one": "sent"}), what="the run in the acknowledged set")
    assert await yard.states(later) == {"one": "queued"}


async def test_run_whose_acknowledgement_was_lost_with_the_link_is_sent(yard: Yard) -> None:
    one = await yard.worker("one")
    one.link.answers = False
    task = await yard.run(deadline_seconds=60)
    await one.gets(task.run.id)
    one.link.cancel()
    await yard.connect(one.asker, one.id, held=[documents.encode_held(one.link.held[-1])])
    await eventually(lambda: _is(yard, task, {"one": "sent"}), what="the run that the server says it holds")


async def test_a_task_runs_at_every_server_and_is_over_when_they_say_so(yard: Yard) -> None:
    one, two = await yard.worker("one"), await yard.worker("two")
    task = await yard.run(args=b'{"unit": "nginx"}', deadline_seconds=60)
    watching = asyncio.create_task(yard.over(task))
    body = await one.gets(task.run.id)
    assert body == {
        "run": task.run.id,
        "kind": "restart",
        "args": {"unit": "nginx"},
        "below": True,
        "only": "",
        "deadline": task.run.deadline_time.seconds,
    }
    await two.gets(task.run.id)
    await eventually(lambda: yard.states(task), what="the states")
    await eventually(lambda: _is(yard, task, {"one": "sent", "two": "sent"}))
    await one.say(task.run.id, "running")
    await eventually(lambda: _is(yard, task, {"one": "running", "two": "sent"}))
    await one.say(task.run.id, "succeeded", exit_code=0, output=b"fine\n")
    await two.say(task.run.id, "failed", exit_code=3, output=b"\xff\x00", message="no such unit")
    seen = await asyncio.wait_for(watching, 20)
    last = seen[-1]
    assert (last.progress, last.run.HasField("end_time")) == (task_pb2.TASK_PROGRESS_DONE, True)
    assert {STATE[each.state]: each.count for each in last.run.counts} == {"succeeded": 1, "failed": 1}
    found = await yard.results(task)
    assert (found["one"].exit_code, found["one"].output) == (0, b"fine\n")
    assert (found["two"].exit_code, found["two"].output, found["two"].message) == (3, b"\xff\x00", "no such unit")
    await eventually(lambda: task.run.id not in one.wanted | two.wanted, what="the document taken back")


async def _is(yard: Yard, task: task_pb2.Task, states: dict[str, str]) -> bool:
    return await yard.states(task) == states


async def test_a_task_for_one_server_reaches_no_other(yard: Yard) -> None:
    one, two = await yard.worker("one"), await yard.worker("two")
    task = await yard.run(target=task_pb2.TaskTarget(server_id=one.id))
    await one.gets(task.run.id)
    everyone = await yard.run(kind="ping")
    await two.gets(everyone.run.id)
    await one.gets(everyone.run.id)
    assert (one.wanted, two.wanted) == ({task.run.id, everyone.run.id}, {everyone.run.id})


async def test_a_server_speaks_for_itself_only(yard: Yard) -> None:
    """Attacks row 37: it is for both, one speaks for a run that is not its own."""
    one, two = await yard.worker("one"), await yard.worker("two")
    others = await yard.run(target=task_pb2.TaskTarget(server_id=two.id))
    both = await yard.run()
    await one.gets(both.run.id)
    await one.say(others.run.id, "succeeded", exit_code=0)
    await one.say("zzzzzzzzzz", "succeeded")
    await one.say(both.run.id, "failed", exit_code=1)
    await one.say(both.run.id, "succeeded", exit_code=0)
    await eventually(lambda: _is(yard, both, {"one": "failed", "two": "sent"}))
    assert await yard.states(others) in ({"two": "queued"}, {"two": "sent"})
    await two.gets(both.run.id)


async def test_a_cancelled_task_is_taken_back_and_its_watch_ends(yard: Yard) -> None:
    one = await yard.worker("one")
    task = await yard.run()
    watching = asyncio.create_task(yard.over(task))
    await one.gets(task.run.id)
    cancelled = await yard.stub.CancelTask(task_pb2.CancelTaskRequest(name=task.name))
    assert cancelled.progress == task_pb2.TASK_PROGRESS_CANCELLED
    assert (await asyncio.wait_for(watching, 20))[-1].progress == task_pb2.TASK_PROGRESS_CANCELLED
    assert await yard.states(task) == {"one": "interrupted"}
    await eventually(lambda: task.run.id not in one.wanted)


async def test_a_server_that_is_away_gets_it_when_it_comes_back_in_time(yard: Yard) -> None:
    one = await yard.worker("one")
    one.link.cancel()
    await eventually(lambda: not yard.running.primary.context.hub.connected(ACCOUNT, one.id))
    task = await yard.run()
    assert await yard.states(task) == {"one": "queued"}
    again = await yard.connect(one.asker, one.id)
    await again.gets(task.run.id)
    await again.say(task.run.id, "succeeded", exit_code=0)
    await asyncio.wait_for(yard.over(task), 20)
    assert await yard.states(task) == {"one": "succeeded"}


async def test_what_is_asked_for_is_told_back(yard: Yard) -> None:
    await yard.worker("one")
    stages = {"sizes": ["1", "100%"], "stop_after": 2}
    when = int(time.time()) + 3600
    asked: dict[str, Any] = {"deadline_seconds": 30, "stages": stages, "args": b'{"a":1}'}
    task = await yard.run(**asked, time={"seconds": when})
    assert (task.name, task.account) == (f"accounts/{ACCOUNT}/tasks/{task.id}", ACCOUNT)
    assert (task.next_time.seconds, task.progress, task.args) == (when, task_pb2.TASK_PROGRESS_PLANNED, b'{"a":1}')
    assert (list(task.stages.sizes), task.stages.stop_after, task.target.group) == (["1", "100%"], 2, "/")
    assert not task.HasField("run")
    assert await yard.results(task) == {}
    cron = await yard.run(schedule="0 2 * * *", time_zone="Europe/Paris")
    assert (cron.schedule, cron.time_zone, cron.deadline_seconds) == ("0 2 * * *", "Europe/Paris", 600)
    listed = await yard.stub.ListTasks(task_pb2.ListTasksRequest(parent="accounts/-"))
    assert {each.id for each in listed.tasks} == {task.id, cron.id}
    assert [each.args for each in listed.tasks] == [b"", b""]
    wherever = await yard.stub.GetTask(task_pb2.GetTaskRequest(name=f"accounts/-/tasks/{task.id}"))
    assert wherever == task


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "reboot"}, Reason.KIND_UNSUPPORTED),
        ({"args": b"[]"}, Reason.INVALID_ARGUMENT),
        ({"args": b'{"a":"' + b"x" * 1024 * 1024 + b'"}'}, Reason.DOCUMENT_TOO_LARGE),
        ({"schedule": "0 0 30 2 *"}, Reason.SCHEDULE_INVALID),
        ({"time": {"seconds": 1}}, Reason.INVALID_ARGUMENT),
        ({"time": {"seconds": -(2**62)}}, Reason.INVALID_ARGUMENT),
        ({"deadline_seconds": -1}, Reason.INVALID_ARGUMENT),
        ({"target": task_pb2.TaskTarget()}, Reason.INVALID_ARGUMENT),
        ({"target": task_pb2.TaskTarget(group="Sites/Oslo")}, Reason.NOT_FOUND),
        ({"target": task_pb2.TaskTarget(server_id="zzzzzzzzzz")}, Reason.NOT_FOUND),
        ({"parent": "accounts/nobody.example"}, Reason.ACCOUNT_UNKNOWN),
        ({"parent": "accounts/."}, Reason.INVALID_ARGUMENT),
        ({"stages": {"sizes": ["10%"]}}, Reason.INVALID_ARGUMENT),
        ({"stages": {"sizes": ["100%"], "confirm_seconds": 60}}, Reason.INVALID_ARGUMENT),
    ],
)
async def test_bad_input_is_refused_and_nothing_is_stored(yard: Yard, fields: dict[str, Any], reason: Reason) -> None:
    await yard.worker("one")
    assert (await refused_by(yard.run(**fields))).reason is reason
    assert not (await yard.stub.ListTasks(task_pb2.ListTasksRequest(parent="accounts/-"))).tasks


async def test_a_task_that_is_not_there_is_refused_by_every_rpc(yard: Yard) -> None:
    for name in (f"accounts/{ACCOUNT}/tasks/zzzzzzzzzz", "accounts/nobody.example/tasks/zzzzzzzzzz"):
        calls = [
            yard.stub.GetTask(task_pb2.GetTaskRequest(name=name)),
            yard.stub.CancelTask(task_pb2.CancelTaskRequest(name=name)),
            yard.stub.ListTaskResults(task_pb2.ListTaskResultsRequest(name=name)),
            yard.stub.WatchTask(task_pb2.WatchTaskRequest(name=name)).read(),
        ]
        reasons = [(await refused_by(call)).reason for call in calls]
        assert set(reasons) <= {Reason.NOT_FOUND, Reason.ACCOUNT_UNKNOWN}
        assert reasons[0] is Reason.NOT_FOUND
    assert (await refused_by(yard.stub.GetTask(task_pb2.GetTaskRequest(name="accounts/-/tasks/x")))).reason is Reason.NOT_FOUND
    await yard.worker("one")
    task = await yard.run()
    assert (await refused_by(yard.results(task, run="zzzzzzzzzz"))).reason is Reason.NOT_FOUND


async def test_results_come_in_pages_that_fit_into_a_message(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KiB each: as many as 100 would be more than a client takes."""
    monkeypatch.setattr(rpc, "PAGE_BYTES", 100_000)
    workers = [await yard.worker(f"n{number}") for number in range(3)]
    task = await yard.run()
    for worker in workers:
        await worker.gets(task.run.id)
        await worker.say(task.run.id, "succeeded", exit_code=0, output=b"x" * 65536)
    await asyncio.wait_for(yard.over(task), 20)
    request, found = task_pb2.ListTaskResultsRequest(name=task.name), []
    while True:
        page = await yard.stub.ListTaskResults(request)
        assert len(page.results) == 1
        found += [each.server.id for each in page.results]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == sorted(worker.id for worker in workers)


@pytest.mark.parametrize(("word", "ends"), [("succeeded", {"succeeded": 2}), ("failed", {"failed": 1, "interrupted": 1})])
async def test_in_stages_the_second_server_gets_it_only_once_the_first_succeeded(
    yard: Yard, word: str, ends: dict[str, int]
) -> None:
    workers = [await yard.worker("one"), await yard.worker("two")]
    task = await yard.run(stages={"sizes": ["1", "100%"], "stop_after": 1})
    watching = asyncio.create_task(yard.over(task))
    await eventually(lambda: any(task.run.id in worker.wanted for worker in workers))
    first, second = sorted(workers, key=lambda worker: task.run.id not in worker.wanted)
    await first.say(task.run.id, "running")
    await eventually(lambda: _counts(yard, task, {"running": 1, "queued": 1}))
    assert not second.wanted
    await first.say(task.run.id, word, exit_code=0 if word == "succeeded" else 1)
    if word == "succeeded":
        await second.gets(task.run.id)
        await second.say(task.run.id, word, exit_code=0)
    last = (await asyncio.wait_for(watching, 20))[-1]
    assert {STATE[each.state]: each.count for each in last.run.counts} == ends
    assert bool(last.run.message) is (word == "failed")
    assert bool(second.link.bodies) is (word == "succeeded")


async def _counts(yard: Yard, task: task_pb2.Task, counts: dict[str, int]) -> bool:
    return {STATE[each.state]: each.count for each in (await yard.task(task)).run.counts} == counts


async def test_the_command_waits_and_prints_what_the_servers_said(yard: Yard) -> None:
    one = await yard.worker("one")
    folder = str(yard.running.folder.path)
    words = ("task", "run", f"{ACCOUNT}/", "--kind", "restart", "--args", '{"a":1}', "--deadline", "30s", "--wait", "--json")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "enlist_primary.cli.main", "--data", folder, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: one.wanted, what="the task")
    (run,) = one.wanted
    assert (await one.gets(run))["args"] == {"a": 1}
    await one.say(run, "succeeded", exit_code=0, output=b"fine\n")
    async with asyncio.timeout(20):
        out, err = await command.communicate()
    assert (command.returncode, err) == (0, b"")
    (said,) = json.loads(out)
    assert said.pop("task")
    assert said == {"server": "one", "state": "succeeded", "exit_code": 0, "output": "fine\n", "message": None}


# --- The scheduler, under a clock that the test turns ---------------------------------------------------------------------------


async def test_a_planned_task_begins_when_its_time_comes_and_a_late_server_times_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    moment = [time.time()]
    async with running_primary(tmp_path_factory.mktemp("t"), clock=lambda: moment[0]) as running, opened(running) as yard:
        one = await yard.worker("one")
        task = await yard.run(time={"seconds": int(moment[0]) + 1000}, deadline_seconds=60)
        watching = asyncio.create_task(yard.over(task))
        moment[0] += 1001
        await yard.run(kind="ping", schedule="0 0 1 1 *")  # any commit wakes it; by itself it would look within a minute
        await eventually(lambda: _has_run(yard, task), what="the run")
        run = (await yard.task(task)).run
        await one.gets(run.id)
        moment[0] += 91
        await one.say(run.id, "running")
        seen = await asyncio.wait_for(watching, 20)
        assert not seen[0].HasField("run")
        assert await yard.states(task) == {"one": "timed_out"}


async def _has_run(yard: Yard, task: task_pb2.Task) -> bool:
    return (await yard.task(task)).HasField("run")


async def test_what_came_due_while_the_primary_was_away_begins_when_it_is_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Faults row 27: it stands in the database, and begins once."""
    moment = [time.time()]
    async with running_primary(tmp_path_factory.mktemp("t"), clock=lambda: moment[0]) as running, opened(running) as yard:
        await yard.worker("one")
        task = await yard.run(schedule="*/5 * * * *")
        config = running.primary.context.config
    moment[0] += 3 * 3600
    async with serving(running.folder, config, lambda: moment[0]) as again, opened(again) as yard:
        await eventually(lambda: _has_run(yard, task), what="the run")
        first = (await yard.task(task)).run.id
        assert (await yard.task(task)).next_time.seconds > moment[0]
    async with serving(running.folder, config, lambda: moment[0]) as again, opened(again) as yard:
        assert (await yard.task(task)).run.id == first
        entries = await again.admin.journal.ListEntries(journal_pb2.ListEntriesRequest(parent=f"accounts/{ACCOUNT}"))
        assert [entry.action for entry in entries.entries if entry.action.startswith("task.")] == ["task.run", "task.begin"]
