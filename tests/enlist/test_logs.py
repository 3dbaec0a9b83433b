"""Logs: one line an event, nothing unescaped, no secret (attacks rows 41 and 44)."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.runtime import logs

SECRET = "abcdefghijklmnop234567"
API_KEY = f"enl_abcdefghij_{SECRET}"


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.set_up()
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_line_with_its_fields(stream: io.StringIO) -> None:
    logs.Log("link").info("link opened", server="one", name="Front desk", empty="", number=3)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('info link link opened server=one name="Front desk" empty="" number=3')
    assert line[:20].endswith("Z")


def test_nothing_from_outside_breaks_the_line_or_reaches_the_terminal(stream: io.StringIO) -> None:
    """Attacks row 41: log injection."""
    logs.Log("x").warning("refused\nfake", name="a\x1b[31m\n2026-11-21T14:02:00Z info link fake")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_a_fault_keeps_its_traceback_in_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot read {API_KEY}")
    except ValueError as error:
        logs.Log("x").fault("unforeseen", error, id="7")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in line
    assert "Traceback" in line
    assert SECRET not in line


def test_an_alarm_is_critical(stream: io.StringIO) -> None:
    logs.Log("x").alarm("identity changed")
    assert " critical x identity changed" in stream.getvalue()


@pytest.mark.parametrize("before", ["", "api-key=", '"', "\n", "\x1b", "a", "_", "\\n"])
@pytest.mark.parametrize("kind", ["enl", "enlu", "enlt"])
def test_a_secret_is_blacked_out_wherever_it_stands(stream: io.StringIO, before: str, kind: str) -> None:
    """Attacks row 44: also behind a line end, which is escaped to letters."""
    logs.Log("x").info(f"got {before}{kind}_abcdefghij_{SECRET}!", key=f"{before}{kind}_abcdefghij_{SECRET}")
    assert SECRET not in stream.getvalue()
    assert stream.getvalue().count("_abcdefghij_***") == 2


@given(st.text(), st.text())
def test_no_surroundings_bring_a_secret_into_the_log(before: str, after: str) -> None:
    """Attacks row 44."""
    assert SECRET not in logs.redact(before + API_KEY + after)
