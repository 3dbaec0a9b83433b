"""What a task wrote: bounded, and marked where it was cut."""

from __future__ import annotations

import pytest

from enlist.outputs import LIMIT, MARK_LIMIT, cut, left_out, mark


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_what_fits_stays_as_it_is(size: int) -> None:
    assert cut(b"x" * size) == b"x" * size
    assert left_out(cut(b"x" * size)) == 0


@pytest.mark.parametrize("limit", [LIMIT, MARK_LIMIT + 1, 0])
def test_what_does_not_is_cut_and_says_so(limit: int) -> None:
    short = cut(b"x" * (LIMIT + 1), limit)
    assert len(short) <= max(limit, MARK_LIMIT)
    assert short.count(b"x") + left_out(short) == LIMIT + 1


def test_a_mark_never_takes_more_than_its_room() -> None:
    assert len(mark(2**62)) <= MARK_LIMIT


def test_what_is_cut_twice_still_says_how_much_is_left_out() -> None:
    """Once at the server, once more on its way up."""
    whole = 10_000_000
    once = cut(b"x" * whole)
    again = cut(once, 1000)
    assert len(again) <= 1000
    assert left_out(again) == whole - again.count(b"x")
    assert left_out(cut(once, 0)) == whole
