"""The window: it grows while answers come quickly, and falls when they are slow."""

from __future__ import annotations

from enlist.link.pace import LARGEST, PIECE, SMALLEST, Pace


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
