"""Configuration: TOML text into a frozen dataclass, or a refusal that names file, line, key and what was expected."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from enlist.reasons import Reason, Refused
from enlist.runtime import files, formats
from enlist.runtime.terminal import escape

T = TypeVar("T", bound=msgspec.Struct)

DOTS = 2000
"""Dots in a file, at most, wherever they stand: no configuration has as many."""

_TYPES = {
    "int": "a whole number",
    "float": "a number with a point",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list in brackets",
    "object": "a table",
}
"""What msgspec calls a value, and what somebody who edits the file would."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def load(path: Path, kind: type[T]) -> T:
    """Reads a configuration file of ours. Refuses with CONFIG_MISSING, FILE_UNSAFE, or as `parse` does."""
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise Refused(Reason.CONFIG_MISSING, f"There is no configuration at {path}.") from None
    return parse(data, kind, str(path), formatted=True)


def parse(data: bytes, kind: type[T], source: str, *, formatted: bool = False) -> T:
    """Reads TOML into `kind`, a `msgspec.Struct` with `forbid_unknown_fields`; `source` names the file in refusals.

    A `formatted` file holds a key `format` besides, which `formats.check` judges; what a person writes for one use holds none.
    Refuses with CONFIG_INVALID, and with FORMAT_OLD or VERSION_INCOMPATIBLE where another release wrote the file.
    """
    text = ""
    if data.count(b".") > DOTS:  # what a dotted key costs tomllib, in time and memory, grows with the square of its dots
        raise _refuse(source, "the file is nested too deeply")
    try:
        text = data.decode()
        table = tomllib.loads(text)
        if formatted:
            formats.check(table.pop("format", None), source)
        return msgspec.convert(table, kind)
    except UnicodeDecodeError:
        raise _refuse(source, "the file is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise _refuse(source, _syntax(text, str(error))) from None
    except RecursionError:
        raise _refuse(source, "the file is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise _refuse(source, _where(text, str(error), kind)) from None
    except ValueError:  # Python refuses to read a number of more than 4,300 digits
        raise _refuse(source, "a number is too long") from None


def _refuse(source: str, problem: str) -> Refused:
    return Refused(Reason.CONFIG_INVALID, f"{source}: {escape(problem)}.")


def _syntax(text: str, problem: str) -> str:
    """Puts the place first: "Invalid value (at line 3, column 7)", or "(at end of document)"."""
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", problem)
    if not found:
        return problem
    place = found[2] if found[2].startswith("line") else f"line {max(1, len(text.splitlines()))}, at its end"
    return f"{place}: {found[1]}"


def _where(text: str, problem: str, kind: type[msgspec.Struct]) -> str:
    """Puts line and key before what msgspec found: "Expected `int`, got `str` - at `$.limits.pending`"."""
    found = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", problem, re.DOTALL)
    what, path = (found[1], found[2] or "") if found else (problem, "")
    unknown = re.search(r"unknown field `([^`]*)`", what)
    key = ".".join(filter(None, [path, unknown[1] if unknown else ""]))
    line = line_of(text, re.sub(r"\[.*?\]", "", key))
    return ": ".join(filter(None, [f"line {line}" if line else "", key, _plainly(what, _type_at(kind, path))]))


def _plainly(what: str, type: Any) -> str:
    """What msgspec says of a value, in the words of `_TYPES`; what may stand there instead, where that is a choice."""
    if "unknown field" in what:
        return f"this key is not known; expected one of {', '.join(sorted(_fields(type)))}"
    if choices := [word for each in (type, *get_args(type)) if get_origin(each) is Literal for word in get_args(each)]:
        return f"expected one of {', '.join(quote(word) for word in choices)}"
    what = what[:1].lower() + what[1:]
    what = what.replace("object missing required field", "this key is expected and missing:").replace(" | null`", "`")
    return re.sub(r"`(\w+)`", lambda found: _TYPES.get(found[1], found[0]), what)


def _type_at(kind: type[msgspec.Struct], path: str) -> Any:
    """The type of what stands at a path, which may lead through lists: `primary[1].addresses`."""
    type: Any = kind
    for name in re.findall(r"\w+", re.sub(r"\[.*?\]", "", path)):
        table = next(each for each in (type, *get_args(type)) if inspect.isclass(each) and issubclass(each, msgspec.Struct))
        type = _fields(table)[name]
    return next((each for each in get_args(type) if inspect.isclass(each) and issubclass(each, msgspec.Struct)), type)


def _fields(table: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(table)}


def line_of(text: str, key: str) -> int | None:
    """The line (from 1) on which a dotted key is set, or its table begins; None if it is not there."""
    *table, last = key.split(".")
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([\w.\-]+)\s*\]+", line)
        if header:
            current = header[1].split(".")
            if current == [*table, last]:
                return number
        elif current == table and re.match(rf"\s*\"?{re.escape(last)}\"?\s*=", line):
            return number
    return None


def duration(text: str) -> int:
    """Seconds in `30s`, `10m`, `12h` or `7d`."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if not found:
        raise Refused(Reason.INVALID_ARGUMENT, 'A duration is a number above 0 and a unit, such as "30s", "10m", "12h" or "7d".')
    return int(found[1]) * _UNITS[found[2]]


def quote(text: str) -> str:
    """The text as a TOML basic string."""
    escaped = "".join(_basic(c) for c in text)
    return f'"{escaped}"'


def _basic(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or ord(character) == 0x7F else character
