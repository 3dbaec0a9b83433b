"""A database of its own for every test that asks, on a real disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from enlist_primary.store.sqlite import SqliteDatabase, open_sqlite
from tests.primary.store.helpers import ACME, BETA, add_account
from tests.support.means import need


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a real disk: a file system in memory would make durability look better than it is."""
    for place in (tmp_path, Path("/var/tmp"), Path.home()):
        if os.access(place, os.W_OK) and not _in_memory(place):
            path = Path(tempfile.mkdtemp(prefix="enlist-store-", dir=place))
            yield path
            shutil.rmtree(path)
            return
    need(False, "no folder on a real disk")


def _in_memory(path: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout.strip()
    return kind in {"tmpfs", "ramfs"}


@pytest.fixture
async def path(folder: Path) -> Path:
    """A closed database file with two accounts in it."""
    path = folder / "enlist.db"
    async with open_sqlite(path, create=True) as database:
        await database.write(ACME, add_account, ACME)
        await database.write(BETA, add_account, BETA)
    return path


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteDatabase]:
    """The same, open."""
    async with open_sqlite(path) as database:
        yield database
