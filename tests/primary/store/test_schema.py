"""The schema: one text for every engine, and what it enforces."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable

import pytest

from enlist_primary.model.journal import genesis
from enlist_primary.store import servers as server_rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.schema import STEPS
from enlist_primary.store.sqlite import SqliteDatabase
from tests.primary.store.helpers import ACME, NOW, add_server, plans, servers

TYPE = re.compile(r"^    (?!PRIMARY|UNIQUE|FOREIGN|WHERE)\w+ (\w+)", re.MULTILINE)


def test_only_three_types_are_used() -> None:
    assert {kind for step in STEPS for kind in TYPE.findall(step.ddl)} == {"text", "bigint", "bytea"}


def test_no_constraint_waits_for_the_commit() -> None:
    """Attacks row 49: a broken constraint must fail in its own savepoint, not in the COMMIT of all."""
    assert not [step.name for step in STEPS if "deferr" in step.ddl.lower()]


@pytest.mark.parametrize("value", [b"", b"123", b"1e3", b"\x00\xff", b"0x10", bytes(range(256))])
async def test_bytes_come_back_as_the_bytes_they_were(database: SqliteDatabase, value: bytes) -> None:
    """`bytea` has NUMERIC affinity in SQLite: digits in bytes must stay bytes."""

    def there_and_back(tx: Transaction) -> object:
        add_server(tx, "s")
        tx.run("UPDATE server SET public_key = $1", value)
        row = tx.row("SELECT public_key, typeof(public_key) AS kind FROM server WHERE public_key = $1", value)
        assert row is not None
        return row["public_key"], row["kind"]

    assert await database.write(ACME, there_and_back) == (value, "blob")


@pytest.mark.parametrize("value", ["", "123", "1e3", "007", "Kö\U0001f5a8", "a\x00b"])
async def test_text_comes_back_as_the_text_it_was(database: SqliteDatabase, value: str) -> None:
    def there_and_back(tx: Transaction) -> object:
        add_server(tx, "s")
        tx.run("UPDATE server SET name = $1", value)
        row = tx.row("SELECT name FROM server")
        return row and row["name"]

    assert await database.write(ACME, there_and_back) == value


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63), None])
async def test_numbers_of_64_bits_and_none_come_back(database: SqliteDatabase, value: int | None) -> None:
    def there_and_back(tx: Transaction) -> object:
        add_server(tx, "s")
        tx.run("UPDATE server SET expires_at = $1", value)
        row = tx.row("SELECT expires_at FROM server")
        return row and row["expires_at"]

    assert await database.write(ACME, there_and_back) == value


FORBIDDEN = {
    "a server in no account": lambda tx: add_server(tx, "s", "nobody.example"),
    "a server in no group": lambda tx: tx.run("UPDATE server SET group_id = 'elsewhere'"),
    "a second root group": lambda tx: tx.run("INSERT INTO server_group (account, id, name) VALUES ($1, 'root2', '/')", ACME),
    "two groups of one name": lambda tx: [
        tx.run("INSERT INTO server_group (account, id, parent, name) VALUES ($1, $2, 'root', 'Paris')", ACME, id) for id in "ab"
    ],
    "a group below no group": lambda tx: tx.run(
        "INSERT INTO server_group (account, id, parent, name) VALUES ($1, 'a', 'elsewhere', 'x')", ACME
    ),
    "a group removed in which a server stands": lambda tx: tx.run("DELETE FROM server_group WHERE account = $1", ACME),
    "a label of no server": lambda tx: tx.run("INSERT INTO server_label VALUES ($1, 'nobody', 'printer')", ACME),
    "a label twice": lambda tx: [tx.run("INSERT INTO server_label VALUES ($1, 'one', 'printer')", ACME) for _ in "ab"],
    "a policy of no group": lambda tx: tx.run("INSERT INTO policy VALUES ($1, 'elsewhere', 'chrony', 1)", ACME),
    "a key twice in an account": lambda tx: tx.run(
        """INSERT INTO server (account, id, group_id, state, key, since, created_at)
           VALUES ($1, 'two', 'root', 'pending', 'one', $2, $2)""",
        ACME,
        NOW,
    ),
    "an account with servers removed": lambda tx: tx.run("DELETE FROM account WHERE domain = $1", ACME),
    "an account twice": lambda tx: tx.run(
        "INSERT INTO account (domain, head_hash, created_at) VALUES ($1, $2, $3)", ACME, genesis(ACME), NOW
    ),
    "an account without a name": lambda tx: tx.run(
        "INSERT INTO account (domain, head_hash, created_at) VALUES ($1, $2, $3)", None, b"", NOW
    ),
    "a journal of no account": lambda tx: tx.run("INSERT INTO journal VALUES ('nobody.example', 1, '{}', $1)", b""),
    "an API key for no invitation": lambda tx: tx.run(
        """INSERT INTO api_key (account, id, secret_hash, kind, server_id, created_at)
           VALUES ($1, 'k', $2, 'full', 'nobody', $3)""",
        ACME,
        b"",
        NOW,
    ),
    "an observation of no server": lambda tx: tx.run("INSERT INTO server_observation (account, id) VALUES ($1, 'nobody')", ACME),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_the_schema_forbids(database: SqliteDatabase, what: str) -> None:
    await database.write(ACME, add_server, "one")
    act: Callable[[Transaction], object] = FORBIDDEN[what]
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(ACME, act)
    assert await database.read(servers) == ["one"]


async def test_one_key_may_stand_in_two_accounts(database: SqliteDatabase) -> None:
    """Attacks row 10 is answered above the schema: a constraint across accounts would itself be a hint of existence."""

    def twice(tx: Transaction) -> None:
        add_server(tx, "s", ACME)
        add_server(tx, "s", "beta.example")

    await database.write(ACME, twice)
    assert await database.read(servers) == ["s", "s"]


async def test_invitations_have_no_key_yet_and_do_not_collide(database: SqliteDatabase) -> None:
    def invite(tx: Transaction) -> int:
        for id in "ab":
            add_server(tx, id)
        return tx.run("UPDATE server SET key = NULL, public_key = NULL")

    assert await database.write(ACME, invite) == 2


_OVERDUE = "INDEX server_overdue (account=? AND expires_at<?)"


@pytest.mark.parametrize(
    ("query", "how"),
    [
        (lambda tx: server_rows.undecided_sources(tx, ACME, "key", NOW), ["COVERING INDEX server_waiting (account=?)"]),
        (lambda tx: server_rows.accounts_to_sweep(tx, NOW), [_OVERDUE, "INDEX server_undecided (since<?)"]),
        (lambda tx: server_rows.overdue(tx, ACME, NOW, 10), [_OVERDUE]),
        (lambda tx: server_rows.by_key(tx, ACME, "key"), ["INDEX server_key (account=? AND key=?)"]),
        (
            lambda tx: server_rows.called(tx, ACME, "paris-1", "", 10),
            [
                "INDEX sqlite_autoindex_server_1 (account=? AND id=?)",
                "COVERING INDEX server_name (account=? AND name=? AND id>?)",
                "COVERING INDEX sqlite_autoindex_server_1 (account=? AND id=?)",
            ],
        ),
    ],
    ids=["caps of pending servers", "sweep", "sweep of an account", "a server by its key", "servers by a name or an id"],
)
async def test_a_stranger_and_the_clock_make_the_primary_read_only_rows_that_matter(
    database: SqliteDatabase, query: Callable[[Transaction], object], how: list[str]
) -> None:
    """Not the ten thousand servers of the account that have long been trusted."""
    said = await database.read(lambda tx: plans(tx, query))
    assert [found[1] for found in re.finditer(r"SEARCH server USING ((?:COVERING )?INDEX [^\n]+)", said)] == how
    assert "SCAN server\n" not in said + "\n"


async def test_servers_are_found_by_their_exact_name_or_id(database: SqliteDatabase) -> None:
    def ids(tx: Transaction, name_or_id: str, after: str = "", limit: int = 10) -> list[str]:
        return [each.id for each in server_rows.called(tx, ACME, name_or_id, after, limit)]

    def fill(tx: Transaction) -> None:
        for id in "abcd":
            add_server(tx, id)
        add_server(tx, "a", "beta.example")
        tx.run("UPDATE server SET name = 'paris' WHERE account = $1 AND id <> 'd'", ACME)
        tx.run("UPDATE server SET name = 'a' WHERE account = $1 AND id = 'd'", ACME)

    await database.write(ACME, fill)
    assert await database.read(ids, "paris") == ["a", "b", "c"]
    assert await database.read(ids, "paris", "a", 1) == ["b"]
    assert await database.read(ids, "a") == ["a", "d"], "by its id, and by its name"
    assert await database.read(ids, "Paris") == await database.read(ids, "par%") == []
