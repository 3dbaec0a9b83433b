"""The seam between the primary and what keeps its data, and the group commit that every engine shares.

Operations (decisions) and queries are plain synchronous functions of a `Transaction`. Operations that wait at the same
time share one transaction, each in a savepoint of its own, and one COMMIT; nothing leaves before that returned. What a
failure means (docs/adr/0002-group-commit-and-journal.md):

    an operation raises         its savepoint is rolled back, its caller gets the exception, the others go on
    the disk is full            the whole batch is undone and refused (STORAGE_FULL); the next one may succeed
    the transaction is gone     the whole batch is undone and refused (OVERLOADED); the next one may succeed
    I/O error, corruption       the whole batch is refused, and all that follows; `failed` says so: the process stops
    any other failed COMMIT     the same, for nobody knows what the disk kept
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from enlist.reasons import Reason, Refused

Value = str | int | bytes | None
Row = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

FULL = "The primary's disk is full, so nothing was changed. Free some space there and try again."
FAILED = "The primary's disk failed, so nobody knows whether this was kept. The primary stops: see its log, restart it."
CORRUPT = "The primary's database is damaged, and the primary does not work with it. Restore a backup."
BUSY = "The primary's database could not do this now, and nothing was changed. Try again."
CLOSED = "The primary is shutting down, and nothing was changed. Try again when it is back."


class Transaction(Protocol):
    """What an operation or a query gets. SQL has `$1`, `$2`; every row is read before a method returns."""

    def rows(self, sql: str, *values: Value) -> list[Row]:
        """All rows, each by column name."""
        ...

    def row(self, sql: str, *values: Value) -> Row | None:
        """The first row, or None."""
        ...

    def run(self, sql: str, *values: Value) -> int:
        """Execute, and say how many rows it touched."""
        ...


def rows_of(*columns: str) -> str:
    """The SQL of a table whose rows, arrays in the order of the columns, are one JSON array: `$1` of the statement it is part of.

    The engine takes it apart by itself, while a value for each parameter takes the interpreter, which the event loop needs. Put it
    into a materialized common table and `CROSS JOIN` from it: SQLite keeps to that order, else it would look for each row of the
    other table here.
    """
    values = (f"json_extract(value, '$[{place}]') AS {column}" for place, column in enumerate(columns))
    return f"SELECT {', '.join(values)} FROM json_each($1)"


class Database(Protocol):
    """What the rest of the primary sees. Every method may raise `Refused`: OVERLOADED, SHUTTING_DOWN, STORAGE_..."""

    async def write(
        self, account: str, operation: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a decision of this account and return its result once that is durable.

        Whoever stops waiting does not undo it: it is dropped if it has not begun, and stands if it has.
        """
        ...

    async def read(self, query: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query on one consistent view, which holds every write that returned before."""
        ...

    def changed(self) -> Awaitable[None]:
        """Wait for the next commit, or the end. It counts from the call: call, read, then await, and none is missed."""
        ...

    async def failed(self) -> Refused:
        """Return once the database has stopped for good, with the reason; its `__cause__` is for the log. Then stop."""
        ...

    async def close(self) -> None:
        """Finish what waits, refuse what comes, and let go of the file."""
        ...


class Engine(Protocol):
    """The part of a group commit that differs: one writing connection, used by one thread only."""

    def begin(self) -> Transaction:
        """Begin a transaction that may write."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> None:
        """Undo what is open; nothing is fine."""
        ...

    def in_transaction(self) -> bool:
        """Whether the transaction is still open. An error may have ended it, and the savepoints with it."""
        ...

    def diagnose(self, error: BaseException) -> Refused | None:
        """What an exception tells of the storage beneath: STORAGE_FULL, _FAILED, _CORRUPT, or None: nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation or a query came to: its result or its own exception."""

    result: Any = None
    error: BaseException | None = None

    def settle(self, answer: asyncio.Future[Any]) -> None:
        """Answer the caller, unless it has stopped waiting."""
        if answer.done():
            return
        if isinstance(self.error, StopIteration):  # a future takes none (PEP 479)
            answer.set_exception(RuntimeError("StopIteration was raised"))
        elif self.error is not None:
            answer.set_exception(self.error)
        else:
            answer.set_result(self.result)


class BatchLost(Exception):
    """No operation of a batch was committed, or (if it is fatal) nobody knows."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.fatal = refusal.reason in {Reason.STORAGE_FAILED, Reason.STORAGE_CORRUPT}


def commit_together(engine: Engine, operations: Iterable[Callable[[Transaction], Any]]) -> list[Outcome]:
    """Run the operations in one transaction, each in its own savepoint, and commit them; raises `BatchLost`."""
    try:
        transaction = engine.begin()
        outcomes = [_in_savepoint(engine, transaction, operation) for operation in operations]
    except BaseException as error:  # also what is no Exception: it must not end the thread with a transaction open
        raise _undone(engine, error) from error
    try:
        engine.commit()
    except BaseException as error:
        lost = _undone(engine, error)
        known = lost.fatal or lost.refusal.reason is Reason.STORAGE_FULL
        raise (lost if known else BatchLost(Refused(Reason.STORAGE_FAILED, FAILED))) from error
    return outcomes


def _in_savepoint(engine: Engine, transaction: Transaction, operation: Callable[[Transaction], Any]) -> Outcome:
    transaction.run("SAVEPOINT operation")
    try:
        outcome = Outcome(result=operation(transaction))
    except Exception as error:
        if engine.diagnose(error) or not engine.in_transaction():
            raise
        transaction.run("ROLLBACK TO SAVEPOINT operation")
        outcome = Outcome(error=error)
    transaction.run("RELEASE SAVEPOINT operation")
    return outcome


def _undone(engine: Engine, error: BaseException) -> BatchLost:
    """Roll the batch back after this error, and say what the error means for all of it."""
    try:
        engine.rollback()
    except Exception:
        return BatchLost(Refused(Reason.STORAGE_FAILED, FAILED))
    return BatchLost(engine.diagnose(error) or Refused(Reason.OVERLOADED, BUSY))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    account: str
    operation: Callable[[Transaction], Any]
    answer: asyncio.Future[Any]

    def refuse(self, refusal: Refused) -> None:
        Outcome(error=_copy(refusal)).settle(self.answer)


class GroupCommit:
    """Gathers waiting operations and commits them together, in the given thread, which is its own until `close`.

    At most `waiting` operations stand in line (beyond that OVERLOADED), and at most `together` share a commit. A
    decision takes well under a millisecond, so a full line is cleared within a second on a healthy disk.
    """

    def __init__(self, engine: Engine, thread: ThreadPoolExecutor, *, waiting: int = 1024, together: int = 256) -> None:
        self._engine = engine
        self._limit = waiting
        self._together = together
        self._line: list[_Waiting] = []
        self._batches: queue.SimpleQueue[Sequence[_Waiting] | None] = queue.SimpleQueue()  # for the thread; None: the end
        self._busy = False
        self._closing = False
        self._refusal: Refused | None = None
        self._loop = asyncio.get_running_loop()
        self._next_commit: asyncio.Future[None] = self._loop.create_future()
        self._failure: asyncio.Future[Refused] = self._loop.create_future()
        self._ended = self._loop.run_in_executor(thread, self._serve)

    async def write(
        self, account: str, operation: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `Database.write`."""
        self.check()
        if len(self._line) >= self._limit:
            self._line = [each for each in self._line if not each.answer.done()]
        if len(self._line) >= self._limit:
            raise Refused(Reason.OVERLOADED, BUSY)
        answer: asyncio.Future[T] = self._loop.create_future()
        self._line.append(_Waiting(account, lambda transaction: operation(transaction, *args, **kwargs), answer))
        self._loop.call_soon(self._hand_over)  # behind whoever else is about to ask
        return await answer

    def changed(self) -> Awaitable[None]:
        """See `Database.changed`. The shield keeps one waiter's cancellation from the others."""
        return asyncio.shield(self._next_commit)

    async def failed(self) -> Refused:
        """See `Database.failed`."""
        return await asyncio.shield(self._failure)

    def check(self) -> None:
        """Raise the reason why nothing is served any more, if there is one."""
        if self._refusal is not None:
            raise _copy(self._refusal)

    def fail(self, refusal: Refused) -> None:
        """Serve nothing any more: answer all who wait with this, and tell whoever awaits `failed`."""
        self._refusal = refusal
        if not self._failure.done():
            self._failure.set_result(refusal)
        while self._line:
            self._line.pop().refuse(refusal)
        self._wake()

    async def close(self) -> None:
        """Finish what stands in line, refuse what comes, and let go of the thread. It takes as long as the disk takes."""
        self._refusal = self._refusal or Refused(Reason.SHUTTING_DOWN, CLOSED)
        self._closing = True
        self._hand_over()
        await self._ended
        self._wake()

    def _hand_over(self) -> None:
        """Give the thread its next batch, if it has none; or its end."""
        if self._busy:
            return
        waiting = [each for each in self._line if not each.answer.done()]
        batch, self._line = waiting[: self._together], waiting[self._together :]
        if batch:
            self._busy = True
            # By account, so that every primary on the same database takes the row locks in the same order.
            self._batches.put(sorted(batch, key=lambda each: each.account))
        elif self._closing:
            self._batches.put(None)

    def _serve(self) -> None:
        """The thread's work. Its way back is short: an executor's, with its futures, takes about as long as a decision does."""
        for batch in iter(self._batches.get, None):
            answer: Callable[[], None]
            try:
                answer = partial(self._settle, batch, commit_together(self._engine, [each.operation for each in batch]))
            except Exception as error:  # whatever it is, nobody may be left waiting
                answer = partial(self._lose, batch, error)
            try:
                self._loop.call_soon_threadsafe(answer)
            except RuntimeError:  # the event loop is gone, and whoever asked with it
                return

    def _settle(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            outcome.settle(waiting.answer)
        self._wake()
        self._go_on()

    def _lose(self, batch: Sequence[_Waiting], error: Exception) -> None:
        lost = error if isinstance(error, BatchLost) else BatchLost(Refused(Reason.STORAGE_FAILED, FAILED))
        lost.refusal.__cause__ = error.__cause__ or error
        for waiting in batch:
            waiting.refuse(lost.refusal)
        if lost.fatal:
            self.fail(lost.refusal)
        self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        self._loop.call_soon(self._hand_over)  # behind those who were just answered: they may ask again

    def _wake(self) -> None:
        self._next_commit.set_result(None)
        self._next_commit = self._loop.create_future()


def _copy(refusal: Refused) -> Refused:
    """A refusal for one caller: an exception shared by many would gather all their tracebacks."""
    copy = Refused(refusal.reason, refusal.message)
    copy.__cause__ = refusal.__cause__
    return copy
