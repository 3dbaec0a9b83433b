"""HierarchyService: the tree of an account, and the link."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from enlist import __version__, names
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.runtime.logs import Log
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc, server_pb2
from enlist_primary.links.hub import Link
from enlist_primary.model import accounts
from enlist_primary.model.servers import Server, State
from enlist_primary.operations import servers
from enlist_primary.rpc import errors, render
from enlist_primary.rpc.access import Caller, caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import accounts as account_rows
from enlist_primary.store import groups, observations
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.observations import Refusals
from enlist_primary.store.servers import Standing

HELLO_TIMEOUT = 20.0
"""Seconds within which a secondary that opened the stream must say hello."""
PAGE = 1000
ALARMS = 16

log = Log("link")


def server_of(name: str) -> tuple[str, str]:
    """Account and id in a server's resource name; of an account that is not for the caller's eyes there is no server."""
    account, id = names.parse_resource(name, "accounts", "servers")
    if not caller().sees(account):
        raise rows.unknown(id)
    return account, id


def still_trusted(tx: Transaction, standing: Standing) -> Server:
    """The row of a server that called as trusted; refused if it is that no longer."""
    row = rows.load(tx, standing.account, standing.id)
    if row.state is not State.TRUSTED:
        raise standings.not_trusted(row.state, row.since, row.reason or "")
    return row


class Hierarchy(hierarchy_pb2_grpc.HierarchyServiceServicer):
    """Shows the tree, and holds the links."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # --- The link -------------------------------------------------------------------------------------------------------------

    async def Connect(  # type: ignore[override]  # the stubs know generators only; this one reads and writes as it needs to
        self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Runs a link. Its body is an inner task: it is that which ends with trust, and the refusal still reaches the peer."""
        own, who = self._context, caller()
        standing = who.server
        hello = await self._hello(context)
        link = own.hub.open(standing.account, standing.id, who.certificate_ends)
        body = asyncio.create_task(self._body(context, hello, who))
        try:
            both: list[asyncio.Future[Any]] = [body, link.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = link.ended.result() if link.ended.done() else None
            fault = await self._close(link, body, standing, ended)
        if fault is not None:
            raise fault
        if ended is not None:
            with own.hub.delivering():
                await errors.abort(context, ended)

    async def _hello(self, context: grpc.aio.ServicerContext[Any, Any]) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                message = await context.read()
        except TimeoutError:
            raise Refused(Reason.TIMED_OUT, "The secondary opened a link and said nothing.") from None
        if message is grpc.aio.EOF or message.WhichOneof("message") != "hello":
            raise Refused(Reason.INVALID_ARGUMENT, "A link begins with hello.")
        if message.hello.protocol != PROTOCOL:
            sentence = f"This primary speaks protocol {PROTOCOL}, the secondary {message.hello.protocol}. Update the older one."
            raise Refused(Reason.VERSION_INCOMPATIBLE, sentence)
        hello: pb.Hello = message.hello
        return hello

    async def _body(self, context: grpc.aio.ServicerContext[Any, Any], hello: pb.Hello, who: Caller) -> None:
        own, now = self._context, self._context.now()
        # Read once the hub holds the link: of a decision made before, this read knows; of one made later, the hub will be told.
        row = await own.database.read(still_trusted, who.server)
        welcome = pb.Welcome(
            primary_name=own.config.name,
            version=__version__,
            display_name=row.name or "",
            group=row.group,
            time=render.moment(now),
        )
        await context.write(pb.FromPrimary(welcome=welcome))
        where = _host(hello.server_address)
        own.observations.connected(row.account, row.id, who.source, hello.version[:40], now, where)
        log.info("link opened", account=row.account, server=row.id, name=row.shown_name, address=who.source)
        for alarm in hello.identity_alarms[:ALARMS]:
            own.observations.refused(row.account, Reason.IDENTITY_CHANGED, who.source, now)
            log.alarm(
                "a secondary met a strange authority at this primary's address",
                account=row.account,
                server=row.id,
                address=alarm.address[:300],
                fingerprint=alarm.fingerprint[:64],
            )
        while await context.read() is not grpc.aio.EOF:
            pass  # nothing else has a meaning yet; what a newer secondary says is passed over

    async def _close(self, link: Link, body: asyncio.Task[None], standing: Standing, ended: Refused | None) -> Exception | None:
        """Takes the link out; what the body failed with, unless it was the connection that went away."""
        body.cancel()
        (failure,) = await asyncio.gather(body, return_exceptions=True)
        if self._context.hub.close(link):
            self._context.observations.disconnected(standing.account, standing.id, self._context.now())
        refused = failure if isinstance(failure, Refused) else ended
        why = refused.reason if refused else "closed by the secondary"
        log.info("link closed", account=standing.account, server=standing.id, why=why)
        lost = isinstance(failure, asyncio.CancelledError | grpc.aio.BaseError)
        return failure if isinstance(failure, Exception) and not lost else None

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
        )

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        account = caller().require(accounts.from_resource(request.parent))
        listed = await self._context.database.read(_groups, account)
        return pb.ListGroupsResponse(groups=[render.group(each) for each in listed])

    async def ListServers(self, request: pb.ListServersRequest, context: Any) -> pb.ListServersResponse:
        own, who = self._context, caller()
        (parent,) = names.parse_resource(request.parent, "accounts")
        if parent != "-":
            who.require(accounts.from_resource(request.parent))
        limit = min(request.page_size if request.page_size > 0 else PAGE, PAGE)
        found = await own.database.read(_page, who, parent, request.page_token, limit + 1)
        more = len(found) > limit
        page = found[:limit]
        token = f"{page[-1].account}/{page[-1].id}" if more else ""
        now = own.now()
        return pb.ListServersResponse(servers=[own.server(row.at(now)) for row in page], next_page_token=token)

    async def GetServer(self, request: pb.GetServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        row = await self._context.database.read(rows.load, account, id)
        return self._context.server(row.at(self._context.now()))

    async def RenameServer(self, request: pb.RenameServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        own, actor = self._context, caller().actor
        row = await own.database.write(account, servers.rename, account, id, request.display_name, actor, own.now())
        return own.server(row)


def _host(text: str) -> str:
    """The address where clients find a server; what is none counts as not said."""
    try:
        return names.host(text)
    except Refused:
        return ""


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


def _groups(tx: Transaction, account: str) -> list[groups.Group]:
    account_rows.load(tx, account)
    return groups.listed(tx, account)


def _page(tx: Transaction, who: Caller, parent: str, token: str, limit: int) -> list[Server]:
    """The next servers after the token `account/id`, of one account or of all the caller sees, in that order."""
    begin, _, after = token.partition("/")
    if parent != "-":
        account_rows.load(tx, parent)
        domains = [parent]
    else:
        domains = [each.domain for each in account_rows.listed(tx) if who.sees(each.domain) and each.domain >= begin]
    found: list[Server] = []
    for domain in domains:
        found += rows.page(tx, domain, after if domain == begin else "", limit - len(found))
        if len(found) >= limit:
            break
    return found
