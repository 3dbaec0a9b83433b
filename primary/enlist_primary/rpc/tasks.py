"""TaskService: what servers shall do, and how that fares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.v1 import task_pb2 as pb
from enlist.v1 import task_pb2_grpc
from enlist_primary.messages import tasks as render
from enlist_primary.messages.tasks import Fare
from enlist_primary.model import accounts as model
from enlist_primary.model.rollouts import parse_stages
from enlist_primary.model.tasks import Result, Task, Wanted, checked
from enlist_primary.operations import tasks
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.rpc.hierarchy import domains_of
from enlist_primary.store import tasks as rows
from enlist_primary.store.database import Transaction

LISTED = 1000
PAGE = 100
PAGE_BYTES = 2 * 1024 * 1024
"""Bytes of output in one answer, unless a single result has more: clients take twice as much."""
PACE = 0.2
"""Seconds from one message of a watch to the next."""


class Tasks(task_pb2_grpc.TaskServiceServicer):
    """Decides about tasks and shows them; links and scheduler learn of it from the database."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def RunTask(self, request: pb.RunTaskRequest, context: Any) -> pb.Task:
        own, account = self._context, caller().require(model.from_resource(request.parent))
        wanted = await asyncio.to_thread(checked, _wanted(request), own.now())
        view = own.reach.view(account)
        made = await own.database.write(account, tasks.run, account, wanted, view, caller().actor, own.new_id, own.now())
        return await self._shown(made.account, made.id)

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Any) -> pb.Task:
        own, (account, id) = self._context, _task_of(request.name)
        await own.database.write(account, tasks.cancel, account, id, caller().actor, own.now())
        return await self._shown(account, id)

    async def GetTask(self, request: pb.GetTaskRequest, context: Any) -> pb.Task:
        return await self._shown(*await self._wherever(request.name))

    async def _wherever(self, name: str) -> tuple[str, str]:
        """The account and id in a task's resource name; in `accounts/-/tasks/{id}`, of whichever account the caller sees."""
        account, id = names.parse_resource(name, "accounts", "tasks")
        if account != "-":
            return _task_of(name)
        found = [each for each in await self._context.database.read(rows.accounts_with, id) if caller().sees(each)]
        if len(found) != 1:
            raise rows.unknown(id)
        return found[0], id

    async def _shown(self, account: str, id: str, whole: bool = True) -> pb.Task:
        return render.task(await self._context.database.read(_one, account, id), whole)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksResponse:
        database = self._context.database
        domains = await domains_of(database, request.parent)
        found = [fare for domain in domains for fare in await database.read(_listed, domain)]
        found.sort(key=lambda fare: fare.task.created_at, reverse=True)
        return pb.ListTasksResponse(tasks=[render.task(fare, whole=False) for fare in found[:LISTED]])

    async def ListTaskResults(self, request: pb.ListTaskResultsRequest, context: Any) -> pb.ListTaskResultsResponse:
        account, id = _task_of(request.name)
        limit = min(request.page_size if request.page_size > 0 else PAGE, PAGE)
        found = await self._context.database.read(_results, account, id, request.run, request.page_token, limit + 1)
        page, view = _page(found, limit), self._context.reach.view(account)
        token = page[-1].server_id if len(page) < len(found) else ""
        results = [render.result(each, view.of(each.server_id)) for each in page]
        return pb.ListTaskResultsResponse(results=results, next_page_token=token)

    async def WatchTask(self, request: pb.WatchTaskRequest, context: Any) -> AsyncIterator[pb.WatchTaskResponse]:
        (account, id), shown = _task_of(request.name), None
        while True:
            changed = self._context.changes.changed(account)  # before reading, so that nothing is missed
            fare = await self._context.database.read(_one, account, id)
            task = render.task(fare, whole=False)
            if task != shown:
                yield pb.WatchTaskResponse(task=task)
                shown = task
            if _over(fare):
                return
            await changed
            await asyncio.sleep(PACE)


def _task_of(name: str) -> tuple[str, str]:
    """Account and id in a task's resource name; of an account that is not for the caller's eyes there is no task."""
    account, id = names.parse_resource(name, "accounts", "tasks")
    if not caller().sees(account):
        raise rows.unknown(id)
    return account, id


def _wanted(request: pb.RunTaskRequest) -> Wanted:
    given, target = request.stages, request.target
    staged = request.HasField("stages")
    return Wanted(
        kind=request.kind,
        args=request.args,
        group=target.group,
        server_id=target.server_id,
        label=target.label,
        deadline_seconds=request.deadline_seconds,
        time=request.time.seconds if request.HasField("time") else None,
        schedule=request.schedule,
        zone=request.time_zone,
        stages=parse_stages(tuple(given.sizes), given.stop_after, given.confirm_seconds) if staged else None,
    )


def _over(fare: Fare) -> bool:
    """Whether there is nothing more to watch: the newest run is over, or there will be none."""
    return fare.task.over if fare.run is None else fare.run.ended_at is not None


def _page(found: list[Result], limit: int) -> list[Result]:
    """As many results as an answer holds, at least one of them."""
    size = 0
    for count, result in enumerate(found[:limit]):
        size += len(result.output or b"")
        if count and size > PAGE_BYTES:
            return found[:count]
    return found[:limit]


# --- Queries ------------------------------------------------------------------------------------------------------------------


def _fare(tx: Transaction, task: Task) -> Fare:
    run = rows.find_run(tx, task.account, task.id)
    return Fare(task, run, {} if run is None else rows.tally(tx, task.account, run.id))


def _one(tx: Transaction, account: str, id: str) -> Fare:
    return _fare(tx, rows.load(tx, account, id))


def _listed(tx: Transaction, account: str) -> list[Fare]:
    return [_fare(tx, task) for task in rows.listed(tx, account, LISTED)]


def _results(tx: Transaction, account: str, id: str, run_id: str, after: str, limit: int) -> list[Result]:
    run = rows.find_run(tx, account, rows.load(tx, account, id).id, run_id)
    if run is None and run_id:
        raise Refused(Reason.NOT_FOUND, f'The task "{id}" has no run "{run_id}", or none that is remembered.')
    return [] if run is None else rows.results(tx, account, run.id, after, limit)
