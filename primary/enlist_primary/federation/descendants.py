"""Servers below intermediate primaries, as those report them: memory for whoever asks how a server is reached, written behind."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from enlist import documents
from enlist.ancestry import ORIGINS
from enlist.runtime.write_behind import Countdown, Written
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.ingest import reports as ingest
from enlist_primary.ingest.writer import ACCOUNT_BYTES, FLUSH_SECONDS, AccountWriter
from enlist_primary.model import levels as model
from enlist_primary.model import reports
from enlist_primary.model.levels import SERVERS, BelowServer, DescendantRecord, SetRefusal
from enlist_primary.model.reports import Asked, Word
from enlist_primary.operations import levels
from enlist_primary.store import levels as rows
from enlist_primary.store.database import Database

SERVERS_AT_ONCE = 1000
"""Servers that are taken of one message: twice as many as any primary puts into one."""
_ROW_BYTES = 1000

Via = tuple[str, str]


class Unheard(NamedTuple):
    """An intermediate's link has `opened`; the one before was `lost` then, None if it still stood. Both are Unix seconds."""

    lost: int | None
    opened: int

    @property
    def since(self) -> int:
        """Since when nothing is known."""
        return self.opened if self.lost is None else self.lost

    def after(self, before: Unheard | None) -> Unheard:
        """What holds of a server that was not said over the link before either."""
        if before is None:
            return self
        return before if self.lost is None else Unheard(before.since, self.opened)


@dataclass
class Branch:
    """Servers below one intermediate. `unknown_since`: its host's primary has not answered the host's secondary since then."""

    servers: dict[str, BelowServer] = field(default_factory=dict)
    unknown_since: int | None = None
    unheard: dict[str, Unheard] = field(default_factory=dict)
    """Paths that were not said yet over the link that is open: nothing is known of them."""
    said: set[str] = field(default_factory=set)
    """Paths that were said since its link opened: once it has said all, the others are gone."""
    refusals: dict[str, SetRefusal] = field(default_factory=dict)
    """The sets that the primary on its host refuses, by origin: no server below gets those."""


class Reception(NamedTuple):
    """What became of a message: whether there was room for all of it, and the paths of the servers of which it said anything."""

    accepted: bool
    changed: Sequence[str]


class Descendants:
    """All branches of this primary."""

    def __init__(
        self,
        database: Database,
        origin: str,
        publish: Callable[[PresenceChange], None],
        clock: Callable[[], float] = time.time,
        *,
        bound: int = ACCOUNT_BYTES,
    ) -> None:
        """`origin` is this primary's id: whose revisions count in reports. `publish` is told which servers something is known of.

        `clock` is Unix seconds; `bound` is in bytes, for each account.
        """
        self._database = database
        self._origin = origin
        self._publish = publish
        self._branches: dict[Via, Branch] = defaultdict(Branch)
        self._writer = AccountWriter[Via, DescendantRecord](
            "descendants",
            database,
            levels.record_below,
            clock=clock,
            bound=bound,
            merge=_merge,
            weight=_size,
        )

    async def load(self) -> None:
        """Reads what was said last."""
        for each in await self._database.read(rows.below):
            self._branches[each.account, each.via].servers[each.path] = each

    # --- What is known ------------------------------------------------------------------------------------------------------------

    def find(self, account: str, via: str, path: str) -> BelowServer | None:
        """A server below an intermediate. One of which nothing is known any more says since when."""
        branch = self._branches.get((account, via))
        found = branch.servers.get(path) if branch is not None else None
        if branch is None or found is None:
            return None
        if branch.refusals:
            refusals = {**{each.origin: each for each in found.refusals}, **branch.refusals}
            found = replace(found, refusals=tuple(refusals.values()))
        unheard = branch.unheard.get(path)
        moments = (branch.unknown_since, found.unknown_since, unheard.since if unheard is not None else None)
        since = min((each for each in moments if each is not None), default=None)
        if since == found.unknown_since:
            return found
        return replace(found, unknown_since=since, unheard=unheard == Unheard(None, since or 0))

    def of(self, account: str, via: str | None = None) -> Iterator[BelowServer]:
        """All servers below the intermediates of an account, or below one of them."""
        intermediates = [via] if via is not None else [each for domain, each in list(self._branches) if domain == account]
        for each in intermediates:
            branch = self._branches.get((account, each))
            for path in list(branch.servers) if branch is not None else ():
                found = self.find(account, each, path)
                if found is not None:
                    yield found

    # --- What is said -----------------------------------------------------------------------------------------------------------

    def opened(self, account: str, via: str, lost: int | None, now: int) -> None:
        """An intermediate's link has opened: it will say everything again. The link before was `lost` then; None if it still stood.

        Each server below is unknown until it is said: the host's primary may not run by now, and then it says nothing.
        """
        branch = self._branches.get((account, via))
        if branch is None:
            return
        branch.said.clear()
        branch.refusals.clear()
        unheard = Unheard(lost, now)
        branch.unheard = {path: unheard.after(branch.unheard.get(path)) for path in branch.servers}
        self._publish_paths(account, via, list(branch.servers))

    def on_refusals(self, account: str, via: str, said: Iterable[pb.SetRefused]) -> None:
        """Takes which sets the primary on an intermediate's host refuses; one without a reason, that it does so no longer."""
        branch = self._branches[account, via]
        for each in model.read_refusals(said):
            if each.reason:
                branch.refusals[each.origin] = each
            else:
                branch.refusals.pop(each.origin, None)
        while len(branch.refusals) > ORIGINS:
            del branch.refusals[next(iter(branch.refusals))]
        self._publish_paths(account, via, list(branch.servers))

    def on_message(
        self, account: str, via: str, asked: Asked, said: pb.Below, now: int, written: Written | None = None
    ) -> Reception:
        """Takes what an intermediate says of servers below it, and their reports on what it was asked about.

        What there is no room for leaves no trace, and must be said again. `written` is called once all of a message that was
        accepted is committed; at once if it says nothing new.
        """
        branch = self._branches[account, via]
        before, branch.unknown_since = branch.unknown_since, _unknown_since(said, now)
        changed = list(branch.servers) if branch.unknown_since != before else []
        there = self._read(account, via, asked, said, now)
        branch.said.update(path for path in there if path in branch.servers)  # also those for whose news there is no room
        gone = [DescendantRecord(account, via, path, None) for path in _gone(branch, there.keys(), said)]
        records = [*there.values(), *gone]
        taken = self._put(branch, records, written)
        if said.whole and len(taken) == len(records):  # else it is said again, and then for the same servers
            branch.said.clear()
        changed += taken
        self._publish_paths(account, via, changed)
        return Reception(len(taken) == len(records), changed)

    def _publish_paths(self, account: str, via: str, paths: Iterable[str]) -> None:
        if ids := [f"{via}/{path}" for path in dict.fromkeys(paths)]:
            self._publish(PresenceChange(account, ids))

    def _read(self, account: str, via: str, asked: Asked, said: pb.Below, now: int) -> dict[str, DescendantRecord]:
        """What makes sense of the servers in a message, by path, as far as an intermediate may have so many."""
        branch, found = self._branches[account, via], dict[str, DescendantRecord]()
        known = len(branch.servers)
        for each in said.servers[:SERVERS_AT_ONCE]:
            row = model.read(each, account, via, now)
            if row is None:
                continue
            new = row.path not in branch.servers and row.path not in found
            if new and known >= SERVERS:
                continue
            known += new
            heard = reports.heard(each.reports[: documents.ITEM_LIMIT], row.id, asked, self._origin, now)
            found[row.path] = DescendantRecord(account, via, row.path, row, tuple(heard))
        return found

    def _put(self, branch: Branch, records: Sequence[DescendantRecord], written: Written | None) -> list[str]:
        """Puts these in line to be written, and takes them for true as far as there is room; of which servers they are."""
        landed = Countdown(written)
        taken: list[str] = []
        for each in records:
            if not self._accept(branch, each, landed):
                continue
            taken.append(each.path)
            branch.unheard.pop(each.path, None)
            if each.row is not None:
                branch.servers[each.path] = each.row
                branch.said.add(each.path)
            else:
                branch.servers.pop(each.path, None)
                branch.said.discard(each.path)
        landed()
        return taken

    def _accept(self, branch: Branch, record: DescendantRecord, landed: Countdown) -> bool:
        """Whether there is room for it; what says nothing new needs none."""
        if record.row is not None and not record.reports and branch.servers.get(record.path) == record.row:
            return True
        landed.expect()
        return self._writer.put(record.account, (record.via, record.path), record, landed)

    def on_changes(self, changes: Changes) -> None:
        """The tail's changes: servers may have been told that no primary may stand below them."""
        for via in changes.without_descendants:
            self.forget(changes.account, via)

    def forget(self, account: str, via: str) -> None:
        """The intermediate was removed, or may have no secondaries any more: drops what is known of the servers below it."""
        branch = self._branches.pop((account, via), None)
        paths = list(branch.servers) if branch is not None else []
        for path in paths:  # the decision dropped their rows; what waits must not bring them back, should it be allowed again
            self._writer.put(account, (via, path), DescendantRecord(account, via, path, None))
        self._publish_paths(account, via, paths)

    # --- Written down -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Writes what waits until cancelled."""
        await self._writer.run()

    async def flush(self, deadline: float = FLUSH_SECONDS) -> bool:
        """Writes all that waits now, within `deadline` seconds; whether all of it could be written."""
        return await self._writer.flush(deadline)


def _unknown_since(said: pb.Below, now: int) -> int | None:
    return min(max(said.unknown_since.seconds, 0), now) if said.HasField("unknown_since") else None


def _gone(branch: Branch, there: Collection[str], said: pb.Below) -> Iterable[str]:
    """The paths of servers that are gone after a message in which those of `there` were said."""
    gone = {path: None for path in said.gone if path in branch.servers or path in there}
    if said.whole:
        gone |= {path: None for path in branch.servers if path not in branch.said and path not in there}
    return gone


def _merge(known: DescendantRecord, new: DescendantRecord) -> DescendantRecord:
    """The newest row, with the last report on each thing. Of a server that is gone, only how its runs ended is kept."""
    found: dict[tuple[str, str], Word] = {(word.kind, word.name): word for word in known.reports}
    for word in new.reports:
        before = found.get((word.kind, word.name))
        found[word.kind, word.name] = word if before is None else ingest.merge(before, word)
    kept = tuple(word for word in found.values() if word.of_task or new.row is not None)
    return replace(new, reports=kept)


def _size(record: DescendantRecord) -> int:
    """About how many bytes a record takes in memory."""
    row = record.row
    text = 0 if row is None else len(row.name) + len(row.place) + sum(map(len, row.kinds))
    return _ROW_BYTES + text + sum(map(ingest.size, record.reports))
