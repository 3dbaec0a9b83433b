"""The rules of the group commit, over an engine in memory whose COMMIT can be held up or made to fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlite_utils

from enlist.reasons import Reason, Refused
from enlist_primary.store.database import GroupCommit, Transaction
from enlist_primary.store.sqlite import SqliteEngine
from tests.primary.store.helpers import DEADLINE, Operation, line_up, together


class Engine(SqliteEngine):
    """A real engine that counts its commits, and fails or holds up the next one when told to."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE kept (word text PRIMARY KEY)")
        super().__init__(sqlite_utils.Database(connection))
        self.connection = connection
        self.commits = 0
        self.failure: BaseException | None = None
        self.committing = threading.Event()
        self.may_commit = threading.Event()
        self.may_commit.set()

    def commit(self) -> None:
        self.committing.set()
        assert self.may_commit.wait(DEADLINE)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        super().commit()
        self.commits += 1

    def kept(self) -> list[str]:
        return [word for (word,) in self.connection.execute("SELECT word FROM kept ORDER BY word")]


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    return error


def keep(word: str) -> Operation:
    def operation(tx: Transaction) -> str:
        tx.run("INSERT INTO kept VALUES ($1)", word)
        return word

    return operation


def keep_and_raise(word: str, error: BaseException) -> Operation:
    def operation(tx: Transaction) -> None:
        tx.run("INSERT INTO kept VALUES ($1)", word)
        raise error

    return operation


def reason(outcome: Any) -> Reason:
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture
async def commits(engine: Engine, thread: ThreadPoolExecutor) -> AsyncIterator[GroupCommit]:
    commits = GroupCommit(engine, thread, waiting=8, together=5)
    yield commits
    engine.may_commit.set()
    await commits.close()
    engine.connection.close()


async def test_operations_that_wait_together_share_one_commit(engine: Engine, commits: GroupCommit) -> None:
    assert await together(commits, ("a", keep("x")), ("b", keep("y")), ("c", keep("z"))) == ["x", "y", "z"]
    assert engine.kept() == ["x", "y", "z"]
    assert engine.commits == 2  # the one that held the thread, and these three


async def test_a_commit_is_shared_by_no_more_than_its_limit(engine: Engine, commits: GroupCommit) -> None:
    await together(commits, *[("a", keep(str(number))) for number in range(8)])
    assert engine.commits == 3  # the holder, five, three


async def test_operations_run_by_account_and_within_an_account_in_the_order_they_came(commits: GroupCommit) -> None:
    order: list[str] = []
    calls = [("c", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("c", "5")]

    def note(name: str) -> Operation:
        return lambda _tx: order.append(name)

    await together(commits, *[(account, note(account + number)) for account, number in calls])
    assert order == ["a2", "a4", "b3", "c1", "c5"]


async def test_nothing_is_delivered_before_the_commit_returned(engine: Engine, commits: GroupCommit) -> None:
    """Neither a result, nor a refusal, nor the alarm of the tail."""
    await commits.write("a", keep("before"))
    engine.committing.clear()
    engine.may_commit.clear()
    alarm = asyncio.ensure_future(commits.changed())
    refusal = Refused(Reason.STATE_FORBIDS, "no")
    result = asyncio.ensure_future(commits.write("a", keep("x")))
    refused = asyncio.ensure_future(commits.write("a", keep_and_raise("y", refusal)))
    assert await asyncio.to_thread(engine.committing.wait, DEADLINE)
    await asyncio.sleep(0)
    assert [waiting.done() for waiting in (result, refused, alarm)] == [False] * 3
    engine.may_commit.set()
    async with asyncio.timeout(DEADLINE):
        await alarm
        assert await result == "x"
        assert await _outcome(refused) is refusal


async def test_a_failing_operation_is_undone_alone(engine: Engine, commits: GroupCommit) -> None:
    """Attacks row 49: a refusal, a broken constraint and a bug beside two good decisions."""
    refusal = Refused(Reason.STATE_FORBIDS, "no")
    outcomes = await together(
        commits,
        ("a", keep("x")),
        ("a", keep_and_raise("undone", refusal)),
        ("a", keep("x")),
        ("a", keep_and_raise("undone too", ZeroDivisionError())),
        ("a", keep("y")),
    )
    assert outcomes[0] == "x"
    assert outcomes[4] == "y"
    assert outcomes[1] is refusal
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert isinstance(outcomes[3], ZeroDivisionError)
    assert engine.kept() == ["x", "y"]


async def test_an_operation_that_ends_the_transaction_loses_the_whole_batch(engine: Engine, commits: GroupCommit) -> None:
    """Attacks row 49: all refused, none kept, and the next batch is served."""

    def end(tx: Transaction) -> None:
        tx.run("ROLLBACK")
        raise ValueError

    outcomes = await together(commits, ("a", keep("x")), ("b", end), ("c", keep("y")))
    assert [reason(outcome) for outcome in outcomes] == [Reason.OVERLOADED] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3  # an exception for each caller
    assert engine.kept() == []
    assert await commits.write("a", keep("z")) == "z"
    assert engine.kept() == ["z"]


async def test_an_operation_that_hides_the_end_of_the_transaction_commits_nothing(engine: Engine, commits: GroupCommit) -> None:
    """Attacks row 49: statements after the silent end would have been committed one by one, outside any transaction."""

    def hide(tx: Transaction) -> str:
        tx.run("ROLLBACK")
        try:
            tx.run("INSERT INTO kept VALUES ('alone')")
        except RuntimeError:
            return "as if nothing had been"
        return "written outside"

    outcomes = await together(commits, ("a", keep("x")), ("b", hide), ("c", keep("y")))
    assert [reason(outcome) for outcome in outcomes] == [Reason.OVERLOADED] * 3
    assert engine.kept() == []


async def test_an_exit_raised_by_an_operation_ends_neither_the_loop_nor_the_thread(engine: Engine, commits: GroupCommit) -> None:
    outcomes = await together(commits, ("a", keep("x")), ("b", keep_and_raise("y", SystemExit())))
    assert [reason(outcome) for outcome in outcomes] == [Reason.OVERLOADED] * 2
    assert await commits.write("a", keep("z")) == "z"
    assert engine.kept() == ["z"]


async def test_stop_iteration_reaches_its_caller_and_nobody_else(engine: Engine, commits: GroupCommit) -> None:
    """A future takes no StopIteration: unguarded, setting it would end the loop and leave everybody waiting."""
    outcomes = await together(commits, ("a", keep_and_raise("x", StopIteration())), ("b", keep("y")))
    assert isinstance(outcomes[0], RuntimeError)
    assert outcomes[1] == "y"
    assert engine.kept() == ["y"]


async def test_a_full_disk_at_commit_refuses_the_batch_and_life_goes_on(engine: Engine, commits: GroupCommit) -> None:
    """Faults row 7."""
    await commits.write("a", keep("before"))
    engine.failure = sqlite_error(sqlite3.SQLITE_FULL)
    assert reason(await _outcome(commits.write("a", keep("x")))) is Reason.STORAGE_FULL
    assert await commits.write("a", keep("y")) == "y"
    assert engine.kept() == ["before", "y"]


async def test_a_full_disk_within_an_operation_refuses_the_batch(engine: Engine, commits: GroupCommit) -> None:
    """Faults row 7, attacks row 49. SQLite may undo one statement or everything; both are treated alike."""
    full = sqlite_error(sqlite3.SQLITE_FULL)
    outcomes = await together(commits, ("a", keep("x")), ("b", keep_and_raise("y", full)), ("c", keep("z")))
    assert [reason(outcome) for outcome in outcomes] == [Reason.STORAGE_FULL] * 3
    assert engine.kept() == []
    assert await commits.write("a", keep("later")) == "later"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), Reason.STORAGE_FAILED),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), Reason.STORAGE_CORRUPT),
        (sqlite_error(sqlite3.SQLITE_BUSY), Reason.STORAGE_FAILED),
        (RuntimeError("connection lost"), Reason.STORAGE_FAILED),
    ],
)
async def test_any_other_failed_commit_stops_everything(
    engine: Engine, commits: GroupCommit, failure: BaseException, expected: Reason
) -> None:
    """Faults row 6: nobody is acknowledged, neither in the batch, nor in line, nor later; and the app is told."""
    failed = asyncio.ensure_future(commits.failed())
    alarm = asyncio.ensure_future(commits.changed())
    engine.may_commit.clear()
    batch = asyncio.ensure_future(commits.write("a", keep("x")))
    assert await asyncio.to_thread(engine.committing.wait, DEADLINE)
    in_line = [asyncio.ensure_future(commits.write("a", keep(word))) for word in "yz"]
    await asyncio.sleep(0)
    engine.failure = failure
    engine.may_commit.set()
    async with asyncio.timeout(DEADLINE):
        outcomes = await asyncio.gather(batch, *in_line, return_exceptions=True)
        assert [reason(outcome) for outcome in outcomes] == [expected] * 3
        told = await failed
        await alarm
    assert told.reason is expected
    assert told.__cause__ is failure
    assert reason(await _outcome(commits.write("a", keep("later")))) is expected
    assert engine.kept() == []


async def test_an_io_error_within_an_operation_stops_everything(engine: Engine, commits: GroupCommit) -> None:
    """Faults row 6."""
    failure = sqlite_error(sqlite3.SQLITE_IOERR_WRITE)
    outcomes = await together(commits, ("a", keep("x")), ("b", keep_and_raise("y", failure)))
    assert [reason(outcome) for outcome in outcomes] == [Reason.STORAGE_FAILED] * 2
    async with asyncio.timeout(DEADLINE):
        assert (await commits.failed()).__cause__ is failure
    assert reason(await _outcome(commits.write("a", keep("later")))) is Reason.STORAGE_FAILED
    assert engine.kept() == []


async def test_an_operation_whose_caller_left_the_line_is_not_run(engine: Engine, commits: GroupCommit) -> None:
    (first, gone, stays), go = await line_up(commits, ("a", keep("gone")), ("a", keep("stays")))
    gone.cancel()
    await asyncio.sleep(0)
    go()
    async with asyncio.timeout(DEADLINE):
        await first
        assert await stays == "stays"
    assert engine.kept() == ["stays"]


async def test_an_operation_whose_caller_left_during_the_commit_stands(engine: Engine, commits: GroupCommit) -> None:
    engine.may_commit.clear()
    caller = asyncio.ensure_future(commits.write("a", keep("x")))
    assert await asyncio.to_thread(engine.committing.wait, DEADLINE)
    caller.cancel()
    assert isinstance(await _outcome(caller), asyncio.CancelledError)
    engine.may_commit.set()
    assert await commits.write("a", keep("y")) == "y"
    assert engine.kept() == ["x", "y"]


async def test_a_full_line_refuses_who_comes_and_serves_who_waits(engine: Engine, commits: GroupCommit) -> None:
    calls = [("a", keep(str(number))) for number in range(9)]
    outcomes = await together(commits, *calls)
    assert outcomes[:8] == list("01234567")
    assert reason(outcomes[8]) is Reason.OVERLOADED
    assert engine.kept() == list("01234567")


async def test_closing_finishes_what_waits_and_refuses_what_comes(
    engine: Engine, thread: ThreadPoolExecutor, commits: GroupCommit
) -> None:
    (first, *waiting), go = await line_up(commits, ("a", keep("x")), ("a", keep("y")))
    alarm = asyncio.ensure_future(commits.changed())
    closing = asyncio.ensure_future(commits.close())
    await asyncio.sleep(0)
    assert reason(await _outcome(commits.write("a", keep("late")))) is Reason.SHUTTING_DOWN
    go()
    async with asyncio.timeout(DEADLINE):
        await first
        assert await asyncio.gather(*waiting) == ["x", "y"]
        await asyncio.gather(closing, alarm)
    assert engine.kept() == ["x", "y"]
    assert thread.submit(lambda: "free").result(DEADLINE) == "free"


async def test_callers_who_left_the_line_keep_no_place_in_it(engine: Engine, commits: GroupCommit) -> None:
    (first, *gone), go = await line_up(commits, *[("a", keep(str(number))) for number in range(8)])
    for each in gone:
        each.cancel()
    await asyncio.sleep(0)
    stays = asyncio.ensure_future(commits.write("a", keep("stays")))
    await asyncio.sleep(0)
    go()
    async with asyncio.timeout(DEADLINE):
        await first
        assert await stays == "stays"
    assert engine.kept() == ["stays"]


def test_the_thread_ends_where_the_event_loop_is_gone(engine: Engine, thread: ThreadPoolExecutor) -> None:
    """Or the process would wait for it for ever."""

    async def leave_a_commit_under_way() -> None:
        engine.may_commit.clear()
        commits = GroupCommit(engine, thread)
        caller = asyncio.ensure_future(commits.write("a", keep("x")))
        assert await asyncio.to_thread(engine.committing.wait, DEADLINE)
        caller.cancel()

    asyncio.run(leave_a_commit_under_way())
    engine.may_commit.set()
    assert thread.submit(engine.kept).result(DEADLINE) == ["x"]


async def test_no_commit_between_the_call_of_changed_and_its_await_is_missed(commits: GroupCommit) -> None:
    alarm = commits.changed()
    await commits.write("a", keep("x"))
    async with asyncio.timeout(DEADLINE):
        await alarm


async def test_one_waiter_for_changes_that_gives_up_wakes_no_other(commits: GroupCommit) -> None:
    impatient, patient = asyncio.ensure_future(commits.changed()), asyncio.ensure_future(commits.changed())
    impatient.cancel()
    await asyncio.sleep(0)
    assert not patient.done()
    await commits.write("a", keep("x"))
    async with asyncio.timeout(DEADLINE):
        await patient


async def _outcome(call: Any) -> Any:
    async with asyncio.timeout(DEADLINE):
        return (await asyncio.gather(call, return_exceptions=True))[0]
