"""The secondary's configuration: malformed input, and one rename by which a different primary takes over."""

from pathlib import Path

import msgspec
import pytest

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_secondary import config as configs
from enlist_secondary.config import SecondaryConfig

CONFIG = SecondaryConfig(primary="primary.example", account="acme.example", name='Front "desk" \\ 2', data="/var/lib/x")


def write(path: Path, config: SecondaryConfig = CONFIG) -> Path:
    files.write(path, configs.render(config).encode())
    return path


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, server_address="2001:db8::1", confirm_identity="always", company_ca="/etc/ca.pem")
    assert configs.load(write(tmp_path / "secondary.toml", config)) == config
    assert config.address == Address("primary.example", 13299)
    assert config.folder == Path("/var/lib/x/main")


def test_every_key_is_explained_in_the_file() -> None:
    assert set(configs.COMMENTS) == set(SecondaryConfig.__struct_fields__)
    lines = configs.render(CONFIG).splitlines()
    for key in configs.COMMENTS:
        (number,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert lines[number - 1] == f"# {configs.COMMENTS[key]}"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("primary", "https://primary.example", "without"),
        ("primary", "10.0.0.300", "DNS name or an IP address"),
        ("account", "Acme.example", "lower case"),
        ("name", "a\u202eb", "printable"),
        ("server_address", "a b", "DNS name or an IP address"),
        ("data", "relative/folder", "beginning with a slash"),
        ("data", "", "beginning with a slash"),
        ("enrolment", "../../etc", "letters and digits"),
        ("enrolment", "", "letters and digits"),
        ("enrolment", "a/b", "letters and digits"),
        ("company_ca", "relative.pem", "beginning with a slash"),
        ("confirm_identity", "never", "auto"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_key(tmp_path: Path, key: str, value: str, expected: str) -> None:
    """Attacks row 35: an enrolment never names a folder elsewhere."""
    path = write(tmp_path / "secondary.toml", msgspec.structs.replace(CONFIG, **{key: value}))
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(f"{key} ="))
    with pytest.raises(Refused) as caught:
        configs.load(path)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.message.startswith(f"{path}: line {line}: {key}: ")
    assert expected in caught.value.message


def test_a_planted_configuration_is_refused(tmp_path: Path) -> None:
    """Attacks row 45."""
    path = write(tmp_path / "secondary.toml")
    path.chmod(0o666)
    with pytest.raises(Refused) as caught:
        configs.load(path)
    assert caught.value.reason is Reason.FILE_UNSAFE


def test_the_waiting_configuration_takes_over_and_the_old_one_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "secondary.toml")
    other = msgspec.structs.replace(CONFIG, primary="other.example", enrolment="other")
    write(configs.next_path(path), other)
    assert configs.switch(path) == other == configs.load(path)
    assert configs.load(configs.backup_path(path)) == CONFIG
    assert not configs.next_path(path).exists()


def test_switching_again_changes_nothing(tmp_path: Path) -> None:
    """The daemon and the waiting wizard may both switch."""
    path = write(tmp_path / "secondary.toml")
    assert configs.switch(path) == CONFIG
    assert not configs.backup_path(path).exists()


def test_somebody_who_switches_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "secondary.toml")
    other = msgspec.structs.replace(CONFIG, primary="other.example", enrolment="other")
    waiting = write(configs.next_path(path), other)
    replace = Path.replace

    def late(self: Path, target: Path) -> Path:
        if self == waiting:
            replace(waiting, path)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    assert configs.switch(path) == other == configs.load(path)


def test_a_damaged_waiting_configuration_replaces_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "secondary.toml")
    files.write(configs.next_path(path), b"primary = 3")
    with pytest.raises(Refused):
        configs.switch(path)
    assert configs.load(path) == CONFIG
