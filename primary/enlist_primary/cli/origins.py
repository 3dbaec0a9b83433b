"""`origins list|clear`."""

from __future__ import annotations

import argparse
from typing import Any

from enlist_primary.cli import output


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("origins", help="show and clear what is remembered of the primaries above")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list the primaries that are, or were, above this one")
    listing.set_defaults(run=_list)
    clear = verbs.add_parser("clear", help="forget primaries that are not above now; what they replaced may count again")
    which = clear.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", default="", metavar="ID", help="the primary id, as `origins list` shows it")
    which.add_argument("--all", action="store_true", help="all that are not above now; also where what is remembered is damaged")
    clear.set_defaults(run=_clear)
    for parser in (listing, clear):
        output.add_json(parser)


def _list(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    request = hierarchy_pb2.ListOriginsRequest()
    listed = call(arguments, lambda channel: hierarchy_pb2_grpc.HierarchyServiceStub(channel).ListOrigins(request)).origins
    if arguments.json:
        fields = ("primary_id", "primary_name", "above")
        output.print_json([{field: getattr(each, field) for field in fields} for each in listed])
        return 0
    rows = [(each.primary_id, "yes" if each.above else "no", each.primary_name) for each in listed]
    output.print_table(("PRIMARY ID", "ABOVE NOW", "NAME"), rows, "No primary was ever above this one.")
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    request = hierarchy_pb2.ClearOriginRequest(primary_id=arguments.id, all=arguments.all)
    call(arguments, lambda channel: hierarchy_pb2_grpc.HierarchyServiceStub(channel).ClearOrigin(request))
    if arguments.json:
        output.print_json({"cleared": arguments.id or "all"})
        return 0
    output.say("Done. What is remembered of primaries that are above now stays.")
    return 0
