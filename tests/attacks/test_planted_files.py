"""Attacks rows 35 and 45: planted links, loosened or foreign files, umask 000; text from outside never names a file."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import logs
from enlist.v1 import account_pb2
from enlist_primary.authority import keys
from enlist_primary.cli.main import main
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.founding import found
from tests.attacks.world import World
from tests.support.inprocess import ACCOUNT, Asker, refused_by, running_primary, serving

SECRETS = ["primary.toml", "authority.key", "authority.pem", "enlist.db"]
STRANGER = 54321
CONFIG = Config(name="Primary", listen="127.0.0.1", ssl_port=0, api_port=0)


@pytest.fixture(scope="module")
async def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as `init` makes it."""
    folder = DataFolder(tmp_path_factory.mktemp("founded") / "primary")
    await found(folder, CONFIG, int(time.time()))
    return folder.path


@pytest.fixture
def data(founded: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    copy = tmp_path / "primary"
    shutil.copytree(founded, copy)
    copy.chmod(0o700)
    return copy


@pytest.fixture
def umask() -> Iterator[None]:
    """Whatever a test, or `serve`, does to this process's umask is undone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def serve(umask: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Runs `serve`, which must refuse; its reason. In a thread: there it cannot install its signal handlers, so it never stays."""
    monkeypatch.setattr(logs, "set_up", lambda: None)

    def refused(data: Path) -> str:
        status = main(["--data", str(data), "serve"])
        out, err = capsys.readouterr()
        assert (status, out) == (1, "")
        assert "Traceback" not in err
        assert err.count("\n") == 1
        return err.partition(":")[0]

    return refused


def contents(folder: Path) -> dict[str, bytes]:
    """Every plain file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- Row 45: serve refuses to start --------------------------------------------------------------------------------------------


async def test_an_untouched_folder_is_served(data: Path, serve: Callable[[Path], str]) -> None:
    """Else the tests below could not fail: here it gets as far as its signal handlers, which a thread may not have."""
    assert await asyncio.to_thread(serve, data) == "INTERNAL"


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o777, 0o1777, 0o701])
async def test_a_data_folder_open_to_others_is_not_served(data: Path, serve: Callable[[Path], str], mode: int) -> None:
    data.chmod(mode)
    assert await asyncio.to_thread(serve, data) == Reason.FILE_UNSAFE


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("primary.toml", mode) for mode in (0o666, 0o620, 0o602)),
        *(("authority.key", mode) for mode in (0o666, 0o640, 0o604, 0o620)),
        *(("authority.pem", mode) for mode in (0o666, 0o620)),
        *(("enlist.db", mode) for mode in (0o666, 0o640, 0o604)),
    ],
)
async def test_a_file_open_to_others_stops_the_start(data: Path, serve: Callable[[Path], str], name: str, mode: int) -> None:
    (data / name).chmod(mode)
    before = contents(data)
    assert await asyncio.to_thread(serve, data) == Reason.FILE_UNSAFE
    assert {**contents(data), "lock": b""} == {**before, "lock": b""}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["primary.toml", "authority.key", "authority.pem"])
async def test_a_file_of_another_user_stops_the_start(data: Path, serve: Callable[[Path], str], name: str) -> None:
    os.chown(data / name, STRANGER, STRANGER)
    assert await asyncio.to_thread(serve, data) == Reason.FILE_UNSAFE


async def test_another_authority_s_key_planted_beside_the_certificate_stops_the_start(
    data: Path, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    other = DataFolder(tmp_path / "other")
    other.path.mkdir(mode=0o700)
    keys.create(other, int(time.time()))
    shutil.copy(other.authority_key, data / "authority.key")
    assert await asyncio.to_thread(serve, data) == Reason.CONFIG_INVALID


@pytest.mark.parametrize(("name", "reason"), [("authority.key", Reason.CONFIG_MISSING), ("primary.toml", Reason.CONFIG_MISSING)])
async def test_a_missing_file_is_not_made_anew(data: Path, serve: Callable[[Path], str], name: str, reason: Reason) -> None:
    """A new key would be a new identity, and nobody asked for one."""
    (data / name).unlink()
    assert await asyncio.to_thread(serve, data) == reason
    assert not (data / name).exists()


# --- Row 35: planted links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
async def test_a_link_in_a_file_s_place_is_not_followed(
    data: Path, serve: Callable[[Path], str], name: str, tmp_path: Path
) -> None:
    """Though what it leads to is as good as the file itself."""
    elsewhere = tmp_path / "elsewhere"
    (data / name).rename(elsewhere)
    (data / name).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    assert await asyncio.to_thread(serve, data) == Reason.FILE_UNSAFE
    assert elsewhere.read_bytes() == before


async def test_a_link_in_the_data_folder_s_place_is_not_followed(data: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    assert await asyncio.to_thread(serve, tmp_path / "link") == Reason.FILE_UNSAFE


async def test_a_link_in_the_lock_s_place_creates_nothing(data: Path, serve: Callable[[Path], str], tmp_path: Path) -> None:
    (data / "lock").unlink(missing_ok=True)
    (data / "lock").symlink_to(tmp_path / "victim")
    assert await asyncio.to_thread(serve, data) in (Reason.FILE_FAILED, Reason.FILE_UNSAFE)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("planted", ["a link", "open to others"])
async def test_a_planted_sockets_folder_is_not_used(data: Path, tmp_path: Path, planted: str) -> None:
    """Else the administrator's socket would stand where somebody else may open it."""
    place = tmp_path / "elsewhere" if planted == "a link" else data / "run"
    place.mkdir()
    place.chmod(0o777)
    if planted == "a link":
        (data / "run").symlink_to(place)
    with pytest.raises(Refused) as raised:
        async with serving(DataFolder(data), CONFIG):
            pass
    assert raised.value.reason is Reason.FILE_UNSAFE
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
async def test_what_is_no_plain_file_is_not_read(data: Path, serve: Callable[[Path], str], kind: str) -> None:
    """A pipe would be waited for, and an endless device read, for ever."""
    (data / "primary.toml").unlink()
    if kind == "pipe":
        os.mkfifo(data / "primary.toml")
    elif kind == "folder":
        (data / "primary.toml").mkdir()
    else:
        (data / "primary.toml").symlink_to("/dev/zero")
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(serve, data) in (Reason.FILE_UNSAFE, Reason.FILE_FAILED)


@pytest.mark.parametrize("name", ["authority.key", "owner.token", "enlist.db", ".primary.toml.new", ".authority.key.new"])
async def test_init_writes_through_no_link_that_waits_for_it(tmp_path: Path, name: str) -> None:
    folder = DataFolder(tmp_path / "primary")
    folder.path.mkdir(mode=0o700)
    (tmp_path / "victim").write_text("unharmed")
    (folder.path / name).symlink_to(tmp_path / "victim")
    await found(folder, Config(name="Primary"), int(time.time()))
    assert (tmp_path / "victim").read_text() == "unharmed"
    assert not any(path.is_symlink() for path in folder.path.iterdir())


# --- Row 45: umask 000 ---------------------------------------------------------------------------------------------------------


async def test_with_umask_000_only_the_owner_reads_anything(
    tmp_path: Path, umask: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders made on the way, the database's companions, the sockets, and the join files: all closed to others."""
    os.umask(0)
    async with running_primary(tmp_path / "a" / "b") as running:
        async with running.stranger() as stub:
            await Asker(running).register(stub)
        table = tmp_path / "servers.csv"
        table.write_text("web1\nweb2,Sites/Paris\n")
        table.chmod(0o600)
        arguments = [
            "--data",
            str(running.folder.path),
            "join",
            ACCOUNT,
            "--from",
            str(table),
            "--out",
            str(tmp_path / "a" / "c" / "d"),
        ]
        assert await asyncio.to_thread(main, arguments) == 0
        made = list((tmp_path / "a").rglob("*"))
        assert {path.name for path in made} >= {
            *("admin.sock", "upstream.sock"),
            "enlist.db-wal",
            "authority.key",
            "owner.token",
            "primary.toml",
            "run",
            "d",
        }
        loose = {str(path): oct(path.lstat().st_mode) for path in [*made, tmp_path / "a"] if path.lstat().st_mode & 0o077}
        inside = {path for path in loose if path.endswith(".sock")}  # `serve` sets its own umask; its folder is closed anyway
        assert loose.keys() == inside
        assert stat.S_IMODE(running.folder.sockets.stat().st_mode) == 0o700
    capsys.readouterr()


# --- Row 35: text from outside never names a file ------------------------------------------------------------------------------

ROGUE = [
    "..x",
    ".x",
    "~",
    "$(touch pwned)",
    "`id`",
    "a\\b",
    "%2e%2e",
    "C:",
    "con",
    "x;rm",
    "*",
    "a" * 63,
    "név",
    "ʻ…",
    "..join",
    "{}",
]


async def test_no_invited_server_s_name_leads_out_of_the_folder(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "servers.csv", tmp_path / "out"
    table.write_text("".join(f'"{name}"\n' for name in ROGUE))
    arguments = ["--data", str(world.running.folder.path), "join", ACCOUNT, "--from", str(table), "--out", str(out)]
    assert await asyncio.to_thread(main, arguments) == 0
    capsys.readouterr()
    assert {path.name for path in tmp_path.iterdir()} == {"servers.csv", "out"}
    files = list(out.iterdir())
    assert len(files) == len(ROGUE)
    assert all(
        path.is_file() and path.suffix == ".join" and path.name.isascii() and path.stat().st_mode & 0o077 == 0 for path in files
    )
    world.secrets += [path.read_text().rpartition("_")[2].strip() for path in files]


@pytest.mark.parametrize("name", ["../../../tmp/pwned", "/etc/passwd", "a/../b", "x\0.join", "../"])
async def test_a_name_that_is_a_path_is_refused_wherever_it_comes_from(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await world.tables()
    async with world.running.stranger() as stub:
        assert (await refused_by(world.asker(name).register(stub))).reason is Reason.INVALID_ARGUMENT
    table = tmp_path / "servers.csv"
    table.write_bytes(name.encode() + b"\n")
    arguments = ["--data", str(world.running.folder.path), "join", ACCOUNT, "--from", str(table), "--out", str(tmp_path / "out")]
    assert await asyncio.to_thread(main, arguments) == 1
    assert capsys.readouterr().err.startswith("INVALID_ARGUMENT: ")
    assert [path.name for path in tmp_path.iterdir()] == ["servers.csv"]
    assert await world.tables() == before
    assert not [record for record in world.logged if record.levelno > logging.INFO]


async def test_no_account_s_name_leads_out_of_the_data_folder(world: World) -> None:
    before = set(world.running.folder.path.parent.rglob("*"))
    for domain in ("../evil", "..", "/etc", "a/b", "evil\0", "."):
        call = world.running.admin.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain=domain))
        assert (await refused_by(call)).reason in (Reason.INVALID_ARGUMENT, Reason.ALREADY_EXISTS)
    assert set(world.running.folder.path.parent.rglob("*")) == before


async def test_the_database_holds_no_path_of_anybody_s_choosing(world: World) -> None:
    """SQLite opens no other file, whatever text reaches it: there is no statement with text in its SQL."""
    asker = world.asker("'; ATTACH DATABASE 'pwned.db' AS x; --")
    async with world.running.stranger() as stub:
        id = (await asker.register(stub)).server_id
    with closing(sqlite3.connect(f"{world.running.folder.database.as_uri()}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT name FROM server WHERE id = ?", (id,)).fetchone() == (asker.name,)
    assert not list(world.running.folder.path.parent.rglob("pwned*"))
