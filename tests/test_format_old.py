"""What Enlist 0.1 left on a machine: each of its files is refused with one sentence that names the release and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary import config as primary_config
from enlist_primary.store.sqlite import open_sqlite
from enlist_secondary import config as secondary_config
from enlist_secondary import state
from enlist_secondary.known_primaries import FILE, KnownPrimaries
from tests.support.processes import run

PRIMARY = """\
# Configuration of an Enlist primary. `enlist-primary serve` reads it when it starts.

# The primary's own name, shown to whoever connects.
name = "Head office"

# The address to listen at; "::" is every address of this machine, IPv4 and IPv6.
listen = "127.0.0.1"
ssl_port = 13000
api_port = 13299
"""

SECONDARY = """\
# The configuration of an Enlist secondary. `enlist-setup` changes it; so may you.

primary = "primary.example"
account = "acme.example"
name = "one"
server_address = ""
data = "{data}"
enrolment = "main"
confirm_identity = "auto"
company_ca = "system"
"""

STATE = '{"asked": true, "state": "trusted", "since": 1790000000, "server_id": "abcdefghij", "last_problem": null, "alarms": []}\n'

KNOWN = """\
# The primaries that were accepted at this server: when, how, by whom, and the addresses they were met at.

[[primary]]
fingerprint = "04752230b303c15f13f7d7a85d0117138a8d1f786fef1e8e7571ff200c000b82"
addresses = ["primary.example:13299"]
accepted_at = "2026-09-21T14:13:20Z"
way = "compared"
person = "jo"
authority = '''
-----BEGIN CERTIFICATE-----
MIIBezCCASCgAwIBAgIUXYRaJK0rRGgJ1SGqnHlFOuV9DC4wCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
'''
"""

STEPS = """
PRAGMA journal_mode = WAL;
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
INSERT INTO _sqlite_migrations VALUES (1, 'enlist', 'enrolment', '2026-09-21 14:13:20+00:00');
INSERT INTO _sqlite_migrations VALUES (2, 'enlist', 'documents', '2026-09-21 14:13:20+00:00');
CREATE TABLE account (domain text NOT NULL PRIMARY KEY);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of one primary and one secondary, both of 0.1."""
    tmp_path.chmod(0o700)
    files.write(tmp_path / "primary.toml", PRIMARY.encode())
    with closing(sqlite3.connect(tmp_path / "enlist.db")) as database:
        database.executescript(STEPS)
    (tmp_path / "enlist.db").chmod(0o600)
    files.write(tmp_path / "secondary.toml", SECONDARY.format(data=tmp_path / "data").encode())
    files.make_folder(tmp_path / "data")
    files.make_folder(tmp_path / "data" / "main")
    files.write(tmp_path / "data" / FILE, KNOWN.encode())
    files.write(tmp_path / "data" / "main" / "state.json", STATE.encode())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    yield tmp_path
    assert {path: path.read_bytes() for path in before} == before, "what is refused is left as it was"


def check(refused: Refused, path: Path) -> None:
    """One sentence, about this file."""
    assert refused.reason is Reason.FORMAT_OLD
    assert refused.message.startswith(str(path))
    assert "written by Enlist 0.1" in refused.message
    assert "begin anew" in refused.message
    assert refused.message.count(". ") == 0


def test_a_primarys_configuration_is_refused(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        primary_config.load(folder / "primary.toml")
    check(caught.value, folder / "primary.toml")


async def test_a_database_is_refused(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        async with open_sqlite(folder / "enlist.db"):
            pass
    check(caught.value, folder / "enlist.db")


def test_a_secondarys_configuration_is_refused(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        secondary_config.load(folder / "secondary.toml")
    check(caught.value, folder / "secondary.toml")


def test_a_list_of_known_primaries_is_refused(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        KnownPrimaries.load(folder / "data")
    check(caught.value, folder / "data" / FILE)


def test_a_state_is_refused_and_not_taken_for_a_damaged_one(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        state.load(folder / "data" / "main")
    check(caught.value, folder / "data" / "main" / "state.json")


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["enlist-primary", "--data", "{folder}", "serve"], "primary.toml"),
        (["enlist-secondary", "--config", "{folder}/secondary.toml", "run"], "secondary.toml"),
        (["enlist-secondary", "--config", "{folder}/secondary.toml", "status"], "secondary.toml"),
        (["enlist-setup", "--unattended", "--config", "{folder}/secondary.toml"], "secondary.toml"),
    ],
)
def test_a_command_ends_with_the_sentence(folder: Path, command: list[str], file: str) -> None:
    done = run(*(part.format(folder=folder) for part in command), expect=1)
    assert done.stderr.startswith(f"FORMAT_OLD: {folder}/{file} ")
    assert done.stderr.count("\n") == 1


def test_a_new_configuration_over_an_old_data_folder_is_refused(folder: Path) -> None:
    text = (folder / "secondary.toml").read_text()
    files.write(folder / "new.toml", f"format = 2\n{text}".encode())
    done = run("enlist-secondary", "--config", str(folder / "new.toml"), "run", expect=1)
    assert done.stderr.startswith(f"FORMAT_OLD: {folder}/data/{FILE} ")
