"""The tail of the change log: reads every account's changes onward from the number it knows, and publishes them.

One key of a controller for the whole primary; an idle server costs it nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from enlist.runtime.controller import Backoff, Controller, Outcome
from enlist_primary.changes.directory import Directory
from enlist_primary.changes.publisher import Changes, server_ids
from enlist_primary.store import changes, servers
from enlist_primary.store.changes import Position
from enlist_primary.store.database import Database, Transaction

PAGE = 1000
BACKOFF = Backoff(first=0.25, longest=0.5)
"""Pauses after a read that failed: revocation waits for the next one."""
DEADLINE = 10.0
"""Seconds after which the tail begins anew with the page that it has not read."""
READ_TIMEOUT = 1.0
"""Seconds after which a page that has not been read counts as a failure: the directory then answers from the database."""
GATHER_SECONDS = 0.025
"""Seconds from one read to the next: a lone change is published at once, and of many in a row all but the first together."""

_TAIL = "tail"


class Tail:
    """Follows the change logs of all accounts. The directory knows each page before `publish` is called with it."""

    def __init__(
        self, database: Database, directory: Directory, publish: Callable[[Changes], None], backoff: Backoff = BACKOFF
    ) -> None:
        self._database = database
        self._directory = directory
        self._publish = publish
        self._cursors: dict[str, int] = {}
        self._controller = Controller[str]("change log", self._read_on, pace=GATHER_SECONDS, backoff=backoff, deadline=DEADLINE)

    async def start(self) -> None:
        """Takes note of where the logs are now. What is kept in memory is loaded after this."""
        self._cursors = {account: each.change for account, each in (await self._database.read(changes.positions)).items()}

    async def run(self) -> None:
        """Reads on after every commit until cancelled. A read that failed is tried again soon."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._controller.run())
            group.create_task(self._watch_commits())

    async def _watch_commits(self) -> None:
        while True:
            changed = self._database.changed()  # before reading, so that no commit is missed
            self._controller.mark(_TAIL)
            await changed

    async def _read_on(self, _: Sequence[str]) -> Mapping[str, Outcome]:
        await self.read_once()
        return {}

    async def read_once(self) -> None:
        """Reads and publishes all changes there are.

        Raises Refused or TimeoutError where the database could not be read in time. Whatever ends it before the last page, the
        directory is behind then, until a later call succeeds.
        """
        behind = True
        try:
            while await self._read_page():
                pass
            behind = False
        finally:
            self._directory.behind = behind

    async def _read_page(self) -> bool:
        """One read for a page of every account: it follows every commit, and the way to the database's threads costs more than the
        SQL. Whether there is more to read."""
        async with asyncio.timeout(READ_TIMEOUT):
            pages = await self._database.read(next_pages, dict(self._cursors), PAGE)
        for page in pages:
            self._directory.on_changes(page)
            self._publish(page)
            self._cursors[page.account] = page.number
        return any(page.more for page in pages)


def next_pages(tx: Transaction, cursors: Mapping[str, int], limit: int) -> list[Changes]:
    """The next page of every account whose log has another last number than the cursor; an account without one is read from 0."""
    found = changes.positions(tx).items()
    return [_page(tx, account, cursors.get(account, 0), view, limit) for account, view in found if _moved(cursors, account, view)]


def _moved(cursors: Mapping[str, int], account: str, view: Position) -> bool:
    return cursors.get(account, 0) != view.change


def _page(tx: Transaction, account: str, cursor: int, view: Position, limit: int) -> Changes:
    subjects = changes.after(tx, account, cursor, limit)
    if subjects is None:
        return _all(tx, account, view)
    records = servers.standings(tx, account, server_ids(subjects))
    return Changes(account, cursor + len(subjects), view, tuple(subjects), tuple(records))


def _all(tx: Transaction, account: str, view: Position) -> Changes:
    """What an account has, where changes were trimmed before they were read."""
    return Changes(
        account=account,
        number=view.change,
        view=view,
        subjects=tuple(changes.everything(tx, account)),
        records=tuple(servers.standings(tx, account)),
        reload=True,
    )
