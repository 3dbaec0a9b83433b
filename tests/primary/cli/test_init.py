"""`init`: a folder that only its owner reads, what is printed of it, and what is refused before anything is made."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enlist.runtime.formats import FORMAT
from tests.primary.cli.conftest import Ran, Run

MADE = {"primary.toml", "enlist.db", "authority.key", "authority.pem", "owner.token", "lock"}


@pytest.fixture
def init(run: Run) -> Iterator[Run]:
    """The command in a thread of its own, for it brings its own event loop, and under the most careless umask."""
    old = os.umask(0)
    with ThreadPoolExecutor(1) as thread:

        def in_thread(*argv: str) -> Ran:
            return thread.submit(run, "init", *argv).result()

        yield in_thread
    os.umask(old)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder, which is not there yet."""
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("enlist.db-")}


def test_json_has_exactly_these_keys(init: Run, data: Path) -> None:
    ran = init("--name", "main", "--json")
    assert (ran.status, ran.err) == (0, "")
    made = json.loads(ran.out)
    assert set(made) == {"name", "fingerprint", "owner_token_file"}
    assert (made["name"], len(made["fingerprint"])) == ("main", 64)
    assert made["owner_token_file"] == str(data / "owner.token")


def test_people_are_told_the_fingerprint_and_what_to_do_and_no_secret(init: Run, data: Path) -> None:
    ran = init("--name", "main")
    token = (data / "owner.token").read_text().strip()
    assert token.startswith("enlu_")
    assert token not in ran.out
    assert "Primary's fingerprint: " in ran.out
    assert "serve" in ran.out


def test_only_the_owner_reads_what_is_made_whatever_the_umask(init: Run, data: Path) -> None:
    """Attacks row 45."""
    init("--name", "main")
    assert data.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
    assert set(modes) == MADE
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


def test_the_configuration_says_what_was_asked_for(init: Run, data: Path) -> None:
    init(
        "--name",
        "main",
        "--listen",
        "127.0.0.1",
        "--advertise",
        "a.example",
        "--advertise",
        "10.0.0.1",
        "--ssl-port",
        "1",
        "--api-port",
        "2",
    )
    config = tomllib.loads((data / "primary.toml").read_text())
    assert config == {
        "format": FORMAT,
        "name": "main",
        "listen": "127.0.0.1",
        "advertise": ["a.example", "10.0.0.1"],
        "ssl_port": 1,
        "api_port": 2,
    }


def test_the_ports_are_the_design_s_unless_told(init: Run, data: Path) -> None:
    init("--name", "main")
    config = tomllib.loads((data / "primary.toml").read_text())
    assert (config["listen"], config["ssl_port"], config["api_port"]) == ("::", 13000, 13299)


def test_a_primary_is_not_made_twice(init: Run, data: Path) -> None:
    """Attacks row 43."""
    init("--name", "main")
    before = contents(data)
    ran = init("--name", "other")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("FOLDER_IN_USE: ")
    assert contents(data) == before


def test_a_folder_with_something_else_in_it_is_not_used(init: Run, data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "thesis.txt").write_text("mine")
    ran = init("--name", "main")
    assert ran.err.startswith("FOLDER_IN_USE: ")
    assert contents(data) == {"thesis.txt": b"mine"}


def test_what_a_crash_left_behind_is_made_anew(init: Run, data: Path) -> None:
    """The configuration is written last, so without one there is no primary."""
    init("--name", "main")
    before = contents(data)
    (data / "primary.toml").unlink()
    assert init("--name", "main").status == 0
    assert contents(data)["authority.key"] != before["authority.key"]


@pytest.mark.parametrize("planted", ["a folder open to all", "a link to elsewhere"])
def test_a_planted_folder_is_refused(init: Run, data: Path, tmp_path: Path, planted: str) -> None:
    """Attacks row 45."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if planted == "a link to elsewhere":
        data.symlink_to(tmp_path / "elsewhere")
    else:
        data.mkdir()
        data.chmod(0o777)
    ran = init("--name", "main")
    assert ran.status == 1
    assert ran.err.startswith("FILE_UNSAFE: ")
    assert [*(tmp_path / "elsewhere").iterdir(), *data.iterdir()] == []


@pytest.mark.parametrize(
    "line",
    [
        "--name=",
        "--name=a/b",
        "--name=\x1b[2J",
        "--name=main --listen=a,b",
        "--name=main --advertise=http://x",
        "--name=main --advertise=a.example:13299",
        "--name=main --ssl-port=-1",
        "--name=main --api-port=65536",
        "--name=main --ssl-port=5 --api-port=5",
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(init: Run, data: Path, line: str) -> None:
    ran = init(*line.split(" "))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("CONFIG_INVALID: ")
    assert "\x1b" not in ran.err
    assert not data.exists()


def test_a_folder_that_is_refused_stays_as_it_was(init: Run, data: Path) -> None:
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    (data / "letters").write_text("mine")
    ran = init("--name", "main")
    assert ran.err.startswith("FOLDER_IN_USE: ")
    assert data.stat().st_mode & 0o777 == 0o755
    assert contents(data) == {"letters": b"mine"}
