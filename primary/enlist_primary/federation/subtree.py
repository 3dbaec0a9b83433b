"""What is below this primary, as it says upward: every living server of every account, and what those below it say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence

from enlist.certificates import Authority
from enlist.runtime.link_outbox import OutboxCursor, open_cursor
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.federation.upward_reports import Concerns, Key, UpwardReports
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.messages import servers as render
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.servers import LIVING, Server, State
from enlist_primary.store import accounts, servers
from enlist_primary.store.database import Database, Transaction

PAGE = 500
"""Servers that are read at once, and acknowledged together."""
PAGE_BYTES = 256 * 1024
"""Bytes after which a further message begins."""
GATHER_SECONDS = 0.05
"""Seconds for which changes below are gathered before they are said upward."""

_WHOLE: Key = ("", "")
"""Stands behind every server of the first pass: once it is said, all is said."""


class SubtreeStream:
    """What one stream is told: all that is below, then what changes.

    What waits to be said are the servers themselves; how each of them is, is read when it is said. One stays in line until the
    other end has acknowledged the message with it.
    """

    def __init__(self, subtree: Subtree) -> None:
        self._subtree = subtree
        self._cursor: OutboxCursor[Key, int] = open_cursor()
        self._marks = itertools.count(1)
        self._news = asyncio.Event()

    def mark(self, server: Key) -> None:
        """Something about this server changed: it is said again."""
        self._cursor.put(server, next(self._marks))
        self._news.set()

    def ack(self, sequence: int) -> bool:
        """The other end has taken the message with this number; False if no such message is on its way."""
        self._news.set()
        return self._cursor.ack(sequence)

    async def messages(self) -> AsyncGenerator[pb.Below, None]:
        """What is to be said, without end."""
        async for page in self._subtree.pages():
            for server in page:
                self.mark(server)
            async for message in self.due():
                yield message
        self.mark(_WHOLE)
        while True:
            self._news.clear()
            async for message in self.due():
                yield message
            await asyncio.sleep(GATHER_SECONDS)
            await self._news.wait()

    async def due(self) -> AsyncGenerator[pb.Below, None]:
        """What is to be said now. While too much is not acknowledged, it waits for that."""
        while True:
            self._news.clear()
            if (batch := self._cursor.take(PAGE, PAGE)) is not None:
                async for message in self._messages(batch.sequence, [server for server, _ in batch.values]):
                    yield message
            elif self._cursor.stalled:
                await self._news.wait()
            else:
                return

    async def _messages(self, sequence: int, keys: Sequence[Key]) -> AsyncGenerator[pb.Below, None]:
        """These servers, in messages of a bounded size; the last one carries the number."""
        message, size = pb.Below(), 0
        for (_, path), server in await self._subtree.said([key for key in keys if key != _WHOLE]):
            if server is None:
                message.gone.append(path)
                continue
            if message.servers and size + server.ByteSize() > PAGE_BYTES:
                yield message
                message, size = pb.Below(), 0
            message.servers.append(server)
            size += server.ByteSize()
        message.sequence = sequence
        message.whole = _WHOLE in keys
        yield message


class Subtree:
    """All servers below this primary, and the stream over which the secondary on this host is told of them."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        observations: Observations,
        below: Descendants,
        reach: Reachability,
        authority: Authority,
    ) -> None:
        self._database = database
        self._hub = hub
        self._observations = observations
        self._below = below
        self._reach = reach
        self._authority = authority
        self._stream: SubtreeStream | None = None
        self.reports = UpwardReports()

    def open(self) -> SubtreeStream:
        """A stream has opened; the one before it is told nothing more."""
        self._stream = SubtreeStream(self)
        return self._stream

    def close(self, stream: SubtreeStream) -> None:
        """That stream has closed, unless another one is told by now."""
        if self._stream is stream:
            self._stream = None

    # --- What changes -----------------------------------------------------------------------------------------------------------

    def on_changes(self, changes: Changes) -> None:
        """The tail's changes: these servers are reported upward again. The reports of removed ones are dropped."""
        for record in changes.records:
            if record.state not in LIVING:
                self.reports.forget((changes.account, record.id))
        for id in changes.ids:
            self._mark_branch(changes.account, id)

    def on_presence(self, change: PresenceChange) -> None:
        """Links of servers opened or closed, or something else is known of servers below one."""
        for id in change.ids:
            via, _, path = id.partition("/")
            if not path:
                self._mark_branch(change.account, id)
                continue
            if self._below.find(change.account, via, path) is None:
                self.reports.forget((change.account, id))
            self._mark((change.account, id))

    def _mark_branch(self, account: str, id: str) -> None:
        """A server, and all below it: how it is connected decides what is known of them."""
        if self._stream is not None:
            self._mark((account, id))
            for each in self._below.of(account, id):
                self._mark((account, each.id))

    def heard(self, account: str, server: str, reports: Iterable[document_pb2.Report], concerns: Concerns) -> None:
        """A server, or one below (`via/path`), reported; what concerns those above is said upward."""
        via, _, path = server.partition("/")
        if path and self._below.find(account, via, path) is None:
            return
        if self.reports.put((account, server), reports, concerns):
            self._mark((account, server))

    def settled(self, server: str, run: str) -> bool:
        """How a run ended at a server, or at one below (`via/path`), has arrived at the primary that ordered it.

        Whether that was said from here.
        """
        held_back = self.reports.held_back(server)
        settled = self.reports.settled(server, run)
        if settled and held_back is not None:  # others of its reports have room now
            self._mark(held_back)
        return settled

    def prune(self, concerns: Concerns) -> None:
        """Something above changed: reports on what is not wanted from there any more do not count, should it be wanted again.

        Those who keep them on the way up hear that: there, too, they could come to count again.
        """
        for server in self.reports.prune(concerns):
            self._mark(server)

    def _mark(self, server: Key) -> None:
        if self._stream is not None:
            self._stream.mark(server)

    # --- What is said -----------------------------------------------------------------------------------------------------------

    async def pages(self) -> AsyncIterator[Sequence[Key]]:
        """All servers below, page by page."""
        for account in await self._database.read(accounts.listed):
            after = ""
            while page := await self._database.read(servers.page, account.domain, after, PAGE):
                below = [(account.domain, each.id) for row in page for each in self._below.of(account.domain, row.id)]
                yield [(account.domain, row.id) for row in page if _counts(row)] + below
                after = page[-1].id

    async def said(self, keys: Sequence[Key]) -> Iterator[tuple[Key, pb.BelowServer | None]]:
        """How each of these servers is now; None if it is gone."""
        direct = [key for key in keys if "/" not in key[1]]
        rows = dict(zip(direct, await self._database.read(_rows, direct), strict=True))
        return ((key, self._said(key, rows)) for key in keys)

    def _said(self, key: Key, rows: Mapping[Key, Server | None]) -> pb.BelowServer | None:
        found = self._server(rows[key]) if key in rows else self._server_below(*key)
        if found is None:
            self.reports.forget(key)
        return found

    def _server(self, row: Server | None) -> pb.BelowServer | None:
        if row is None or not _counts(row):
            return None
        seen = self._observations.seen(row.account, row.id)
        changed = max(seen.connected_at or 0, seen.disconnected_at or 0)
        return pb.BelowServer(
            path=row.id,
            display_name=row.shown_name,
            place=row.account if row.group == "/" else f"{row.account}/{row.group}",
            state=render.STATES[row.state],
            connected=self._hub.connected(row.account, row.id),
            connected_time=render.moment(changed or None),
            comparison_code=render.code(self._authority, row) if row.state is State.PENDING else "",
            kinds=(seen.kinds or "").split(),
            reports=self.reports.of((row.account, row.id)),
            set_refusals=self._refusals(row.account, row.id),
        )

    def _refusals(self, account: str, id: str) -> Sequence[pb.SetRefused]:
        """The sets from above that a server with a link refuses."""
        link = self._hub.find(account, id)
        return link.refused_sets if link is not None else ()

    def _server_below(self, account: str, id: str) -> pb.BelowServer | None:
        via, _, path = id.partition("/")
        each: BelowServer | None = self._below.find(account, via, path)
        if each is None:
            return None
        message = render.below(each, self._reach.cut_since(account, each))
        message.path = each.id
        message.reports.extend(self.reports.of((account, id)))
        own = self._authority.primary_id
        refused = {
            r.origin: pb.SetRefused(origin=r.origin, reason=r.reason, message=r.message) for r in each.refusals if r.origin != own
        }
        for above in self._refusals(account, via):  # what the server on the way refuses, nobody below it gets
            refused.setdefault(above.origin, above)
        message.set_refusals.extend(refused.values())
        return message


def _counts(row: Server) -> bool:
    """Whether a server is said upward: it lives, and has asked to join."""
    return row.state in LIVING and row.state is not State.INVITED


def _rows(tx: Transaction, keys: Sequence[Key]) -> list[Server | None]:
    return [servers.find(tx, account, id) for account, id in keys]
