"""The owner's template with a primary's values in it.

The template decides what a line is; a value must not. Whatever an expression puts into the file is refused if it holds a control
character or a line end: it could begin a line of its own, and be a directive of the program that reads the file.
"""

from __future__ import annotations

import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from enlist.reasons import Refused
from enlist.runtime import files
from enlist_secondary.handlers.interface import HandlerFailed

SIZE_LIMIT = files.SIZE_LIMIT
"""Bytes of a rendered file, at most."""

_BREAKS = frozenset({"Cc", "Zl", "Zp"})
_NAME = "<template>"  # what Jinja2 calls a template made from text


def render(path: Path, settings: dict[str, Any]) -> bytes:
    """The template with the settings as its variables, `settings` itself among them; a missing one is an error.

    Raises HandlerFailed naming file and line; also if the template is not a plain file that only its owner may change.
    """
    try:
        text = files.read(path).decode()
    except FileNotFoundError:
        raise HandlerFailed(f"There is no template at {path}.") from None
    except Refused as refused:
        raise HandlerFailed(refused.message) from None
    except UnicodeDecodeError:
        raise HandlerFailed(f"The template {path} is not UTF-8 text.") from None
    try:
        return bounded(_pieces(text, settings))
    except HandlerFailed as failed:
        raise HandlerFailed(f"{path}{_line(failed)}: {failed.message}") from None
    except Exception as error:  # a template is a program of the owner's: anything may go wrong in it
        raise HandlerFailed(f"{path}{_line(error)}: {type(error).__name__}: {error}") from None


def bounded(pieces: Iterator[str]) -> bytes:
    """The pieces as UTF-8; refused as soon as they are too much."""
    whole = bytearray()
    for piece in pieces:
        whole += piece.encode()
        if len(whole) > SIZE_LIMIT:
            raise HandlerFailed("what comes of it is larger than 1 MiB.")
    return bytes(whole)


def _pieces(text: str, settings: dict[str, Any]) -> Iterator[str]:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # here, for a server without templates never needs it

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=_checked,
        keep_trailing_newline=True,
        autoescape=False,  # these are not web pages, and `&lt;` would be wrong in a configuration; see `_checked`
    )
    return environment.from_string(text).generate({**settings, "settings": settings})


def _checked(value: Any) -> Any:
    """What an expression puts into the file, if it cannot end the line it stands on."""
    if isinstance(value, str) and any(unicodedata.category(each) in _BREAKS for each in value):
        raise HandlerFailed("a value with a line end or a control character was to be put into the file.")
    return value


def _line(error: Exception) -> str:
    """Where in the template it happened, so far as that is known."""
    at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _NAME]
    number = getattr(error, "lineno", None) or (at[-1] if at else None)  # of a mistake in its syntax, Jinja2 knows the line itself
    return f": line {number}" if number else ""
