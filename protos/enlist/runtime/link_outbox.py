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

Acknowledged = Callable[[K, V], None]


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
        self._carried: dict[K, int] = {}
        """By which message a value is on its way."""

    def put(self, key: K, value: V) -> None:
        """There is another value to say. It waits for none on its way: what is said later over the same link counts there."""
        self._pending.put(key, value)
        sequence = self._carried.pop(key, None)
        if sequence is not None:
            self._pending.nack([self._in_flight[sequence].pop(key)])

    @property
    def ready(self) -> bool:
        """Whether there is something to say now."""
        return self._pending.ready and len(self._in_flight) < WINDOW

    @property
    def waiting(self) -> bool:
        """Whether something was not put into a message yet, or was not taken."""
        return self._pending.ready

    @property
    def stalled(self) -> bool:
        """Whether there is something to say, but first an acknowledgement must come."""
        return self._pending.ready and len(self._in_flight) >= WINDOW

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
        """The other end has taken that message for good; False if none of this outbox with that number is on its way."""
        taken = self._answered(sequence)
        if taken is None:
            return False
        self._pending.ack(taken)
        for each in taken:
            self._acknowledged(each.key, each.value)
        return True

    def nack(self, sequence: int) -> bool:
        """The other end could not take that message: it is said again. False as for `ack`."""
        taken = self._answered(sequence)
        if taken is None:
            return False
        self._pending.nack(taken)
        return True

    def _answered(self, sequence: int) -> list[Taken[K, V]] | None:
        """What was said in a message and by none since; None if no such message is on its way."""
        taken = self._in_flight.pop(sequence, None)
        if taken is None:
            return None
        for key in taken:
            del self._carried[key]
        return list(taken.values())


def open_cursor() -> OutboxCursor[K, V]:
    """The cursor of a link whose owner keeps the values, and puts here what there is to say."""
    count = partial(next, itertools.count(1))
    return OutboxCursor(WriteBehind(_UNBOUNDED), lambda _key, _value: None, count)


class LinkOutbox(Generic[K, V]):
    """The last value of each key. A new link says all of them, and from then on what changes; the link before it, nothing more."""

    def __init__(
        self,
        weight: Callable[[V], int] = one,
        acknowledged: Acknowledged[K, V] = lambda _key, _value: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`acknowledged` hears of each value that the other end has; `changed` that there is something to say."""
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
