"""What people see: text from outside made harmless, and tables, both without colour."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

_SHOWN_AS_CODE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def escape(text: str) -> str:
    """Text from outside as it may be shown: controls, bidi overrides and the like become `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text  # nearly all of it, and every line that is logged comes through here
    return "".join(map(_shown, text))


@lru_cache(maxsize=4096)  # whoever fills a message with controls shall not take much time with it
def _shown(character: str) -> str:
    if unicodedata.category(character) not in _SHOWN_AS_CODE:
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def width(text: str) -> int:
    """Columns the text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell, every cell escaped."""
    lines = [[escape(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(line)).rstrip() for line in lines)


def moment(seconds: int | None) -> str:
    """A point in time as people and JSON read it: `2026-11-21T14:02:00Z`; a hyphen for none."""
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # somebody else's clock may say what no calendar holds
        return f"{seconds} s after 1970"
