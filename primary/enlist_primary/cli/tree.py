"""`tree`: accounts, their groups, and the servers in them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output
from enlist_primary.cli.servers import LIVING, as_json, fetch, shown_name, state_of

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.server_pb2 import Server


@dataclass
class Node:
    """A group with what stands in it; an account's root group bears the account's domain."""

    name: str
    groups: dict[str, Node] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)

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

    groups, servers = call(arguments, lambda channel: _fetch(channel, arguments.domain))
    roots = plant(groups, servers)
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


async def _fetch(channel: grpc.aio.Channel, domain: str) -> tuple[dict[str, list[str]], list[Server]]:
    """The paths of every account's groups, and the servers."""
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
    return groups, await fetch(channel, domain or "-")


def plant(groups: dict[str, list[str]], servers: Iterable[Server]) -> list[Node]:
    """One tree per account, with the servers that are living."""
    roots = {domain: Node(domain) for domain in groups}
    for domain, paths in groups.items():
        for path in paths:
            roots[domain].at(path)
    for server in servers:
        if state_of(server) in LIVING and server.account in roots:  # its account may be newer than our list of them
            roots[server.account].at(server.group).servers.append(server)
    return list(roots.values())


def draw(node: Node) -> Iterator[str]:
    """The lines of a tree; names are escaped by whoever prints them."""
    yield node.name
    below: list[Node | Server] = [*sorted(node.groups.values(), key=lambda g: g.name), *sorted(node.servers, key=shown_name)]
    for place, child in enumerate(below):
        last = place == len(below) - 1
        branch, trunk = ("└── ", "    ") if last else ("├── ", "│   ")
        lines = draw(child) if isinstance(child, Node) else iter([_leaf(child)])
        yield branch + next(lines)
        yield from (trunk + line for line in lines)


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
        "servers": [as_json(server) for server in sorted(node.servers, key=shown_name)],
    }
