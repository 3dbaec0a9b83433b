"""Where a server's files may be: a data folder belongs to one configuration, and a crash leaves nothing of use in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from enlist.reasons import Reason, Refused
from enlist_installer import places, removing
from enlist_secondary import api_key, identity, state
from enlist_secondary import config as configs
from enlist_secondary.config import SecondaryConfig
from tests.installer.in_between import new_signer


def enrolled(path: Path, data: Path, enrolment: str = "main") -> SecondaryConfig:
    """A server as a set-up leaves it, with an API key that it has not used yet."""
    config = SecondaryConfig(primary="primary.example", account="acme.example", name="gw1", data=str(data), enrolment=enrolment)
    folder_only(config)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(configs.render(config))
    path.chmod(0o600)
    places.claim(data, path)
    return config


def folder_only(config: SecondaryConfig) -> None:
    """What is there before the configuration is written."""
    identity.make(config.folder, new_signer().authority)
    api_key.keep(config.folder, "enl_key")


def test_another_configuration_s_data_folder_is_refused(tmp_path: Path) -> None:
    enrolled(tmp_path / "one.toml", tmp_path / "data")
    with pytest.raises(Refused, match=r"belongs to the server of .*one\.toml") as refused:
        places.check_data(tmp_path / "data", tmp_path / "two.toml")
    assert refused.value.reason is Reason.FOLDER_IN_USE


def test_a_data_folder_whose_configuration_is_gone_may_be_taken_over(tmp_path: Path) -> None:
    enrolled(tmp_path / "one.toml", tmp_path / "data")
    (tmp_path / "one.toml").unlink()
    assert places.check_data(tmp_path / "data", tmp_path / "two.toml") == tmp_path / "data"
    places.claim(tmp_path / "data", tmp_path / "two.toml")
    (tmp_path / "two.toml").touch()
    assert places.belongs_to(tmp_path / "data") == (tmp_path / "two.toml").resolve()


def test_a_configuration_out_of_this_user_s_sight_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enrolled(tmp_path / "one.toml", tmp_path / "data")

    def hidden(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", hidden)
    assert places.belongs_to(tmp_path / "data") == (tmp_path / "one.toml").resolve()


@pytest.mark.parametrize("claim", [b"", b"\n", b"secondary.toml\n", b"\xff"])
def test_a_damaged_claim_is_none(tmp_path: Path, claim: bytes) -> None:
    enrolled(tmp_path / "one.toml", tmp_path / "data")
    (tmp_path / "data" / places.CLAIM).write_bytes(claim)
    assert places.belongs_to(tmp_path / "data") is None


@pytest.mark.parametrize("data", ["secondary.toml", "secondary.toml/below"])
def test_a_configuration_is_no_folder(tmp_path: Path, data: str) -> None:
    with pytest.raises(Refused) as refused:
        places.check_data(tmp_path / data, tmp_path / "secondary.toml")
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_before_the_configuration_is_cleared_away(tmp_path: Path) -> None:
    """Attacks row 44: no API key stays behind. A key that asked may be registered, and stays."""
    path, data = tmp_path / "secondary.toml", tmp_path / "data"
    standing = enrolled(path, data, "standing")
    crashed, asked = (msgspec.structs.replace(standing, enrolment=name) for name in ("crashed", "asked"))
    for config in (crashed, asked):
        folder_only(config)
    state.change(asked.folder, lambda _: state.State(requests=1))
    removing.clear(path, data)
    assert not crashed.folder.exists()
    assert (api_key.load(asked.folder), identity.load(asked.folder) is not None) == ("", True)
    assert api_key.load(standing.folder) == "enl_key"


def test_removing_a_copied_configuration_s_server_leaves_the_owner_its_keys(tmp_path: Path) -> None:
    owner = enrolled(tmp_path / "owner.toml", tmp_path / "data")
    copy = enrolled(tmp_path / "copy.toml", tmp_path / "data", "copy")
    removing.clear(tmp_path / "copy.toml", tmp_path / "data")
    removing.erase(tmp_path / "copy.toml")
    assert identity.load(owner.folder) is not None
    assert api_key.load(owner.folder) == "enl_key"
    assert not copy.folder.exists()
    assert places.belongs_to(tmp_path / "data") == (tmp_path / "owner.toml").resolve()


def test_removing_a_server_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secondary.toml"
    enrolled(path, tmp_path / "data")
    staged = enrolled(configs.next_path(path), tmp_path / "data", "staged")
    for backup in (configs.backup_path(path), configs.backup_path(configs.next_path(path))):
        backup.write_text("before")
    (tmp_path / "data" / places.LOCK).touch()
    removing.erase(path)
    assert not staged.folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_the_configuration_is_no_other_configuration(tmp_path: Path) -> None:
    """A symbolic link to the configuration is the same configuration."""
    enrolled(tmp_path / "real.toml", tmp_path / "data")
    (tmp_path / "link.toml").symlink_to(tmp_path / "real.toml")
    assert places.check_data(tmp_path / "data", tmp_path / "link.toml") == tmp_path / "data"
