"""What stands below this primary, as it says upward: every living server of every account, and what those below it say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from enlist import documents, outputs
from enlist.ancestry import LEVELS
from enlist.certificates import Authority
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.federation.descendants import Below
from enlist_primary.federation.reachability import Reachability
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.registry import Hub
from enlist_primary.messages import servers as render
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.reports import LAYERS, MESSAGE_LIMIT
from enlist_primary.model.servers import LIVING, Server, State
from enlist_primary.store import accounts, servers
from enlist_primary.store.database import Database, Transaction

PAGE = 500
"""Servers in one message, at most, and read at once."""
PAGE_BYTES = 256 * 1024
"""Bytes after which a further message begins."""
ORIGIN = 64
"""Characters of a fingerprint."""

Key = tuple[str, str]


class Subtree:
    """What changed since the secondary on this host was last told, and the words of servers on documents from above.

    These words are kept in memory only: each server says them again when its link opens.
    """

    def __init__(
        self, database: Database, hub: Hub, observations: Observations, below: Below, reach: Reachability, authority: Authority
    ) -> None:
        self._database = database
        self._hub = hub
        self._observations = observations
        self._below = below
        self._reach = reach
        self._authority = authority
        self._words: dict[Key, dict[tuple[str, str], document_pb2.Report]] = {}
        self._dirty: dict[Key, None] = {}
        self._dirty_below: dict[tuple[str, str, str], None] = {}
        self._attached = False
        self._news = asyncio.Event()

    # --- What changes -----------------------------------------------------------------------------------------------------------

    def on_changes(self, changes: Changes) -> None:
        """The tail's changes: the servers among them are said upward again."""
        self.touch(changes.account, changes.ids)

    def on_presence(self, change: PresenceChange) -> None:
        """Links of servers opened or closed, or something else is known of servers below one."""
        below = [id.partition("/") for id in change.ids if "/" in id]
        for via, _, path in below:
            self.touch_below(change.account, via, [path])
        self.touch(change.account, [id for id in change.ids if "/" not in id])

    def touch(self, account: str, ids: Iterable[str]) -> None:
        """Something about these servers changed: their state, their place, their link."""
        if not self._attached:
            return
        for id in ids:
            self._dirty[account, id] = None
            self._dirty_below.update(((account, id, each.path), None) for each in self._below.of(account, id))
            self._news.set()

    def touch_below(self, account: str, via: str, paths: Iterable[str]) -> None:
        """Something about servers below a middle server changed."""
        for path in paths:
            if self._below.find(account, via, path) is None:
                self._words.pop((account, f"{via}/{path}"), None)
            if self._attached:
                self._dirty_below[account, via, path] = None
        self._news.set()

    def heard(self, account: str, server: str, reports: Iterable[document_pb2.Report], items: frozenset[tuple[str, str]]) -> None:
        """A server, or one below (`via/path`), spoke of documents; what is about those from above is said upward."""
        via, _, path = server.partition("/")
        said = {(each.kind, each.name): _bounded(each) for each in reports if (each.kind, each.name) in items}
        if not said or (path and self._below.find(account, via, path) is None):
            return
        self._words.setdefault((account, server), {}).update(said)
        self._say_again(account, server)

    def _say_again(self, account: str, server: str) -> None:
        """This server, and none below it, is said upward once more."""
        via, _, path = server.partition("/")
        if path:
            self.touch_below(account, via, [path])
        elif self._attached:
            self._dirty[account, via] = None
            self._news.set()

    def prune(self, items: frozenset[tuple[str, str]]) -> None:
        """Something above changed: words on what is not wanted from there any more count no more, should it be wanted again.

        Whoever keeps them on the way up hears that: there, too, they could come to count again.
        """
        for (account, server), words in list(self._words.items()):
            past = [key for key in words if key not in items]
            for key in past:
                del words[key]
            if past:
                self._say_again(account, server)

    # --- What is said -----------------------------------------------------------------------------------------------------------

    async def whole(self) -> AsyncIterator[pb.Below]:
        """Everything, in messages of a bounded size; the last one says that it is all."""
        self._attached = True
        self._dirty.clear()
        self._dirty_below.clear()
        for account in await self._database.read(accounts.listed):
            after = ""
            while page := await self._database.read(servers.page, account.domain, after, PAGE):
                said = [self._server(row) for row in page if row.state in LIVING and row.state is not State.INVITED]
                said += [self._server_below(each) for row in page for each in self._below.of(account.domain, row.id)]
                for message in _messages(said):
                    yield message
                after = page[-1].id
        yield pb.Below(whole=True)

    async def changes(self) -> list[pb.Below]:
        """Waits for changes; what changed, in messages of a bounded size."""
        await self._news.wait()
        self._news.clear()
        dirty, self._dirty = list(self._dirty), {}
        below, self._dirty_below = list(self._dirty_below), {}
        said: list[pb.BelowServer] = []
        gone: list[str] = []
        for begin in range(0, len(dirty), PAGE):
            some = dirty[begin : begin + PAGE]
            for key, row in zip(some, await self._database.read(_rows, some), strict=True):
                if row is not None and row.state in LIVING and row.state is not State.INVITED:
                    said.append(self._server(row))
                else:
                    gone.append(key[1])
                    self._words.pop(key, None)
        for account, via, path in below:
            found = self._below.find(account, via, path)
            if found is not None:
                said.append(self._server_below(found))
            else:
                gone.append(f"{via}/{path}")
                self._words.pop((account, f"{via}/{path}"), None)
        return _messages(said, gone)

    def detached(self) -> None:
        """Nobody listens any more."""
        self._attached = False

    def _server(self, row: Server) -> pb.BelowServer:
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
            reports=self._said(row.account, row.id),
        )

    def _server_below(self, each: BelowServer) -> pb.BelowServer:
        message = render.below(each, self._reach.cut_since(each.account, each))
        message.path = each.id
        message.reports.extend(self._said(each.account, each.id))
        return message

    def _said(self, account: str, server: str) -> list[document_pb2.Report]:
        return _fitting(self._words.get((account, server), {}).values())


def _bounded(report: document_pb2.Report) -> document_pb2.Report:
    """A report as it may go up: one server is bounded by what its own link carries, the way up is everybody's."""
    return document_pb2.Report(
        kind=report.kind,
        name=report.name,
        state=report.state,
        task_state=report.task_state,
        message=report.message[:MESSAGE_LIMIT],
        observed_items=_origin_items(report.observed_items),
        applied_items=_origin_items(report.applied_items),
        time=report.time if report.HasField("time") else None,
        exit_code=report.exit_code,
        output=outputs.cut(report.output),
    )


def _origin_items(said: Sequence[document_pb2.OriginItems]) -> list[document_pb2.OriginItems]:
    return [
        document_pb2.OriginItems(origin=each.origin[:ORIGIN], items=map(_version, each.items[:LAYERS]))
        for each in said[: LEVELS + 1]
    ]


def _version(said: document_pb2.ItemVersion) -> document_pb2.ItemVersion:
    """Without what this version does not know. A digest that is too long stays so: it is for its origin to refuse."""
    return document_pb2.ItemVersion(revision=said.revision, digest=said.digest[: documents.DIGEST_BYTES + 1])


def _fitting(reports: Iterable[document_pb2.Report]) -> list[document_pb2.Report]:
    """What of a server's words goes up together: the newest whole, of older ones without what a task wrote where it is too much."""
    left, found = PAGE_BYTES, []
    for report in sorted(reports, key=lambda each: each.time.seconds, reverse=True):
        if report.ByteSize() > left:
            short = document_pb2.Report()
            short.CopyFrom(report)
            short.output = outputs.cut(report.output, 0)
            report = short
        if report.ByteSize() <= left:
            left -= report.ByteSize()
            found.append(report)
    return found


def _rows(tx: Transaction, keys: Sequence[Key]) -> list[Server | None]:
    return [servers.find(tx, account, id) for account, id in keys]


def _messages(said: Sequence[pb.BelowServer], gone: Sequence[str] = ()) -> list[pb.Below]:
    """Servers in messages of a bounded size; one alone is bounded by what its own link may carry."""
    messages: list[pb.Below] = []
    size = PAGE_BYTES
    for server in said:
        if size >= PAGE_BYTES or len(messages[-1].servers) >= PAGE:
            messages.append(pb.Below())
            size = 0
        messages[-1].servers.append(server)
        size += server.ByteSize()
    if gone:
        messages.append(pb.Below(gone=gone))
    return messages
