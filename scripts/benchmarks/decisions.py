"""How many decisions a second are made durable when many ask at once, beside bare commits."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from enlist import names
from enlist_primary.model import api_keys as model
from enlist_primary.model.api_keys import Kind
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import accounts, api_keys, enrolment
from enlist_primary.operations.api_keys import Wanted
from enlist_primary.operations.enrolment import Asked, Caps
from enlist_primary.store.database import Database
from enlist_primary.store.sqlite import open_sqlite
from scripts.benchmarks.enrolling import ACCOUNT
from scripts.benchmarks.measuring import Rounds
from scripts.benchmarks.report import Figure, ratio

CALLERS = 64
CAPS = Caps(1_000_000, 1_000_000)


async def measure(quick: bool) -> list[Figure]:
    """Decisions a second, by 64 callers who share commits; floor: rows a second, one INSERT and one COMMIT each."""
    rounds, decisions = (3, 1000) if quick else (7, 2000)
    with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name:
        subject, floor = [], []
        async with open_sqlite(Path(name) / "enlist.db", create=True) as database:
            asked = await _ready(database)
            for _ in range(rounds):
                floor.append(await asyncio.to_thread(_bare, Path(name) / "bare.db", decisions))
                subject.append(await _decide(database, asked, decisions))
    note = "registrations with a full API key, journalled, that share commits; floor: one caller, one row in each commit"
    return [ratio(f"decisions a second, {CALLERS} callers", "/s", Rounds(subject, floor), None, note)]


def _new_id() -> str:
    return names.new_id(secrets.token_bytes)


async def _ready(database: Database) -> Asked:
    """An account with a full API key, and a registration that uses it."""
    now = int(time.time())
    await database.write(ACCOUNT, accounts.create, ACCOUNT, "", PRIMARY_ITSELF, _new_id, now)
    text = model.make(_new_id(), secrets.token_bytes)
    id, secret = model.parse(text)
    await database.write(ACCOUNT, api_keys.create, ACCOUNT, Wanted(Kind.FULL), id, secret, PRIMARY_ITSELF, _new_id, now)
    return Asked("server", text, "", secrets.token_bytes(91), "", "0.1.0", "127.0.0.1")


async def _decide(database: Database, asked: Asked, decisions: int) -> float:
    async def caller(number: int) -> None:
        for _ in range(number):
            fresh = replace(asked, key=secrets.token_hex(32))
            await database.write(ACCOUNT, enrolment.register, ACCOUNT, fresh, CAPS, _new_id, int(time.time()))

    begin = time.perf_counter()
    await asyncio.gather(*(caller(decisions // CALLERS) for _ in range(CALLERS)))
    return decisions // CALLERS * CALLERS / (time.perf_counter() - begin)


def _bare(path: Path, rows: int) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS decision (number integer PRIMARY KEY, body text)")
        begin = time.perf_counter()
        for _ in range(rows):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO decision (body) VALUES (?)", ("x" * 300,))
            connection.execute("COMMIT")
        return rows / (time.perf_counter() - begin)
