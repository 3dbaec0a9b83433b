"""A desk for every test: one real SQLite file for all of them, and a transaction of its own for each, never committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
import sqlite_utils

from enlist_primary.store.schema import STEPS
from enlist_primary.store.sqlite import SqliteEngine
from tests.primary.operations.desk import Desk


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteEngine]:
    """The primary's own engine over a file with its schema."""
    connection = sqlite3.connect(tmp_path_factory.mktemp("desk") / "enlist.db", isolation_level=None)
    database = sqlite_utils.Database(connection, execute_plugins=False)
    database.execute("PRAGMA foreign_keys = ON")
    for step in STEPS:
        database.executescript(step.ddl)
    yield SqliteEngine(database)
    connection.close()


@pytest.fixture
def desk(engine: SqliteEngine) -> Iterator[Desk]:
    """A primary with two accounts; at the end of each test everything must still be sound."""
    try:
        desk = Desk(engine.begin())
        yield desk
        desk.check()
    finally:
        engine.rollback()
