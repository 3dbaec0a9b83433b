"""What an owner configured: the tables `[handlers.policy.KIND]` and `[handlers.task.KIND]` of `secondary.toml`, checked.

Each type of handler has one line in `_TYPES`, which says who may have it, which keys it must have and what each may hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import config as toml
from enlist.runtime.terminal import escape

POLICY_TIMEOUT = 60
"""Seconds for a policy's program where its owner gave none; a task's has until the deadline."""

T = TypeVar("T")

_POLICY, _TASK = "policy", "task"


class Misconfigured(Refused):
    """A table that cannot be meant, and the dotted key that is wrong in it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(Reason.CONFIG_INVALID, message)
        self.key = key


@dataclass(frozen=True)
class File:
    """Writes a file. `timeout` is for each of rendering, `check` and `reload`, in seconds."""

    path: Path
    format: str = "template"
    template: Path | None = None
    mode: int = 0o644
    check: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True)
class Exec:
    """Runs a program; `timeout` in seconds."""

    command: tuple[str, ...]
    timeout: int | None = None


@dataclass(frozen=True)
class EntryPoint:
    """Calls a Python object; `timeout` in seconds."""

    object: str
    timeout: int | None = None


Configured = File | Exec | EntryPoint


@dataclass(frozen=True)
class Handlers:
    """By kind."""

    policy: Mapping[str, Configured]
    task: Mapping[str, Exec | EntryPoint]


def parse(tables: Mapping[str, Any]) -> Handlers:
    """Reads the tables below `handlers`. Raises Misconfigured."""
    for purpose, kinds in tables.items():
        if purpose not in (_POLICY, _TASK):
            key = ".".join(["handlers", purpose, *list(kinds if isinstance(kinds, dict) else ())[:1]])
            raise Misconfigured(key, "a handler is for a policy or for a task: [handlers.policy.KIND] or [handlers.task.KIND].")
    policy = _kinds(tables, _POLICY)
    _check_paths(policy)
    return Handlers(policy, {kind: made for kind, made in _kinds(tables, _TASK).items() if not isinstance(made, File)})


def _kinds(tables: Mapping[str, Any], purpose: str) -> dict[str, Configured]:
    kinds = _table(f"handlers.{purpose}", tables.get(purpose, {}))
    return {kind: _handler(purpose, f"handlers.{purpose}.{kind}", kind, table) for kind, table in kinds.items()}


def _handler(purpose: str, key: str, kind: str, table: object) -> Configured:
    check(key, names.kind, kind)
    given = dict(_table(key, table))
    row = check(f"{key}.type", lambda name: _type(purpose, name), given.pop("type", None))
    for name in given:
        if name not in row.keys:
            raise Misconfigured(f"{key}.{name}", f"this key is not known; expected one of {', '.join(sorted(row.keys))}.")
    for name in row.required:
        if name not in given:
            raise Misconfigured(f"{key}.{name}", "this key is expected and missing.")
    if row.make is File:  # a template is what it is good for; without one, the settings are written as they are
        given.setdefault("format", "template" if "template" in given else "json")
    made = row.make(**{name: check(f"{key}.{name}", row.keys[name], value) for name, value in given.items()})
    if isinstance(made, File):
        _check_file(key, made)
    return made


def _table(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Misconfigured(key, "expected a table.")
    return value


def check(key: str, parser: Callable[[Any], T], value: object) -> T:
    """What the parser makes of a value; where it refuses, Misconfigured says at which key."""
    try:
        return parser(value)
    except Refused as refused:
        raise Misconfigured(key, refused.message) from None


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, message)


def _check_file(key: str, made: File) -> None:
    if (made.template is None) != (made.format == "json"):
        raise Misconfigured(f"{key}.template", 'a template is expected with format = "template", and with no other.')
    if made.check and not any("{file}" in word for word in made.check):
        raise Misconfigured(f"{key}.check", 'expected "{file}" among the words: it stands for the new file.')


def _check_paths(policy: Mapping[str, Configured]) -> None:
    """Two kinds that write one file would each take the other's for somebody's change."""
    taken: dict[Path, str] = {}
    for kind, made in policy.items():
        if isinstance(made, File) and (other := taken.setdefault(made.path, kind)) != kind:
            raise Misconfigured(f"handlers.policy.{kind}.path", f'the kind "{other}" writes that file.')


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _refuse("Text in quotes was expected.")
    if not value or not names.printable(value):
        raise _refuse("Text of printable characters was expected.")
    return value


def file_path(value: object) -> Path:
    """The absolute path of a file, without detours."""
    text = _text(value)
    path = Path(text)
    if not path.is_absolute() or str(path) != text or ".." in path.parts or text.startswith("//") or not path.name:
        raise _refuse('The path of a file was expected, beginning with a slash and without "..".')
    return path


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise _refuse('A program and its arguments were expected, as a list of texts such as ["systemctl", "reload", "chrony"].')
    if any("\0" in word for word in value):
        raise _refuse("No word of a command may hold a NUL.")
    if not value[0] or ("/" in value[0] and not Path(value[0]).is_absolute()):
        raise _refuse("A program is given by its absolute path, or by its name alone, which is looked up in PATH.")
    return tuple(value)


def _mode(value: object) -> int:
    text = _text(value)
    if not re.fullmatch("0?[0-7]{3}", text):
        raise _refuse('A mode is three octal digits in quotes, such as "0644".')
    mode = int(text, 8)
    if mode & 0o022 or not mode & 0o400:
        raise _refuse("The file's owner must be able to read it, and nobody else to write it.")
    return mode


def _format(value: object) -> str:
    if value not in ("template", "json"):
        raise _refuse('One of "template", "json" was expected.')
    return str(value)


def _timeout(value: object) -> int:
    return toml.duration(_text(value))


def _object(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|[A-Za-z_][\w.-]*", text):
        raise _refuse('A Python object such as "package.module:function", or the name of an entry point, was expected.')
    return text


class _Row(NamedTuple):
    make: Callable[..., Configured]
    purposes: tuple[str, ...]
    required: tuple[str, ...]
    keys: Mapping[str, Callable[[Any], Any]]


_TYPES = {
    "file": _Row(
        File,
        (_POLICY,),
        ("path",),
        {
            "path": file_path,
            "format": _format,
            "template": file_path,
            "mode": _mode,
            "check": _command,
            "reload": _command,
            "timeout": _timeout,
        },
    ),
    "exec": _Row(Exec, (_POLICY, _TASK), ("command",), {"command": _command, "timeout": _timeout}),
    "entry-point": _Row(EntryPoint, (_POLICY, _TASK), ("object",), {"object": _object, "timeout": _timeout}),
}


def _type(purpose: str, name: object) -> _Row:
    known = [each for each, row in _TYPES.items() if purpose in row.purposes]
    if name not in known:
        wrong = f", not {escape(str(name))}" if name is not None else ""
        raise _refuse(f"The type of a {purpose}'s handler is one of {', '.join(toml.quote(each) for each in known)}{wrong}.")
    return _TYPES[str(name)]
