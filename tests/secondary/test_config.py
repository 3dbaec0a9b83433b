"""The secondary's configuration: malformed input, and one rename by which a different primary takes over."""

import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_secondary import config as configs
from enlist_secondary.config import LocalPrimary, SecondaryConfig

CONFIG = SecondaryConfig(primary="primary.example", account="acme.example", name='Front "desk" \\ 2', data="/var/lib/x")
HANDLERS = {
    "policy": {
        "chrony": {"type": "file", "path": "/etc/c", "template": "/etc/t", "check": ["chronyd", '"{file}"\n'], "mode": "0640"}
    },
    "task": {"restart": {"type": "exec", "command": ["/bin/restart"], "timeout": "10m"}},
}


def write(path: Path, config: SecondaryConfig = CONFIG) -> Path:
    files.write(path, configs.render(config).encode())
    return path


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, server_address="2001:db8::1", confirm_identity="always", company_ca="/etc/ca.pem")
    assert configs.load(write(tmp_path / "secondary.toml", config)) == config
    assert config.address == Address("primary.example", 13299)
    assert config.folder == Path("/var/lib/x/main")


@pytest.mark.parametrize(
    ("typed", "host"), [("Primary.Example.", "primary.example"), ("bücher.example:443", "xn--bcher-kva.example")]
)
def test_what_was_typed_stays_and_is_dialled_in_its_one_form(tmp_path: Path, typed: str, host: str) -> None:
    config = msgspec.structs.replace(CONFIG, primary=typed, server_address="gw1.bücher.example.")
    kept = configs.load(write(tmp_path / "secondary.toml", config))
    assert kept.primary == typed
    assert kept.address.host == host


def test_every_key_is_explained_in_the_file() -> None:
    assert set(configs.COMMENTS) | {"handlers", "local_primary"} == set(SecondaryConfig.__struct_fields__)
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


def test_the_owners_tables_are_explained_in_the_file() -> None:
    text = configs.render(msgspec.structs.replace(CONFIG, handlers=HANDLERS, local_primary=LocalPrimary("/run/a.sock")))
    assert "[handlers.policy.KIND]" in configs.render(CONFIG)
    assert text.index("[handlers.policy.KIND]") < text.index("\n[handlers.policy.chrony]\n")
    assert "# The primary on this machine: its secondaries are seen from above.\n\n[local_primary]\n" in text


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
kinds = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
execs = st.fixed_dictionaries(
    {"type": st.just("exec"), "command": st.lists(words.filter(lambda word: "/" not in word), min_size=1)},
    optional={"timeout": st.sampled_from(["1s", "30s", "7d"])},
)
file_names = st.text(st.characters(categories=["L", "N", "S"], exclude_characters="/"), min_size=1)


@given(st.dictionaries(kinds, execs), st.dictionaries(kinds, execs), file_names)
def test_whatever_an_owner_wrote_is_what_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, policies: dict[str, Any], tasks: dict[str, Any], name: str
) -> None:
    """Attacks row 36: no word of a command ends the line it stands on."""
    name = unicodedata.normalize("NFC", name)
    handlers = {"policy": {**policies, "a": {"type": "file", "path": f"/{name}", "format": "json"}}, "task": tasks}
    kept = {purpose: kinds for purpose, kinds in handlers.items() if kinds}
    config = msgspec.structs.replace(CONFIG, handlers=kept, local_primary=LocalPrimary(f"/run/{name}"))
    assert configs.load(write(tmp_path_factory.mktemp("owner") / "secondary.toml", config)) == config


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


def test_the_owners_tables_of_the_old_one_are_kept_as_they_are_now(tmp_path: Path) -> None:
    """The owner may have edited the file since the other one waits."""
    path = write(tmp_path / "secondary.toml", msgspec.structs.replace(CONFIG, handlers=HANDLERS))
    other = msgspec.structs.replace(CONFIG, primary="other.example", enrolment="other")
    write(configs.next_path(path), msgspec.structs.replace(other, handlers={"task": {}}, local_primary=LocalPrimary("/run/a")))
    assert configs.switch(path) == msgspec.structs.replace(other, handlers=HANDLERS) == configs.load(path)
    assert not configs.next_path(path).exists()


def test_a_damaged_old_configuration_keeps_nobody_from_taking_over(tmp_path: Path) -> None:
    path = tmp_path / "secondary.toml"
    files.write(path, b"format = 2\nprimary = 3")
    other = msgspec.structs.replace(CONFIG, primary="other.example", handlers=HANDLERS)
    write(configs.next_path(path), other)
    assert configs.switch(path) == other


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
    files.write(configs.next_path(path), b"format = 2\nprimary = 3")
    with pytest.raises(Refused):
        configs.switch(path)
    assert configs.load(path) == CONFIG
