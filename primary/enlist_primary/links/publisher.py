"""What every linked server must get: layouts kept as the tail brings changes, sets signed and pushed where they differ.

A set's version has the number of the account's journal as of which it was computed, so a set must be a function of the database at
that number. A link's place is read in one view together with that number; from then on the tail brings, in order, each later number
with everything that changed up to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from enlist.documents import SetVersion
from enlist.link.pace import PIECE
from enlist.runtime.controller import Again, Backoff, Controller, Pauses, each, insist
from enlist_primary.changes.publisher import Changes
from enlist_primary.links.body_cache import BodyCache, PreparedBody, prepare
from enlist_primary.links.fair_queue import Turns
from enlist_primary.links.registry import Hub, Link
from enlist_primary.model.desired import Desired, Layout
from enlist_primary.model.servers import Server
from enlist_primary.store import desired as rows
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.servers import Standing

BACKOFF = Backoff(first=0.5, longest=5.0)
DEADLINE = 60.0
"""Seconds after which reading an account's layout counts as failed."""
AT_ONCE = 4
"""Accounts whose layouts are read side by side."""
LINKS_AT_ONCE = 64
"""Links that are reevaluated together: an account may have very many."""

_NEVER = SetVersion(0, 0)

Check = Callable[[Transaction, Standing], Server]
"""Gives a server's row, or refuses it."""


@dataclass(frozen=True)
class Snapshot:
    """A server's row, and what it must get, both of one view of the database; `head` is the journal's number there."""

    row: Server
    desired: Desired
    version: SetVersion


@dataclass
class _Account:
    """What is known of an account that has links.

    The tail has come to `head`, and says that `desired` was the last number that changed what servers must get. `moved` are
    servers with a decision since `told`, with their groups.
    """

    layout: Layout | None = None
    head: int = 0
    desired: int = 0
    moved: dict[str, str] = field(default_factory=dict)
    told: Layout | None = None
    """By which all links were last reevaluated, or are in line for that, for sets of this `version`."""
    version: SetVersion = _NEVER
    line: dict[Link, None] = field(default_factory=dict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the link that reads the layout."""

    def keep(self, layout: Layout) -> None:
        """Takes a layout that was read, unless a newer one is here."""
        if self.layout is None or self.layout.number < layout.number:
            self.layout = layout


class Piece(NamedTuple):
    """A piece as it travels: how many bytes of the body are in it, and how large that is."""

    encoded: bytes
    length: int
    size: int


class Desires:
    """The layouts of accounts that have links, and the bodies that were sent lately."""

    def __init__(self, database: Database, hub: Hub, backoff: Backoff = BACKOFF, cache: BodyCache | None = None) -> None:
        self.turns = Turns()
        self._database = database
        self._hub = hub
        self._accounts: dict[str, _Account] = {}
        self._behind = Controller[str]("layouts", each(self._catch_up), at_once=AT_ONCE, backoff=backoff, deadline=DEADLINE)
        """Accounts whose layout is to be read."""
        self._bodies = cache if cache is not None else BodyCache()
        self._loading: dict[tuple[str, bytes], asyncio.Task[PreparedBody | None]] = {}

    async def snapshot(self, standing: Standing, check: Check) -> Snapshot:
        """What a server that opens its link must get. `check` gives its row, or refuses it; the registry holds the link already.

        Should the tail have passed meanwhile, the snapshot is read again: the link has missed what came then.
        """
        while True:
            row, place = await self._database.read(_place, standing, check)
            layout = self._layout(standing.account)
            if layout is None or layout.number != place.desired:
                row, place, layout = await self._place_anew(standing, check)
            if place.head >= self._of(standing.account).head:
                return Snapshot(row, layout.desired(row.id, row.group_id), SetVersion(layout.epoch, place.head))

    async def _place_anew(self, standing: Standing, check: Check) -> tuple[Server, rows.Place, Layout]:
        """Reads the layout in one view with the place. Of many links that open together, the first reads it for all."""
        async with self._of(standing.account).reading:
            row, place, layout = await self._database.read(_place_with_layout, standing, check, self._layout(standing.account))
            self._of(standing.account).keep(layout)
            return row, place, layout

    def ended(self, account: str) -> frozenset[str]:
        """The runs of tasks that are over: a late word on one of them still counts."""
        layout = self._layout(account)
        return layout.ended if layout is not None else frozenset()

    def _of(self, account: str) -> _Account:
        return self._accounts.setdefault(account, _Account())

    def _layout(self, account: str) -> Layout | None:
        """What was read last."""
        known = self._accounts.get(account)
        return None if known is None else known.layout

    # --- What changes -------------------------------------------------------------------------------------------------------------

    def bring(self, changes: Changes) -> None:
        """The tail's changes: once it has caught up with an account, links whose servers need something else are told."""
        if not self._hub.populated(changes.account):
            self._accounts.pop(changes.account, None)
            self._behind.forget(changes.account)
            return
        known = self._of(changes.account)
        known.moved.update({record.id: record.group_id for record in changes.records})
        if not changes.more:
            known.head, known.desired = changes.view.head, changes.view.desired
            self._settle(changes.account, known)

    def _settle(self, account: str, known: _Account) -> None:
        """Publishes only when the layout's version equals the tail's position.

        A later one waits for the changes that lead there: else one version could have two contents.
        """
        layout = known.layout
        if layout is None or layout.number > known.head:
            return
        if layout.number < known.desired:
            self._behind.mark(account)
            return
        moved, known.moved = known.moved, {}
        self._tell(known, layout, moved)

    def _tell(self, known: _Account, layout: Layout, moved: Mapping[str, str]) -> None:
        """Puts links in line to be reevaluated. Which ones does not depend on who read the layout: a link that opened may have
        been quicker."""
        waiting = bool(known.line)  # then their turn comes, and these stand behind them
        anew = known.told is None or known.told.number != layout.number
        known.told, known.version = layout, SetVersion(layout.epoch, known.head)
        for id, group_id in moved.items():
            link = self._hub.find(layout.account, id)
            if link is not None and _learns(link, known.version):
                link.group_id = group_id
                known.line[link] = None
        if anew:
            known.line.update(dict.fromkeys(self._hub.of(layout.account)))
        if not waiting:
            self._reevaluate_next(known)

    def _reevaluate_next(self, known: _Account) -> None:
        """Reevaluates links, always by what was told last; those whose servers need something else take their turns before the next
        ones are reevaluated."""
        try:
            for link in list(islice(known.line, LINKS_AT_ONCE)):
                del known.line[link]
                self._reevaluate(link, known)
        finally:  # whatever ails one link, the others are told
            if known.line:
                self.turns.enter(partial(self._reevaluate_next, known))

    def _reevaluate(self, link: Link, known: _Account) -> None:
        if known.told is None or link.deliver is None or not _learns(link, known.version):
            return
        link.number = known.version.number
        wanted = known.told.desired(link.key[1], link.group_id)
        if wanted.content != link.wanted.content:
            link.wanted = wanted
            link.deliver(wanted, known.version)

    async def run(self) -> None:
        """Reads the layouts that are behind, until cancelled: what takes long here delays no change of trust."""
        await self._behind.run()

    async def _catch_up(self, account: str) -> Again:
        layout, bodies = await self._database.read(rows.layout_with_bodies, account, self._layout(account))
        for digest, body in bodies.items():
            self._bodies.put(digest, prepare(digest, body))
        if (known := self._accounts.get(account)) is not None:
            known.keep(layout)
            self._settle(account, known)
        return None

    # --- What travels -------------------------------------------------------------------------------------------------------------

    async def piece(self, account: str, digest: bytes, offset: int, large: bytes | None = None) -> Piece | None:
        """A piece of a body as it travels; None where the body is gone. `large` is a set that travels as a body does."""
        prepared = prepare(digest, large) if large is not None else await self._body(account, digest)
        if prepared is None:
            return None
        place = offset // PIECE
        encoded = prepared.pieces[place] if place < len(prepared.pieces) else b""
        return Piece(encoded, min(PIECE, max(prepared.size - offset, 0)), prepared.size)

    async def _body(self, account: str, digest: bytes) -> PreparedBody | None:
        """A body as it travels: read and serialised once, however many servers get it at a time."""
        found = self._bodies.get(digest)
        if found is not None:
            return found
        loading = self._loading.get((account, digest))
        if loading is None:
            loading = self._loading[account, digest] = asyncio.create_task(self._load(account, digest))
            loading.add_done_callback(lambda _: self._loading.pop((account, digest)))
        return await asyncio.shield(loading)  # the link that asked first may end, the others still wait

    async def _load(self, account: str, digest: bytes) -> PreparedBody | None:
        layout = self._layout(account)
        body = layout.window_body(digest) if layout is not None else None
        if body is None:
            body = await insist(lambda: self._database.read(rows.body, account, digest), DEADLINE, Pauses(BACKOFF))
        if body is None:
            return None
        prepared = prepare(digest, body)
        self._bodies.put(digest, prepared)
        return prepared


def _learns(link: Link, version: SetVersion) -> bool:
    """A link without a place, or placed by a later view of the database, has nothing to learn from this one."""
    return 0 <= link.number < version.number


def _place(tx: Transaction, standing: Standing, check: Check) -> tuple[Server, rows.Place]:
    return check(tx, standing), rows.place(tx, standing.account)


def _place_with_layout(tx: Transaction, standing: Standing, check: Check, last: Layout | None) -> tuple[Server, rows.Place, Layout]:
    """`last` is the layout that was read last: it is read again only if it is of another number by now."""
    row, place = _place(tx, standing, check)
    layout = last if last is not None and last.number == place.desired else rows.layout(tx, standing.account, last)
    return row, place, layout
