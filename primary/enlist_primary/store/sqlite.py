"""The embedded engine: SQLite through sqlite-utils, in WAL mode with `synchronous=FULL`.

One thread owns the one connection that writes; a few read-only connections in threads of their own serve queries.
Loading sqlite-utils takes a tenth of a second, so only the commands that open the database import this module.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlite_utils
from sqlite_utils import Migrations

from enlist.reasons import Reason, Refused
from enlist.runtime import formats
from enlist_primary.store.database import BUSY, CORRUPT, FAILED, FULL, GroupCommit, Outcome, Row, Transaction, Value
from enlist_primary.store.schema import STEPS, STEPS_OF_0_1, Step

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4
_WAITING_READS = 256
_LOCKED_SECONDS = 5.0  # how long a lock of another process (a backup, a person with sqlite3) is waited for
_MIGRATIONS = "enlist"  # the name of our set of steps in the table that sqlite-utils keeps


class SqliteTransaction:
    """A `Transaction` over one connection."""

    def __init__(self, database: sqlite_utils.Database) -> None:
        self._database = database

    def rows(self, sql: str, *values: Value) -> list[Row]:
        """See `Transaction.rows`."""
        cursor = self._execute(sql, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, sql: str, *values: Value) -> Row | None:
        """See `Transaction.row`."""
        return next(iter(self.rows(sql, *values)), None)

    def run(self, sql: str, *values: Value) -> int:
        """See `Transaction.run`."""
        return max(self._execute(sql, values).rowcount, 0)

    def _execute(self, sql: str, values: Sequence[Value]) -> sqlite3.Cursor:
        # An error may have ended the transaction. What an operation ran after that would be committed at once, alone.
        if not self._database.conn.in_transaction:
            raise RuntimeError("the transaction has ended")
        return self._database.execute(sql, {str(place): value for place, value in enumerate(values, 1)})


class SqliteEngine:
    """The `Engine` of the group commit. All of it runs in the writer's thread."""

    def __init__(self, database: sqlite_utils.Database) -> None:
        self._connection = database.conn
        self._transaction = SqliteTransaction(database)

    def begin(self) -> SqliteTransaction:
        """Begin at once with the write lock: a deferred one could fail in the middle when it first writes."""
        self._connection.execute("BEGIN IMMEDIATE")
        return self._transaction

    def commit(self) -> None:
        """See `Engine.commit`."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """See `Engine.rollback`."""
        self._connection.rollback()

    def in_transaction(self) -> bool:
        """See `Engine.in_transaction`."""
        return self._connection.in_transaction

    def diagnose(self, error: BaseException) -> Refused | None:
        """See `Engine.diagnose`."""
        return diagnose(error)


def diagnose(error: BaseException) -> Refused | None:
    """What an exception tells of the storage beneath, by SQLite's primary result code; None: nothing."""
    code = getattr(error, "sqlite_errorcode", None)
    match code and code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return Refused(Reason.STORAGE_FULL, FULL)
        case sqlite3.SQLITE_IOERR:
            return Refused(Reason.STORAGE_FAILED, FAILED)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Refused(Reason.STORAGE_CORRUPT, CORRUPT)
    return None


class Readers:
    """Queries, each on a snapshot, in a few threads that own a read-only connection each.

    Nearly every RPC comes through here once: a thread pool's way there and back costs more than the usual query.
    """

    def __init__(self, path: Path, count: int = _READERS, waiting: int = _WAITING_READS) -> None:
        self._line: queue.SimpleQueue[tuple[Callable[[Transaction], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._limit = waiting
        connections = [_connect(path, "ro") for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._serve, args=(each,), name="database reader", daemon=True) for each in connections
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, query: Callable[[Transaction], T]) -> T:
        """Run a query in a thread; raises OVERLOADED when too many wait."""
        if self._line.qsize() >= self._limit:
            raise Refused(Reason.OVERLOADED, BUSY)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._line.put((query, answer))
        return await answer

    async def close(self) -> None:
        """Let the queries that were asked for end, then close the connections."""
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self, database: sqlite_utils.Database) -> None:
        """One thread's work, until it is told to stop."""
        while self._serve_one(database):
            pass
        database.close()

    def _serve_one(self, database: sqlite_utils.Database) -> bool:
        asked = self._line.get()
        if asked is None:
            return False
        query, answer = asked
        if not answer.done():  # whoever asked has not stopped waiting
            outcome = _on_snapshot(database, query)
            with suppress(RuntimeError):  # the event loop is gone, and whoever asked with it
                answer.get_loop().call_soon_threadsafe(outcome.settle, answer)
        return True


def _on_snapshot(database: sqlite_utils.Database, query: Callable[[Transaction], Any]) -> Outcome:
    try:
        database.conn.execute("BEGIN")
        try:
            return Outcome(result=query(SqliteTransaction(database)))
        finally:
            database.conn.rollback()
    except BaseException as error:  # also what is no Exception: whoever asked waits for an answer
        return Outcome(error=error)


class SqliteDatabase:
    """The `Database` of one process over one file."""

    def __init__(self, writer: sqlite_utils.Database, thread: ThreadPoolExecutor, readers: Readers) -> None:
        self._writer = writer
        self._thread = thread
        self._readers = readers
        self._commits = GroupCommit(SqliteEngine(writer), thread)
        self._closed = False

    async def write(
        self, account: str, operation: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `Database.write`."""
        return await self._commits.write(account, operation, *args, **kwargs)

    async def read(self, query: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.read`."""
        self._commits.check()
        try:
            return await self._readers.run(lambda transaction: query(transaction, *args, **kwargs))
        except sqlite3.Error as error:
            refusal = diagnose(error)
            if refusal is None:
                raise
            refusal.__cause__ = error
            self._commits.fail(refusal)
            raise refusal from error

    def changed(self) -> Awaitable[None]:
        """See `Database.changed`."""
        return self._commits.changed()

    async def failed(self) -> Refused:
        """See `Database.failed`."""
        return await self._commits.failed()

    async def close(self) -> None:
        """See `Database.close`. The writer goes last: the last to close empties the write-ahead log into the file."""
        if self._closed:
            return
        self._closed = True
        await self._commits.close()
        await self._readers.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        await asyncio.to_thread(self._thread.shutdown)


@asynccontextmanager
async def open_sqlite(path: Path, *, create: bool = False, steps: Sequence[Step] = STEPS) -> AsyncIterator[SqliteDatabase]:
    """The database in this file, brought up to these steps of the schema; closed at the end.

    With `create` the file must not exist yet, without it must. Raises `Refused`: ALREADY_EXISTS, FILE_FAILED,
    FILE_UNSAFE, FORMAT_OLD, STORAGE_CORRUPT, STORAGE_FAILED, STORAGE_FULL or VERSION_INCOMPATIBLE. The caller holds the lock on the
    data folder.
    """
    thread = ThreadPoolExecutor(1, "database writer")
    try:
        writer, readers = await asyncio.get_running_loop().run_in_executor(thread, _open, path, create, steps)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    database = SqliteDatabase(writer, thread, readers)
    try:
        yield database
    finally:
        await database.close()


def _open(path: Path, create: bool, steps: Sequence[Step]) -> tuple[sqlite_utils.Database, Readers]:
    _create(path) if create else _inspect(path)
    try:
        database = _connect(path, "rw")
        try:
            _check(database, path)
            _upgrade(database, path, create, steps)
            return database, Readers(path)
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        raise diagnose(error) or Refused(Reason.STORAGE_FAILED, f"{path} cannot be opened: {error}.") from error


def _create(path: Path) -> None:
    """Make the empty file, 0600 whatever the umask is; SQLite gives the files it puts beside it the same mode."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)
        finally:
            os.close(file)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise Refused(Reason.ALREADY_EXISTS, f"{path} exists already.") from None
    except OSError as error:
        raise Refused(Reason.FILE_FAILED, f"{path} cannot be made: {error.strerror}.") from error


def _inspect(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise Refused(Reason.FILE_FAILED, f"{path} cannot be opened: {error.strerror}.") from error
    if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
        what_to_do = "It must be a plain file that only its owner can read and write (mode 0600)."
        raise Refused(Reason.FILE_UNSAFE, f"{path} is not safe to use. {what_to_do}")


def _connect(path: Path, mode: str) -> sqlite_utils.Database:
    """A connection with the settings that every one has. Readers move between threads, one at a time."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_LOCKED_SECONDS,
        isolation_level=None,
        check_same_thread=mode == "rw",
        cached_statements=512,
    )
    database = sqlite_utils.Database(connection, execute_plugins=False)
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA temp_store = MEMORY")  # nothing in folders of others, which may be full
    return database


def _check(database: sqlite_utils.Database, path: Path) -> None:
    if database.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise Refused(Reason.STORAGE_FAILED, f"{path} is on a file system that cannot hold it; use a local disk.")
    if database.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
        raise Refused(Reason.STORAGE_CORRUPT, CORRUPT)


def _upgrade(database: sqlite_utils.Database, path: Path, create: bool, steps: Sequence[Step]) -> None:
    """Apply the steps that are missing, all of them or none."""
    migrations = Migrations(_MIGRATIONS)
    for step in steps:
        migrations(name=step.name)(_applier(step))
    applied = {migration.name for migration in migrations.applied(database)}
    if not applied and not create:
        raise Refused(Reason.STORAGE_CORRUPT, f"{path} holds no data of a primary. Restore a backup.")
    if applied & STEPS_OF_0_1:
        raise formats.old(str(path))
    if newer := applied - {step.name for step in steps}:
        made_by = f"{path} was made by a newer version (it has {', '.join(sorted(newer))})."
        raise Refused(Reason.VERSION_INCOMPATIBLE, f"{made_by} Install that version, or restore an older backup.")
    if migrations.pending(database):
        database.execute("BEGIN IMMEDIATE")
        migrations.apply(database)
        database.execute("COMMIT")


def _applier(step: Step) -> Callable[[sqlite_utils.Database], None]:
    def apply(database: sqlite_utils.Database) -> None:
        database.executescript(step.ddl)

    return apply
