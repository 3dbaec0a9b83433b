"""`WriteBehind`: any interleaving of what may happen ends with the store holding the last accepted value of each key."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from enlist.runtime.write_behind import WAITING, Taken, WriteBehind

KEYS = st.sampled_from("abc")
BOUND = 8


def test_taken_entry_is_still_there() -> None:
    waiting = WriteBehind[str, int](BOUND)
    waiting.put("a", 1)
    assert waiting.take(5) == [Taken("a", 1, 1)]
    assert dict(waiting) == {"a": 1}
    assert waiting.take(5) == []
    assert not waiting.ready


def test_ack_keeps_what_was_put_meanwhile() -> None:
    waiting = WriteBehind[str, int](BOUND)
    waiting.put("a", 1)
    first = waiting.take(1)
    waiting.put("a", 2)
    waiting.ack(first)
    assert [each.value for each in waiting.take(1)] == [2]


def test_nack_brings_the_newest_value_again() -> None:
    waiting = WriteBehind[str, int](BOUND)
    waiting.put("a", 1)
    first = waiting.take(1)
    waiting.put("a", 2)
    waiting.nack(first)
    assert [each.value for each in waiting.take(1)] == [2]


def test_bound_counts_entries_in_flight() -> None:
    waiting = WriteBehind[str, int](2)
    assert waiting.put("a", 1)
    assert waiting.put("b", 1)
    taken = waiting.take(2)
    assert not waiting.put("c", 1)
    waiting.ack(taken)
    assert waiting.put("c", 1)


def test_full_queue_still_takes_newer_values_of_its_keys() -> None:
    waiting = WriteBehind[str, int](1)
    waiting.put("a", 1)
    assert waiting.put("a", 2)
    assert dict(waiting) == {"a": 2}


def test_weight_bounds_what_values_take_together() -> None:
    waiting = WriteBehind[str, bytes](10, weight=len)
    assert waiting.put("a", b"12345678")
    assert not waiting.put("a", b"123456789ab")
    assert dict(waiting) == {"a": b"12345678"}
    assert waiting.put("a", b"1")
    assert waiting.put("b", b"123456789")


def test_merge_may_keep_what_waits() -> None:
    waiting = WriteBehind[str, int](BOUND, merge=max)
    waiting.put("a", 5)
    taken = waiting.take(1)
    waiting.put("a", 3)
    waiting.ack(taken)
    assert len(waiting) == 0


def test_written_is_told_once_its_value_or_a_later_one_is_written() -> None:
    waiting, told = WriteBehind[str, int](BOUND), list[int]()
    waiting.put("a", 1, lambda: told.append(1))
    first = waiting.take(1)
    waiting.put("a", 2, lambda: told.append(2))
    waiting.nack(first)
    assert told == []
    second = waiting.take(1)
    waiting.put("a", 3, lambda: told.append(3))
    waiting.ack(second)
    assert told == [1, 2]
    waiting.ack(waiting.take(1))
    assert told == [1, 2, 3]


def test_peer_that_repeats_itself_takes_no_more_room() -> None:
    """What it repeats weighs the same; the newest callbacks are called, the others are forgotten."""
    waiting, told = WriteBehind[str, int](BOUND), list[int]()
    for number in range(10 * WAITING):
        assert waiting.put("a", number, lambda number=number: told.append(number))  # type: ignore[misc]  # of this round
    waiting.ack(waiting.take(1))
    assert told == list(range(9 * WAITING, 10 * WAITING))


class Interleavings(RuleBasedStateMachine):
    """One writer or several, a store that commits and then answers or does not, and values that are counted up."""

    flights = Bundle("flights")

    def __init__(self) -> None:
        super().__init__()
        self.waiting = WriteBehind[str, int](BOUND, weight=lambda value: 1 + value % 3)
        self.counter = 0
        self.accepted: dict[str, int] = {}
        self.store: dict[str, int] = {}
        self.history: dict[str, list[int]] = {}
        self.dropped: set[tuple[str, int]] = set()
        self.told: dict[int, str] = {}
        self.out: list[list[Taken[str, int]]] = []

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        self.counter += 1
        number = self.counter
        if self.waiting.put(key, number, lambda: self._written(key, number)):
            self.accepted[key] = number

    def _written(self, key: str, number: int) -> None:
        assert number not in self.told, "told twice"
        self.told[number] = key
        reached = self.store.get(key, 0) >= number or any(k == key and n >= number for k, n in self.dropped)
        assert reached, "told before it was written"

    @rule(limit=st.integers(1, 3))
    def take(self, limit: int) -> None:
        taken = self.waiting.take(limit)
        flying = {each.key for flight in self.out for each in flight}
        assert not flying & {each.key for each in taken}, "a key is in flight twice"
        if taken:
            self.out.append(taken)

    def _commit(self, flight: list[Taken[str, int]]) -> None:
        for each in flight:
            assert each.value >= self.store.get(each.key, 0), "an older value follows a newer one"
            if self.store.get(each.key) != each.value:
                self.store[each.key] = each.value
                self.history.setdefault(each.key, []).append(each.value)

    @rule()
    def commit_and_ack(self) -> None:
        if self.out:
            flight = self.out.pop()
            self._commit(flight)
            self.waiting.ack(flight)

    @rule(committed=st.booleans())
    def cancel(self, committed: bool) -> None:
        """The writer is cancelled: nobody knows whether the store took it."""
        if self.out:
            flight = self.out.pop(0)
            if committed:
                self._commit(flight)
            self.waiting.nack(flight)

    @rule()
    def refuse_one_for_good(self) -> None:
        if self.out:
            flight = self.out.pop()
            refused, rest = flight[0], flight[1:]
            self.dropped.add((refused.key, refused.value))
            self._commit(rest)
            self.waiting.ack([refused])
            self.waiting.ack(rest)

    @invariant()
    def bound_holds(self) -> None:
        assert sum(1 + value % 3 for _, value in self.waiting) <= BOUND

    def teardown(self) -> None:
        for flight in self.out:
            self.waiting.nack(flight)
        while flight := self.waiting.take(2):
            self._commit(flight)
            self.waiting.ack(flight)
        assert len(self.waiting) == 0
        for key, number in self.accepted.items():
            assert self.store.get(key) == number or (key, number) in self.dropped
        for numbers in self.history.values():
            assert len(set(numbers)) == len(numbers), "a value is written twice"
        assert set(self.told) >= set(self.accepted.values())


TestInterleavings = Interleavings.TestCase
