"""What a primary does at regular times: each chore when it is due, whatever happens to the others. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.controllers.housekeeping import SWEEP_SECONDS, Housekeeping, to_sweep
from enlist_primary.links.registry import Hub
from enlist_primary.operations import servers as operations
from enlist_primary.store.database import Database
from tests.support import virtual_time

NOW = 1_800_000_000
ACME, BETA = "acme.example", "beta.example"


class House:
    """A database that is only answers, and the housekeeping that asks it."""

    def __init__(self) -> None:
        self.overdue: list[str] = []
        self.old: dict[str, int] = {}
        """How often each account is to be trimmed."""
        self.reads = 0
        self.refused: dict[str, Exception] = {}
        self.done: list[tuple[str, str]] = []
        self.renewals: list[float] = []
        self.renewal_fails = False
        self.hub = Hub()
        loop = asyncio.get_running_loop()
        self.keeping = Housekeeping(cast(Database, self), self.hub, self.renew, lambda: NOW + loop.time())

    async def read(self, query: Any, now: int) -> tuple[list[str], list[str]]:
        """Which accounts need something."""
        self.reads += 1
        if error := self.refused.get(query.__name__):
            raise error
        assert query is to_sweep
        return self.overdue, list(self.old)

    async def write(self, account: str, operation: Any, *arguments: Any) -> bool | list[str]:
        """Notes what is done for an account."""
        assert arguments[0] == account
        if error := self.refused.get(account):
            raise error
        self.done.append((operation.__name__, account))
        if operation is operations.expire:
            self.overdue = [each for each in self.overdue if each != account]
            return []
        self.old[account] -= 1
        return self.old.pop(account) > 0 if self.old[account] == 0 else True

    def renew(self) -> float:
        """See `Housekeeping`."""
        self.renewals.append(asyncio.get_running_loop().time())
        if self.renewal_fails:
            raise ValueError("a certificate that cannot be read")
        return 30.0

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """The house is kept while the context lasts."""
        running = asyncio.create_task(self.keeping.run())
        await asyncio.sleep(0.01)
        yield
        running.cancel()
        await asyncio.wait([running])


def in_time(steps: Callable[[House], Awaitable[None]]) -> None:
    """Runs a test in virtual time."""

    async def main() -> None:
        await steps(House())

    virtual_time.run(main())


def test_accounts_are_swept_and_trimmed_at_once_and_every_minute() -> None:
    async def steps(house: House) -> None:
        house.overdue, house.old = [ACME, BETA], {ACME: 3}
        async with house.going_on():
            assert sorted(house.done) == [("expire", ACME), ("expire", BETA), *3 * [("trim", ACME)]]
            house.overdue = [BETA]
            await asyncio.sleep(SWEEP_SECONDS - 1)
            assert len(house.done) == 5
            await asyncio.sleep(2)
            assert house.done[5:] == [("expire", BETA)]
            assert house.reads == 2, "one a minute"

    in_time(steps)


@pytest.mark.parametrize("error", [Refused(Reason.STORAGE_FULL, "Full."), ValueError("a defect")])
def test_account_that_cannot_be_swept_holds_up_no_other(error: Exception) -> None:
    async def steps(house: House) -> None:
        house.overdue, house.old, house.refused = [ACME, BETA], {BETA: 1}, {ACME: error}
        async with house.going_on():
            assert sorted(house.done) == [("expire", BETA), ("trim", BETA)]
            house.refused = {}
            await asyncio.sleep(2)
            assert house.done[2:] == [("expire", ACME)]

    in_time(steps)


def test_chore_that_fails_holds_up_no_other() -> None:
    async def steps(house: House) -> None:
        house.overdue, house.renewal_fails = [ACME], True
        house.refused = {"to_sweep": Refused(Reason.OVERLOADED, "Try again.")}
        link = house.hub.open(ACME, "one", NOW + 10)
        async with house.going_on():
            assert house.done == []
            await asyncio.sleep(11)
            assert link.ended.result().reason is Reason.CERTIFICATE_EXPIRED
            assert len(house.renewals) >= 3
            house.refused = {}
            await asyncio.sleep(SWEEP_SECONDS)
            assert house.done == [("expire", ACME)]

    in_time(steps)


def test_renewal_is_asked_about_when_it_says_so() -> None:
    async def steps(house: House) -> None:
        async with house.going_on():
            await asyncio.sleep(70)
            assert house.renewals == [0.0, 30.0, 60.0]

    in_time(steps)


def test_links_end_with_their_certificates_also_those_that_open_later() -> None:
    async def steps(house: House) -> None:
        async with house.going_on():
            late = house.hub.open(ACME, "late", NOW + 50)
            await asyncio.sleep(1)
            early = house.hub.open(ACME, "early", NOW + 5)
            await asyncio.sleep(3.5)
            assert not early.ended.done()
            await asyncio.sleep(1)
            assert early.ended.result().reason is Reason.CERTIFICATE_EXPIRED
            assert not late.ended.done()
            await asyncio.sleep(45)
            assert late.ended.result().reason is Reason.CERTIFICATE_EXPIRED

    in_time(steps)
