"""Groups, landing groups and labels in the database: no question about a few reads the many."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.store import accounts, groups, servers
from enlist_primary.store.database import Transaction
from enlist_primary.store.sqlite import SqliteDatabase
from tests.primary.refusals import refused
from tests.primary.store.helpers import ACME, BETA, NOW, add_server, plans

QUERIES: dict[str, Callable[[Transaction], object]] = {
    "root": lambda tx: groups.root(tx, ACME),
    "child": lambda tx: groups.child(tx, ACME, "root", "Sites"),
    "by id": lambda tx: groups.by_id(tx, ACME, "root"),
    "below": lambda tx: groups.below(tx, ACME, "root"),
    "height": lambda tx: groups.height(tx, ACME, "root"),
    "listed": lambda tx: groups.listed(tx, ACME),
    "policies of a group": lambda tx: groups.policy_kinds(tx, ACME, "root"),
    "move": lambda tx: groups.move(tx, ACME, "a", "root", "b"),
    "window": lambda tx: groups.set_window(tx, ACME, "a", None, 1),
    "remove": lambda tx: groups.remove(tx, ACME, "a"),
    "account": lambda tx: accounts.load(tx, ACME),
    "lock": lambda tx: accounts.lock(tx, ACME),
    "desires": lambda tx: accounts.desires(tx, ACME, 1),
    "server": lambda tx: servers.load(tx, ACME, "s"),
    "page of servers": lambda tx: servers.page(tx, ACME, "", 10),
    "trusted servers below": lambda tx: servers.trusted_below(tx, ACME, ["root"]),
    "labels": lambda tx: servers._labelled(tx, {"id": "s", "account": ACME}),
    "standing": lambda tx: servers.standings(tx, ACME, ("s",)),
    "place of an invitation": lambda tx: servers.place_invitation(tx, ACME, "s", "root"),
}


@pytest.mark.parametrize("what", QUERIES)
async def test_every_table_is_entered_by_an_index(database: SqliteDatabase, what: str) -> None:
    """No other account's rows are read, and of a tree no more than is asked for; only what a query itself gathered is walked."""

    def ask(tx: Transaction) -> None:
        with suppress(Refused, AssertionError, KeyError):
            QUERIES[what](tx)

    said = await database.read(lambda tx: plans(tx, ask))
    entered = re.findall(r"(?:SCAN|SEARCH) (?!(?:above|below|group_path)\b)[^\n]+", said)
    assert entered
    assert all("(account=?" in line or "(domain=?" in line for line in entered), said


def tree(tx: Transaction, width: int, depth: int) -> str:
    """Groups below the root group of an account, `width` beside each other and a way of `depth` down; the id of the deepest."""
    for number in range(width):
        groups.insert(tx, ACME, f"wide{number}", "root", f"wide {number}")
    above = "root"
    for number in range(depth):
        groups.insert(tx, ACME, f"deep{number}", above, f"deep {number}")
        above = f"deep{number}"
    return above


async def test_a_path_is_put_together_from_the_group_upwards_and_found_from_the_root_downwards(database: SqliteDatabase) -> None:
    def look(tx: Transaction) -> None:
        deepest = tree(tx, 3, 16)
        path = "/".join(f"deep {number}" for number in range(16))
        assert groups.by_id(tx, ACME, deepest) == groups.find(tx, ACME, path)
        assert groups.by_id(tx, ACME, deepest).path == path
        assert groups.by_id(tx, ACME, "root").path == groups.find(tx, ACME, "/").path == "/"
        assert (groups.height(tx, ACME, "root"), groups.height(tx, ACME, deepest)) == (16, 0)
        assert groups.below(tx, ACME, "deep14") == ["deep14", deepest]
        assert groups.at(tx, ACME, "deep 0/wide 0") is None
        with refused(Reason.NOT_FOUND):
            groups.by_id(tx, BETA, deepest)

    await database.write(ACME, look)


async def test_the_landing_group_is_read_with_its_path_while_the_account_is_locked(database: SqliteDatabase) -> None:
    def land(tx: Transaction) -> None:
        deepest = tree(tx, 0, 2)
        assert (accounts.lock(tx, ACME).landing_group, accounts.lock(tx, ACME).landing_path) == (None, "/")
        accounts.update(tx, ACME, None, True, deepest)
        accounts.desires(tx, ACME, 7)
        locked = accounts.lock(tx, ACME)
        assert (locked.landing_group, locked.landing_path, locked.desired) == (deepest, "deep 0/deep 1", 7)
        assert locked == accounts.load(tx, ACME)
        assert (accounts.load(tx, BETA).landing_path, accounts.load(tx, BETA).desired) == ("/", 0)

    await database.write(ACME, land)


async def test_trusted_servers_are_found_in_the_groups_that_are_asked_for(database: SqliteDatabase) -> None:
    def look(tx: Transaction) -> None:
        tree(tx, 2, 0)
        standing = (("a", "wide1", "trusted"), ("b", "wide0", "trusted"), ("c", "wide0", "suspended"), ("d", "root", "trusted"))
        for id, group, state in standing:
            add_server(tx, id)
            tx.run("UPDATE server SET group_id = $2, state = $3 WHERE id = $1", id, group, state)
        add_server(tx, "e", BETA)
        tx.run("UPDATE server SET state = 'trusted' WHERE account = $1", BETA)
        found = servers.trusted_below(tx, ACME, groups.below(tx, ACME, "root"))
        assert [(server.id, server.group) for server in found] == [("a", "wide 1"), ("b", "wide 0"), ("d", "/")]
        assert [server.id for server in servers.trusted_below(tx, ACME, ["wide0"])] == ["b"]
        assert servers.trusted_below(tx, ACME, []) == []
        assert [(each.id, each.group_id) for each in servers.standings(tx, ACME, ("a", "b"))] == [("a", "wide1"), ("b", "wide0")]

    await database.write(ACME, look)


async def test_what_a_server_that_is_forgotten_bore_is_forgotten(database: SqliteDatabase) -> None:
    def forget(tx: Transaction) -> None:
        add_server(tx, "a")
        tx.run("INSERT INTO server_label VALUES ($1, 'a', 'printer')", ACME)
        assert servers.load(tx, ACME, "a").labels == ("printer",)
        tx.run("UPDATE server SET state = 'expired', since = $1", NOW)
        assert servers.forget_undecided(tx, ACME, NOW + 31 * 86400) == 1
        assert tx.rows("SELECT * FROM server_label") == []

    await database.write(ACME, forget)
