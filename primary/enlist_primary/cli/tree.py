"""`tree`: accounts, their groups, and the servers in them."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import below as below_servers
from enlist_primary.cli import output
from enlist_primary.cli.servers import LIVING, as_json, fetch, shown_name, state_of

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.hierarchy_pb2 import BelowServer, ListedBelow
    from enlist.v1.server_pb2 import Server


@dataclass
class Below:
    """A server below a middle server, with what stands below it in turn."""

    server: BelowServer
    below: list[Below] = field(default_factory=list)


@dataclass
class Placed:
    """A server of this primary, with what stands below it if it is a middle server."""

    server: Server
    below: list[Below] = field(default_factory=list)


@dataclass
class Node:
    """A group with what stands in it; an account's root group bears the account's domain."""

    name: str
    groups: dict[str, Node] = field(default_factory=dict)
    servers: list[Placed] = field(default_factory=list)

    def at(self, path: str) -> Node:
        """The group at a path below this one, made if it is missing."""
        node = self
        for part in filter(None, path.split("/")):
            node = node.groups.setdefault(part, Node(part))
        return node


def add_commands(commands: Any) -> None:
    """Adds the command of this file."""
    tree = commands.add_parser("tree", help="show accounts, groups and servers as a tree")
    tree.add_argument("domain", nargs="?", default="", metavar="DOMAIN", help="of this account (default: all)")
    output.add_json(tree)
    tree.set_defaults(run=_tree)


def _tree(arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    groups, servers, below = call(arguments, lambda channel: _fetch(channel, arguments.domain))
    roots = plant(groups, servers, below)
    if arguments.json:
        output.print_json([_as_json(root) for root in roots])
        return 0
    for root in roots:
        output.say("\n".join(draw(root)))
    if not roots:
        output.say("There are no accounts. Make one with: enlist-primary account add DOMAIN")
    past = Counter(state_of(server) for server in servers if state_of(server) not in LIVING)
    if past:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(past.items()))
        output.say(f"Not shown: {counts} (see: enlist-primary server list)")
    return 0


async def _fetch(channel: grpc.aio.Channel, domain: str) -> tuple[dict[str, list[str]], list[Server], list[ListedBelow]]:
    """The paths of every account's groups, the servers, and those below the middle servers among them."""
    from enlist.names import resource
    from enlist.v1 import account_pb2, account_pb2_grpc, hierarchy_pb2, hierarchy_pb2_grpc

    accounts: account_pb2_grpc.AccountServiceAsyncStub = account_pb2_grpc.AccountServiceStub(channel)
    hierarchy: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
    listed = await accounts.ListAccounts(account_pb2.ListAccountsRequest())
    domains = [domain] if domain else [account.domain for account in listed.accounts]
    groups = {}
    for each in domains:
        found = await hierarchy.ListGroups(hierarchy_pb2.ListGroupsRequest(parent=resource("accounts", each)))
        groups[each] = [group.path for group in found.groups]
    return groups, await fetch(channel, domain or "-"), await below_servers.fetch(channel, domain or "-")


def plant(groups: dict[str, list[str]], servers: Iterable[Server], below: Iterable[ListedBelow] = ()) -> list[Node]:
    """One tree per account, with the servers that are living."""
    branches: dict[tuple[str, str], list[BelowServer]] = defaultdict(list)
    for each in below:
        branches[each.account, each.via].append(each.server)
    roots = {domain: Node(domain) for domain in groups}
    for domain, paths in groups.items():
        for path in paths:
            roots[domain].at(path)
    for server in servers:
        if state_of(server) in LIVING and server.account in roots:  # its account may be newer than our list of them
            placed = Placed(server, _branch(branches[server.account, server.id]))
            roots[server.account].at(server.group).servers.append(placed)
    return list(roots.values())


def _branch(servers: Iterable[BelowServer]) -> list[Below]:
    """What stands right below, each with what stands below it: the paths say so. One whose way up is missing stands on top."""
    placed = {server.path: Below(server) for server in servers}
    tops: list[Below] = []
    for path, each in placed.items():
        above = placed.get(path.rpartition("/")[0])
        (above.below if above is not None else tops).append(each)
    return tops


def draw(node: Node) -> Iterator[str]:
    """The lines of a tree; names are escaped by whoever prints them."""
    yield node.name
    groups = sorted(node.groups.values(), key=lambda group: group.name)
    yield from _hang([*map(draw, groups), *map(_draw_placed, sorted(node.servers, key=lambda each: shown_name(each.server)))])


def _draw_placed(placed: Placed) -> Iterator[str]:
    yield _leaf(placed.server)
    yield from _hang([_draw_below(each) for each in _by_name(placed.below)])


def _draw_below(below: Below) -> Iterator[str]:
    yield _leaf_below(below.server)
    yield from _hang([_draw_below(each) for each in _by_name(below.below)])


def _by_name(below: Iterable[Below]) -> list[Below]:
    return sorted(below, key=lambda each: (each.server.place, each.server.display_name, each.server.path))


def _hang(children: list[Iterator[str]]) -> Iterator[str]:
    """The lines of what hangs on a branch, each child's first one at a twig."""
    for place, lines in enumerate(children):
        last = place == len(children) - 1
        branch, trunk = ("└── ", "    ") if last else ("├── ", "│   ")
        yield branch + next(lines)
        yield from (trunk + line for line in lines)


def _leaf_below(server: BelowServer) -> str:
    """The line of a server below: of one that is cut off from here nothing is said but since when."""
    state = below_servers.state_of(server)
    if server.HasField("unknown_since"):
        since = output.time_of(server, "unknown_since")
        details = "UNKNOWN, never reached" if server.unknown_since.seconds == 0 else f"UNKNOWN since {since}"
    elif state == "trusted":
        seen = f", since {output.time_of(server, 'connected_time')}" if server.HasField("connected_time") else ", never seen"
        details = "connected" if server.connected else f"NOT connected{seen}"
    elif state == "pending":
        details = f"NOT trusted there: its primary must authorize or deny it; comparison code {server.comparison_code}"
    else:
        details = "by its primary"
    return f"{server.display_name}  [{state}]  {details}  ({server.place})"


def _leaf(server: Server) -> str:
    """A server's line: its state is a word, so it needs no colour."""
    state = state_of(server)
    if state == "trusted":
        known = f"since {output.time_of(server, 'connected_time')}" if server.HasField("connected_time") else "never seen"
        details = "connected" if server.connected else f"NOT connected, {known}"
    elif state == "pending":
        details = f"NOT trusted: authorize or deny it; comparison code {server.comparison_code}"
    else:
        details = f"since {output.time_of(server, 'state_time')}"
    return f"{shown_name(server)}  [{state}]  {details}"


def _as_json(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "groups": [_as_json(group) for group in sorted(node.groups.values(), key=lambda g: g.name)],
        "servers": [_placed_json(placed) for placed in sorted(node.servers, key=lambda each: shown_name(each.server))],
    }


def _placed_json(placed: Placed) -> dict[str, object]:
    return {**as_json(placed.server), "below": [_below_json(each) for each in _by_name(placed.below)]}


def _below_json(below: Below) -> dict[str, object]:
    return {**below_servers.as_json(below.server), "below": [_below_json(each) for each in _by_name(below.below)]}
