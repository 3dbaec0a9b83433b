"""What stands below middle servers, as those say it: memory for whoever asks how a server is reached, written down in batches."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from enlist import documents
from enlist.reasons import Refused
from enlist.runtime.logs import Log
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.ingest.reports import Reports
from enlist_primary.model import levels as model
from enlist_primary.model import reports
from enlist_primary.model.levels import SERVERS, BelowServer
from enlist_primary.model.reports import Asked, Word
from enlist_primary.operations import levels
from enlist_primary.store import levels as rows
from enlist_primary.store.database import Database

GATHER_SECONDS = 0.05
RETRY_SECONDS = 1.0
BATCH = 500
SERVERS_AT_ONCE = 1000
"""Servers that are taken of one message: twice as many as any primary puts into one."""

log = Log("below")

Via = tuple[str, str]


@dataclass
class Branch:
    """What stands below one middle server. `unknown_since`: its host's primary has not answered the host's secondary since then."""

    servers: dict[str, BelowServer] = field(default_factory=dict)
    unknown_since: int | None = None
    said: set[str] = field(default_factory=set)
    """Paths that were said since its link opened: once it has said all, the others are gone."""
    changed: dict[str, None] = field(default_factory=dict)
    words: dict[tuple[str, str], Word] = field(default_factory=dict)
    """Words on policies of servers that changed, by path and kind: nothing is written of a server before the server is."""
    gone: set[str] = field(default_factory=set)
    whole: bool = False


class Below:
    """All branches of this primary."""

    def __init__(
        self,
        database: Database,
        words: Reports,
        origin: str,
        publish: Callable[[PresenceChange], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`origin` is this primary's fingerprint: whose revisions count in reports. `clock` is Unix seconds."""
        self._database = database
        self._words = words
        self._origin = origin
        self._publish = publish
        self._clock = clock
        self._branches: dict[Via, Branch] = defaultdict(Branch)
        self._news = asyncio.Event()

    async def load(self) -> None:
        """Reads what was said last."""
        for each in await self._database.read(rows.below):
            self._branches[each.account, each.via].servers[each.path] = each

    # --- What is known ------------------------------------------------------------------------------------------------------------

    def find(self, account: str, via: str, path: str) -> BelowServer | None:
        """A server below a middle server. One of which nothing is known any more says since when."""
        branch = self._branches.get((account, via))
        found = branch.servers.get(path) if branch is not None else None
        if branch is None or found is None or branch.unknown_since is None:
            return found
        return replace(found, unknown_since=min(branch.unknown_since, found.unknown_since or branch.unknown_since))

    def of(self, account: str, via: str | None = None) -> Iterator[BelowServer]:
        """All servers below the middle servers of an account, or below one of them."""
        middles = [via] if via is not None else [middle for domain, middle in list(self._branches) if domain == account]
        for middle in middles:
            branch = self._branches.get((account, middle))
            for path in list(branch.servers) if branch is not None else ():
                found = self.find(account, middle, path)
                if found is not None:
                    yield found

    # --- What is said -----------------------------------------------------------------------------------------------------------

    def opened(self, account: str, via: str) -> None:
        """A middle server's link has opened: it will say everything again."""
        if (account, via) in self._branches:
            self._branches[account, via].said.clear()

    def take(self, account: str, via: str, asked: Asked, said: pb.Below, now: int) -> list[str]:
        """Takes what a middle server says of those below it, and their words on what it was asked about; which paths changed."""
        branch = self._branches[account, via]
        before, branch.unknown_since = branch.unknown_since, _unknown_since(said, now)
        changed = list(branch.servers) if branch.unknown_since != before else []
        named = said.servers[:SERVERS_AT_ONCE]
        changed += [path for each in named if (path := self._take_server(branch, account, via, asked, each, now))]
        gone = [path for path in said.gone if path in branch.servers]
        if said.whole:
            gone += [path for path in branch.servers if path not in branch.said]
            branch.said.clear()
            branch.whole = True
        for path in gone:
            branch.servers.pop(path, None)
            branch.changed.pop(path, None)
            branch.gone.add(path)
        self._news.set()
        self._publish_paths(account, via, [*changed, *gone])
        return [*changed, *gone]

    def _publish_paths(self, account: str, via: str, paths: Iterable[str]) -> None:
        if ids := [f"{via}/{path}" for path in dict.fromkeys(paths)]:
            self._publish(PresenceChange(account, ids))

    def _take_server(self, branch: Branch, account: str, via: str, asked: Asked, said: pb.BelowServer, now: int) -> str:
        server = model.read(said, account, via, now)
        if server is None or (len(branch.servers) >= SERVERS and server.path not in branch.servers):
            return ""
        branch.said.add(server.path)
        branch.gone.discard(server.path)
        if branch.servers.get(server.path) != server:
            branch.servers[server.path] = server
            branch.changed[server.path] = None
        for word in reports.heard(said.reports[: documents.ITEM_LIMIT], server.id, asked, self._origin, now):
            # One that waits is replaced, also while its server is being written: else it would come last.
            waits = server.path in branch.changed or (server.path, word.kind) in branch.words
            if waits and not word.of_task:
                branch.words[server.path, word.kind] = word
            else:
                self._words.take(account, word)
        return server.path

    def on_changes(self, changes: Changes) -> None:
        """The tail's changes: servers may have been told that no primary may stand below them."""
        for via in changes.without_descendants:
            self.forget(changes.account, via)

    def forget(self, account: str, via: str) -> None:
        """Drops what is known of the servers below this one."""
        branch = self._branches.pop((account, via), None)
        if branch is not None:
            self._publish_paths(account, via, branch.servers)

    # --- Written down -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes what changed, shortly after it came, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._news.clear()
            if not await self.flush():
                self._news.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> bool:
        """Writes what changed, and whether all of it could be. What the storage refuses stays in line."""
        written = True
        for (account, via), branch in list(self._branches.items()):
            if branch.changed or branch.gone or branch.whole:
                try:
                    await self._flush(account, via, branch)
                except Refused as refused:
                    written = False
                    log.warning("what stands below was not written", account=account, server=via, reason=refused.reason)
        return written

    async def _flush(self, account: str, via: str, branch: Branch) -> None:
        changed, gone, whole = branch.changed, branch.gone, branch.whole
        servers, keep = [branch.servers[path] for path in changed], frozenset(branch.servers) if whole else None
        branch.changed, branch.gone, branch.whole = {}, set(), False
        try:
            for batch in _batches(servers):
                await self._database.write(account, levels.record_below, account, via, batch, [], None, self._now())
            await self._database.write(account, levels.record_below, account, via, [], list(gone), keep, self._now())
            self._say(account, branch)
        except (Refused, asyncio.CancelledError):  # as it was, but for what was said meanwhile
            branch.changed.update({path: None for path in changed if path in branch.servers})
            branch.gone |= gone - branch.servers.keys()
            branch.whole = branch.whole or whole
            raise

    def _now(self) -> int:
        return int(self._clock())

    def _say(self, account: str, branch: Branch) -> None:
        """Puts the words in line that waited for their servers to be written."""
        for path, kind in [key for key in branch.words if key[0] not in branch.changed]:
            word = branch.words.pop((path, kind))
            if path in branch.servers:
                self._words.take(account, word)


def _unknown_since(said: pb.Below, now: int) -> int | None:
    return min(max(said.unknown_since.seconds, 0), now) if said.HasField("unknown_since") else None


def _batches(servers: Sequence[BelowServer]) -> Iterable[Sequence[BelowServer]]:
    return (servers[begin : begin + BATCH] for begin in range(0, len(servers), BATCH))
