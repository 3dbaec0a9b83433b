"""A process that decides without end and says the number of each decision once it was acknowledged.

`python -m tests.primary.store.writer FILE CALLERS [LIMIT]`; LIMIT is the size that no file may exceed (RLIMIT_FSIZE: the
write that reaches it is short, the next one fails). Lines: `ask`, `ack NUMBER`, and at the end `refused REASON` for the
first that was refused, `then REASON` for one more attempt, `failed REASON` for what the app is told.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

from enlist.reasons import Refused
from enlist_primary.store.sqlite import SqliteDatabase, open_sqlite
from tests.primary.store.helpers import ACME, DEADLINE, decide


def say(line: str) -> None:
    """One system call a line: whoever traces this process sees them in order, and a kill leaves no half of one."""
    os.write(1, f"{line}\n".encode())


async def call(database: SqliteDatabase) -> None:
    """Decide until the database refuses."""
    while True:
        say("ask")
        say(f"ack {await database.write(ACME, decide)}")


async def main(path: Path, callers: int) -> None:
    """Let so many callers decide at once; returns when all were refused."""
    async with open_sqlite(path) as database:
        ends = await asyncio.gather(*(call(database) for _ in range(callers)), return_exceptions=True)
        say(f"refused {_reason(ends[0])}")
        say(f"then {_reason((await asyncio.gather(call(database), return_exceptions=True))[0])}")
        async with asyncio.timeout(DEADLINE):
            say(f"failed {(await database.failed()).reason}")


def _reason(end: BaseException | None) -> str:
    return end.reason if isinstance(end, Refused) else repr(end)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
