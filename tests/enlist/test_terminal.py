"""What people see: attacks row 41 (ANSI, bidi and control characters in names)."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.runtime import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Front desk 東京 é", "Front desk 東京 é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\0\x07\x7f\x9b", "a\\x0ab\\x0d\\x00\\x07\\x7f\\x9b"),
        ("gpj\u202eexe\u2066", "gpj\\u202eexe\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("line\u2028end\u2029", "line\\u2028end\\u2029"),
        ("\ud800 \U000e0041", "\\ud800 \\U000e0041"),
    ],
)
def test_text_from_outside_is_made_harmless(text: str, shown: str) -> None:
    """Attacks row 41."""
    assert terminal.escape(text) == shown


@given(st.text())
def test_no_text_reaches_the_terminal_with_a_character_it_obeys(text: str) -> None:
    """Attacks row 41."""
    for character in terminal.escape(text):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_columns_stand_under_each_other() -> None:
    shown = terminal.table(("name", "state"), [("東京", "trusted"), ("e\u0301", "pending"), ("a\x1b", "")])
    assert shown.split("\n") == ["name   state", "東京   trusted", "e\u0301      pending", "a\\x1b"]


def test_a_cell_cannot_break_its_line() -> None:
    """Attacks row 41."""
    assert len(terminal.table(("a",), [("x\ny",), ("\u2028",)]).splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "1970-01-01T00:00:00Z"), (1_795_000_000, "2026-11-18T11:06:40Z"), (10**15, "1000000000000000 s after 1970")],
)
def test_a_moment(seconds: int | None, shown: str) -> None:
    assert terminal.moment(seconds) == shown


@given(st.integers(-(2**63), 2**63))
def test_every_moment_somebody_else_tells_can_be_shown(seconds: int) -> None:
    assert terminal.moment(seconds)
