"""Carrying out a plan: what is written in which order, and what is left of it where the primary says no."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist_installer import places, setup
from enlist_installer.setup import Answered, Setup
from enlist_secondary import api_key, enrol, identity, state
from enlist_secondary import config as configs
from enlist_secondary.checks import Primary, Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.known_primaries import KnownPrimaries
from tests.installer.in_between import new_signer
from tests.installer.person import tree


@pytest.fixture(autouse=True)
def _nobody_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the primary is made up: what it says is, and that it is still the one that was met."""

    async def met_again(made: Setup, *_: object) -> Setup:
        return made

    monkeypatch.setattr(setup, "_met_again", met_again)


def a_setup(folder: Path, **changes: str) -> Setup:
    values = {"primary": "primary.example", "account": "acme.example", "name": "gw1", "data": str(folder / "data"), **changes}
    primary = Primary(
        Address("primary.example", 13299),
        Endpoint("192.0.2.1", 13299),
        new_signer().authority,
        b"",
        "Head office",
        13000,
        "0.1.0",
        b"",
        0,
    )
    answered = Answered(primary, Way.COMPARED, SecondaryConfig(**values), folder / "secondary.toml", api_key="enl_key")  # type: ignore[arg-type]  # strings all
    return setup.planned(answered, "ada")


def the_primary_says(monkeypatch: pytest.MonkeyPatch, reason: Reason, heard: bool = False) -> None:
    """With `heard` it may have registered this server all the same."""

    async def refuse(_dialer: object, _primary: object, config: SecondaryConfig, *_: object) -> None:
        state.change(config.folder, lambda known: replace(known, requests=int(heard)))
        raise Refused(reason, "No.")

    monkeypatch.setattr(setup, "first_word", refuse)


@pytest.mark.parametrize("reason", [Reason.TOO_MANY_PENDING, Reason.API_KEY_USED_UP, Reason.STORAGE_FULL, Reason.OVERLOADED])
async def test_a_no_leaves_nothing_of_a_new_enrolment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Reason) -> None:
    the_primary_says(monkeypatch, reason)
    with pytest.raises(Refused) as refused:
        await setup.carry_out(a_setup(tmp_path / "deep" / "down"), Dialer(), time.time)
    assert refused.value.reason is reason
    assert list(tmp_path.iterdir()) == []


async def test_a_no_leaves_what_stood_before_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.write(a_setup(tmp_path), 0)
    before = tree(tmp_path)
    the_primary_says(monkeypatch, Reason.TOO_MANY_PENDING)
    with pytest.raises(Refused):
        await setup.carry_out(a_setup(tmp_path, primary="other.example", account="b.example"), Dialer(), time.time)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.OVERLOADED, Reason.SERVER_DENIED])
async def test_a_key_that_may_be_registered_is_kept_whatever_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    the_primary_says(monkeypatch, reason, heard=True)
    with pytest.raises(Refused) as refused:
        await setup.carry_out(a_setup(tmp_path), Dialer(), time.time)
    assert ("enlist-secondary goes on from there" in refused.value.message) == (reason not in enrol.FINAL)
    assert {"secondary.toml", "data/main/server.key", "data/main/api-key"} <= tree(tmp_path).keys()


async def test_two_at_once_do_not_write_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second was planned while nothing stood: its key would replace the first one's, which may be registered."""
    the_primary_says(monkeypatch, Reason.UNREACHABLE, heard=True)
    first, second = a_setup(tmp_path), a_setup(tmp_path, name="gw2")
    with files.lock(_made(tmp_path / "data") / places.LOCK, Reason.INTERNAL, ""):
        assert await _refusal(first) is Reason.ALREADY_RUNNING
        assert not (tmp_path / "data" / "main").exists()
    assert await _refusal(first) is Reason.UNREACHABLE
    before = tree(tmp_path)
    assert await _refusal(second) is Reason.ALREADY_RUNNING
    assert tree(tmp_path) == before


async def test_one_with_another_data_folder_that_was_quicker_keeps_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is another one: it writes the configuration while the late one makes its key."""
    real, path, text = identity.make, tmp_path / "secondary.toml", configs.render(a_setup(tmp_path, name="quick").config)

    def make(*arguments: Any) -> Identity:
        path.write_text(text)
        return real(*arguments)

    monkeypatch.setattr(identity, "make", make)
    assert await _refusal(a_setup(tmp_path)) is Reason.ALREADY_RUNNING
    assert path.read_text() == text
    assert not list(tmp_path.rglob("*key"))


def _made(folder: Path) -> Path:
    files.make_folder(folder)
    return folder


async def _refusal(made: Setup) -> Reason:
    with pytest.raises(Refused) as refused:
        await setup.carry_out(made, Dialer(), time.time)
    return refused.value.reason


async def test_what_a_killed_set_up_left_is_gone_after_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before it wrote the configuration: its key never asked, and its API key is used nowhere (attacks row 44)."""
    identity.make(tmp_path / "data" / "main", new_signer().authority)
    api_key.keep(tmp_path / "data" / "main", "enl_key")

    async def first_word(_dialer: object, _primary: object, config: SecondaryConfig, *_: object) -> None:
        state.change(config.folder, lambda known: replace(known, requests=1))

    monkeypatch.setattr(setup, "first_word", first_word)
    await setup.carry_out(a_setup(tmp_path), Dialer(), time.time)
    config = configs.load(tmp_path / "secondary.toml")
    assert [key.parent for key in (tmp_path / "data").glob("*/server.key")] == [config.folder]
    assert config.enrolment != "main"


async def test_another_configuration_that_was_quicker_keeps_its_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_primary_says(monkeypatch, Reason.UNREACHABLE, heard=True)
    late = a_setup(tmp_path / "late", data=str(tmp_path / "data"))
    assert await _refusal(a_setup(tmp_path)) is Reason.UNREACHABLE
    before = tree(tmp_path)
    assert await _refusal(late) is Reason.FOLDER_IN_USE
    assert tree(tmp_path) == before


async def test_the_key_goes_although_the_rest_cannot_be_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    the_primary_says(monkeypatch, Reason.TOO_MANY_PENDING)
    real = files.remove

    def remove(path: Path) -> None:
        if path.name == "secondary.toml":
            raise Refused(Reason.STORAGE_FULL, "no space is left")
        real(path)

    monkeypatch.setattr(files, "remove", remove)
    assert await _refusal(a_setup(tmp_path)) is Reason.TOO_MANY_PENDING
    assert not list(tmp_path.rglob("*key"))


async def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.write

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name == "secondary.toml":
            raise Refused(Reason.STORAGE_FULL, "no space is left")
        real(path, data, mode)

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(Refused):
        await setup.carry_out(a_setup(tmp_path / "server"), Dialer(), time.time)
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before it leaves no enrolment; a crash after it leaves one that goes on."""
    written: list[str] = []
    real = files.write

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        written.append(path.name)
        real(path, data, mode)

    monkeypatch.setattr(files, "write", write)
    setup.write(a_setup(tmp_path), 0)
    assert written[-1] == "secondary.toml"
    assert written.index("known-primaries.toml") < written.index("server.key")
    assert "api-key" in written


def test_another_name_keeps_what_the_owner_wrote(tmp_path: Path) -> None:
    first = a_setup(tmp_path)
    setup.write(first, 0)
    path, table = tmp_path / "secondary.toml", '[handlers.task.restart]\ntype = "exec"\ncommand = ["/bin/restart"]\n'
    path.write_text(f"{path.read_text()}\n{table}")
    renamed = msgspec.structs.replace(first.answered.wanted, name="gw2")
    setup.write(setup.planned(replace(first.answered, wanted=renamed), "ada"), 0)
    assert 'name = "gw2"' in path.read_text()
    assert table in path.read_text()


def test_all_of_it_is_for_nobody_else(tmp_path: Path) -> None:
    """attacks row 45"""
    folder = tmp_path / "server"
    setup.write(a_setup(folder), 0)
    for path in folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """`--config /etc/secondary.toml` must not close /etc to everybody."""
    tmp_path.chmod(0o755)
    setup.write(a_setup(tmp_path), 0)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_lost_configuration_does_not_reuse_the_key_of_an_enrolment_it_knows_nothing_of(tmp_path: Path) -> None:
    first = a_setup(tmp_path)
    setup.write(first, 0)
    (tmp_path / "secondary.toml").unlink()
    assert a_setup(tmp_path).config.enrolment not in ("main", first.config.enrolment)


@pytest.mark.parametrize("planted", ["symlink", "open to all"])
def test_a_planted_key_folder_is_refused(tmp_path: Path, planted: str) -> None:
    """attacks row 45"""
    data = tmp_path / "data"
    if planted == "symlink":
        (tmp_path / "elsewhere").mkdir()
        data.symlink_to(tmp_path / "elsewhere")
    else:
        data.mkdir()
        data.chmod(0o777)
    with pytest.raises(Refused) as refused:
        setup.write(a_setup(tmp_path), 0)
    assert refused.value.reason is Reason.FILE_UNSAFE


async def test_a_no_leaves_what_the_daemon_accepted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.write(a_setup(tmp_path), 0)
    other = new_signer().authority

    async def refuse(*_: object, **__: object) -> None:
        KnownPrimaries.load(tmp_path / "data").accept(other, Address("elsewhere.example", 13299), Way.COMPANY_CA, "", 0)
        raise Refused(Reason.TOO_MANY_PENDING, "No.")

    monkeypatch.setattr(setup, "first_word", refuse)
    before = KnownPrimaries.load(tmp_path / "data").entries
    assert await _refusal(a_setup(tmp_path, primary="other.example", account="b.example")) is Reason.TOO_MANY_PENDING
    entries = KnownPrimaries.load(tmp_path / "data").entries
    assert [entry.fingerprint for entry in entries] == [*(entry.fingerprint for entry in before), other.fingerprint]
