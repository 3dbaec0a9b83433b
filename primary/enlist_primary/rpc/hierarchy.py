"""HierarchyService: the tree of an account, and the link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from enlist import __version__, names
from enlist.reasons import Refused
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import server_pb2
from enlist_primary.federation.ancestors import Upper
from enlist_primary.links.link import Links, Peer
from enlist_primary.messages import servers as render
from enlist_primary.model import accounts, levels
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.rollouts import Presence
from enlist_primary.model.servers import Server
from enlist_primary.operations import servers
from enlist_primary.rpc import errors
from enlist_primary.rpc.access import Caller, caller
from enlist_primary.rpc.context import Context
from enlist_primary.rpc.groups import Groups
from enlist_primary.rpc.origins import Origins
from enlist_primary.store import accounts as account_rows
from enlist_primary.store import observations
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.observations import Refusals

PAGE = 1000


def server_of(name: str) -> tuple[str, str]:
    """Account and id in a server's resource name; of an account that is not for the caller's eyes there is no server."""
    account, id = names.parse_resource(name, "accounts", "servers")
    if not caller().sees(account):
        raise rows.unknown(id)
    return account, id


class Hierarchy(Groups, Origins):
    """Shows the tree, and holds the links."""

    def __init__(self, context: Context, links: Links) -> None:
        super().__init__(context)
        self._links = links

    async def Connect(  # type: ignore[override]  # the stubs know generators only; a link reads and writes as it needs to
        self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        who, own = caller(), self._context
        try:
            ended = await self._links.hold(context, Peer(who.server, who.public_key, who.source, who.certificate_ends))
        except Refused as refused:  # for what the server said; it need not be heard out
            ended = refused
        if ended is not None:
            with own.hub.delivering():
                await errors.abort(context, ended)

    # --- The tree -------------------------------------------------------------------------------------------------------------

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.PrimaryStatus:
        own, who = self._context, caller()
        states, refusals = await own.database.read(_status)
        counts: dict[int, int] = {}
        for account, state, count in states:
            if who.sees(account):
                counts[render.STATES[state]] = counts.get(render.STATES[state], 0) + count
        return pb.PrimaryStatus(
            primary_name=own.config.name,
            fingerprint=own.signer.authority.fingerprint,
            primary_id=own.signer.authority.primary_id,
            ssl_port=own.ports.ssl,
            api_port=own.ports.api,
            addresses=own.addresses,
            version=__version__,
            start_time=render.moment(own.started),
            certificate_expire_time=render.moment(own.served.ssl_certificate_ends),
            connected=own.hub.count(who.sees),
            stalled=own.hub.stalled,
            servers=[pb.StateCount(state=state, count=n) for state, n in sorted(counts.items())],  # type: ignore[arg-type]  # enum
            refusals=[_refusal_count(each) for each in refusals if who.sees(each.account)],
            above=_above(own.upper),
        )

    async def ListServers(self, request: pb.ListServersRequest, context: Any) -> pb.ListServersResponse:
        own, who = self._context, caller()
        (parent,) = names.parse_resource(request.parent, "accounts")
        if parent != "-":
            who.require(accounts.from_resource(request.parent))
        limit = min(request.page_size if request.page_size > 0 else PAGE, PAGE)
        found = await own.database.read(_page, who, parent, request.display_name_or_id, request.page_token, limit + 1)
        more = len(found) > limit
        page = found[:limit]
        token = f"{page[-1].account}/{page[-1].id}" if more else ""
        now = own.now()
        return pb.ListServersResponse(servers=[own.server(row.at(now)) for row in page], next_page_token=token)

    async def ListBelow(self, request: pb.ListBelowRequest, context: Any) -> AsyncIterator[pb.ListBelowResponse]:
        own = self._context
        for domain in await domains_of(own.database, request.parent):
            there = levels.called(own.below.of(domain), request.display_name_or_id)
            found = sorted(there, key=lambda each: (each.via, each.path))
            for begin in range(0, len(found), PAGE):
                some = found[begin : begin + PAGE]
                view = own.reach.view(domain)
                yield pb.ListBelowResponse(
                    servers=[_listed(each, own.reach.cut_since(domain, each), view.of(each.id)) for each in some]
                )

    async def GetServer(self, request: pb.GetServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        row = await self._context.database.read(rows.load, account, id)
        return self._context.server(row.at(self._context.now()))

    async def RenameServer(self, request: pb.RenameServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        own, actor = self._context, caller().actor
        row = await own.database.write(account, servers.rename, account, id, request.display_name, actor, own.now())
        return own.server(row)

    async def MoveServer(self, request: pb.MoveServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        own, actor = self._context, caller().actor
        return own.server(await own.database.write(account, servers.move, account, id, request.group, actor, own.now()))

    async def LabelServer(self, request: pb.LabelServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        own, actor = self._context, caller().actor
        add, remove = list(request.add), list(request.remove)
        return own.server(await own.database.write(account, servers.label, account, id, add, remove, actor, own.now()))


async def domains_of(database: Database, parent: str) -> list[str]:
    """The accounts that the parent of a listing means: `accounts/DOMAIN`, or `accounts/-` for all that the caller sees.

    Refused: NOT_FOUND."""
    who = caller()
    if names.parse_resource(parent, "accounts") == ("-",):
        return [each.domain for each in await database.read(account_rows.listed) if who.sees(each.domain)]
    domain = who.require(accounts.from_resource(parent))
    await database.read(account_rows.load, domain)
    return [domain]


def _listed(row: BelowServer, cut_since: int | None, presence: Presence) -> pb.ListedBelow:
    server = render.below(row, cut_since)
    return pb.ListedBelow(account=row.account, via=row.via, server=server, set_refusal=presence.refusal)


def _above(ancestors: Upper) -> list[pb.UpperPrimary]:
    return render.above(ancestors.above, ancestors.row, ancestors.connected, ancestors.connected_at, ancestors.refusal)


def _status(tx: Transaction) -> tuple[list[Any], list[Refusals]]:
    return rows.state_counts(tx), observations.refusals(tx)


def _refusal_count(each: Refusals) -> pb.RefusalCount:
    return pb.RefusalCount(
        account=each.account,
        reason=each.reason,
        count=each.count,
        last_time=render.moment(each.last_at),
        last_source=each.last_source or "",
    )


def _page(tx: Transaction, who: Caller, parent: str, name_or_id: str, token: str, limit: int) -> list[Server]:
    """The next servers after the token `account/id`, of one account or of all the caller sees, in that order.

    With a name or an id, only those that it names.
    """
    begin, _, after = token.partition("/")
    if parent != "-":
        account_rows.load(tx, parent)
        domains = [parent]
    else:
        domains = [each.domain for each in account_rows.listed(tx) if who.sees(each.domain) and each.domain >= begin]
    found: list[Server] = []
    for domain in domains:
        behind, room = after if domain == begin else "", limit - len(found)
        found += rows.called(tx, domain, name_or_id, behind, room) if name_or_id else rows.page(tx, domain, behind, room)
        if len(found) >= limit:
            break
    return found
