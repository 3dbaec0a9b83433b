"""`primary.toml`: what is wrong in it is said with file, line, key, and what was expected: `config`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary import config
from enlist_primary.config import Certificates, Config, Limits

FORMAT = "format = 2\n"
GOOD = f'{FORMAT}name = "Primary"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where it stands."""
    return tmp_path / "primary.toml"


def write(path: Path, text: str | bytes) -> None:
    """Writes it as `init` would."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)


def refused(path: Path, text: str | bytes) -> str:
    """The sentence it is refused with; the file's name stands at its beginning."""
    write(path, text)
    with pytest.raises(Refused) as raised:
        config.load(path)
    assert raised.value.reason is Reason.CONFIG_INVALID
    assert raised.value.message.startswith(f"{path}: ")
    return raised.value.message.removeprefix(f"{path}: ")


def test_only_the_name_must_be_said(path: Path) -> None:
    write(path, GOOD)
    assert config.load(path) == Config("Primary", "::", (), 13000, 13299, False, Limits(500, 50, 30), Certificates("30d", "", ""))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FORMAT, r"this key is expected and missing: `name`"),
        (f"{FORMAT}name = 7\n", r"line 2: name: expected text in quotes, got a whole number"),
        (f"{GOOD}nmae = 7\n", r"line 3: nmae: this key is not known"),
        (f'{GOOD}\nssl_port = "13000"\n', r"line 4: ssl_port: expected a whole number, got text in quotes"),
        (f"{GOOD}ssl_port = 13000.0\n", r"line 3: ssl_port: expected a whole number, got a number with a point"),
        (f'{GOOD}advertise = "primary.example"\n', r"line 3: advertise: expected a list in brackets, got text in quotes"),
        (f"{GOOD}reflection = 1\n", r"line 3: reflection: expected true or false, got a whole number"),
        (f"{GOOD}[limits]\npending_per_acount = 1\n", r"line 4: limits.pending_per_acount: this key is not known"),
        (
            f'{GOOD}[limits]\n\nattempts_per_minute = "many"\n',
            r"line 5: limits.attempts_per_minute: expected a whole number, got text in quotes",
        ),
        (f"{GOOD}[certificates]\nlifetime = 30\n", r"line 4: certificates.lifetime: expected text in quotes, got a whole number"),
        (f"{GOOD}[stores]\n", r"line 3: stores: this key is not known"),
        (f"{GOOD}limits = 3\n", r"line 3: limits: expected a table, got a whole number"),
        (f"{FORMAT}name = \n", r"line 2, .*: Invalid value"),
        (f"{GOOD}{GOOD}", r"line 3, .*: Cannot overwrite a value"),
        (f"{FORMAT}name = 'a\n", r"line 2, "),
    ],
)
def test_what_is_no_configuration_is_named_with_line_and_key(path: Path, text: str, said: str) -> None:
    assert re.match(said, refused(path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{FORMAT}name = ""\n', r"line 2: name: A name has 1 to 63 characters"),
        (f'{FORMAT}name = "a/b"\n', r"line 2: name: A name has no slash"),
        (f'{FORMAT}name = "\\u001b[2J"\n', r"line 2: name: A name holds printable characters only"),
        (f'{GOOD}listen = "http://x"\n', r"line 3: listen: The address is "),
        (f'{GOOD}listen = "10.0.0.300"\n', r"line 3: listen: The address is "),
        (f'{GOOD}advertise = ["a.example", "b.example:13299"]\n', r"line 3: advertise: The address is "),
        (f"{GOOD}ssl_port = 65536\n", r"line 3: ssl_port: "),
        (f"{GOOD}ssl_port = -1\n", r"line 3: ssl_port: "),
        (f"{GOOD}\n\napi_port = 13000\n", r"line 5: api_port: "),
        (f"{GOOD}[limits]\npending_per_account = 0\n", r"line 4: limits.pending_per_account: "),
        (f"{GOOD}[limits]\npending_per_address = -5\n", r"line 4: limits.pending_per_address: "),
        (f"{GOOD}[limits]\nattempts_per_minute = 0\n", r"line 4: limits.attempts_per_minute: "),
        (f'{GOOD}[certificates]\nlifetime = "thirty days"\n', r"line 4: certificates.lifetime: A duration is "),
        (f'{GOOD}[certificates]\nlifetime = "9999999d"\n', r"line 4: certificates.lifetime: "),
        (f'{GOOD}[certificates]\napi_certificate = "a.pem"\n', r"certificates.api_key_file: "),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_line_and_key(path: Path, text: str, said: str) -> None:
    assert re.match(said, refused(path, text))


@pytest.mark.parametrize(
    "bomb",
    [
        b"name = " + b"[" * 100_000,
        b"name = " + b"{a=" * 50_000,
        b"a." * 100_000 + b"a = 1",
        b"name = " + b"9" * 200_000,
        b"\xff\xfe" * 1000,
        b"\0" * 1000,
        b"name = 1e999999999",
        b"name = '''" + b"\n" * 500_000 + b"'''",
        b"".join(b"[a%d]\n" % n for n in range(50_000)),
    ],
)
def test_a_bomb_is_refused_like_any_other(path: Path, bomb: bytes) -> None:
    """Attacks row 33."""
    said = refused(path, FORMAT.encode() + bomb)
    assert len(said) < 1000
    assert said.isprintable()


def test_a_file_larger_than_any_configuration_is_not_read(path: Path) -> None:
    """Attacks row 33."""
    write(path, GOOD.encode() + b"#" * 1024 * 1024)
    with pytest.raises(Refused) as raised:
        config.load(path)
    assert raised.value.reason is Reason.FILE_UNSAFE


def test_what_the_file_says_reaches_no_terminal(path: Path) -> None:
    """Attacks row 41."""
    assert refused(path, f'{FORMAT}"\\u001b[2Jkey" = 1\nname = "x"\n').isprintable()


@pytest.mark.parametrize(
    "made",
    [
        Config("Primary"),
        Config('Quotes " and \\ backslashes', "127.0.0.1", ("primary.example", "192.0.2.1", "2001:db8::1"), 0, 0),
        Config("Ünïcode 日本語", "::1", (), 443, 8443),
    ],
)
def test_what_init_writes_is_what_serve_reads(path: Path, made: Config) -> None:
    write(path, config.render(made))
    assert config.load(path) == made


def test_every_setting_is_in_the_file_that_init_writes_with_its_default(path: Path) -> None:
    """Docs cannot drift: the commented ones are settings too, and say what holds without them."""
    text = config.render(Config("Primary"))
    uncommented = re.sub(r"^# ((?:\[|[a-z_]+ = ).*)$", r"\1", text, flags=re.MULTILINE)
    said = tomllib.loads(uncommented)
    assert said.keys() == {"format", *Config.__struct_fields__}
    assert said["limits"].keys() == set(Limits.__struct_fields__)
    assert said["certificates"].keys() == set(Certificates.__struct_fields__)
    write(path, uncommented)
    assert config.load(path) == Config("Primary")
