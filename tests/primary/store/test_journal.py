"""The journal: numbers without gaps under the account's lock, and a chain that shows every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.model.journal import chained, genesis
from enlist_primary.store import accounts, journal
from enlist_primary.store.database import Transaction
from enlist_primary.store.sqlite import SqliteDatabase
from tests.primary.store.helpers import ACME, BETA, decide, entry, heads, together, verify


async def test_entries_are_numbered_from_one_in_each_account(database: SqliteDatabase) -> None:
    calls = [(account, lambda tx, account=account: decide(tx, account)) for account in (BETA, ACME, ACME, BETA, ACME)]
    assert await together(database, *calls) == [1, 1, 2, 2, 3]
    assert await database.read(heads) == {ACME: 3, BETA: 2}
    assert await database.read(verify, ACME) == 3
    assert await database.read(verify, BETA) == 2


async def test_what_was_appended_is_what_is_read_with_its_number(database: SqliteDatabase) -> None:
    given = entry(subject="servers/abc", evidence="code compared", detail={"name": "Kö\x00", "uses": 3, "to": None})
    assert await database.write(ACME, journal.append, ACME, given) == 1
    assert await database.read(journal.entries, ACME, 0, 10) == [replace(given, number=1)]


async def test_entries_are_read_onward_from_a_number(database: SqliteDatabase) -> None:
    await together(database, *[(ACME, decide)] * 5)
    page = await database.read(journal.entries, ACME, 2, 2)
    assert [each.number for each in page] == [3, 4]
    assert await database.read(journal.entries, ACME, 5, 2) == []


async def test_the_lock_returns_the_account_as_it_is(database: SqliteDatabase) -> None:
    for number in range(2):
        locked = await database.write(ACME, accounts.lock, ACME)
        assert locked == await database.read(accounts.load, ACME)
        assert locked.head == number
        await database.write(ACME, decide)


async def test_a_decision_that_already_holds_or_fails_leaves_no_gap(database: SqliteDatabase) -> None:
    def fail(tx: Transaction) -> None:
        decide(tx)
        raise Refused(Reason.STATE_FORBIDS, "no")

    def holds_already(tx: Transaction) -> None:
        accounts.lock(tx, ACME)

    outcomes = await together(database, (ACME, decide), (ACME, fail), (ACME, holds_already), (ACME, decide))
    assert [outcomes[0], outcomes[3]] == [1, 2]
    assert await database.read(verify, ACME) == 2


@pytest.mark.parametrize("operation", [accounts.lock, verify])
async def test_an_unknown_account_is_refused(database: SqliteDatabase, operation: Callable[[Transaction, str], object]) -> None:
    with pytest.raises(Refused) as refused:
        await database.write("nobody.example", operation, "nobody.example")
    assert refused.value.reason is Reason.ACCOUNT_UNKNOWN


async def test_an_entry_goes_into_no_other_account_s_journal(database: SqliteDatabase) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        await database.write(BETA, journal.append, BETA, entry(ACME))
    assert await database.read(heads) == {ACME: 0, BETA: 0}


async def test_a_long_journal_is_verified_to_its_end(database: SqliteDatabase) -> None:
    def decide_often(tx: Transaction) -> None:
        for _ in range(1001):
            decide(tx)

    await database.write(ACME, decide_often)
    assert await database.read(verify, ACME) == 1001
    await database.write(ACME, _run("UPDATE journal SET body = body || ' ' WHERE number = 1001"))
    assert "entry 1001:" in await _broken(database)


TAMPERING = {
    "a body": (3, "UPDATE journal SET body = replace(body, 'ann', 'bob') WHERE number = 3"),
    "a hash": (3, "UPDATE journal SET hash = zeroblob(32) WHERE number = 3"),
    "the first entry cut": (1, "DELETE FROM journal WHERE number = 1"),
    "an entry cut": (3, "DELETE FROM journal WHERE number = 3"),
    "the tail cut": (5, "DELETE FROM journal WHERE number = 5"),
    "all cut": (1, "DELETE FROM journal"),
    "an entry moved": (3, "UPDATE journal SET number = 9 WHERE number = 3"),
    "an entry before the first": (1, "UPDATE journal SET number = 0 WHERE number = 1"),
    "an entry before the first, added": (
        1,
        "INSERT INTO journal SELECT account, 0, body, hash FROM journal WHERE number = 1",
    ),
    "an entry too many": (6, "INSERT INTO journal SELECT account, 6, body, hash FROM journal WHERE number = 5"),
    "the head back": (5, "UPDATE account SET head = 4"),
    "the head's hash": (5, "UPDATE account SET head_hash = zeroblob(32)"),
    "a cut closed up": (
        3,
        """DELETE FROM journal WHERE number = 3; UPDATE journal SET number = number - 1 WHERE number > 3;
           UPDATE account SET head = 4""",
    ),
    "entries exchanged": (
        2,
        """UPDATE journal SET number = -number WHERE number IN (2, 3);
           UPDATE journal SET number = 5 + number WHERE number < 0""",
    ),
    "a body that is no text": (3, "UPDATE journal SET body = x'00' WHERE number = 3"),
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_tampering_is_detected_and_its_place_named(database: SqliteDatabase, what: str) -> None:
    await together(database, *[(ACME, decide)] * 5)
    assert await database.read(verify, ACME) == 5
    number, script = TAMPERING[what]
    for sql in script.split(";"):
        await database.write(ACME, _run(sql))
    assert f"entry {number}:" in await _broken(database)


async def test_accounts_that_exchange_their_journals_are_detected(database: SqliteDatabase) -> None:
    """Hashes, numbers and heads all fit; the chain begins in another account."""
    await together(database, *[(account, lambda tx, account=account: decide(tx, account)) for account in (ACME, BETA)] * 2)

    def exchange(tx: Transaction) -> None:
        tx.run("PRAGMA defer_foreign_keys = ON")
        tx.run("UPDATE journal SET account = 'x' || account")
        tx.run("UPDATE journal SET account = CASE account WHEN $1 THEN $2 ELSE $3 END", f"x{ACME}", BETA, ACME)
        tx.run(
            """UPDATE account SET head_hash =
               (SELECT hash FROM journal WHERE journal.account = account.domain AND number = 2)"""
        )

    await database.write(ACME, exchange)
    for account in (ACME, BETA):
        assert "entry 1:" in await _broken(database, account)


async def test_an_entry_that_was_hashed_anew_in_the_wrong_place_is_detected(database: SqliteDatabase) -> None:
    """A whole new chain can be computed, but its bodies must name their place."""

    def forge(tx: Transaction) -> None:
        body = replace(entry(BETA), number=1).body()
        digest = chained(genesis(ACME), body)
        tx.run("INSERT INTO journal VALUES ($1, 1, $2, $3)", ACME, body.decode(), digest)
        tx.run("UPDATE account SET head = 1, head_hash = $2 WHERE domain = $1", ACME, digest)

    await database.write(ACME, forge)
    assert "belongs elsewhere" in await _broken(database)


def _run(sql: str) -> Callable[[Transaction], int]:
    return lambda tx: tx.run(sql)


async def _broken(database: SqliteDatabase, account: str = ACME) -> str:
    """The sentence with which the journal is found broken."""
    with pytest.raises(Refused) as refused:
        await database.read(verify, account)
    assert refused.value.reason is Reason.JOURNAL_BROKEN
    return refused.value.message
