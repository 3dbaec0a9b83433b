"""After the storm: nothing is suspended, and everything that was decided is given the time to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc.aio

from enlist.v1 import (
    hierarchy_pb2,
    hierarchy_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    server_pb2,
    task_pb2,
    task_pb2_grpc,
)
from scripts.soaking.decisions import LIMIT, PARENT, Decider
from scripts.soaking.tree import GROUPS, KINDS

LOOK = 1.0
"""Seconds between two looks."""
_UNDER_WAY = {task_pb2.TASK_PROGRESS_PLANNED, task_pb2.TASK_PROGRESS_RUNNING}


class Settling:
    """What one primary still waits for."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self._name = name
        self._hierarchy = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
        self._policies = policy_pb2_grpc.PolicyServiceStub(channel)
        self._tasks = task_pb2_grpc.TaskServiceStub(channel)

    async def resume_all(self, decider: Decider) -> None:
        """Trusts every suspended server again."""
        for server in await self._servers():
            if server.state == server_pb2.SERVER_STATE_SUSPENDED:
                await decider.resume(server.id)

    async def waits_for(self) -> list[str]:
        """In words, for people; nothing when all has arrived."""
        return [*await self._links(), *await self._in_force(), *await self._over()]

    async def results(self) -> list[tuple[task_pb2.Task, list[task_pb2.TaskResult]]]:
        """Each task with its arguments, and how it ended at each server."""
        found = []
        for listed in await self._all_tasks():
            task = await self._tasks.GetTask(task_pb2.GetTaskRequest(name=listed.name), timeout=LIMIT)
            answer = await self._tasks.ListTaskResults(task_pb2.ListTaskResultsRequest(name=listed.name), timeout=LIMIT)
            found.append((task, list(answer.results)))
        return found

    async def reports(self) -> list[tuple[policy_pb2.Policy, list[policy_pb2.PolicyReport]]]:
        """Each policy, and what is reported of it from each server."""
        found = []
        for listed in await self._all_policies():
            key = policy_pb2.PolicyKey(parent=PARENT, group=listed.group, kind=listed.kind)
            policy = await self._policies.GetPolicy(policy_pb2.GetPolicyRequest(key=key), timeout=LIMIT)
            answer = await self._policies.ListPolicyReports(policy_pb2.ListPolicyReportsRequest(key=key), timeout=LIMIT)
            found.append((policy, list(answer.reports)))
        return found

    async def _servers(self) -> list[server_pb2.Server]:
        request = hierarchy_pb2.ListServersRequest(parent=PARENT)
        return list((await self._hierarchy.ListServers(request, timeout=LIMIT)).servers)

    async def _all_tasks(self) -> list[task_pb2.Task]:
        return list((await self._tasks.ListTasks(task_pb2.ListTasksRequest(parent=PARENT), timeout=LIMIT)).tasks)

    async def _all_policies(self) -> list[policy_pb2.Policy]:
        request = policy_pb2.ListPoliciesRequest(parent=PARENT)
        return list((await self._policies.ListPolicies(request, timeout=LIMIT)).policies)

    async def _links(self) -> list[str]:
        trusted = server_pb2.SERVER_STATE_TRUSTED
        away = [server.id for server in await self._servers() if not (server.connected and server.state == trusted)]
        return [f"{self._name}: server {id} is not trusted and connected" for id in away]

    async def _in_force(self) -> list[str]:
        policies = await self._all_policies()
        late = [each for each in policies if each.counts.applied != each.counts.desired]
        missing = len(GROUPS) * len(KINDS) - len(policies)
        found = [f"{self._name}: {missing} policies are missing"] if missing else []
        return found + [f"{self._name}: policy {each.kind} at {each.group} is {_counted(each.counts)}" for each in late]

    async def _over(self) -> list[str]:
        return [f"{self._name}: task {each.id} is under way" for each in await self._all_tasks() if each.progress in _UNDER_WAY]


def _counted(counts: policy_pb2.PolicyCounts) -> str:
    return ", ".join(f"{field.name} {value}" for field, value in counts.ListFields() if isinstance(value, int))


async def settled(look: Callable[[], Awaitable[list[str]]], within: float) -> list[str]:
    """Looks until nothing is waited for, at most `within` seconds; what is still waited for then."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        try:
            waited = await look()
        except grpc.aio.AioRpcError as error:
            waited = [f"no answer: {error.details()}"]
        if not waited or loop.time() > end:
            return waited
        await asyncio.sleep(LOOK)
