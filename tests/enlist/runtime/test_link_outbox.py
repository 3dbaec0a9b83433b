"""`LinkOutbox`: whatever happens to links and messages, the other end holds the last value of each key in the end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from enlist.runtime.link_outbox import WINDOW, Batch, LinkOutbox, OutboxCursor, open_cursor

KEYS = st.sampled_from("abc")


def test_new_link_says_everything() -> None:
    outbox = LinkOutbox[str, int]()
    outbox.put("a", 1)
    first = outbox.open().take(10, 100)
    assert first == Batch(1, [("a", 1)])
    again = outbox.open().take(10, 100)
    assert again == Batch(1, [("a", 1)])


def test_unacknowledged_value_is_not_said_twice_on_one_link() -> None:
    outbox = LinkOutbox[str, int]()
    cursor = outbox.open()
    outbox.put("a", 1)
    assert cursor.take(10, 100) is not None
    outbox.put("a", 1)
    assert cursor.take(10, 100) is None


def test_value_put_while_an_older_one_is_in_flight_is_said_at_once() -> None:
    outbox = LinkOutbox[str, int]()
    cursor = outbox.open()
    outbox.put("a", 1)
    cursor.take(10, 100)
    outbox.put("a", 2)
    assert cursor.take(10, 100) == Batch(2, [("a", 2)])
    assert cursor.ack(1)
    assert cursor.take(10, 100) is None
    assert cursor.nack(2)
    assert cursor.take(10, 100) == Batch(3, [("a", 2)])


def test_refusal_of_an_older_value_does_not_say_the_newer_one_again() -> None:
    outbox = LinkOutbox[str, int]()
    cursor = outbox.open()
    outbox.put("a", 1)
    outbox.put("b", 1)
    cursor.take(10, 100)
    outbox.put("a", 2)
    cursor.take(10, 100)
    assert cursor.nack(1)
    assert cursor.take(10, 100) == Batch(3, [("b", 1)])
    assert cursor.ack(2)
    assert cursor.ack(3)
    assert not cursor.waiting


def test_acknowledgement_of_what_was_never_sent_is_told() -> None:
    cursor = LinkOutbox[str, int]().open()
    assert not cursor.ack(1)
    assert not cursor.nack(7)


def test_window_bounds_what_is_on_its_way() -> None:
    outbox = LinkOutbox[str, int]()
    cursor = outbox.open()
    for number in range(WINDOW + 1):
        outbox.put(str(number), number)
    taken = [cursor.take(1, 100) for _ in range(WINDOW + 1)]
    assert taken[-1] is None
    assert cursor.ack(1)
    assert cursor.take(1, 100) is not None


def test_cursor_alone_says_what_it_is_given() -> None:
    cursor: OutboxCursor[str, int] = open_cursor()
    for number in range(WINDOW + 1):
        cursor.put(str(number), number)
        cursor.take(1, 1)
    assert cursor.stalled
    assert cursor.take(1, 1) is None
    assert cursor.ack(1)
    assert cursor.take(1, 1) == Batch(WINDOW + 1, [(str(WINDOW), WINDOW)])


def test_older_link_says_nothing_new() -> None:
    outbox = LinkOutbox[str, int]()
    older = outbox.open()
    outbox.open()
    outbox.put("a", 1)
    assert older.take(10, 100) is None


def test_owner_hears_of_all_that_the_other_end_has_also_of_what_was_replaced() -> None:
    """The newer value of a server may lack the outcome that the older one said."""
    told: list[tuple[str, int, bool]] = []
    outbox = LinkOutbox[str, int](acknowledged=lambda *each: told.append(each))
    cursor = outbox.open()
    outbox.put("a", 1)
    outbox.put("b", 1)
    cursor.take(10, 100)
    outbox.put("a", 2)
    cursor.take(10, 100)
    cursor.ack(1)
    assert told == [("a", 1, False), ("b", 1, True)]
    cursor.ack(2)
    assert told[2:] == [("a", 2, True)]


def test_owner_hears_nothing_of_what_was_refused() -> None:
    told: list[tuple[str, int, bool]] = []
    outbox = LinkOutbox[str, int](acknowledged=lambda *each: told.append(each))
    cursor = outbox.open()
    outbox.put("a", 1)
    cursor.take(10, 100)
    outbox.put("a", 2)
    assert cursor.nack(1)
    assert told == []


class Interleavings(RuleBasedStateMachine):
    """Links that open and break, messages that arrive, are refused or are lost, acknowledgements that are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = LinkOutbox[str, int](weight=lambda value: 1 + value % 3, acknowledged=self.heard)
        self.told: list[tuple[str, int]] = []
        self.cursor: OutboxCursor[str, int] = self.outbox.open()
        self.counter = 0
        self.peer: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.sent: list[Batch[str, int]] = []

    def heard(self, key: str, value: int, last: bool) -> None:
        self.told.append((key, value))
        assert last == (self.last[key] == value)

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        self.counter += 1
        self.last[key] = self.counter
        self.outbox.put(key, self.counter)

    @rule(limit=st.integers(1, 3), weight=st.integers(1, 5))
    def send(self, limit: int, weight: int) -> None:
        batch = self.cursor.take(limit, weight)
        if batch is not None:
            self.sent.append(batch)

    @rule(ack_lost=st.booleans())
    def arrive(self, ack_lost: bool) -> None:
        if self.sent:
            batch = self.sent.pop(0)
            self.peer.update(batch.values)
            if not ack_lost:
                self.told = []
                assert self.cursor.ack(batch.sequence)
                assert self.told == batch.values

    @rule()
    def refuse(self) -> None:
        if self.sent:
            assert self.cursor.nack(self.sent.pop(0).sequence)

    @rule()
    def break_link(self) -> None:
        self.sent.clear()
        self.cursor = self.outbox.open()

    def teardown(self) -> None:
        self.break_link()
        while (batch := self.cursor.take(2, 4)) is not None:
            self.peer.update(batch.values)
            assert self.cursor.ack(batch.sequence)
        assert self.peer == self.last


TestInterleavings = Interleavings.TestCase
