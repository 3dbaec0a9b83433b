"""`group add|remove|move|set|list`, and how commands name a group."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from enlist.reasons import Reason, Refused
from enlist_primary.cli import output

if TYPE_CHECKING:
    from enlist.v1.hierarchy_pb2 import Group
    from enlist.v1.hierarchy_pb2_grpc import HierarchyServiceAsyncStub

WHERE = "DOMAIN/PATH"
"""How a group is named in a command."""


def group_of(text: str) -> tuple[str, str]:
    """The account and the path in `acme.example/Sites/Paris`; `acme.example` alone, or with a slash, is the root group, `/`."""
    from enlist import names

    domain, slash, path = text.partition("/")
    try:
        names.account_domain(domain)
    except Refused:
        sentence = f'"{text}" names no group: write {WHERE}, the domain in lower case, such as acme.example/Sites/Paris.'
        raise Refused(Reason.INVALID_ARGUMENT, sentence) from None
    return domain, names.show_group(names.group_path(slash + path))


def shown(domain: str, path: str) -> str:
    """A group as it is named in a command."""
    return domain if path == "/" else f"{domain}/{path}"


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("group", help="arrange the groups in which servers stand")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="make a group, and what is missing above it")
    add.set_defaults(run=_add)
    remove = verbs.add_parser("remove", help="end an empty group, and its policies with it")
    remove.set_defaults(run=_remove)
    move = verbs.add_parser("move", help="give a group another name or place, with all that stands below it")
    move.set_defaults(run=_move)
    change = verbs.add_parser("set", help="set or end a group's maintenance window")
    change.set_defaults(run=lambda arguments: _set(change, arguments))
    for parser in (add, remove, move, change):
        parser.add_argument("group", metavar=WHERE, help="the group, such as acme.example/Sites/Paris")
    move.add_argument("new_group", metavar="NEW_DOMAIN/PATH", help="its whole path from now on, in the same account")
    window = change.add_mutually_exclusive_group(required=True)
    window.add_argument("--window", metavar="CRON", help='when policies may be put in force: "0 2 * * sat" is Saturdays at 2')
    window.add_argument("--no-window", action="store_true", help="at any time again, or as the group above says")
    change.add_argument("--for", dest="duration", metavar="TIME", help="how long the window is open: 30m, 2h, 1d")
    change.add_argument("--zone", metavar="ZONE", help="by which clock, such as Europe/Paris (default: UTC)")
    listing = verbs.add_parser("list", help="list the groups of an account")
    listing.add_argument("domain", metavar="DOMAIN")
    listing.set_defaults(run=_list)
    for parser in (add, remove, move, change, listing):
        output.add_json(parser)


def _add(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2

    domain, path = group_of(arguments.group)
    request = hierarchy_pb2.CreateGroupRequest(parent=_account(domain), path=path)
    group = _call(arguments, lambda stub: stub.CreateGroup(request))
    return _print(group, arguments, f"The group {shown(domain, group.path)} is there.")


def _remove(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2

    domain, path = group_of(arguments.group)
    request = hierarchy_pb2.RemoveGroupRequest(parent=_account(domain), path=path)
    _call(arguments, lambda stub: stub.RemoveGroup(request))
    if arguments.json:
        output.print_json({"account": domain, "path": path, "removed": True})
    else:
        output.say(f"The group {shown(domain, path)} is removed.")
    return 0


def _move(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2

    domain, path = group_of(arguments.group)
    new_domain, new_path = group_of(arguments.new_group)
    if new_domain != domain:
        raise Refused(Reason.INVALID_ARGUMENT, f"A group stays in its account: name its new path in {domain}.")
    request = hierarchy_pb2.MoveGroupRequest(parent=_account(domain), path=path, new_path=new_path)
    group = _call(arguments, lambda stub: stub.MoveGroup(request))
    return _print(group, arguments, f"The group {shown(domain, path)} is {shown(domain, group.path)} now.")


def _set(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.runtime.config import duration
    from enlist.v1 import hierarchy_pb2

    if arguments.no_window and (arguments.duration or arguments.zone):
        parser.error("--for and --zone go with --window")
    if arguments.window is not None and arguments.duration is None:
        parser.error("--window and --for go together")
    domain, path = group_of(arguments.group)
    request = hierarchy_pb2.UpdateGroupRequest(parent=_account(domain), path=path)
    if arguments.window is not None:
        request.window.start = arguments.window
        request.window.duration_seconds = duration(arguments.duration)
        request.window.time_zone = arguments.zone or ""
    group = _call(arguments, lambda stub: stub.UpdateGroup(request))
    return _print(group, arguments, f"The maintenance window of {shown(domain, group.path)}: {_window(group)}.")


def _list(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2

    request = hierarchy_pb2.ListGroupsRequest(parent=_account(arguments.domain))
    listed = _call(arguments, lambda stub: stub.ListGroups(request)).groups
    if arguments.json:
        output.print_json([as_json(group) for group in listed])
        return 0
    rows = [(group.path, group.id, _window(group)) for group in listed]
    output.print_table(("GROUP", "ID", "MAINTENANCE WINDOW"), rows, "There are no groups.")
    return 0


def _account(domain: str) -> str:
    from enlist.names import resource

    return resource("accounts", domain)


def _call(arguments: argparse.Namespace, work: Callable[[HierarchyServiceAsyncStub], Awaitable[Any]]) -> Any:
    from enlist.v1 import hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    return call(arguments, lambda channel: work(hierarchy_pb2_grpc.HierarchyServiceStub(channel)))


def _print(group: Group, arguments: argparse.Namespace, sentence: str) -> int:
    if arguments.json:
        output.print_json(as_json(group))
    else:
        output.say(sentence)
    return 0


def _window(group: Group) -> str:
    """When policies may be put in force, for people."""
    if not group.HasField("window"):
        return "none of its own"
    window = group.window
    return f"{window.start} for {span(window.duration_seconds)}, {window.time_zone or 'UTC'}"


def span(seconds: int) -> str:
    """Seconds as people type them: `2h`."""
    sizes = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    return next(f"{seconds // size}{unit}" for size, unit in sizes if seconds % size == 0)


def as_json(group: Group) -> dict[str, object]:
    """A group as `--json` shows it; the zone is null for UTC."""
    window = group.window
    said = {"start": window.start, "seconds": window.duration_seconds, "zone": window.time_zone or None}
    return {"account": group.account, "id": group.id, "path": group.path, "window": said if group.HasField("window") else None}
