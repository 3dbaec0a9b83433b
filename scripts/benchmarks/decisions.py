"""How many decisions a second the storage takes from many callers, beside one plain SQLite commit after another."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path

from enlist import names
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import accounts
from enlist_primary.store.sqlite import open_sqlite
from scripts.benchmarks.measuring import Rounds
from scripts.benchmarks.report import Figure, ratio

CALLERS = 64


async def measure(quick: bool) -> list[Figure]:
    """For information: there is no target but that the journal and its lock cost less than they share in commits."""
    rounds, each = (3, 10) if quick else (7, 30)
    # On a real disk: the temporary folder may be memory.
    with tempfile.TemporaryDirectory(prefix="enlist-bench-", dir=Path.cwd()) as name:
        floor = [_plain(Path(name) / f"plain-{number}.db", 200) for number in range(rounds)]
        subject = [await _shared(Path(name) / f"shared-{number}.db", each) for number in range(rounds)]
    note = f"{CALLERS} callers; the floor is one INSERT and COMMIT at a time"
    return [ratio("decisions a second", "/s", Rounds(subject, floor), None, note)]


def _plain(path: Path, commits: int) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE plain (value text)")
    begun = time.perf_counter()
    for number in range(commits):
        connection.execute("INSERT INTO plain VALUES (?)", (str(number),))
    taken = time.perf_counter() - begun
    connection.close()
    return commits / taken


async def _shared(path: Path, each: int) -> float:
    async with open_sqlite(path, create=True) as database:
        new_id = partial(names.new_id, lambda size: time.perf_counter_ns().to_bytes(size, "little"))
        for caller in range(CALLERS):
            domain = f"account-{caller}.example"
            await database.write(domain, accounts.create, domain, "", PRIMARY_ITSELF, new_id, 0)

        async def decide(caller: int) -> None:
            domain = f"account-{caller}.example"
            for number in range(each):
                await database.write(domain, accounts.update, domain, f"contact {number}", None, PRIMARY_ITSELF, 0)

        begun = time.perf_counter()
        await asyncio.gather(*map(decide, range(CALLERS)))
        return CALLERS * each / (time.perf_counter() - begun)
