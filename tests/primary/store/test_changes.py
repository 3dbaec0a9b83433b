"""The change log: numbers without gaps, kept for an hour, and a tail that misses nothing whatever happens between its reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlite_utils
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import integers, lists, sampled_from

from enlist.reasons import Reason, Refused
from enlist_primary.changes.tail import next_pages
from enlist_primary.store import changes
from enlist_primary.store.changes import KEPT_SECONDS, Coarse
from enlist_primary.store.database import Transaction
from enlist_primary.store.schema import STEPS
from enlist_primary.store.sqlite import SqliteDatabase, SqliteEngine
from tests.primary.refusals import refused
from tests.primary.store.helpers import ACME, BETA, NOW, add_account, add_server, plans, together


async def test_numbers_have_no_gaps_and_a_refused_decision_notes_nothing(database: SqliteDatabase) -> None:
    def fail(tx: Transaction) -> None:
        changes.note(tx, ACME, NOW, "servers/lost")
        raise Refused(Reason.STATE_FORBIDS, "no")

    def one(tx: Transaction) -> None:
        changes.note(tx, ACME, NOW, "servers/a", "servers/b")

    def coarse(tx: Transaction) -> None:
        changes.note_coarse(tx, ACME, NOW, Coarse.REPORTS)

    await together(database, (ACME, one), (ACME, fail), (BETA, lambda tx: changes.note(tx, BETA, NOW, "")), (ACME, coarse))
    assert await database.read(changes.after, ACME, 0, 10) == ["servers/a", "servers/b", "reports"]
    assert await database.read(changes.after, ACME, 1, 1) == ["servers/b"]
    assert await database.read(changes.after, BETA, 0, 10) == ["account"]
    assert await database.read(changes.last, ACME) == 3


async def test_there_is_no_log_of_an_account_that_is_not_there(database: SqliteDatabase) -> None:
    with refused(Reason.ACCOUNT_UNKNOWN):
        await database.write("nobody.example", changes.note, "nobody.example", NOW, "servers/a")


async def test_rows_are_kept_for_an_hour(database: SqliteDatabase) -> None:
    for minute in range(3):
        await database.write(ACME, changes.note, ACME, NOW + 60 * minute, f"servers/{minute}")
    hour = NOW + KEPT_SECONDS
    assert await database.read(changes.accounts_to_trim, hour) == []
    assert await database.read(changes.accounts_to_trim, hour + 1) == [ACME]
    assert await database.write(ACME, changes.trim, ACME, hour + 61) is False
    assert await database.read(changes.after, ACME, 1, 10) is None
    assert await database.read(changes.after, ACME, 2, 10) == ["servers/2"]
    assert await database.write(ACME, changes.trim, ACME, hour + 121) is False
    assert await database.read(changes.after, ACME, 2, 10) is None
    assert await database.read(changes.accounts_to_trim, hour + 10**6) == []


async def test_a_bounded_number_of_rows_is_kept_and_trimmed_at_once(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "KEPT_ROWS", 10)
    monkeypatch.setattr(changes, "TRIMMED_AT_ONCE", 4)
    await database.write(ACME, changes.note, ACME, NOW, *(str(n) for n in range(16)))
    assert await database.read(changes.accounts_to_trim, NOW) == [ACME]
    assert await database.write(ACME, changes.trim, ACME, NOW) is True
    assert await database.write(ACME, changes.trim, ACME, NOW) is False
    assert await database.read(changes.after, ACME, 5, 100) is None
    assert await database.read(changes.after, ACME, 6, 100) == [str(n) for n in range(6, 16)]
    assert await database.read(changes.accounts_to_trim, NOW) == []


async def test_a_clock_that_was_set_back_leaves_no_hole(database: SqliteDatabase) -> None:
    for at in (NOW + 10**6, NOW, NOW + 1):
        await database.write(ACME, changes.note, ACME, at, str(at))
    await database.write(ACME, changes.trim, ACME, NOW + KEPT_SECONDS + 10)
    assert await database.read(changes.after, ACME, 0, 10) == [str(NOW + 10**6), str(NOW), str(NOW + 1)]


async def test_the_tail_reads_rows_by_their_numbers(database: SqliteDatabase) -> None:
    queries = [lambda tx: changes.after(tx, ACME, 5, 10), lambda tx: changes.accounts_to_trim(tx, NOW)]
    for query in queries:
        assert "SCAN change" not in await database.read(plans, query)


# --- Whatever happens between its reads ----------------------------------------------------------------------------------------


@contextmanager
def transaction() -> Iterator[Transaction]:
    """A database in memory with two accounts."""
    database = sqlite_utils.Database(memory=True)
    for step in STEPS:
        database.executescript(step.ddl)
    database.conn.isolation_level = None
    engine = SqliteEngine(database)
    tx = engine.begin()
    for account in (ACME, BETA):
        add_account(tx, account)
    try:
        yield tx
    finally:
        engine.rollback()
        database.close()


class TailMachine(RuleBasedStateMachine):
    """Commits, reads of pages of any size, trims and time, in any order. `owed` are subjects yet to be delivered, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = transaction()
        self.tx = self.manager.__enter__()
        self.now = NOW
        self.made = 0
        self.cursors: dict[str, int] = {}
        self.owed: dict[str, list[str]] = {ACME: [], BETA: []}

    def teardown(self) -> None:
        self.manager.__exit__(None, None, None)

    @rule(account=sampled_from([ACME, BETA]), count=integers(1, 4))
    def commit(self, account: str, count: int) -> None:
        subjects = []
        for _ in range(count):
            self.made += 1
            add_server(self.tx, f"s{self.made}", account)
            subjects.append(f"servers/s{self.made}")
        changes.note(self.tx, account, self.now, *subjects)
        self.owed[account] += subjects

    @rule(account=sampled_from([ACME, BETA]))
    def refuse(self, account: str) -> None:
        self.tx.run("SAVEPOINT refused")
        changes.note(self.tx, account, self.now, "servers/never")
        self.tx.run("ROLLBACK TO SAVEPOINT refused")
        self.tx.run("RELEASE SAVEPOINT refused")

    @rule(limit=integers(1, 5))
    def read(self, limit: int) -> None:
        for page in next_pages(self.tx, self.cursors, limit):
            owed = self.owed[page.account]
            if page.reload:
                assert set(owed) <= set(page.subjects)
                owed.clear()
            else:
                assert list(page.subjects) == owed[: len(page.subjects)]
                assert {record.id for record in page.records} == set(page.ids)
                del owed[: len(page.subjects)]
            assert page.more is bool(owed)
            self.cursors[page.account] = page.number

    @rule(account=sampled_from([ACME, BETA]))
    def trim(self, account: str) -> None:
        changes.trim(self.tx, account, self.now)

    @rule(seconds=lists(integers(1, KEPT_SECONDS), min_size=1, max_size=2))
    def later(self, seconds: list[int]) -> None:
        self.now += sum(seconds)

    @invariant()
    def a_tail_that_reads_to_the_end_owes_nothing(self) -> None:
        behind = {account for account, owed in self.owed.items() if owed}
        assert {page.account for page in next_pages(self.tx, self.cursors, 1)} == behind


TailMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_every_change_is_delivered_in_order_whatever_happens_between_reads = TailMachine.TestCase
