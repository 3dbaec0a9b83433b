"""`server list|show|authorize|deny|suspend|resume|revoke|remove|withdraw|rename|move|label`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape
from enlist_primary.cli import below, output
from enlist_primary.cli.arguments import given
from enlist_primary.cli.groups import WHERE, group_of, shown

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.server_pb2 import Server

LIVING = frozenset({"invited", "pending", "trusted", "suspended"})
"""States in which a server bears its name for the commands; one that is past is meant only where no living one is."""

_DECISIONS = {
    "authorize": ("Authorize", "trust a pending server", "is trusted"),
    "deny": ("Deny", "refuse a pending server", "is denied"),
    "suspend": ("Suspend", "let a server's trust rest; its link closes", "is suspended"),
    "resume": ("Resume", "trust a suspended server again", "is trusted again"),
    "revoke": ("Revoke", "ban a server's key for good; its link closes", "is revoked"),
    "remove": ("Remove", "end a server's enrolment", "is removed"),
    "withdraw": ("Withdraw", "take an unused invitation, or a request, back", "is withdrawn"),
}
_BEQUEATHING = frozenset({"remove", "revoke", "authorize"})
"""Decisions with which a primary below may come to stand there no more."""
_BEQUESTS = {"keep": "stays, may be changed there", "freeze": "stays as it is, with its locks", "delete": "ends"}
_WITH_REASON = frozenset(_DECISIONS) - {"authorize", "resume"}


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("server", help="list servers and decide about them")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list servers")
    listing.add_argument("domain", nargs="?", default="-", metavar="DOMAIN", help="of this account (default: all)")
    listing.set_defaults(run=_list)
    show = verbs.add_parser("show", help="show a server; one below a middle server as MIDDLE/NAME")
    show.set_defaults(run=_show)
    rename = verbs.add_parser("rename", help="give a server another name")
    rename.set_defaults(run=_rename)
    move = verbs.add_parser("move", help="put a server in another group; it keeps its trust and its link")
    move.set_defaults(run=_move)
    label = verbs.add_parser("label", help="add labels, words to choose servers by, and take them away")
    label.set_defaults(run=lambda arguments: _label(label, arguments))
    parsers = [show, rename, move, label]
    parsers += [_add_decision(verbs, verb) for verb in _DECISIONS]
    for parser in parsers:
        parser.add_argument("server", metavar="NAME_OR_ID", help="the server's name, if only one bears it, or its id")
        if parser is not move:
            parser.add_argument("--account", default="-", metavar="DOMAIN", help="look in this account only")
        output.add_json(parser)
    rename.add_argument("new_name", metavar="NEW_NAME")
    move.add_argument("group", metavar=WHERE, help="the group of its account, such as acme.example/Sites/Paris")
    label.add_argument("--add", action="append", default=[], metavar="LABEL", help="add this label; may be repeated")
    label.add_argument("--remove", action="append", default=[], metavar="LABEL", help="take this label away; may be repeated")
    output.add_json(listing)


def _add_decision(verbs: Any, verb: str) -> argparse.ArgumentParser:
    """The command for a decision, but for whom it is about."""
    parser: argparse.ArgumentParser = verbs.add_parser(verb, help=_DECISIONS[verb][1])
    parser.set_defaults(run=_decide, verb=verb)
    if verb in _WITH_REASON:
        parser.add_argument("--reason", default="", metavar="TEXT", help="told to the server, and kept in the journal")
    if verb == "authorize":
        parser.add_argument("--code", default="", metavar="CODE", help="the comparison code read out at the server")
        parser.add_argument("--group", type=given, metavar="PATH", help="put it in this group, which must be there")
        parser.add_argument(
            "--may-have-secondaries",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="whether a primary on its host may stand under this one (default: as it is; at first not)",
        )
    if verb in _BEQUEATHING:
        parser.add_argument(
            "--below",
            choices=tuple(_BEQUESTS),
            help="of a server whose host runs a primary, what becomes of what was set for the servers there: it stays and may "
            "be changed there (keep), it stays with its locks (freeze), or it ends (delete)",
        )
    return parser


async def fetch(channel: grpc.aio.Channel, account: str = "-", name_or_id: str = "") -> list[Server]:
    """All servers of an account, or of every account; with a name or an id, only those that it names."""
    from enlist.names import resource
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc

    stub: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
    parent = resource("accounts", account)
    servers: list[Server] = []
    token = ""
    while True:
        request = hierarchy_pb2.ListServersRequest(parent=parent, page_token=token, display_name_or_id=name_or_id)
        page = await stub.ListServers(request)
        servers += page.servers
        token = page.next_page_token
        if not token:
            return servers


async def called(channel: grpc.aio.Channel, name_or_id: str, account: str = "-") -> list[Server]:
    """The servers that a name or an id names; nothing else travels."""
    return await fetch(channel, account, name_or_id) if name_or_id else []


def choose(servers: Sequence[Server], wanted: str, where: str = "-") -> Server:
    """The one server that is meant of an account, or of all; an ambiguous name is refused with the ids to choose from.

    An id goes before a name: a server may call itself by another one's id.
    """
    found = [server for server in servers if server.id == wanted] or [s for s in servers if s.display_name == wanted != ""]
    found = [server for server in found if state_of(server) in LIVING] or found
    if not found:
        there = "" if where == "-" else f" in {where}"
        raise Refused(Reason.NOT_FOUND, f'There is no server "{wanted}"{there}. See: enlist-primary server list')
    if len(found) > 1:
        raise below.ambiguous(wanted, [f"{s.id}  {state_of(s)}  {s.account}  {s.comparison_code}" for s in found])
    return found[0]


async def find(channel: grpc.aio.Channel, wanted: str, account: str = "-") -> Server:
    """The one server of this primary that is meant; of one below a middle server it is said who decides about it."""
    found = await find_anywhere(channel, wanted, account)
    if isinstance(found, below.Found):
        raise below.elsewhere(found)
    return found


async def find_anywhere(channel: grpc.aio.Channel, wanted: str, account: str = "-") -> Server | below.Found:
    """The one server that is meant. One below a middle server is meant only with the way to it: many may bear its name."""
    try:
        return choose(await called(channel, wanted, account), wanted, account)
    except Refused as refused:
        if refused.reason is not Reason.NOT_FOUND:
            raise
        found = await find_below(channel, wanted, account)
        if found is None:
            raise
        if "/" not in wanted:
            raise below.elsewhere(found) from None
        return found


async def find_below(channel: grpc.aio.Channel, wanted: str, account: str = "-") -> below.Found | None:
    """The one server below an intermediate that is meant; None if nobody is."""
    *way, last = (part.strip() for part in wanted.split("/"))
    if not last:
        return None
    listed = await below.fetch(channel, account, last)
    intermediates = [way[0]] if way else [each.via for each in listed[:1]]  # of several without a way to them, none is meant
    found = [server for name in intermediates for server in await called(channel, name, account)] if listed else []
    return below.choose(found, listed, wanted)


def state_of(server: Server) -> str:
    """A server's state as people write it."""
    from enlist.v1 import server_pb2

    return output.name_of_enum(server_pb2.ServerState.Name(server.state), "SERVER_STATE_")


def shown_name(server: Server) -> str:
    """A server's name; an invitation that keeps none is called by its id."""
    return server.display_name or f"({server.id})"


def _list(arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    servers = call(arguments, lambda channel: fetch(channel, arguments.domain))
    if arguments.json:
        output.print_json([as_json(server) for server in servers])
        return 0
    rows = [
        (shown_name(s), s.id, state_of(s), "yes" if s.connected else "no", s.account, s.group, s.comparison_code or "-")
        for s in servers
    ]
    header = ("NAME", "ID", "STATE", "CONNECTED", "ACCOUNT", "GROUP", "COMPARISON CODE")
    output.print_table(header, rows, "There are no servers. Invite one with: enlist-primary join DOMAIN")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    found = call(arguments, lambda channel: find_anywhere(channel, arguments.server, arguments.account))
    return _show_fields(below.whole_as_json(found.listed) if isinstance(found, below.Found) else as_json(found), arguments)


def _rename(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    async def rename(channel: grpc.aio.Channel) -> Server:
        stub: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
        server = await find(channel, arguments.server, arguments.account)
        return await stub.RenameServer(hierarchy_pb2.RenameServerRequest(name=server.name, display_name=arguments.new_name))

    return _print(call(arguments, rename), arguments, f"The server is now called {arguments.new_name}.")


def _move(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    domain, path = group_of(arguments.group)

    async def move(channel: grpc.aio.Channel) -> Server:
        stub: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
        server = await find(channel, arguments.server, domain)
        return await stub.MoveServer(hierarchy_pb2.MoveServerRequest(name=server.name, group=path))

    server = call(arguments, move)
    return _print(server, arguments, f"{shown_name(server)} ({server.id}) stands in {shown(domain, server.group)}.")


def _label(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    if not arguments.add + arguments.remove:
        parser.error("--add or --remove is needed")

    async def label(channel: grpc.aio.Channel) -> Server:
        stub: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
        server = await find(channel, arguments.server, arguments.account)
        request = hierarchy_pb2.LabelServerRequest(name=server.name, add=arguments.add, remove=arguments.remove)
        return await stub.LabelServer(request)

    server = call(arguments, label)
    return _print(server, arguments, f"{shown_name(server)} ({server.id}) bears: {', '.join(server.labels) or 'no label'}.")


def _decide(arguments: argparse.Namespace) -> int:
    from enlist.v1 import trust_pb2, trust_pb2_grpc
    from enlist_primary.cli.client import call

    method, _, outcome = _DECISIONS[arguments.verb]
    make_request = getattr(trust_pb2, f"{method}ServerRequest")

    async def decide(channel: grpc.aio.Channel) -> Server:
        server = await find(channel, arguments.server, arguments.account)
        request = make_request(name=server.name)
        if arguments.verb in _WITH_REASON:
            request.reason = arguments.reason
            if arguments.verb in _BEQUEATHING:
                request.bequest = _bequest(server, arguments.below)
        elif arguments.verb == "authorize":
            request.comparison_code, request.group = arguments.code, arguments.group or ""
            if arguments.may_have_secondaries is not None:
                request.may_have_secondaries = arguments.may_have_secondaries
            if arguments.below is not None or arguments.may_have_secondaries is False:
                request.bequest = _bequest(server, arguments.below)
        decided: Server = await getattr(trust_pb2_grpc.TrustServiceStub(channel), f"{method}Server")(request)
        return decided

    server = call(arguments, decide)
    return _print(server, arguments, f"{shown_name(server)} ({server.id}) {outcome}.")


def _bequest(server: Server, given: str | None) -> Any:
    """What becomes of what was set below; whoever has not said is asked, where something stands below and a person is there."""
    from enlist.v1 import trust_pb2

    if given is None and server.lower_primary and sys.stdin.isatty() and sys.stderr.isatty():
        words = ", ".join(f"{word} ({meaning})" for word, meaning in _BEQUESTS.items())
        print(
            f"A primary stands below {escape(shown_name(server))}. What was set for its servers: {words}? ", end="", file=sys.stderr
        )
        sys.stderr.flush()
        given = sys.stdin.readline().strip().lower()
        if given not in _BEQUESTS:
            raise Refused(Reason.INTERRUPTED, "Nothing was changed.")
    return trust_pb2.Bequest.Value(f"BEQUEST_{(given or 'unspecified').upper()}")


def _print(server: Server, arguments: argparse.Namespace, sentence: str) -> int:
    if arguments.json:
        output.print_json(as_json(server))
    else:
        output.say(sentence)
    return 0


def _show_fields(fields: dict[str, object], arguments: argparse.Namespace) -> int:
    if arguments.json:
        output.print_json(fields)
        return 0
    for key, value in fields.items():
        text = ", ".join(map(_text, value)) if isinstance(value, list) else value
        output.say(f"{key.replace('_', ' '):<20}  {output.shown(text)}")
    return 0


def _text(value: object) -> str:
    """A value of a list, in a line with the others."""
    if isinstance(value, dict):  # a remnant
        return f"{value['kind']} since {value['since']}: {value['message']}"
    return str(value)


def as_json(server: Server) -> dict[str, object]:
    """A server as `--json` shows it."""
    return {
        "id": server.id,
        "name": server.display_name or None,
        "account": server.account,
        "group": server.group,
        "state": state_of(server),
        "since": output.time_of(server, "state_time"),
        "connected": server.connected,
        "connected_changed": output.time_of(server, "connected_time"),
        "fingerprint": server.fingerprint or None,
        "comparison_code": server.comparison_code or None,
        "source": server.source or None,
        "server_address": server.server_address or None,
        "version": server.version or None,
        "asked_with": server.asked_with or None,
        "created": output.time_of(server, "create_time"),
        "expires": output.time_of(server, "expire_time"),
        "revision": server.revision,
        "reason": server.reason or None,
        "labels": list(server.labels),
        "kinds": list(server.kinds),
        "may_have_secondaries": server.may_have_secondaries,
        "lower_primary": server.lower_primary or None,
        "remnants": [
            {"kind": each.kind, "since": output.time_of(each, "time"), "message": each.message} for each in server.remnants
        ],
        "set_refusal": server.set_refusal or None,
    }
