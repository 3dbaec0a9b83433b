"""The feed: what was decided reaches whoever must react, also after it could not be read: `links.feed`, `directory`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from enlist import certificates
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, hierarchy_pb2, trust_pb2
from enlist_primary.changes import feed as feeds
from enlist_primary.changes.directory import Directory
from enlist_primary.changes.feed import Feed, News
from enlist_primary.model.servers import State
from enlist_primary.model.users import Actor
from enlist_primary.operations.journalling import record
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.servers import Standing
from tests.support.inprocess import ACCOUNT, Asker, Running, refused_by, running_primary
from tests.support.waiting import eventually

NOBODY = Actor("nobody", "itself", "")


class Flaky:
    """A database whose reads fail, or never end, as often as it is told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failures = 0
        self.stuck = 0
        self.reads = 0

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        """Reads, or refuses."""
        self.reads += 1
        if self.stuck:
            self.stuck -= 1
            await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise Refused(Reason.OVERLOADED, "Try again.")
        return await self._database.read(query, *arguments)

    def changed(self) -> Awaitable[None]:
        """See `Database.changed`."""
        return self._database.changed()


@pytest.fixture
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A primary."""
    async with running_primary(tmp_path_factory.mktemp("feed")) as running:
        yield running


@asynccontextmanager
async def following(database: Any) -> AsyncIterator[tuple[Feed, Directory, list[News]]]:
    """A feed of the test's own beside the primary's, with what it told."""
    told: list[News] = []
    directory = Directory(database)
    feed = Feed(database, directory, told.append)
    await feed.start()
    await directory.load()
    task = asyncio.create_task(feed.run())
    try:
        yield feed, directory, told
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def enrolled(running: Running) -> tuple[Asker, str]:
    """A trusted server, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


async def revoke(running: Running, id: str) -> None:
    """An administrator revokes a server."""
    await running.admin.trust.RevokeServer(trust_pb2.RevokeServerRequest(name=f"accounts/{ACCOUNT}/servers/{id}"))


async def test_every_decision_is_told_once_and_the_directory_knows_it_by_then(running: Running) -> None:
    database = running.primary.context.database
    async with following(database) as (_, directory, told):
        asker, id = await enrolled(running)
        await eventually(lambda: id in {each for news in told for each in news.ids})
        found = await directory.find(ACCOUNT, id, certificates.fingerprint(asker.public_key))
        assert found is not None
        assert found.state is State.TRUSTED
        await revoke(running, id)
        await eventually(lambda: any(s.id == id and s.state is State.REVOKED for news in told for s in news.standings))
        numbers = [news.number for news in told if news.account == ACCOUNT]
        assert numbers == sorted(set(numbers))
        assert await directory.find(ACCOUNT, id, "another key") is None


async def test_a_decision_that_could_not_be_read_is_told_all_the_same(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a moment of overload would leave a revoked server with its link for ever (attacks row 16)."""
    monkeypatch.setattr(feeds, "RETRY_SECONDS", 0.05)
    flaky = Flaky(running.primary.context.database)
    async with following(flaky) as (_, directory, told):
        _, id = await enrolled(running)
        await eventually(lambda: id in {each for news in told for each in news.ids})
        told.clear()
        flaky.failures = 5
        await revoke(running, id)
        await eventually(lambda: any(s.state is State.REVOKED for news in told for s in news.standings))
        assert flaky.failures == 0
        assert directory._standings[ACCOUNT, id].state is State.REVOKED


async def test_the_link_of_a_server_revoked_during_an_overload_is_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "RETRY_SECONDS", 0.05)
    flaky = Flaky(running.primary.context.database)
    asker, id = await enrolled(running)
    async with asker.at_ssl_port() as stub:
        link = stub.hierarchy.Connect()
        await link.write(hierarchy_pb2.FromSecondary(hello=hierarchy_pb2.Hello(protocol=PROTOCOL)))
        await link.read()
        monkeypatch.setattr(running.primary._feed, "_database", flaky)
        flaky.failures = 3
        await revoke(running, id)
        async with asyncio.timeout(10):
            assert (await refused_by(link.read())).reason is Reason.SERVER_REVOKED


@pytest.mark.parametrize("trouble", ["failures", "stuck"])
async def test_while_the_feed_is_behind_the_directory_asks_the_database(
    running: Running, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Or a server revoked in that time would be trusted for as long as the feed's read is refused, or waits for a reader."""
    monkeypatch.setattr(feeds, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(feeds, "RETRY_SECONDS", 60)
    flaky = Flaky(running.primary.context.database)
    asker, id = await enrolled(running)
    async with following(flaky) as (_, directory, _):
        assert (await found(directory, id, asker)).state is State.TRUSTED
        setattr(flaky, trouble, 1)
        await revoke(running, id)
        await eventually(lambda: directory.behind)
        assert (await found(directory, id, asker)).state is State.REVOKED


async def found(directory: Directory, id: str, asker: Asker) -> Standing:
    """What the directory says of the server."""
    standing = await directory.find(ACCOUNT, id, certificates.fingerprint(certificates.spki(asker.key.public_key())))
    assert standing is not None
    return standing


async def test_more_news_than_fit_a_page_are_told_page_by_page(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PAGE", 10)
    database = running.primary.context.database

    def decide(tx: Transaction) -> None:
        for n in range(35):
            record(tx, ACCOUNT, "server.rename", f"servers/{n}", NOBODY, 1)

    async with following(database) as (_, _, told):
        await database.write(ACCOUNT, decide)
        await eventually(lambda: sum(len(news.ids) for news in told) == 35)
        assert [len(news.ids) for news in told] == [10, 10, 10, 5]
        assert [news.more for news in told] == [True, True, True, False]


async def test_an_idle_primary_reads_nothing(running: Running) -> None:
    """Commits wake the feed; questions do not, and there is no timer."""
    flaky = Flaky(running.primary.context.database)
    async with following(flaky) as (_, _, told):
        _, id = await enrolled(running)
        await eventually(lambda: id in {each for news in told for each in news.ids})
        reads = flaky.reads
        for _ in range(20):
            await running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())
        assert flaky.reads == reads


async def test_what_strangers_do_is_not_news(running: Running) -> None:
    """A restricted request, and its withdrawal, stand in no journal; the directory asks the database about those."""
    asker = Asker(running)
    async with following(running.primary.context.database) as (_, directory, told):
        async with running.stranger() as stub:
            id = (await asker.register(stub)).server_id
        await running.admin.accounts.UpdateAccount(account_pb2.UpdateAccountRequest(name=f"accounts/{ACCOUNT}", contact="new"))
        await eventually(lambda: told)
        assert id not in {each for news in told for each in news.ids}
        assert await directory.find(ACCOUNT, id, "not its key") is None
