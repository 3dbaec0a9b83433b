"""JSON Pointers (RFC 6901) to the members of objects: `/ntp/servers`, and `""` for the whole.

In Enlist a pointer's tokens name members of objects only: an array is one value, and nothing points into it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from enlist.reasons import Reason, Refused

MAX_POINTER = 1024
"""Characters of a pointer. Every leaf of a policy is shown with its own, so that long ones would multiply what a body may hold."""

MISSING: Any = object()
"""What `find` returns where nothing stands; null is a value."""

_FORM = re.compile(r"(/([^~/]|~[01])*)*")  # RFC 6901, section 3
_SHOWN = 200
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(rf"({_STRING})\s*:|{_STRING}|[{{}}\[\],]", re.DOTALL)


def tokens(pointer: str) -> list[str]:
    """The names on the way from the whole to what the pointer names; none for `""`. `POLICY_INVALID` for any other form."""
    if len(pointer) > MAX_POINTER:
        raise Refused(Reason.POLICY_INVALID, f'The pointer "{shown(pointer)}" is longer than {MAX_POINTER} characters.')
    if not _FORM.fullmatch(pointer) or not writable(pointer):
        text = f'"{shown(pointer)}" is not a JSON Pointer, such as "/ntp/servers", with ~0 for "~" and ~1 for "/" in a name.'
        raise Refused(Reason.POLICY_INVALID, text)
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def child(pointer: str, name: str) -> str:
    """The pointer to a member of what `pointer` names."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def find(value: Any, pointer: str) -> Any:
    """What stands at the pointer, itself and no copy; `MISSING` if nothing does."""
    for token in tokens(pointer):
        if not isinstance(value, dict) or token not in value:
            return MISSING
        value = value[token]
    return value


def too_deep(text: str, depth: int) -> str:
    """The pointer to the first object or array within `depth` others, in JSON that is right as far as there; `""` if there is none.

    For what is too deep to be read: nothing here takes more of the stack, however deep it is.
    """
    way: list[str | int] = []
    for token in _TOKEN.finditer(text):
        word, name = token[0], token[1]
        if word in ("{", "[") and len(way) == depth:
            return "".join(child("", str(step)) for step in way)
        if word in ("{", "["):
            way.append("" if word == "{" else 0)
        elif word in ("}", "]"):
            way.pop()
        elif name:
            way[-1] = json.loads(name)
        elif word == "," and isinstance(step := way[-1], int):
            way[-1] = step + 1
    return ""


def shown(pointer: str) -> str:
    """The pointer as a sentence quotes it: shortened, and fit to be sent whatever it holds."""
    short = pointer if len(pointer) <= _SHOWN else pointer[:_SHOWN] + "..."
    return short.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def writable(text: str) -> bool:
    """Whether every reader of UTF-8 can read it again: no lone surrogates, and no NUL, at which many stop."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text
