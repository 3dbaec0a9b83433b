"""`task run|list|show|cancel`."""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape
from enlist_primary.cli import below, output, task_shown
from enlist_primary.cli.arguments import STAGES, given, read_document
from enlist_primary.cli.groups import WHERE, group_of
from enlist_primary.cli.servers import called, find, find_below

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.hierarchy_pb2 import ListedBelow
    from enlist.v1.policy_pb2 import Stages
    from enlist.v1.task_pb2 import RunTaskRequest, Task, TaskResult
    from enlist.v1.task_pb2_grpc import TaskServiceAsyncStub

BAR = 24
COLUMNS = ("SERVER", "STATE", "EXIT STATUS", "SINCE", "MESSAGE")
NONE = f"There are no tasks. Run one with: enlist-primary task run {WHERE} --kind KIND"


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("task", help="let servers do something, now or again and again, and see how it fares")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="run a task now, or plan it")
    _add_what(run)
    _add_when(run)
    wait = (
        "stay until it is over everywhere; exit status 0 if it succeeded somewhere and failed nowhere (a server without a handler "
        "is no failure)"
    )
    run.add_argument("--wait", action="store_true", help=wait)
    run.set_defaults(run=lambda arguments: _run(run, arguments))
    listing = verbs.add_parser("list", help="list tasks, newest first")
    listing.add_argument("domain", nargs="?", default="-", metavar="DOMAIN", help="of this account (default: all)")
    listing.set_defaults(run=_list)
    show = verbs.add_parser("show", help="show a task, and how its newest run fares at each server")
    show.add_argument("--run", dest="run_id", default="", metavar="RUN", help="an earlier run of it, by its id")
    show.set_defaults(run=_show)
    cancel = verbs.add_parser("cancel", help="end a task: it runs no further, and where it runs it is stopped")
    cancel.set_defaults(run=_cancel)
    for parser in (show, cancel):
        parser.add_argument("task", metavar="ID", help="the task's id")
    for parser in (run, listing, show, cancel):
        output.add_json(parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar=f"{WHERE}|SERVER",
        help="a group with all below it, or a server by its name or id; one below a middle server as MIDDLE/NAME",
    )
    parser.add_argument("--account", default="-", metavar="DOMAIN", help="the server is one of this account")
    parser.add_argument("--label", type=given, metavar="LABEL", help="only servers of the group that bear this label")
    parser.add_argument("--kind", required=True, metavar="KIND", help="the kind of task, as the servers' owners configured it")
    args = parser.add_mutually_exclusive_group()
    args.add_argument("--args", type=given, metavar="JSON", help="the arguments, a JSON object (default: {})")
    args.add_argument("--args-file", metavar="FILE", help="a file that holds them; - for standard input")


def _add_when(parser: argparse.ArgumentParser) -> None:
    deadline = "how long a run may take, such as 30s (default: 10m)"
    parser.add_argument("--deadline", metavar="TIME", help=deadline)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="MOMENT", help="when to run it, such as 2026-11-22T02:00:00Z (default: now)")
    when.add_argument("--schedule", type=given, metavar="CRON", help='again and again: "0 2 * * sat" is Saturdays at 2')
    parser.add_argument("--zone", type=given, metavar="ZONE", help="by which clock, such as Europe/Paris (default: UTC)")
    parser.add_argument("--stages", metavar="SIZES", help=STAGES)
    parser.add_argument("--stop-after", type=int, metavar="N", help="with --stages: stop when N servers failed (default: 1)")


# --- Deciding -----------------------------------------------------------------------------------------------------------------


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    request = _request(parser, arguments)
    waiting = _Waiting()

    async def run(channel: grpc.aio.Channel) -> tuple[Task, list[TaskResult]]:
        await _aim(channel, request, arguments)
        stub = _stub(channel)
        task = await stub.RunTask(request)
        if arguments.wait:
            task = await waiting.watch(stub, task)
        return task, await _results(stub, task)

    try:
        task, results = call(arguments, run)
    except KeyboardInterrupt:
        raise waiting.interrupted() from None
    finally:
        waiting.end()
    if arguments.json:
        output.print_json([{**each, "task": task.id} for each in task_shown.results_as_json(results)])
    else:
        output.say(_outcome(task))
        if arguments.wait:
            _print_results(results)
    return 0 if not arguments.wait or task_shown.went_well(results) else 1


def _request(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> RunTaskRequest:
    """The request, but for whom it is for. What makes no sense is refused before anything is sent."""
    from enlist.runtime.config import duration
    from enlist.v1 import task_pb2

    if arguments.zone and not arguments.schedule:
        parser.error("--zone goes with --schedule")
    request = task_pb2.RunTaskRequest(
        kind=arguments.kind,
        args=_args(arguments),
        deadline_seconds=duration(arguments.deadline) if arguments.deadline else 0,
        schedule=arguments.schedule,
        time_zone=arguments.zone,
        stages=_stages(parser, arguments),
    )
    if arguments.at is not None:
        request.time.seconds = _moment(arguments.at)
    return request


def _args(arguments: argparse.Namespace) -> bytes:
    """The arguments as they were given."""
    if arguments.args_file is None:
        return (arguments.args or "").encode()
    return read_document(arguments.args_file, "a task's arguments have")


def _stages(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Stages | None:
    from enlist.v1 import policy_pb2

    if arguments.stages is None:
        if arguments.stop_after is not None:
            parser.error("--stop-after goes with --stages")
        return None
    stop_after = 1 if arguments.stop_after is None else arguments.stop_after
    if not 1 <= stop_after < 2**31:
        parser.error("--stop-after is 1 or more")
    return policy_pb2.Stages(sizes=[size.strip() for size in arguments.stages.split(",")], stop_after=stop_after)


def _moment(text: str) -> int:
    """Unix seconds of a time as ISO 8601 writes it, with its distance from UTC: whose clock is meant is not guessed."""
    sentence = f'"{text}" is no point in time. Write it like 2026-11-22T02:00:00Z, or with +01:00 in place of Z.'
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.timestamp())
    except (ValueError, OverflowError):
        pass
    raise Refused(Reason.INVALID_ARGUMENT, sentence)


async def _aim(channel: grpc.aio.Channel, request: RunTaskRequest, arguments: argparse.Namespace) -> None:
    """Says whom the task is for: a group if an account's domain begins its name, else the one server that is meant."""
    from enlist.names import resource

    wanted, account = arguments.target, arguments.account
    below_it = await _below(channel, wanted, account) if "/" in wanted else None
    if below_it is not None:
        domain, request.target.server_id = below_it.account, below.id_of(below_it)
    elif "/" in wanted or (account == "-" and await _is_account(channel, wanted)):
        domain, request.target.group = group_of(wanted)
        if account not in ("-", domain):
            raise Refused(Reason.INVALID_ARGUMENT, f'The group "{wanted}" is not one of the account {account}.')
    else:
        server = await find(channel, wanted, account)
        domain, request.target.server_id = server.account, server.id
    request.parent = resource("accounts", domain)
    request.target.label = arguments.label or ""


async def _below(channel: grpc.aio.Channel, wanted: str, account: str) -> ListedBelow | None:
    """The server below a middle server that a text with a slash names; None if it names a group."""
    above, _, rest = wanted.partition("/")
    if await _is_account(channel, above):
        return None
    found = await find_below(channel, wanted, account)
    if found is None and any(above in (each.id, each.display_name) for each in await called(channel, above, account)):
        raise Refused(Reason.NOT_FOUND, f'No server "{rest}" stands below {above}. See: enlist-primary tree')
    return found.listed if found is not None else None


async def _is_account(channel: grpc.aio.Channel, text: str) -> bool:
    from enlist.v1 import account_pb2, account_pb2_grpc

    stub: account_pb2_grpc.AccountServiceAsyncStub = account_pb2_grpc.AccountServiceStub(channel)
    listed = await stub.ListAccounts(account_pb2.ListAccountsRequest())
    return any(account.domain == text for account in listed.accounts)


def _outcome(task: Task) -> str:
    if not task.HasField("run"):
        return f"The task {task.id} is planned; it runs next at {output.time_of(task, 'next_time')}."
    if task.run.HasField("end_time"):
        return f"The task {task.id} is over: {task_shown.fares(task)}."
    see = f"See: enlist-primary task show {task.id}"
    return f"The task {task.id} is on its way to {task.run.servers} servers. {see}".replace(" 1 servers", " 1 server")


class _Waiting:
    """Follows a task until its run is over, with a line on standard error where that is a terminal."""

    def __init__(self) -> None:
        self._id = ""
        self._terminal = sys.stderr.isatty()
        self._drawn = False

    async def watch(self, stub: TaskServiceAsyncStub, task: Task) -> Task:
        """The task when its run is over."""
        from enlist.v1 import task_pb2

        self._id = task.id
        async for seen in stub.WatchTask(task_pb2.WatchTaskRequest(name=task.name)):
            task = seen.task
            if self._terminal:
                self._draw(task)
        return task

    def _draw(self, task: Task) -> None:
        full = BAR * task_shown.ended(task) // task.run.servers if task.run.servers else 0
        line = f"[{'#' * full}{'.' * (BAR - full)}] {task_shown.fares(task) if task.HasField('run') else 'waits for its time'}"
        sys.stderr.write(f"\r\x1b[K{escape(line)[: shutil.get_terminal_size().columns - 1]}")
        sys.stderr.flush()
        self._drawn = True

    def end(self) -> None:
        """Leaves the line as it stands."""
        if self._drawn:
            sys.stderr.write("\n")

    def interrupted(self) -> Refused:
        """What is said if somebody waits no longer."""
        if not self._id:
            return Refused(Reason.INTERRUPTED, "Interrupted. Whether the task was made: see enlist-primary task list")
        see = f"See: enlist-primary task show {self._id}; end it with: enlist-primary task cancel {self._id}"
        return Refused(Reason.INTERRUPTED, f"The waiting is over, the task goes on. {see}")


def _cancel(arguments: argparse.Namespace) -> int:
    from enlist.v1 import task_pb2
    from enlist_primary.cli.client import call

    async def cancel(channel: grpc.aio.Channel) -> Task:
        stub = _stub(channel)
        task = await _find(stub, arguments.task)
        return await stub.CancelTask(task_pb2.CancelTaskRequest(name=task.name))

    task = call(arguments, cancel)
    if arguments.json:
        output.print_json(task_shown.as_json(task))
    else:
        output.say(f"The task {task.id} is cancelled.")
    return 0


# --- Looking ------------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import task_pb2
    from enlist_primary.cli.client import call

    request = task_pb2.ListTasksRequest(parent=resource("accounts", arguments.domain))
    listed = call(arguments, lambda channel: _stub(channel).ListTasks(request)).tasks
    if arguments.json:
        output.print_json([task_shown.as_json(each) for each in listed])
        return 0
    rows = [
        (
            each.id,
            each.account,
            each.kind,
            task_shown.target(each),
            task_shown.progress_of(each),
            output.time_of(each, "next_time") or "-",
            task_shown.fares(each) if each.HasField("run") else "-",
        )
        for each in listed
    ]
    output.print_table(("ID", "ACCOUNT", "KIND", "FOR", "STATE", "NEXT", "NEWEST RUN"), rows, NONE)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    async def show(channel: grpc.aio.Channel) -> tuple[Task, list[TaskResult]]:
        stub = _stub(channel)
        task = await _find(stub, arguments.task)
        return task, await _results(stub, task, arguments.run_id)

    task, results = call(arguments, show)
    if arguments.json:
        output.print_json(task_shown.whole_as_json(task, results))
        return 0
    output.say(task_shown.lines(task))
    _print_results(results)
    return 0


def _print_results(results: list[TaskResult]) -> None:
    if results:
        output.print_table(COLUMNS, task_shown.rows(results), "")
    written = task_shown.outputs(results)
    if written:
        output.say(written)


def _stub(channel: grpc.aio.Channel) -> TaskServiceAsyncStub:
    from enlist.v1 import task_pb2_grpc

    return task_pb2_grpc.TaskServiceStub(channel)


async def _find(stub: TaskServiceAsyncStub, id: str) -> Task:
    """The task of this id, of whichever account."""
    from enlist.names import is_id, resource
    from enlist.v1 import task_pb2

    if not is_id(id):
        raise Refused(Reason.NOT_FOUND, f'There is no task "{id}". See: enlist-primary task list')
    return await stub.GetTask(task_pb2.GetTaskRequest(name=resource("accounts", "-", "tasks", id)))


async def _results(stub: TaskServiceAsyncStub, task: Task, run_id: str = "") -> list[TaskResult]:
    """How a run of a task, or its newest, fares at all its servers, by their names."""
    from enlist.v1 import task_pb2

    found: list[TaskResult] = []
    request = task_pb2.ListTaskResultsRequest(name=task.name, run=run_id)
    while True:
        page = await stub.ListTaskResults(request)
        found += page.results
        request.page_token = page.next_page_token
        if not request.page_token:
            return sorted(found, key=lambda each: (each.server.display_name, each.server.id))
