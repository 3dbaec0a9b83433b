"""What every linked server shall get: layouts kept as the feed brings them, sets signed and pushed where they differ.

Sets are stamped with the number of the account's journal as of which they were reckoned, so a set must be a function of the
database at that number. A link's place is read in one view together with that number; from then on the feed brings, in order, each
later number with everything that changed up to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from enlist.documents import Stamp
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.links.feed import News
from enlist_primary.links.hub import Hub, Link
from enlist_primary.links.turns import Turns
from enlist_primary.model.desired import Desired, Layout
from enlist_primary.model.servers import Server
from enlist_primary.store import desired as rows
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.servers import Standing

CACHE_BYTES = 32 * 1024 * 1024
"""Serialised bodies kept in memory, at most."""
MESSAGE_BYTES = 2 * 1024 * 1024
"""Bytes of bodies after which a further message begins: clients take twice as much."""


@dataclass(frozen=True)
class Placed:
    """A server's row, and what it shall get, both of one view of the database; `head` is the journal's number there."""

    row: Server
    desired: Desired
    stamp: Stamp


class Desires:
    """The layouts of accounts that have links, and the bodies that were sent lately."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self.turns = Turns()
        self._database = database
        self._hub = hub
        self._moved: dict[str, dict[str, str]] = {}
        self._layouts: dict[str, Layout] = {}
        self._numbers: dict[str, int] = {}
        self._heads: dict[str, int] = {}
        self._told: dict[str, int] = {}  # the number of the layout by which all links of an account were last reckoned
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._loading: dict[bytes, asyncio.Task[bytes]] = {}

    def known(self) -> dict[str, int]:
        """How far each layout is, -1 for one that is about to be read; the feed reads those anew that are behind.

        May be called in any thread: a copy of a dictionary is made in one go.
        """
        return dict(self._numbers)

    async def placed(self, standing: Standing, check: Callable[[Transaction, Standing], Server]) -> Placed:
        """What a server that opens its link shall get. `check` gives its row, or refuses it; the hub holds the link already.

        Should the feed have passed meanwhile, it is read again: what the feed brought then, the link has missed.
        """
        self._numbers.setdefault(standing.account, -1)
        while True:
            known = self._layouts.get(standing.account)
            row, head, layout = await self._database.read(_place, standing, check, known)
            self._keep(layout)
            if head >= self._heads.get(standing.account, 0):
                return Placed(row, layout.desired(row.id, row.group_id), Stamp(layout.epoch, head))

    def _keep(self, layout: Layout) -> None:
        known = self._layouts.get(layout.account)
        if known is None or known.number < layout.number:
            self._layouts[layout.account] = layout
            self._numbers[layout.account] = layout.number

    def bring(self, news: News) -> None:
        """The feed's news: once it has caught up with an account, links whose servers shall get something else are told.

        Whether all links are to be reckoned anew does not depend on who read the layout: a link that opened may have been quicker.
        """
        for standing in news.standings:
            self._moved.setdefault(news.account, {})[standing.id] = standing.group_id
        if news.layout is not None:
            self._keep(news.layout)
        if news.more:
            return
        self._heads[news.account] = news.number
        layout = self._layouts.get(news.account)
        if layout is not None and layout.number > news.number:
            return  # it is of a later view of the database; the news that lead there are yet to come
        moved = self._moved.pop(news.account, {})
        if layout is not None:
            self._tell(layout, Stamp(layout.epoch, news.number), moved)

    def _tell(self, layout: Layout, stamp: Stamp, moved: Mapping[str, str]) -> None:
        anew = self._told.get(layout.account) != layout.number
        self._told[layout.account] = layout.number
        found = self._hub.of(layout.account) if anew else [self._hub.find(layout.account, id) for id in moved]
        for link in filter(None, found):
            self._reckon(link, layout, stamp, moved)

    def _reckon(self, link: Link, layout: Layout, stamp: Stamp, moved: Mapping[str, str]) -> None:
        """A link without a place, or placed by a later view of the database, has nothing to learn from this one."""
        if link.deliver is None or not 0 <= link.number < stamp.number:
            return
        id = link.key[1]
        link.group_id, link.number = moved.get(id, link.group_id), stamp.number
        wanted = layout.desired(id, link.group_id)
        if wanted.content != link.wanted.content:
            link.wanted = wanted
            link.deliver(wanted, stamp)

    async def messages(self, account: str, signed: pb.FromPrimary, wanted: Desired, has: frozenset[bytes]) -> Sequence[bytes]:
        """The serialised messages that bring a set and the bodies that the server lacks."""
        parts = [signed.SerializeToString()]
        size = 0
        for digest in dict.fromkeys(item.digest for item in wanted.items):
            if digest in has:
                continue
            body = await self._serialised(account, digest)
            if size and size + len(body) > MESSAGE_BYTES:
                parts.append(b"")
                size = 0
            parts[-1] += body
            size += len(body)
        return parts

    async def _serialised(self, account: str, digest: bytes) -> bytes:
        """A body as it travels, behind any set: read and serialised once, however many servers get it at a time."""
        found = self._bodies.get(digest)
        if found is not None:
            self._bodies.move_to_end(digest)
            return found
        loading = self._loading.get(digest)
        if loading is None:
            loading = self._loading[digest] = asyncio.create_task(self._load(account, digest))
            loading.add_done_callback(lambda _: self._loading.pop(digest))
        return await asyncio.shield(loading)  # the link that asked first may end, the others still wait

    async def _load(self, account: str, digest: bytes) -> bytes:
        layout = self._layouts.get(account)
        body = layout.window_body(digest) if layout is not None else None
        if body is None:
            body = await self._database.read(rows.body, account, digest)
        if body is None:
            raise LookupError(f"there is no body {digest.hex()} in {account}")
        serialised = pb.FromPrimary(bodies=[body]).SerializeToString()
        self._remember(digest, serialised)
        return serialised

    def _remember(self, digest: bytes, serialised: bytes) -> None:
        self._bodies[digest] = serialised
        self._size += len(serialised)
        while self._size > CACHE_BYTES and len(self._bodies) > 1:
            _, oldest = self._bodies.popitem(last=False)
            self._size -= len(oldest)


def _place(
    tx: Transaction, standing: Standing, check: Callable[[Transaction, Standing], Server], known: Layout | None
) -> tuple[Server, int, Layout]:
    row = check(tx, standing)
    place = rows.place(tx, standing.account)
    layout = known if known is not None and known.number == place.desired else rows.layout(tx, standing.account)
    return row, place.head, layout
