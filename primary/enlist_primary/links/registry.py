"""The registry of open links, and their end when trust ends.

An idle link costs one parked coroutine: no timer of its own, no query, no call. Certificates that run out are watched by one
timer for all links; that the peer is alive is HTTP/2's business.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from enlist.documents import SetVersion
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.v1 import hierarchy_pb2
from enlist_primary.model.desired import NOTHING, Desired
from enlist_primary.model.reports import Word
from enlist_primary.model.servers import State
from enlist_primary.store.servers import Standing

Key = tuple[str, str]


def shutting_down() -> Refused:
    """The refusal of every call and link while the primary stops."""
    return Refused(Reason.SHUTTING_DOWN, "The primary is shutting down. Try again when it is back.")


@dataclass(eq=False, slots=True)
class Link:
    """An open link. `ended` gets the refusal to end it with; `expires_at` is when its certificate ends, Unix seconds.

    `wanted` is what was last put in line for it, computed as of `number` of the account's journal: -1 until it has a place.
    """

    key: Key
    expires_at: int
    ended: asyncio.Future[Refused]
    group_id: str = ""
    number: int = -1
    wanted: Desired = NOTHING
    remnants: Mapping[str, Word] = field(default_factory=dict)
    """What the server could not end of policies that reached it before, by kind."""
    refusal: str = ""
    """Why the server refuses what is wanted here, for people; empty while it does not."""
    refused_sets: Sequence[hierarchy_pb2.SetRefused] = ()
    """The sets from further up that it refuses."""
    deliver: Callable[[Desired, SetVersion], None] | None = None
    """Something else is wanted at the server."""
    on_ancestors: Callable[[], None] | None = None
    """Something above this primary changed: it is handed down."""
    reevaluate: Callable[[], None] | None = None
    """Something was decided about the server: whether a primary on its host may stand below may have changed."""
    settle: Callable[[str, str], None] | None = None
    """The outcome of a run at a path below the server (empty: at itself) has arrived at the primary that ordered it."""

    @property
    def remaining(self) -> Mapping[str, Word]:
        """Of the remnants, those whose kind is not wanted again by now."""
        return {kind: word for kind, word in self.remnants.items() if (kind, "") not in self.wanted.subjects}

    def attach(
        self,
        deliver: Callable[[Desired, SetVersion], None],
        on_ancestors: Callable[[], None],
        reevaluate: Callable[[], None],
        settle: Callable[[str, str], None],
    ) -> None:
        """The link has its place: from now on it hears of changes."""
        self.deliver, self.on_ancestors = deliver, on_ancestors
        self.reevaluate, self.settle = reevaluate, settle

    def detach(self) -> None:
        """The link hears of nothing any more."""
        self.deliver = self.on_ancestors = self.reevaluate = self.settle = None

    @property
    def attached(self) -> bool:
        """Whether the link hears of changes."""
        return self.deliver is not None

    def end(self, refused: Refused) -> None:
        """Ends the link, once: from here on nothing more is read or recorded for it."""
        if not self.ended.done():
            self.ended.set_result(refused)


class Hub:
    """All open links of this process, the newest one per server."""

    def __init__(self) -> None:
        self._links: dict[str, dict[str, Link]] = {}
        self._ending = 0
        self._closing = False
        self._expiries: list[tuple[int, int, Link]] = []
        self.sooner = asyncio.Event()
        """Set when a link was taken in whose certificate ends before all others: whoever sleeps until `expire` is due wakes."""
        self._order = itertools.count()

    def open(self, account: str, id: str, expires_at: int) -> Link:
        """Takes a link in; an older one of the same server ends."""
        if self._closing:
            raise shutting_down()
        link = Link((account, id), expires_at, asyncio.get_running_loop().create_future())
        older = self.find(account, id)
        self._links.setdefault(account, {})[id] = link
        self._watch(link)
        if older is not None:
            older.end(Refused(Reason.LINK_REPLACED, "This server opened a newer link."))
        return link

    def _watch(self, link: Link) -> None:
        """Adds the link to the heap; when most of that is links long closed, it is made anew."""
        if len(self._expiries) > 2 * len(self) + 64:
            self._expiries = [entry for entry in self._expiries if not entry[2].ended.done()]
            heapq.heapify(self._expiries)
        entry = (link.expires_at, next(self._order), link)
        heapq.heappush(self._expiries, entry)
        if self._expiries[0] is entry:
            self.sooner.set()

    def close(self, link: Link) -> bool:
        """Takes a link out; True if its server has no other."""
        link.end(Refused(Reason.LINK_REPLACED, "The link is closed."))
        account, id = link.key
        if self.find(account, id) is not link:
            return False
        del self._links[account][id]
        if not self._links[account]:
            del self._links[account]
        return True

    def find(self, account: str, id: str) -> Link | None:
        """The server's open link."""
        return self._links.get(account, {}).get(id)

    def by_id(self, id: str) -> Link | None:
        """The open link of a server whose account is not known: ids are random, and not given twice."""
        return next((links[id] for links in self._links.values() if id in links), None)

    def populated(self, account: str) -> bool:
        """Whether any server of the account holds a link."""
        return account in self._links

    def of(self, account: str) -> list[Link]:
        """All open links of an account."""
        return list(self._links.get(account, {}).values())

    def on_ancestry_changed(self) -> None:
        """Something above this primary changed: every link hands it down."""
        for account in list(self._links):
            for link in self.of(account):
                if link.on_ancestors is not None:
                    link.on_ancestors()

    def connected(self, account: str, id: str) -> bool:
        """Whether the server's link is open now."""
        return id in self._links.get(account, ())

    def count(self, sees: Callable[[str], bool]) -> int:
        """Links open now, of the accounts that `sees` says yes to."""
        return sum(len(links) for account, links in self._links.items() if sees(account))

    def __len__(self) -> int:
        return sum(map(len, self._links.values()))

    @property
    def stalled(self) -> int:
        """Links that have ended and whose peer has not yet taken notice."""
        return self._ending

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Counts an end that is being told to the peer: one that does not read holds it up."""
        self._ending += 1
        try:
            yield
        finally:
            self._ending -= 1

    def judge(self, standing: Standing) -> None:
        """Ends the server's link if it is no longer trusted."""
        link = self.find(standing.account, standing.id)
        if link is not None and standing.state is not State.TRUSTED:
            link.end(standings.not_trusted(standing.state, standing.since, standing.reason or ""))

    def end_all(self, refused: Refused) -> None:
        """Ends every link, and takes in no new one."""
        self._closing = True
        for account in list(self._links):
            for link in self.of(account):
                link.end(refused)

    def expire(self, now: int) -> int | None:
        """Ends links whose certificate is over, and says when the next one will be, or None."""
        while self._expiries and (self._expiries[0][0] <= now or self._expiries[0][2].ended.done()):
            link = heapq.heappop(self._expiries)[2]
            link.end(Refused(Reason.CERTIFICATE_EXPIRED, "The server's certificate has run out. Fetch a new one."))
        return self._expiries[0][0] if self._expiries else None
