"""Attacks rows 15 and 37 for tasks: another account's tasks are not found, and a server's words move no run but its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import task_pb2, task_pb2_grpc
from enlist_primary.model.users import Role
from tests.attacks.world import OTHER, World
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, refused_by

NOWHERE, NOBODY = "nowhere.example", "aaaaaaaaaa"


@asynccontextmanager
async def reaching(world: World) -> AsyncIterator[task_pb2_grpc.TaskServiceAsyncStub]:
    """The service at the API port, for whoever has a token."""
    running = world.running
    async with dial(running.api, await running.pin(running.api)) as on:
        yield task_pb2_grpc.TaskServiceStub(on)


async def planned(world: World) -> task_pb2.Task:
    """A task of the victim's account that waits for its time."""
    _, id = await world.trusted("worker")
    target = task_pb2.TaskTarget(server_id=id)
    request = task_pb2.RunTaskRequest(parent=f"accounts/{ACCOUNT}", kind="restart", target=target, schedule="0 0 1 1 *")
    async with grpc.aio.insecure_channel(f"unix:{world.running.folder.admin_socket}") as on:
        stub: task_pb2_grpc.TaskServiceAsyncStub = task_pb2_grpc.TaskServiceStub(on)
        return await stub.RunTask(request)


def calls(stub: task_pb2_grpc.TaskServiceAsyncStub, name: str, metadata: tuple[tuple[str, str], ...]) -> list[Any]:
    """Every RPC about one task."""
    return [
        stub.GetTask(task_pb2.GetTaskRequest(name=name), metadata=metadata),
        stub.CancelTask(task_pb2.CancelTaskRequest(name=name), metadata=metadata),
        stub.ListTaskResults(task_pb2.ListTaskResultsRequest(name=name), metadata=metadata),
        stub.WatchTask(task_pb2.WatchTaskRequest(name=name), metadata=metadata).read(),
    ]


def told(refused: Refused, *names: str) -> tuple[Reason, str]:
    """A refusal without the names that were asked for."""
    message = refused.message
    for name in names:
        message = message.replace(name, "...")
    return refused.reason, message


@pytest.mark.parametrize("role", Role)
async def test_another_account_s_task_is_not_found_and_not_told_from_one_that_is_not(world: World, role: Role) -> None:
    task = await planned(world)
    outsider, before = await world.user(role, OTHER), await world.tables()
    async with reaching(world) as stub:
        there = [await refused_by(call) for call in calls(stub, task.name, outsider)]
        missing = [await refused_by(call) for call in calls(stub, f"accounts/{ACCOUNT}/tasks/{NOBODY}", outsider)]
        nowhere = [await refused_by(call) for call in calls(stub, f"accounts/{NOWHERE}/tasks/{NOBODY}", outsider)]
        own = [await refused_by(call) for call in calls(stub, f"accounts/{OTHER}/tasks/{task.id}", outsider)]
        assert {each.reason for each in there} <= {Reason.NOT_FOUND, Reason.NOT_ALLOWED}
        assert [told(each, task.id) for each in there] == [told(each, NOBODY) for each in missing]
        assert [told(each, NOBODY) for each in missing] == [told(each, NOBODY) for each in nowhere]
        assert [told(each, task.id) for each in own] == [told(each, task.id) for each in there]
        wherever = stub.GetTask(task_pb2.GetTaskRequest(name=f"accounts/-/tasks/{task.id}"), metadata=outsider)
        assert (await refused_by(wherever)).reason is Reason.NOT_FOUND
    assert await world.tables() == before


@pytest.mark.parametrize("role", Role)
async def test_nobody_runs_or_lists_tasks_in_another_account(world: World, role: Role) -> None:
    await planned(world)
    outsider, before = await world.user(role, OTHER), await world.tables()
    async with reaching(world) as stub:
        refused = []
        for domain in (ACCOUNT, NOWHERE):
            run = task_pb2.RunTaskRequest(parent=f"accounts/{domain}", kind="restart", target=task_pb2.TaskTarget(group="/"))
            listing = task_pb2.ListTasksRequest(parent=f"accounts/{domain}")
            both = (stub.RunTask(run, metadata=outsider), stub.ListTasks(listing, metadata=outsider))
            refused.append([told(await refused_by(call), domain) for call in both])
        assert refused[0] == refused[1]
        assert {reason for reason, _ in refused[0]} <= {Reason.ACCOUNT_UNKNOWN, Reason.NOT_ALLOWED}
        listed = await stub.ListTasks(task_pb2.ListTasksRequest(parent="accounts/-"), metadata=outsider)
        assert {task.account for task in listed.tasks} <= {OTHER}
    assert await world.tables() == before


async def test_the_run_of_another_account_s_task_is_none_of_one_s_own_task_s(world: World) -> None:
    """Its id, named with a task of one's own: neither results nor a hint that there are any."""
    _, theirs = await world.trusted("worker")
    _, mine = await world.trusted("worker", OTHER)
    admin, outsider = world.running.admin.tasks, await world.user(Role.ADMINISTRATOR, OTHER)

    def task(account: str, id: str) -> task_pb2.RunTaskRequest:
        return task_pb2.RunTaskRequest(parent=f"accounts/{account}", kind="restart", target=task_pb2.TaskTarget(server_id=id))

    other, own = await admin.RunTask(task(ACCOUNT, theirs)), await admin.RunTask(task(OTHER, mine))
    async with reaching(world) as stub:
        asked = [task_pb2.ListTaskResultsRequest(name=own.name, run=run) for run in (other.run.id, NOBODY)]
        there, missing = [await refused_by(stub.ListTaskResults(each, metadata=outsider)) for each in asked]
    assert there.reason is Reason.NOT_FOUND
    assert told(there, other.run.id) == told(missing, NOBODY)
    for each in (other, own):
        await admin.CancelTask(task_pb2.CancelTaskRequest(name=each.name))


async def test_a_server_of_another_account_is_no_target(world: World) -> None:
    """Its id under one's own account opens nothing."""
    outsider = await world.user(Role.ADMINISTRATOR, OTHER)
    async with reaching(world) as stub:
        target = task_pb2.TaskTarget(server_id=world.victim_id)
        request = task_pb2.RunTaskRequest(parent=f"accounts/{OTHER}", kind="restart", target=target)
        assert (await refused_by(stub.RunTask(request, metadata=outsider))).reason is Reason.NOT_FOUND


INJECTED = ["; reboot", "$(reboot)", "restart\nreboot", "--flag", "../restart", "restart`id`", "{{ 7*7 }}", "\u202e", "restart\x00"]


@pytest.mark.parametrize("kind", INJECTED)
async def test_a_kind_is_a_word_and_nothing_a_shell_or_template_obeys(world: World, kind: str) -> None:
    """Attacks row 36."""
    administrator = await world.user(Role.ADMINISTRATOR, ACCOUNT)
    before = await world.tables()
    async with reaching(world) as stub:
        request = task_pb2.RunTaskRequest(parent=f"accounts/{ACCOUNT}", kind=kind, target=task_pb2.TaskTarget(group="/"))
        assert (await refused_by(stub.RunTask(request, metadata=administrator))).reason is Reason.INVALID_ARGUMENT
        request.kind, request.target.label = "restart", kind
        assert (await refused_by(stub.RunTask(request, metadata=administrator))).reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before
