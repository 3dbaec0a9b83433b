"""The hub: which links are open now, and their end when trust ends.

An idle link costs one parked coroutine: no timer of its own, no query, no call. Certificates that run out are watched by one
timer for all links; that the peer is alive is HTTP/2's business.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist_primary.model.servers import State
from enlist_primary.store.servers import Standing

Key = tuple[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class Link:
    """An open link. `ended` gets the refusal to end it with; `expires_at` is when its certificate ends, Unix seconds."""

    key: Key
    expires_at: int
    ended: asyncio.Future[Refused]

    def end(self, refused: Refused) -> None:
        """Ends the link, once: from here on nothing more is read or recorded for it."""
        if not self.ended.done():
            self.ended.set_result(refused)


class Hub:
    """All open links of this process, the newest one per server."""

    def __init__(self) -> None:
        self._links: dict[Key, Link] = {}
        self._ending = 0
        self._closing = False
        self._expiries: list[tuple[int, int, Link]] = []
        self.sooner = asyncio.Event()
        """Set when a link was taken in whose certificate ends before all others: whoever sleeps until `expire` is due wakes."""
        self._order = itertools.count()

    def open(self, account: str, id: str, expires_at: int) -> Link:
        """Takes a link in; an older one of the same server ends."""
        if self._closing:
            raise Refused(Reason.SHUTTING_DOWN, "The primary is shutting down. Try again when it is back.")
        link = Link((account, id), expires_at, asyncio.get_running_loop().create_future())
        older = self._links.get(link.key)
        self._links[link.key] = link
        self._watch(link)
        if older is not None:
            older.end(Refused(Reason.LINK_REPLACED, "This server opened a newer link."))
        return link

    def _watch(self, link: Link) -> None:
        """Adds the link to the heap; when most of that is links long closed, it is made anew."""
        if len(self._expiries) > 2 * len(self._links) + 64:
            self._expiries = [entry for entry in self._expiries if not entry[2].ended.done()]
            heapq.heapify(self._expiries)
        entry = (link.expires_at, next(self._order), link)
        heapq.heappush(self._expiries, entry)
        if self._expiries[0] is entry:
            self.sooner.set()

    def close(self, link: Link) -> bool:
        """Takes a link out; True if its server has no other."""
        link.end(Refused(Reason.LINK_REPLACED, "The link is closed."))
        if self._links.get(link.key) is not link:
            return False
        del self._links[link.key]
        return True

    def connected(self, account: str, id: str) -> bool:
        """Whether the server's link is open now."""
        return (account, id) in self._links

    def count(self, sees: Callable[[str], bool]) -> int:
        """Links open now, of the accounts that `sees` says yes to."""
        return sum(sees(account) for account, _ in self._links)

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
        link = self._links.get((standing.account, standing.id))
        if link is not None and standing.state is not State.TRUSTED:
            link.end(standings.not_trusted(standing.state, standing.since, standing.reason or ""))

    def end_all(self, refused: Refused) -> None:
        """Ends every link, and takes in no new one."""
        self._closing = True
        for link in list(self._links.values()):
            link.end(refused)

    def expire(self, now: int) -> int | None:
        """Ends links whose certificate is over, and says when the next one will be, or None."""
        while self._expiries and (self._expiries[0][0] <= now or self._expiries[0][2].ended.done()):
            link = heapq.heappop(self._expiries)[2]
            link.end(Refused(Reason.CERTIFICATE_EXPIRED, "The server's certificate has run out. Fetch a new one."))
        return self._expiries[0][0] if self._expiries else None
