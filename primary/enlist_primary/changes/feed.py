"""The feed: reads every account's journal onward from the number it knows, keeps the directory true, and says what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist_primary.changes.directory import Directory
from enlist_primary.store import desired, journal, servers
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.desired import Place
from enlist_primary.store.servers import Standing

PAGE = 1000
RETRY_SECONDS = 0.5
READ_TIMEOUT = 1.0
"""Seconds after which a page that has not been read counts as one that cannot be: memory answers for nobody any longer."""
GATHER_SECONDS = 0.025
"""Seconds from one read to the next: a lone decision is heard of at once, and of many in a row all but the first together."""

log = Log("feed")


@dataclass(frozen=True)
class News:
    """What decisions of one account changed: the servers they were about, and how those of them that hold a key now stand.

    `number` is the last journal entry that was read; `more` says that there are others behind it. `desired` is the last one that
    changed what any server shall get.
    """

    account: str
    number: int
    more: bool
    ids: tuple[str, ...]
    standings: tuple[Standing, ...]
    desired: int = 0


class Feed:
    """Follows the journals of all accounts. One task for the whole primary; an idle server costs it nothing."""

    def __init__(self, database: Database, directory: Directory, listener: Callable[[News], None]) -> None:
        self._database = database
        self._directory = directory
        self._listener = listener
        self._known: dict[str, int] = {}

    async def start(self) -> None:
        """Takes note of where the journals are now. Whoever keeps state loads it after this."""
        self._known = await self._database.read(journal.heads)

    async def run(self) -> None:
        """Reads on after every commit until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            changed = self._database.changed()  # before reading, so that no commit is missed
            earliest = loop.time() + GATHER_SECONDS
            try:
                await self._read_on()
                self._directory.behind = False
            except (Refused, TimeoutError) as error:
                # Too much to do just now; a storage that failed for good ends the process elsewhere.
                self._directory.behind = True
                log.warning("the feed is behind", reason=error.reason if isinstance(error, Refused) else Reason.TIMED_OUT)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await changed
            await asyncio.sleep(earliest - loop.time())

    async def _read_on(self) -> None:
        """One read for each page of news: it follows every commit, and a way to the database's threads costs more than its SQL."""
        more = True
        while more:
            async with asyncio.timeout(READ_TIMEOUT), self._directory.reading:
                found = await self._database.read(_news, self._known)
                for news in found:
                    self._directory.keep(news.account, news.ids, news.standings)
            for news in found:
                self._listener(news)
                self._known[news.account] = news.number
            more = any(news.more for news in found)


def _news(tx: Transaction, known: Mapping[str, int]) -> list[News]:
    """The next page of every account whose journal reaches beyond the number known."""
    places = desired.places(tx).items()
    return [_page(tx, account, known.get(account, 0), place) for account, place in places if known.get(account, 0) < place.head]


def _page(tx: Transaction, account: str, after: int, place: Place) -> News:
    entries = journal.entries(tx, account, after, PAGE)
    subjects = dict.fromkeys(entry.subject for entry in entries)
    ids = tuple(subject.removeprefix("servers/") for subject in subjects if subject.startswith("servers/"))
    number = entries[-1].number
    return News(account, number, number < place.head, ids, tuple(servers.standings(tx, account, ids)), place.desired)
