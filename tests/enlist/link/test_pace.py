"""The window, and how much a message carries: they grow while answers come quickly, and fall when they are slow."""

from __future__ import annotations

from enlist.link.pace import LARGEST, PIECE, REMEMBERED, SMALLEST, MessagePace, Pace


def test_window_is_two_pieces_at_first() -> None:
    assert Pace().window == SMALLEST == 2 * PIECE


def test_quick_answers_grow_the_window_up_to_its_bound() -> None:
    pace = Pace()
    pace.acknowledged(PIECE, 0.3)
    assert pace.window == SMALLEST + PIECE
    for _ in range(100):
        pace.acknowledged(PIECE, 0.0)
    assert pace.window == LARGEST


def test_claim_of_a_huge_answer_grows_it_no_further() -> None:
    pace = Pace()
    pace.acknowledged(2**62, 0.0)
    assert pace.window == LARGEST


def test_slow_answer_lets_the_window_fall() -> None:
    pace = Pace()
    pace.acknowledged(10 * PIECE, 0.0)
    pace.acknowledged(PIECE, 1.0)
    assert pace.window == SMALLEST


def test_answer_that_is_neither_quick_nor_slow_changes_nothing() -> None:
    pace = Pace()
    pace.acknowledged(PIECE, 0.1)
    before = pace.window
    pace.acknowledged(PIECE, 0.6)
    assert pace.window == before


MESSAGES = 4


def say(pace: MessagePace, count: int, seconds: float, taken: bool = True) -> None:
    """So many messages are on their way together and are answered after so many seconds. With as many as may be, others wait."""
    for sequence in range(1, count + 1):
        pace.sent(sequence, pace.bytes, now=0.0)
    for sequence in range(1, count + 1):
        pace.answered(sequence, taken, waited_for=count == MESSAGES and sequence == 1, now=seconds)


def test_message_carries_one_piece_at_first_and_half_the_window_at_most() -> None:
    pace = MessagePace()
    assert pace.bytes == PIECE
    for _ in range(20):
        say(pace, MESSAGES, seconds=0.1)
    assert pace.bytes == LARGEST // 2


def test_after_seven_quick_messages_another_seven_times_as_much_goes_in_two() -> None:
    """A change of two hundred servers, and the next one: each message takes its time to be heard."""
    pace = MessagePace()
    say(pace, 7, seconds=0.1)
    assert pace.bytes >= 7 * PIECE / 2


def test_on_a_slow_line_messages_stay_small_and_become_small_again() -> None:
    pace = MessagePace()
    say(pace, MESSAGES, seconds=4.0)
    assert pace.bytes == PIECE
    for _ in range(20):
        say(pace, MESSAGES, seconds=0.1)
    say(pace, MESSAGES, seconds=4.0)
    assert pace.bytes == PIECE


def test_late_answer_that_nobody_waits_for_says_nothing_of_the_line() -> None:
    """The primary lets the last acknowledgement of many wait for company."""
    pace = MessagePace()
    for _ in range(20):
        say(pace, MESSAGES, seconds=0.1)
    say(pace, MESSAGES - 1, seconds=9.0)
    assert pace.bytes == LARGEST // 2


def test_message_without_room_grows_nothing_and_a_stranger_s_answer_neither() -> None:
    pace = MessagePace()
    for _ in range(20):
        say(pace, MESSAGES, seconds=0.0, taken=False)
        pace.answered(99, taken=True, waited_for=True, now=0.0)
    assert pace.bytes == PIECE


def test_of_a_peer_that_answers_nothing_only_the_latest_messages_are_remembered() -> None:
    pace = MessagePace()
    for sequence in range(1, 2 * REMEMBERED + 1):
        pace.sent(sequence, LARGEST, now=0.0)
    pace.answered(REMEMBERED, taken=True, waited_for=True, now=0.1)
    assert pace.bytes == PIECE
    pace.answered(REMEMBERED + 1, taken=True, waited_for=True, now=0.1)
    assert pace.bytes == LARGEST // 2
