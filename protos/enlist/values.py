"""JSON values as policies and tasks hold them: read strictly, written canonically, compared by type.

They are dict, list, str, int, float, bool and None. Refused are members named twice, NaN, infinities and numbers too large for a
double, integers beyond 2^53, depth above `MAX_DEPTH`, names and texts with lone surrogates (no UTF-8) or NUL, values at a pointer
longer than `pointers.MAX_POINTER`: as `POLICY_INVALID`, with the pointer where it stands; and more bytes than
`documents.BODY_LIMIT`, as `DOCUMENT_TOO_LARGE`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from enlist import documents, pointers
from enlist.reasons import Reason, Refused

MAX_DEPTH = 32
"""Objects and arrays around a value, the outermost one included."""

MAX_INTEGER = 2**53
"""Beyond it a reader with double precision (RFC 8259, section 6) takes a neighbour for it."""


def parse(text: bytes) -> dict[str, Any]:
    """Settings or arguments as somebody set them: one JSON object in UTF-8 (rule 1)."""
    return settings(load(text))


def dumps(value: Any) -> bytes:
    """Canonical JSON: members in the order of their code points, no spaces, UTF-8. Numbers stay as they are: 1 is not 1.0 here."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal (rule 10): `true` is not 1 as in Python, but 1 and 1.0 are the same number."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(member, b[name]) for name, member in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b if isinstance(a, bool) or isinstance(b, bool) else bool(a == b)


@dataclass(frozen=True)
class _Bad:
    """Stands in what was read for what is refused: the hooks that find it do not know where they are."""

    what: str


def load(text: bytes) -> Any:
    """JSON of any sort; what is refused in it may still stand there, until `settings` finds it and can say where."""
    if len(text) > documents.BODY_LIMIT:
        raise Refused(Reason.DOCUMENT_TOO_LARGE, f"A document has at most {documents.BODY_LIMIT} bytes; this one has {len(text)}.")
    try:
        return json.loads(
            text.decode("utf-8"),
            parse_int=_integer,
            parse_float=_float,
            parse_constant=lambda name: _Bad(f"{name}, which is not JSON"),
            object_pairs_hook=_members,
        )
    except UnicodeDecodeError as error:
        raise _invalid(f"This is not UTF-8 (byte {error.start + 1}).") from error
    except json.JSONDecodeError as error:
        raise _invalid(f"This is not JSON (line {error.lineno}, column {error.colno}: {error.msg}).") from error
    except RecursionError:  # without its cause: a thousand frames
        raise _too_deep(pointers.too_deep(text.decode("utf-8"), MAX_DEPTH)) from None


def _integer(digits: str) -> int | _Bad:
    if len(digits) <= len(str(-MAX_INTEGER)) and abs(int(digits)) <= MAX_INTEGER:
        return int(digits)
    return _Bad("an integer beyond 2^53; write it as a text")


def _float(digits: str) -> float | _Bad:
    number = float(digits)
    return number if abs(number) != float("inf") else _Bad("a number too large for double precision; write it as a text")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                members[name] = _Bad("a member named twice")
            seen.add(name)
    return members


def settings(value: Any) -> dict[str, Any]:
    """What `load` read as one object that holds nothing that is refused."""
    _check_value(value, "", 0)
    if not isinstance(value, dict):
        raise _invalid("The settings are a JSON object.")
    return value


def _check_value(value: Any, pointer: str, depth: int) -> None:
    """Refuses a value that may not stand at `pointer`, within `depth` objects and arrays."""
    if isinstance(value, _Bad):
        raise _misplaced(value.what, pointer)
    if len(pointer) > pointers.MAX_POINTER:
        raise _misplaced(f"something that takes more than {pointers.MAX_POINTER} characters to point to", pointer)
    if isinstance(value, str) and not pointers.writable(value):
        raise _misplaced("a name or text with a NUL character or half a surrogate pair", pointer)
    if isinstance(value, dict | list) and depth == MAX_DEPTH:
        raise _too_deep(pointer)
    if isinstance(value, dict):
        for name, member in value.items():
            below = pointers.child(pointer, name)
            _check_value(name, below, depth + 1)
            _check_value(member, below, depth + 1)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _check_value(member, f"{pointer}/{index}", depth + 1)


def _too_deep(pointer: str) -> Refused:
    return _misplaced(f"an object or array within {MAX_DEPTH} others", pointer)


def _misplaced(what: str, pointer: str) -> Refused:
    return _invalid(f'At "{pointers.shown(pointer)}" stands {what}.')


def _invalid(message: str) -> Refused:
    return Refused(Reason.POLICY_INVALID, message)
