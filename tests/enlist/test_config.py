"""Configuration: malformed input names file, line, key and what was expected; attacks row 33 (TOML bombs)."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist.runtime import config


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pending: int = 500


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    limits: Limits = Limits()


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    ports: tuple[int, ...] = ()
    limits: Limits = Limits()
    listen: tuple[Port, ...] = ()
    way: Literal["fast", "safe"] = "safe"
    answer: Literal["yes", "no"] | None = None
    title: str | None = None


def test_a_configuration_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('# hello\nformat = 2\nname = "a"\nports = [1, 2]\n[limits]\npending = 3\n')
    path.chmod(0o600)
    assert config.load(path, Example) == Example("a", (1, 2), Limits(3))


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        config.load(tmp_path / "x.toml", Example)
    assert caught.value.reason is Reason.CONFIG_MISSING
    assert str(tmp_path / "x.toml") in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 3", "x.toml: line 1: name: expected text in quotes, got a whole number."),
        ('\n\nname = "a"\nlimits = 3', "x.toml: line 4: limits: expected a table, got a whole number."),
        ('name = "a"\n[limits]\n\npending = "3"', "x.toml: line 4: limits.pending: expected a whole number, got text in quotes."),
        ('name = "a"\nports = [1, "2"]', "x.toml: line 2: ports[1]: expected a whole number, got text in quotes."),
        (
            'name = "a"\nnome = "b"',
            "x.toml: line 2: nome: this key is not known; expected one of answer, limits, listen, name, ports, title, way.",
        ),
        ('name = "a"\n[limits]\npendin = 1', "x.toml: line 3: limits.pendin: this key is not known; expected one of pending."),
        (
            'name = "a"\n[[listen]]\nnumber = 1\n[[listen]]\nnmber = 2',
            "x.toml: line 5: listen[1].nmber: this key is not known; expected one of limits, number.",
        ),
        ('name = "a"\nway = "slow"', 'x.toml: line 2: way: expected one of "fast", "safe".'),
        ('name = "a"\nway = 3', 'x.toml: line 2: way: expected one of "fast", "safe".'),
        ('name = "a"\nanswer = "maybe"', 'x.toml: line 2: answer: expected one of "yes", "no".'),
        ('name = "a"\ntitle = 3', "x.toml: line 2: title: expected text in quotes, got a whole number."),
        ("", "x.toml: this key is expected and missing: `name`."),
        ('name = "a"\nname = "b"', "x.toml: line 2, at its end: Cannot overwrite a value."),
        ('name = "a', "x.toml: line 1, at its end: Unterminated string."),
        ('name = "a"\nb =', "x.toml: line 2, at its end: Invalid value."),
        ("name = \x1b[31m", "x.toml: line 1, column 8: Invalid value."),
        ('"\\u001b" = 1', "x.toml: \\x1b: this key is not known; expected one of answer, limits, listen, name, ports, title, way."),
    ],
)
def test_a_malformed_one_is_refused_with_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        config.parse(text.encode(), Example, "x.toml")
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.message == said
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"a = " + b"[" * 100_000, b"a = " + b"1" * 5000, b"a" + b".a" * 10_000 + b" = 1", b"\0", b"a = 2026-99-99"],
    ids=["not utf-8", "nested", "long number", "deep key", "nul", "date"],
)
def test_a_bomb_is_refused(data: bytes) -> None:
    """Attacks row 33."""
    with pytest.raises(Refused) as caught:
        config.parse(data, Example, "x.toml")
    assert caught.value.reason is Reason.CONFIG_INVALID


@given(st.text() | st.binary())
def test_no_file_makes_it_fail_otherwise(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode(errors="replace")
    with pytest.raises(Refused):
        config.parse(data, Example, "x.toml")


@given(st.text(st.characters(codec="utf-8")))
def test_quoted_text_is_read_back_unchanged(text: str) -> None:
    assert tomllib.loads(f"a = {config.quote(text)}")["a"] == text


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("10m", 600), ("12h", 43200), ("7d", 604800)])
def test_a_duration(text: str, seconds: int) -> None:
    assert config.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1", "d", "1.5h", "1w", "1d ", "١d", "99999999s", "1d1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        config.duration(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
