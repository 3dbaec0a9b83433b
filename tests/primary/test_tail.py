"""The tail of the change log: every change reaches what must react to it, also after it could not be read: `changes.tail`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Backoff
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.changes import tail as module
from enlist_primary.changes.directory import Directory
from enlist_primary.changes.publisher import Changes
from enlist_primary.changes.tail import Tail
from enlist_primary.federation.descendants import Descendants
from enlist_primary.ingest.observations import Observations
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.model.reports import Asked, Word
from enlist_primary.model.servers import State
from enlist_primary.store import changes, policies
from enlist_primary.store.database import Database, Transaction
from enlist_primary.store.servers import Standing
from tests.primary.flaky import Flaky
from tests.support.inprocess import ACCOUNT, Asker, Running, refused_by, running_primary
from tests.support.links import linked
from tests.support.waiting import eventually

SOON = Backoff(0.05, 0.05)


@pytest.fixture
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A primary."""
    async with running_primary(tmp_path_factory.mktemp("tail")) as running:
        yield running


@asynccontextmanager
async def following(database: Any, backoff: Backoff = SOON) -> AsyncIterator[tuple[Directory, list[Changes]]]:
    """A tail of the test's own beside the primary's, with its directory, and what it published."""
    published: list[Changes] = []
    directory = Directory(database)
    tail = Tail(database, directory, published.append, backoff)
    await tail.start()
    await directory.load()
    tasks = [asyncio.create_task(work) for work in (tail.run(), directory.run())]
    try:
        yield directory, published
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def ids(published: list[Changes]) -> set[str]:
    """The servers that were named."""
    return {id for page in published for id in page.ids}


def revoked(published: list[Changes], id: str) -> bool:
    """Whether it was published that this server is revoked."""
    return any(record.id == id and record.state is State.REVOKED for page in published for record in page.records)


async def enrolled(running: Running) -> tuple[Asker, str]:
    """A trusted server, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


async def revoke(running: Running, id: str) -> None:
    """An administrator revokes a server."""
    await running.admin.trust.RevokeServer(trust_pb2.RevokeServerRequest(name=f"accounts/{ACCOUNT}/servers/{id}"))


async def test_changes_are_published_once_and_the_directory_knows_them_by_then(running: Running) -> None:
    async with following(running.primary.context.database) as (directory, published):
        asker, id = await enrolled(running)
        await eventually(lambda: id in ids(published))
        found = await directory.find(ACCOUNT, id, certificates.fingerprint(asker.public_key))
        assert found is not None
        assert found.state is State.TRUSTED
        await revoke(running, id)
        await eventually(lambda: revoked(published, id))
        numbers = [page.number for page in published if page.account == ACCOUNT]
        assert numbers == sorted(set(numbers))
        assert await directory.find(ACCOUNT, id, "another key") is None


async def test_a_change_that_could_not_be_read_is_published_later(running: Running) -> None:
    """Else a moment of overload would leave a revoked server with its link for ever (attacks row 16)."""
    flaky = Flaky(running.primary.context.database)
    async with following(flaky) as (directory, published):
        asker, id = await enrolled(running)
        await eventually(lambda: id in ids(published))
        published.clear()
        flaky.failures = 5
        await revoke(running, id)
        await eventually(lambda: revoked(published, id))
        assert flaky.failures == 0
        assert (await found(directory, id, asker)).state is State.REVOKED


async def test_the_link_of_a_server_revoked_during_an_overload_is_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [Refused(Reason.OVERLOADED, "Try again.") for _ in range(3)]
    next_pages = module.next_pages

    def overloaded(*arguments: Any) -> list[Changes]:
        if failures:
            raise failures.pop()
        return next_pages(*arguments)

    asker, id = await enrolled(running)
    async with linked(asker) as link:
        monkeypatch.setattr(module, "next_pages", overloaded)
        await revoke(running, id)
        async with asyncio.timeout(10):
            assert (await refused_by(link.read())).reason is Reason.SERVER_REVOKED
        assert not failures


@pytest.mark.parametrize("trouble", ["failures", "stuck"])
async def test_while_the_tail_is_behind_the_directory_asks_the_database(
    running: Running, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Or a server revoked in that time would be trusted for as long as the tail's read is refused, or waits for a reader."""
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.5)
    flaky = Flaky(running.primary.context.database)
    asker, id = await enrolled(running)
    async with following(flaky, Backoff(60, 60)) as (directory, _):
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


async def test_more_changes_than_fit_a_page_come_page_by_page(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 10)
    database = running.primary.context.database
    async with following(database) as (_, published):
        await note(database, *(f"servers/{n}" for n in range(35)))
        await eventually(lambda: sum(len(page.ids) for page in published) == 35)
        assert [len(page.ids) for page in published] == [10, 10, 10, 5]
        assert [page.more for page in published] == [True, True, True, False]


async def note(database: Database, *subjects: str) -> None:
    """Something changed."""
    await database.write(ACCOUNT, changes.note, ACCOUNT, 1, *subjects)


async def test_an_idle_primary_reads_nothing(running: Running) -> None:
    """Commits wake the tail; questions do not, and there is no timer."""
    flaky = Flaky(running.primary.context.database)
    async with following(flaky) as (_, published):
        _, id = await enrolled(running)
        await eventually(lambda: id in ids(published))
        reads = flaky.reads
        for _ in range(20):
            await running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())
        assert flaky.reads == reads


async def test_what_strangers_do_is_published_though_no_journal_has_it(running: Running) -> None:
    asker = Asker(running)
    async with following(running.primary.context.database) as (directory, published), running.stranger() as stub:
        id = (await asker.register(stub)).server_id
        await eventually(lambda: id in ids(published))
        published.clear()
        claim, proof = await asker.claim(stub, "Leave")
        await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
        await eventually(lambda: id in ids(published))
        assert await directory.find(ACCOUNT, id, "not its key") is None


async def test_a_cursor_before_the_oldest_row_reloads_the_account(running: Running) -> None:
    """Else a decision that was trimmed while the tail was behind would never be known."""
    database = running.primary.context.database
    flaky = Flaky(database)
    asker, id = await enrolled(running)
    _, other = await enrolled(running)
    async with following(flaky) as (directory, published):
        flaky.failures = 10**6
        await revoke(running, id)
        await database.write(ACCOUNT, trimmed)
        await eventually(lambda: directory.behind)
        flaky.failures = 0
        await eventually(lambda: not directory.behind)
        (page,) = [page for page in published if page.account == ACCOUNT]
        assert page.reload
        assert {id, other} <= set(page.ids)
        assert {record.id: record.state for record in page.records} == {id: State.REVOKED, other: State.TRUSTED}
        assert (await found(directory, id, asker)).state is State.REVOKED


def trimmed(tx: Transaction) -> None:
    """All rows of the log are old."""
    while changes.trim(tx, ACCOUNT, 2**40):
        pass


async def test_no_server_below_is_known_once_no_primary_may_stand_there(running: Running) -> None:
    """That follows from the decision's rows, whichever RPC or command made it."""
    own = running.primary.context
    _, middle = await enrolled(running)
    request = trust_pb2.AuthorizeServerRequest(name=f"accounts/{ACCOUNT}/servers/{middle}", may_have_secondaries=True)
    await running.admin.trust.AuthorizeServer(request)
    below = hierarchy_pb2.BelowServer(path="b" * 10, state=server_pb2.SERVER_STATE_TRUSTED, connected=True)
    own.below.on_message(ACCOUNT, middle, Asked(frozenset()), hierarchy_pb2.Below(servers=[below], whole=True), own.now())
    assert f"{middle}/{'b' * 10}" in own.reach.view(ACCOUNT).presence
    request.may_have_secondaries = False
    await running.admin.trust.AuthorizeServer(request)
    await eventually(lambda: not list(own.below.of(ACCOUNT, middle)), what="the servers below to be forgotten")
    assert f"{middle}/{'b' * 10}" not in own.reach.view(ACCOUNT).presence


async def test_each_batch_of_observations_notes_one_change(running: Running) -> None:
    """Those who watch an account follow it by its changes: what is observed reaches them as decisions do."""
    own = running.primary.context
    _, id = await enrolled(running)
    before = await own.database.read(changes.last, ACCOUNT)
    reports = StatusReports(own.database, own.clock)
    for kind in ("policy/chrony", "policy/motd"):
        reports.put(ACCOUNT, Word(id, kind, "", "applied", own.now()))
    assert await reports.flush()
    observations = Observations(own.database, clock=own.clock)
    observations.connected(ACCOUNT, id, "192.0.2.1", "1.0", own.now())
    observations.refused(ACCOUNT, Reason.API_KEY_INVALID, "192.0.2.1", own.now())
    assert await observations.flush()
    descendants = Descendants(own.database, own.signer.authority.primary_id, lambda _: None, own.clock)
    servers = [hierarchy_pb2.BelowServer(path=path * 10, state=server_pb2.SERVER_STATE_TRUSTED) for path in "bc"]
    descendants.on_message(ACCOUNT, id, Asked(frozenset()), hierarchy_pb2.Below(servers=servers), own.now())
    assert await descendants.flush()
    assert await own.database.read(changes.after, ACCOUNT, before, 10) == ["reports", "observations", "descendants"]


async def test_watchers_are_notified_once_a_report_is_committed(running: Running) -> None:
    own = running.primary.context
    _, id = await enrolled(running)
    async with asyncio.timeout(20):
        watch = own.changes.changed(ACCOUNT)
        own.reports.put(ACCOUNT, Word(id, "policy/chrony", "", "applied", own.now()))
        while not await own.database.read(policies.reports, ACCOUNT, "chrony"):
            await watch
            watch = own.changes.changed(ACCOUNT)
