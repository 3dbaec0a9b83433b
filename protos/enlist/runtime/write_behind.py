"""Values that wait to be written: the last one of each key, kept until whoever writes them says that they are written.

This is the only holder of such values. Nothing is taken out before it is acknowledged, so there is nothing to put back, and no
moment in which a value is neither here nor written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WAITING = 64
"""Callbacks of one entry, at most: more than a link has messages on its way. The oldest ones beyond are never called, as if their
link had been lost: a peer that repeats itself while nothing can be written takes no more room."""

Written = Callable[[], None]
"""Called once the value that was put, or a later one of the same key, is written or was refused for good."""


@dataclass(frozen=True, slots=True)
class Taken(Generic[K, V]):
    """An entry in flight: what is being written, and which version of it."""

    key: K
    value: V
    version: int


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    version: int
    in_flight: bool = False
    waiting: list[tuple[int, Written]] = field(default_factory=list)


def newest(_: V, new: V) -> V:
    """The merge of values that replace each other."""
    return new


def one(_: object) -> int:
    """The weight where the bound counts entries."""
    return 1


class Countdown:
    """Calls `written` once it was called itself once, and once more for each value that is expected."""

    def __init__(self, written: Written | None) -> None:
        self._left = 1
        self._written = written

    def expect(self) -> None:
        """One more value is to be written."""
        self._left += 1

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0 and self._written is not None:
            self._written()


class WriteBehind(Generic[K, V]):
    """The last value of each key, bounded. Values are absolute: writing one twice changes nothing.

    An entry stays until `ack`, and also then if it was put again meanwhile. *Forgetting is a value like any other* (a tombstone),
    and *what must be written together is one entry*.
    """

    def __init__(self, bound: int, merge: Callable[[V, V], V] = newest, weight: Callable[[V], int] = one) -> None:
        """`bound` limits the sum of the weights of all entries, those in flight included. `merge(known, new)` gives what waits."""
        self._bound = bound
        self._merge = merge
        self._weight = weight
        self._entries: dict[K, _Entry[V]] = {}
        self._total = 0
        self._version = 0
        self._in_flight = 0

    def put(self, key: K, value: V, written: Written | None = None) -> bool:
        """Takes a value; False if there is no room for it: then its sender must not be told that it was taken.

        One that makes its entry no heavier is always taken.
        """
        entry = self._entries.get(key)
        merged = value if entry is None else self._merge(entry.value, value)
        grows = self._weight(merged) - (0 if entry is None else self._weight(entry.value))
        if grows > 0 and self._total + grows > self._bound:
            return False
        self._total += grows
        self._version += 1
        if entry is None:
            entry = self._entries[key] = _Entry(merged, self._version)
        elif merged is not entry.value:
            entry.value = merged
            entry.version = self._version
        if written is not None:
            entry.waiting.append((entry.version, written))
            del entry.waiting[:-WAITING]
        return True

    def take(self, limit: int, weight: int | None = None) -> list[Taken[K, V]]:
        """At most `limit` entries that are not in flight, the longest waiting first. From now on they are in flight.

        Together they weigh at most `weight`, if it is given, but there is at least one.
        """
        taken: list[Taken[K, V]] = []
        left = weight
        for key, entry in self._entries.items():
            if entry.in_flight:
                continue
            if left is not None:
                left -= self._weight(entry.value)
            if len(taken) >= limit or (taken and left is not None and left < 0):
                break
            entry.in_flight = True
            taken.append(Taken(key, entry.value, entry.version))
        self._in_flight += len(taken)
        return taken

    def ack(self, taken: Iterable[Taken[K, V]]) -> None:
        """These are written, or refused for good. One that was put again meanwhile waits on."""
        for each in taken:
            entry = self._landed(each)
            told = [written for version, written in entry.waiting if version <= each.version]
            entry.waiting = [(version, written) for version, written in entry.waiting if version > each.version]
            if entry.version == each.version:
                del self._entries[each.key]
                self._total -= self._weight(entry.value)
            for written in told:
                written()

    def nack(self, taken: Iterable[Taken[K, V]]) -> None:
        """These could not be written, or nobody knows: they wait on, with what was put meanwhile."""
        for each in taken:
            self._landed(each)

    def _landed(self, taken: Taken[K, V]) -> _Entry[V]:
        entry = self._entries[taken.key]
        entry.in_flight = False
        self._in_flight -= 1
        return entry

    @property
    def ready(self) -> bool:
        """Whether something waits that is not in flight."""
        return len(self._entries) > self._in_flight

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter([(key, entry.value) for key, entry in self._entries.items()])
