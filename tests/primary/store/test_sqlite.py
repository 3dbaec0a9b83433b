"""The SQLite engine: its files, its schema over versions, its reads, and what damage does."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.store import accounts
from enlist_primary.store import servers as server_rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.schema import STEPS, Step
from enlist_primary.store.sqlite import Readers, SqliteDatabase, open_sqlite
from tests.primary.store.helpers import ACME, DEADLINE, add_server, decide, heads, servers, together, verify


async def _refusal(path: Path, *, create: bool = False, steps: tuple[Step, ...] = STEPS) -> Refused:
    """Why this file is not opened."""
    with pytest.raises(Refused) as refused:
        async with open_sqlite(path, create=create, steps=steps):
            pass
    return refused.value


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


# Files


@pytest.fixture(params=[0o000, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
async def test_every_file_is_0600_whatever_the_umask_is(folder: Path) -> None:
    """Attacks row 45."""
    async with open_sqlite(folder / "enlist.db", create=True):
        assert _modes(folder) == {"enlist.db": 0o600, "enlist.db-wal": 0o600, "enlist.db-shm": 0o600}
    assert _modes(folder) == {"enlist.db": 0o600}


async def test_a_file_that_others_could_read_or_replace_is_refused(path: Path) -> None:
    """Attacks rows 35 and 45: a planted file, a symbolic link."""
    path.chmod(0o640)
    assert (await _refusal(path)).reason is Reason.FILE_UNSAFE
    path.chmod(0o600)
    link = path.with_name("link.db")
    link.symlink_to(path)
    assert (await _refusal(link)).reason is Reason.FILE_UNSAFE
    assert (await _refusal(link, create=True)).reason is Reason.ALREADY_EXISTS


async def test_a_missing_file_is_not_made_by_accident(folder: Path) -> None:
    """A primary that silently began anew would forget whom it trusts."""
    assert (await _refusal(folder / "enlist.db")).reason is Reason.FILE_FAILED
    assert not list(folder.iterdir())
    (folder / "enlist.db").touch(0o600)
    assert (await _refusal(folder / "enlist.db")).reason is Reason.STORAGE_CORRUPT


async def test_an_existing_database_is_not_made_again(path: Path) -> None:
    assert (await _refusal(path, create=True)).reason is Reason.ALREADY_EXISTS
    async with open_sqlite(path) as database:
        assert await database.read(heads)


async def test_a_path_with_signs_that_mean_something_in_a_url_is_a_path(folder: Path) -> None:
    path = folder / "a b?mode=memory#%41.db"
    async with open_sqlite(path, create=True):
        assert path.exists()


# The schema over versions


async def test_a_database_is_unchanged_by_being_opened_again(path: Path) -> None:
    async with open_sqlite(path) as database:
        await database.write(ACME, add_server, "s")
        await database.write(ACME, decide)
        before = await database.read(_everything)
    for _ in range(2):
        async with open_sqlite(path) as database:
            assert await database.read(_everything) == before
            assert await database.read(verify, ACME) == 1


LATER = (*STEPS, Step("later", "CREATE TABLE later (word text); INSERT INTO later VALUES ('kept')"))


async def test_a_newer_version_adds_its_steps_and_an_older_one_then_refuses(path: Path) -> None:
    async with open_sqlite(path) as database:
        await database.write(ACME, add_server, "s")
    async with open_sqlite(path, steps=LATER) as database:
        assert await database.read(servers) == ["s"]
        assert await database.read(lambda tx: tx.rows("SELECT word FROM later")) == [{"word": "kept"}]
    before = path.read_bytes()
    refused = await _refusal(path)
    assert refused.reason is Reason.VERSION_INCOMPATIBLE
    assert "later" in refused.message
    assert path.read_bytes() == before


async def test_steps_are_applied_all_or_none(path: Path) -> None:
    broken = (*LATER, Step("broken", "CREATE TABLE half (word text); INSERT INTO nowhere VALUES (1)"))
    assert (await _refusal(path, steps=broken)).reason is Reason.STORAGE_FAILED
    async with open_sqlite(path) as database:
        tables = await database.read(lambda tx: tx.rows("SELECT name FROM sqlite_master WHERE type = 'table'"))
    assert {"later", "half"}.isdisjoint(row["name"] for row in tables)


# Reads


async def test_a_read_sees_every_write_that_returned_before(database: SqliteDatabase) -> None:
    for number in range(20):
        await database.write(ACME, add_server, f"{number:02}")
        assert len(await database.read(servers)) == number + 1


async def test_a_read_has_one_view_from_its_first_to_its_last_statement(database: SqliteDatabase) -> None:
    begun, written = threading.Event(), threading.Event()

    def twice(tx: Transaction) -> tuple[list[str], list[str]]:
        first = servers(tx)
        begun.set()
        assert written.wait(DEADLINE)
        return first, servers(tx)

    reading = asyncio.ensure_future(database.read(twice))
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    await database.write(ACME, add_server, "s")
    written.set()
    assert await reading == ([], [])
    assert await database.read(servers) == ["s"]


async def test_a_read_cannot_write(database: SqliteDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(add_server, "s")
    assert await database.read(servers) == []


async def test_a_failing_read_gives_its_connection_back(database: SqliteDatabase) -> None:
    def fail(_tx: Transaction) -> None:
        raise StopIteration

    for _ in range(10):
        with pytest.raises(RuntimeError):
            await database.read(fail)
    assert await database.read(servers) == []


async def test_reads_beyond_the_limit_are_refused(path: Path) -> None:
    readers = Readers(path, count=1, waiting=1)
    begun, go = threading.Event(), threading.Event()

    def hold(_tx: Transaction) -> None:
        begun.set()
        assert go.wait(DEADLINE)

    running = asyncio.ensure_future(readers.run(hold))
    assert await asyncio.to_thread(begun.wait, DEADLINE)
    waiting = asyncio.ensure_future(readers.run(servers))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await readers.run(servers)
    assert refused.value.reason is Reason.OVERLOADED
    go.set()
    await running
    assert await waiting == []
    await readers.close()


# Decisions


async def test_fifty_callers_pass_a_limit_of_ten_exactly_ten_times(database: SqliteDatabase) -> None:
    """Attacks rows 13 and 30: count, refuse above ten, insert, under the account's lock."""

    def register(tx: Transaction, id: str) -> None:
        accounts.lock(tx, ACME)
        if len(servers(tx)) >= 10:
            raise Refused(Reason.TOO_MANY_PENDING, "full")
        add_server(tx, id)

    calls = [database.write(ACME, register, f"{number:02}") for number in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.count(None) == 10
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Refused] * 40
    assert len(await database.read(servers)) == 10


async def test_a_broken_constraint_in_a_shared_commit_harms_its_caller_only(path: Path) -> None:
    """Attacks row 49: after reopening, the good ones are there, in the table and in the journal."""

    def register(tx: Transaction, id: str) -> int:
        number = decide(tx)
        add_server(tx, id)
        return number

    async with open_sqlite(path) as database:
        calls = [(ACME, lambda tx, id=id: register(tx, id)) for id in ("a", "b", "a", "c")]
        outcomes = await together(database, *calls)
    assert [outcomes[0], outcomes[1], outcomes[3]] == [1, 2, 3]
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    async with open_sqlite(path) as database:
        assert await database.read(servers) == ["a", "b", "c"]
        assert await database.read(verify, ACME) == 3


async def test_taking_the_lock_alone_writes_nothing(path: Path) -> None:
    """Strangers' refused attempts take it too: they must not cost a write to the disk."""
    async with open_sqlite(path) as database:
        await database.write(ACME, decide)
        log = path.with_name(path.name + "-wal")
        before = log.stat().st_size
        for _ in range(10):
            await database.write(ACME, accounts.lock, ACME)
        assert log.stat().st_size == before


# Damage


async def test_garbage_is_no_database(folder: Path) -> None:
    path = folder / "enlist.db"
    path.write_bytes(os.urandom(8192))
    path.chmod(0o600)
    assert (await _refusal(path)).reason is Reason.STORAGE_CORRUPT


async def test_a_damaged_page_is_found_when_opened(path: Path) -> None:
    """Faults row 19."""
    await _damage_servers(path)
    assert (await _refusal(path)).reason is Reason.STORAGE_CORRUPT


async def test_a_page_damaged_later_is_found_by_a_read_and_stops_everything(path: Path) -> None:
    """Faults row 19: nothing is served from a database that is known to be damaged."""
    async with open_sqlite(path) as database:
        await database.write(ACME, _many_servers)
    async with open_sqlite(path) as database:
        _overwrite(path, await database.read(_page_of_servers))
        with pytest.raises(Refused) as refused:
            await database.read(server_rows.find, ACME, "0001")
        assert refused.value.reason is Reason.STORAGE_CORRUPT
        async with asyncio.timeout(DEADLINE):
            assert (await database.failed()).reason is Reason.STORAGE_CORRUPT
        with pytest.raises(Refused):
            await database.write(ACME, decide)
        with pytest.raises(Refused):
            await database.read(heads)


async def test_a_lock_held_by_another_process_refuses_and_life_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults row 19: a person with sqlite3, a backup."""
    monkeypatch.setattr("enlist_primary.store.sqlite._LOCKED_SECONDS", 0.01)
    async with open_sqlite(path) as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refused) as refused:
            await database.write(ACME, decide)
        assert refused.value.reason is Reason.OVERLOADED
        other.execute("ROLLBACK")
        other.close()
        assert await database.write(ACME, decide) == 1


def _everything(tx: Transaction) -> dict[str, object]:
    names = [row["name"] for row in tx.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: tx.rows(f'SELECT * FROM "{name}"') for name in names}


def _many_servers(tx: Transaction) -> None:
    for number in range(2000):
        add_server(tx, f"{number:04}")


def _page_of_servers(tx: Transaction) -> int:
    """The first page of the index by which a server is found by its id."""
    row = tx.row("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_server_1'")
    assert row is not None
    return int(row["rootpage"])


async def _damage_servers(path: Path) -> None:
    async with open_sqlite(path) as database:
        await database.write(ACME, _many_servers)
        page = await database.read(_page_of_servers)
    _overwrite(path, page)


def _overwrite(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xee" * 4096)
