"""What the tests of the store share: small decisions, a way into one shared commit, and the rule about missing means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from enlist_primary.model.journal import JournalEntry, genesis
from enlist_primary.store import accounts, changes, journal
from enlist_primary.store.database import Row, Transaction, Value

ACME, BETA = "acme.example", "beta.example"
NOW = 1_800_000_000
DEADLINE = 30.0  # seconds; what a test waits for takes far less

Operation = Callable[[Transaction], Any]


class Writes(Protocol):
    """A database or a bare group commit."""

    def write(self, account: str, operation: Operation) -> Awaitable[Any]: ...


def entry(account: str = ACME, **fields: Any) -> JournalEntry:
    """A decision to write into a journal."""
    given = {"time": NOW, "actor": "ann", "method": "local", "source": "-", "action": "authorize", "subject": "servers/s"}
    return JournalEntry(**{"account": account, **given, **fields})


def add_account(tx: Transaction, domain: str) -> None:
    """An account and its root group."""
    insert = "INSERT INTO account (domain, head_hash, created_at) VALUES ($1, $2, $3)"
    tx.run(insert, domain, genesis(domain), NOW)
    tx.run("INSERT INTO server_group (account, id, name) VALUES ($1, 'root', '/')", domain)


def decide(tx: Transaction, account: str = ACME) -> int:
    """A decision that changes nothing but the journal."""
    accounts.lock(tx, account)
    return journal.append(tx, account, entry(account))


def heads(tx: Transaction) -> dict[str, int]:
    """How far each account's journal reaches."""
    return {account: each.head for account, each in changes.positions(tx).items()}


def add_server(tx: Transaction, id: str, account: str = ACME) -> None:
    """A pending server in the root group."""
    sql = """INSERT INTO server (account, id, name, group_id, state, key, public_key, since, created_at)
             VALUES ($1, $2, $2, 'root', 'pending', $2, $3, $4, $4)"""
    tx.run(sql, account, id, id.encode(), NOW)


def servers(tx: Transaction) -> list[str]:
    """The ids of all servers."""
    return [row["id"] for row in tx.rows("SELECT id FROM server ORDER BY id")]


async def line_up(writes: Writes, *calls: tuple[str, Operation]) -> tuple[list[asyncio.Future[Any]], Callable[[], None]]:
    """Get these operations in line while an earlier one holds the writer's thread; the second result lets it go."""
    held, go = threading.Event(), threading.Event()

    def hold(_tx: Transaction) -> None:
        held.set()
        assert go.wait(DEADLINE)

    first = asyncio.ensure_future(writes.write("", hold))
    assert await asyncio.to_thread(held.wait, DEADLINE)
    waiting = [asyncio.ensure_future(writes.write(account, operation)) for account, operation in calls]
    await asyncio.sleep(0)  # each runs up to its first wait, and so gets in line
    return [first, *waiting], go.set


async def together(writes: Writes, *calls: tuple[str, Operation]) -> list[Any]:
    """The results or exceptions of these operations, which share one commit."""
    (first, *waiting), go = await line_up(writes, *calls)
    go()
    async with asyncio.timeout(DEADLINE):
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)


def verify(tx: Transaction, account: str) -> int:
    """How many entries of the account's journal hold: all of them, or JOURNAL_BROKEN is raised."""
    known, whole = journal.beginning(account), False
    while not whole:
        known, whole = journal.verify_page(tx, account, known)
    return known.number


def plans(tx: Transaction, query: Callable[[Transaction], object]) -> str:
    """What SQLite says it would do, of every statement."""

    class Explained:
        def rows(self, sql: str, *values: Value) -> list[Row]:
            said.extend(str(row["detail"]) for row in tx.rows(f"EXPLAIN QUERY PLAN {sql}", *values))
            return []

        def row(self, sql: str, *values: Value) -> Row | None:
            return next(iter(self.rows(sql, *values)), None)

        def run(self, sql: str, *values: Value) -> int:
            return len(self.rows(sql, *values))

    said: list[str] = []
    query(Explained())
    return "\n".join(said)
