"""Policies again, slowly and path by path: what `enlist.layers` is compared with.

Nothing here recurses or merges objects. Settings are taken apart into statements about single paths, each statement is judged by
itself against every lock, and what is left is written, one by one, into a flat table of paths.

A path is a tuple of names. A statement is (path, value): the value is a non-object, or `{}` spoken outright; null deletes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from enlist.layers import Layer
from enlist.reasons import Reason

Path: TypeAlias = tuple[str, ...]

OBJECT = object()
"""Stands in the table at every path where an object is."""


def path_of(pointer: str) -> Path:
    """RFC 6901, section 4, character by character."""
    names: list[str] = []
    text = iter(pointer)
    for character in text:
        if character == "/":
            names.append("")
        elif character == "~":
            names[-1] += {"0": "~", "1": "/"}[next(text)]
        else:
            names[-1] += character
    return tuple(names)


def pointer_of(path: Path) -> str:
    escape = {"~": "~0", "/": "~1"}
    return "".join("/" + "".join(escape.get(character, character) for character in name) for name in path)


def statements(settings: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    waiting: list[tuple[Path, Any]] = [((name,), member) for name, member in settings.items()]
    while waiting:
        path, value = waiting.pop(0)
        if isinstance(value, dict) and value:
            waiting.extend(((*path, name), member) for name, member in value.items())
        else:
            found.append((path, value))
    return found


def said(settings: Mapping[str, Any], path: Path) -> Any:
    """What the settings have at a path that begins one of their statements."""
    value: Any = settings
    for name in path:
        value = value[name]
    return value


def prefixes(path: Path) -> Iterable[Path]:
    """The paths to it, itself the last; the whole is not among them."""
    return (path[:length] for length in range(1, len(path) + 1))


def begins(path: Path, other: Path) -> bool:
    return other[: len(path)] == path


@dataclass
class Table:
    """The fold so far."""

    values: dict[Path, Any] = field(default_factory=dict)
    locks: list[Path] = field(default_factory=list)

    def dropped_at(self, path: Path, settings: Mapping[str, Any]) -> Path | None:
        """The topmost path on the way to a statement at which a lock drops it."""
        for prefix in prefixes(path):
            locked = any(begins(lock, prefix) for lock in self.locks)
            above = any(begins(prefix, lock) for lock in self.locks)
            blunt = not isinstance(said(settings, prefix), dict) or isinstance(self.values.get(prefix), list)
            if locked or (above and blunt):
                return prefix
        return None

    def write(self, path: Path, value: Any) -> None:
        for prefix in prefixes(path[:-1]):
            if self.values.get(prefix) is not OBJECT:
                self.values[prefix] = OBJECT
        if value == {}:
            if self.values.get(path) is not OBJECT:
                self.values[path] = OBJECT
            return
        for other in [other for other in self.values if begins(path, other)]:
            del self.values[other]
        if value is not None:
            self.values[path] = value

    def nested(self) -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for path, value in sorted(self.values.items(), key=lambda item: len(item[0])):
            said(whole, path[:-1])[path[-1]] = {} if value is OBJECT else value
        return whole


@dataclass
class Told:
    """All that `explain` tells, as plain values."""

    effective: dict[str, Any]
    origin: dict[str, tuple[int, bool]]
    overridden: set[tuple[str, int]]


def told(layers: Sequence[Layer]) -> Told:
    table = Table()
    spoken: list[tuple[int, Path]] = []
    overridden: set[tuple[str, int]] = set()
    lockers: dict[Path, int] = {}
    for index, layer in enumerate(layers):
        judged = [(path, value, table.dropped_at(path, layer.settings)) for path, value in statements(layer.settings)]
        for path, value, dropped in judged:
            if dropped is None:
                table.write(path, value)
                spoken.append((index, path))
            else:
                overridden.add((pointer_of(dropped), index))
        for lock in map(path_of, layer.locks):
            lockers.setdefault(lock, index)
            table.locks.append(lock)
    leaves = [path for path in table.values if not any(begins(path, other) and other != path for other in table.values)]
    origin = {pointer_of(path): origin_of(path, table, spoken, lockers) for path in {*leaves, *lockers}}
    return Told(table.nested(), origin, overridden)


def origin_of(path: Path, table: Table, spoken: list[tuple[int, Path]], lockers: Mapping[Path, int]) -> tuple[int, bool]:
    frozen = isinstance(table.values.get(path), list) and any(begins(path, lock) for lock in lockers)
    locked = frozen or any(begins(lock, path) for lock in lockers)
    speakers = [index for index, other in spoken if begins(path, other) and (path == () or path in table.values)]
    return (max(speakers) if speakers else lockers[path]), locked


def effective(layers: Sequence[Layer]) -> dict[str, Any]:
    return told(layers).effective


def refusal(layer: Layer, above: Sequence[Layer]) -> Reason | None:
    """What `check` refuses the layer with."""
    upper = [path_of(lock) for other in above for lock in other.locks]
    if any(index == len(above) for _, index in told([*above, layer]).overridden):
        return Reason.SETTING_LOCKED
    own = [path_of(lock) for lock in layer.locks]
    if any(begins(other, lock) for lock in own for other in upper):
        return Reason.SETTING_LOCKED
    table = Table()
    for other in (*above, layer):
        for path, value in [(p, v) for p, v in statements(other.settings) if table.dropped_at(p, other.settings) is None]:
            table.write(path, value)
        table.locks.extend(map(path_of, other.locks))
    mentioned = {prefix for path, _ in statements(layer.settings) for prefix in prefixes(path)}
    for lock in own:
        if any(isinstance(table.values.get(prefix), list) for prefix in prefixes(lock[:-1])):
            return Reason.POLICY_INVALID
        if lock != () and lock not in table.values and lock not in mentioned:
            return Reason.POLICY_INVALID
    return None


def appendix(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = appendix(result.get(name), value)
    return result
