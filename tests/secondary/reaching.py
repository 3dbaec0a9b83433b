"""A set-up's checks, a link, and its return after the primary restarts, with the seconds that each took: for another network.

python -m tests.secondary.reaching FOLDER ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from enlist import names
from enlist.names import Address
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import look_up
from enlist.v1 import account_pb2
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_secondary import checks
from tests.support.inprocess import running_primary, serving
from tests.support.secondaries import Secondary, kept, written
from tests.support.waiting import eventually


class Clock:
    """Seconds since the last look."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def took(self) -> float:
        last, self._last = self._last, time.monotonic()
        return self._last - last


async def check(address: Address) -> None:
    """What the wizard does before it asks for anything more."""
    dialer = Dialer()
    primary = await checks.reach(dialer, address, time.time)
    await checks.reach_ssl_port(dialer, primary.ssl_address, primary.authority, time.time)


async def come_back(folder: Path, secondary: Secondary) -> float:
    """How long after the primary serves again the link is open; before that, a whole attempt to reach it has failed."""
    await eventually(lambda: "refused there" in str(secondary.state.last_problem), within=60)
    config = Config(name="Test Primary", listen="::")
    async with serving(DataFolder(folder / "primary"), config):
        clock = Clock()
        await secondary.connects(60)
        return clock.took()


async def main(folder: Path, address: Address) -> dict[str, object]:
    """The seconds, and the address that a name is first found at."""
    first = (await look_up(address))[0].host
    async with AsyncExitStack() as primary:
        running = await primary.enter_async_context(
            running_primary(folder, listen="::", ssl_port=names.SSL_PORT, api_port=names.API_PORT)
        )
        clock = Clock()
        await check(address)
        checks_took = clock.took()
        key = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
        secondary = written(folder / "one", address, running.authority, key)
        async with kept(secondary):
            clock.took()
            await secondary.connects(60)
            link_took = clock.took()
            await primary.aclose()
            return {"first": first, "checks": checks_took, "link": link_took, "back": await come_back(folder, secondary)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), names.address(sys.argv[2])))))
