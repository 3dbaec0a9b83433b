"""The turns of a link: an honest server is heard at once, one that floods at a bounded rate and for a bounded share of the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.runtime.link_outbox import WINDOW
from enlist_primary.links.hearing import LITTLE, PACE, SHARE, Hearing


def hear(hearing: Hearing, comes: float, takes: float = 0.0, paced: bool = True) -> float:
    """When a message is heard that comes then, and takes so long to hear."""
    begun = max(comes, hearing.turn(paced))
    hearing.heard(paced, begun, begun + takes)
    return begun


def test_as_many_as_may_be_on_their_way_are_heard_in_a_row() -> None:
    hearing = Hearing(0.0)
    assert [hear(hearing, 10.0) for _ in range(WINDOW)] == pytest.approx([10.0] * WINDOW)
    assert hear(hearing, 10.0) == pytest.approx(10.0 + PACE)


def test_one_that_floods_is_heard_at_the_pace() -> None:
    hearing = Hearing(0.0)
    times = [hear(hearing, 0.0) for _ in range(1000)]
    assert times[-1] == pytest.approx((1000 - WINDOW) * PACE)


def test_rest_gives_no_more_than_one_row() -> None:
    hearing = Hearing(0.0)
    assert [hear(hearing, 1000.0) for _ in range(WINDOW)] == pytest.approx([1000.0] * WINDOW)
    assert hear(hearing, 1000.0) > 1000.0


def test_acknowledgements_are_not_paced_and_pace_nothing() -> None:
    hearing = Hearing(0.0)
    assert [hear(hearing, 1.0, paced=False) for _ in range(1000)] == [1.0] * 1000
    assert hear(hearing, 1.0) == 1.0


@pytest.mark.parametrize("paced", [True, False])
def test_what_takes_long_to_hear_is_followed_by_rest_whatever_it_is(paced: bool) -> None:
    hearing = Hearing(0.0)
    hear(hearing, 1.0, takes=2 * LITTLE, paced=paced)
    assert hear(hearing, 1.0, paced=paced) == pytest.approx(1.0 + 2 * LITTLE * (1 + SHARE))


@given(st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 0.5), st.booleans()), min_size=1, max_size=60))
def test_no_server_gets_more_than_its_share_for_long(messages: list[tuple[float, float, bool]]) -> None:
    hearing, comes, spent, ended = Hearing(0.0), 0.0, 0.0, 0.0
    for takes, pause, paced in messages:
        comes = max(ended, comes + pause)
        ended = hear(hearing, comes, takes, paced) + takes
        spent += takes
    assert spent * (1 + SHARE) <= ended + SHARE * (LITTLE + takes) + 1e-6
