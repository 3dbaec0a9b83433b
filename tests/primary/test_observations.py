"""What is seen, not decided: kept in memory, written behind: `ingest.observations`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2
from enlist_primary.ingest.observations import STRANGERS, Observations
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.store import observations as rows
from enlist_primary.store.database import Database
from enlist_primary.store.observations import Refusals, Seen
from tests.primary.holding import Holding
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary
from tests.support.links import linked

HERE = "192.0.2.1"


@pytest.fixture
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A primary, for its database and its servers."""
    async with running_primary(tmp_path_factory.mktemp("observations")) as running:
        yield running


@pytest.fixture
def database(running: Running) -> Database:
    """Its database."""
    return running.primary.context.database


async def counted(database: Database) -> dict[tuple[str, str], Refusals]:
    """The counters in the database."""
    return {(each.account, each.reason): each for each in await database.read(rows.refusals)}


async def test_refusals_are_added_up_by_account_and_reason(database: Database) -> None:
    own = Observations(database)
    for now in (1, 2, 3):
        own.refused(ACCOUNT, Reason.API_KEY_INVALID, f"192.0.2.{now}", now)
    own.refused(PRIMARY, Reason.ACCOUNT_UNKNOWN, HERE, 4)
    await own.flush()
    own.refused(ACCOUNT, Reason.API_KEY_INVALID, "192.0.2.9", 9)
    await own.flush()
    found = await counted(database)
    assert found[ACCOUNT, "API_KEY_INVALID"] == Refusals(ACCOUNT, "API_KEY_INVALID", 4, 9, "192.0.2.9")
    assert found[PRIMARY, "ACCOUNT_UNKNOWN"].count == 1


async def test_an_account_that_is_not_there_is_counted_under_the_primary_s_own(database: Database) -> None:
    """A stranger chose the name: it must neither make a row, nor break the batch it is written in (attacks row 30)."""
    own = Observations(database)
    for n in range(20):
        own.refused(f"made-up-{n}.example", Reason.PROOF_INVALID, HERE, 1)
    own.refused(ACCOUNT, Reason.PROOF_INVALID, HERE, 1)
    await own.flush()
    found = await counted(database)
    assert found.keys() == {(PRIMARY, "PROOF_INVALID"), (ACCOUNT, "PROOF_INVALID")}
    assert found[PRIMARY, "PROOF_INVALID"].count == 20


async def test_flood_of_made_up_accounts_is_bounded_and_counted(database: Database) -> None:
    """Beyond so many, names of which nobody knows whether they exist are not kept; each attempt counts."""
    recording: Any = Recording(database)
    own = Observations(recording)
    for n in range(20 * STRANGERS):
        own.refused(f"made-up-{n}.example", Reason.PROOF_INVALID, HERE, 1)
    await own.flush()
    assert len(recording.accounts) <= STRANGERS + 1
    assert (await counted(database))[PRIMARY, "PROOF_INVALID"].count == 20 * STRANGERS


async def test_counters_are_totals_that_a_restart_goes_on_with(database: Database) -> None:
    for now in (1, 2, 3):
        own = Observations(database)
        await own.load(now)
        own.refused(ACCOUNT, Reason.API_KEY_INVALID, HERE, now)
        own.refused("made-up.example", Reason.API_KEY_INVALID, HERE, now)
        await own.flush()
    found = await counted(database)
    assert (found[ACCOUNT, "API_KEY_INVALID"].count, found[PRIMARY, "API_KEY_INVALID"].count) == (3, 3)


@pytest.mark.parametrize("begun", [False, True])
async def test_counters_survive_that_their_write_is_cancelled(database: Database, begun: bool) -> None:
    """Whether or not it was committed: a total that is written twice is the same."""
    holding: Any = Holding(database, "record", begun=begun)
    own = Observations(holding)
    own.refused(ACCOUNT, Reason.API_KEY_INVALID, HERE, 1)
    running = asyncio.create_task(own.run())
    await holding.asked.wait()
    own.refused(ACCOUNT, Reason.API_KEY_INVALID, HERE, 2)
    running.cancel()
    await asyncio.wait([running])
    holding.leave.set()
    await own.flush()
    assert (await counted(database))[ACCOUNT, "API_KEY_INVALID"].count == 2


async def test_account_made_after_the_start_has_its_own_counters(running: Running, database: Database) -> None:
    own = Observations(database)
    await own.load(1)
    await running.admin.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain="new.example"))
    for now in (1, 2):
        own.refused("new.example", Reason.API_KEY_INVALID, HERE, now)
        await own.flush()
    assert (await counted(database))["new.example", "API_KEY_INVALID"].count == 2


class Recording:
    """A database that notes for which accounts it was asked to write."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.accounts: set[str] = set()

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        self.accounts.add(account)
        return await self._database.write(account, operation, *arguments)


async def test_what_was_last_seen_of_a_server_survives_a_restart(running: Running, database: Database) -> None:
    async with running.stranger() as stub:
        id = (await Asker(running).register(stub)).server_id
    own = Observations(database)
    own.connected(ACCOUNT, id, HERE, "0.1.0", 100, "printer.acme.example", "policy/chrony task/reboot")
    own.disconnected(ACCOUNT, id, 200)
    await own.flush()
    after = Observations(database)
    await after.load(300)
    assert after.seen(ACCOUNT, id) == Seen(100, 200, HERE, "0.1.0", "printer.acme.example", "policy/chrony task/reboot")
    assert after.seen(ACCOUNT, "nobody") == Seen()


async def test_a_link_that_was_open_when_the_primary_was_killed_is_closed_since_it_is_back(
    running: Running, database: Database
) -> None:
    """Not since it was opened: it was good until then (faults row 12)."""
    async with running.stranger() as stub:
        id = (await Asker(running).register(stub)).server_id
    own = Observations(database)
    own.connected(ACCOUNT, id, HERE, "0.1.0", 100)
    await own.flush()
    after = Observations(database)
    await after.load(300)
    assert (after.seen(ACCOUNT, id).connected_at, after.seen(ACCOUNT, id).disconnected_at) == (100, 300)
    await after.flush()
    again = Observations(database)
    await again.load(400)
    assert again.seen(ACCOUNT, id).disconnected_at == 300


async def test_a_link_that_followed_another_within_a_second_was_open_too(running: Running, database: Database) -> None:
    """A daemon that reads its configuration anew opens its link anew; closed since then, its server would not be waited for."""
    async with running.stranger() as stub:
        id = (await Asker(running).register(stub)).server_id
    own = Observations(database)
    own.disconnected(ACCOUNT, id, 100)
    own.connected(ACCOUNT, id, HERE, "0.1.0", 100)
    await own.flush()
    after = Observations(database)
    await after.load(300)
    assert after.seen(ACCOUNT, id).disconnected_at == 300


async def test_a_server_that_is_gone_meanwhile_is_passed_over(database: Database) -> None:
    own = Observations(database)
    own.connected(ACCOUNT, "aaaaaaaaaa", HERE, "0.1.0", 100)
    await own.flush()
    assert await database.read(rows.seen) == {}


async def test_what_the_storage_refuses_is_written_once_it_can_be(
    running: Running, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault row 7: a full disk."""
    async with running.stranger() as stub:
        id = (await Asker(running).register(stub)).server_id
    full: Any = Full(database)
    own = Observations(full)
    own.refused(ACCOUNT, Reason.API_KEY_INVALID, HERE, 1)
    own.connected(ACCOUNT, id, HERE, "0.1.0", 1)
    assert not await own.flush()
    assert "observations not written" in caplog.text
    full.full = False
    own.refused(ACCOUNT, Reason.API_KEY_INVALID, HERE, 2)
    assert await own.flush()
    assert (await counted(database))[ACCOUNT, "API_KEY_INVALID"].count == 2
    assert (await database.read(rows.seen))[ACCOUNT, id].connected_at == 1


class Full:
    """A database whose disk is full."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.full = True

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        if self.full:
            raise Refused(Reason.STORAGE_FULL, "The disk is full.")
        return await self._database.write(account, operation, *arguments)


async def test_an_observation_is_no_decision(running: Running) -> None:
    """A link that opens and closes leaves the journal as it is."""
    asker = Asker(running)
    async with running.stranger() as stub:
        await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    request = account_pb2.GetAccountRequest(name=f"accounts/{ACCOUNT}")
    head = (await running.admin.accounts.GetAccount(request)).head
    async with linked(asker):
        pass
    await running.primary.context.observations.flush()
    assert (await running.admin.accounts.GetAccount(request)).head == head


async def test_who_was_seen_while_the_primary_stops_is_written_at_the_end(running: Running, database: Database) -> None:
    async with running.stranger() as stub:
        key = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
        id = (await Asker(running).register(stub, key)).server_id
    holding: Any = Holding(database, "record")
    own = Observations(holding)
    own.connected(ACCOUNT, id, HERE, "0.1.0", 5)
    writing = asyncio.create_task(own.run())
    await holding.asked.wait()
    writing.cancel()
    await asyncio.wait([writing])
    holding.leave.set()
    await own.flush()
    assert (await database.read(rows.seen))[ACCOUNT, id].connected_at == 5
