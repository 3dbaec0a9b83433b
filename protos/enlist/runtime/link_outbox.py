"""What one end of a link has to say, kept until the other end has acknowledged it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from enlist.runtime.write_behind import Taken, WriteBehind, one

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WINDOW = 4
"""Messages that may be on their way without an acknowledgement: little on a slow line, as `enlist.link.pace` says."""
_UNBOUNDED = 2**62  # what is pending is bounded by the values themselves

Acknowledged = Callable[[K, V, bool], None]
"""Hears of each value that the other end has, and whether it is the last one of its key: one that was replaced is told as well."""


class Batch(NamedTuple, Generic[K, V]):
    """What goes into one message: its sequence number, which the other end acknowledges, and the values by key."""

    sequence: int
    values: list[tuple[K, V]]


class OutboxCursor(Generic[K, V]):
    """What one link has still to say, and what it said that is not acknowledged yet.

    `LinkOutbox.open` makes one over the values that it keeps; where they are kept elsewhere, `open_cursor` makes one without.
    """

    def __init__(self, pending: WriteBehind[K, V], acknowledged: Acknowledged[K, V], number: Callable[[], int]) -> None:
        self._pending = pending
        self._acknowledged = acknowledged
        self._number = number
        self._in_flight: dict[int, dict[K, Taken[K, V]]] = {}
        """What each message on its way says."""
        self._carried: dict[K, int] = {}
        """By which of them the last value of a key is on its way."""

    def put(self, key: K, value: V) -> None:
        """There is another value to say. It waits for none on its way: what is said later over the same link counts there."""
        self._pending.put(key, value)
        sequence = self._carried.pop(key, None)
        if sequence is not None:
            self._pending.nack([self._in_flight[sequence][key]])

    @property
    def ready(self) -> bool:
        """Whether there is something to say now."""
        return self._pending.ready and not self.full

    @property
    def full(self) -> bool:
        """Whether as many messages are on their way as may be."""
        return len(self._in_flight) >= WINDOW

    @property
    def waiting(self) -> bool:
        """Whether something was not put into a message yet, or was not taken."""
        return self._pending.ready

    @property
    def stalled(self) -> bool:
        """Whether there is something to say, but first an acknowledgement must come."""
        return self._pending.ready and self.full

    def take(self, limit: int, weight: int) -> Batch[K, V] | None:
        """What goes into the next message: at most `limit` values that weigh at most `weight`; None if there is nothing to say."""
        taken = self._pending.take(limit, weight) if self.ready else []
        if not taken:
            return None
        sequence = self._number()
        self._in_flight[sequence] = {each.key: each for each in taken}
        self._carried.update({each.key: sequence for each in taken})
        return Batch(sequence, [(each.key, each.value) for each in taken])

    def ack(self, sequence: int) -> bool:
        """The other end has taken that message for good; False if none of this outbox with that number is on its way.

        The owner hears of all that it said: a newer value need not say it again.
        """
        said = self._in_flight.pop(sequence, None)
        if said is None:
            return False
        last = self._answered(sequence, said)
        self._pending.ack(last.values())
        for each in said.values():
            self._acknowledged(each.key, each.value, each.key in last)
        return True

    def nack(self, sequence: int) -> bool:
        """The other end could not take that message: it is said again. False as for `ack`."""
        said = self._in_flight.pop(sequence, None)
        if said is None:
            return False
        self._pending.nack(self._answered(sequence, said).values())
        return True

    def _answered(self, sequence: int, said: dict[K, Taken[K, V]]) -> dict[K, Taken[K, V]]:
        """What that message said and none has since: it is on its way no longer."""
        last = {key: each for key, each in said.items() if self._carried.get(key) == sequence}
        for key in last:
            del self._carried[key]
        return last


def _ignored(_key: object, _value: object, _last: bool) -> None:
    """Nobody has to hear what was acknowledged."""


def open_cursor() -> OutboxCursor[K, V]:
    """The cursor of a link whose owner keeps the values, and puts here what there is to say."""
    count = partial(next, itertools.count(1))
    return OutboxCursor(WriteBehind(_UNBOUNDED), _ignored, count)


class LinkOutbox(Generic[K, V]):
    """The last value of each key. A new link says all of them, and from then on what changes; the link before it, nothing more."""

    def __init__(
        self,
        weight: Callable[[V], int] = one,
        acknowledged: Acknowledged[K, V] = _ignored,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` hears that there is something to say."""
        self._weight = weight
        self._acknowledged = acknowledged
        self._changed = changed
        self._last: dict[K, V] = {}
        self._cursor: OutboxCursor[K, V] | None = None

    def put(self, key: K, value: V) -> None:
        """The last value of this key; one like the one before is not said again."""
        if self._last.get(key) != value:
            self._last[key] = value
            if self._cursor is not None:
                self._cursor.put(key, value)
            self._changed()

    def get(self, key: K) -> V | None:
        """The last value of this key."""
        return self._last.get(key)

    def discard(self, key: K) -> None:
        """Nobody wants to know of this any more: the next link does not say it."""
        self._last.pop(key, None)

    def open(self, number: Callable[[], int] | None = None) -> OutboxCursor[K, V]:
        """A link has opened: it says everything. `number` counts the link's messages, where several outboxes speak over it."""
        count = number or partial(next, itertools.count(1))
        self._cursor = OutboxCursor(WriteBehind(_UNBOUNDED, weight=self._weight), self._acknowledged, count)
        for key, value in self._last.items():
            self._cursor.put(key, value)
        return self._cursor
