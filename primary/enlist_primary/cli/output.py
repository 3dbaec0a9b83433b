"""How commands print: JSON with exact keys, or text for people; and the one way to say no."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence

from enlist.reasons import Refused
from enlist.runtime.terminal import escape, moment, table

__all__ = ["add_json", "moment", "name_of_enum", "print_json", "print_json_rows", "print_table", "refused", "say", "time_of"]


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that every command has."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(value: object) -> None:
    """Prints a value as JSON: numbers as numbers, false written out, characters escaped that could upset a terminal."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def print_json_rows(rows: Iterable[object]) -> None:
    """Prints a list as JSON, each element on a line of its own: for thousands of large ones, the encoder that indents is slow."""
    print("[", ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows), "]", sep="\n")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Prints a table, or a sentence where there is nothing to show."""
    print(table(header, rows) if rows else empty)


def shown(value: object) -> str:
    """A value of `--json` as people read it: yes and no, and a hyphen for nothing."""
    words = {None: "-", "": "-", True: "yes", False: "no"}
    return words[value] if value is None or value == "" or isinstance(value, bool) else str(value)


def say(text: str) -> None:
    """Prints a sentence; text from outside in it is made harmless."""
    print(_harmless(text))


def _harmless(text: str) -> str:
    return "\n".join(escape(line) for line in text.split("\n"))


def refused(refusal: Refused, as_json: bool) -> int:
    """Says no: reason code and sentence on standard error, or as JSON on standard output; exit status 1."""
    if as_json:
        print_json({"reason": refusal.reason.value, "message": refusal.message, "retry": refusal.retry})
    print(f"{refusal.reason}: {_harmless(refusal.message)}", file=sys.stderr)
    return 1


def name_of_enum(name: str, prefix: str) -> str:
    """`SERVER_STATE_TRUSTED` as people write it: `trusted`."""
    return name.removeprefix(prefix).lower()


def time_of(message: object, field: str) -> str | None:
    """A time field of a message, `2026-11-21T14:02:00Z`, or None where it is absent."""
    present: bool = message.HasField(field)  # type: ignore[attr-defined]  # any protobuf message
    return moment(getattr(message, field).seconds) if present else None
