"""The fair queue of links: what is put in line begins in its order, and an error at one entry stops no other."""

from __future__ import annotations

import asyncio

import pytest

from enlist_primary.links.fair_queue import AT_ONCE, ROUND_SECONDS, Turns


async def rounds(count: int) -> None:
    """Lets the event loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_entries_begin_in_their_order_a_few_in_each_round() -> None:
    turns, begun = Turns(), list[int]()
    for number in range(2 * AT_ONCE):
        turns.enter(lambda number=number: begun.append(number))  # type: ignore[misc]  # bound for each
    await rounds(1)
    assert begun == list(range(AT_ONCE))
    await rounds(3)
    assert begun == list(range(2 * AT_ONCE))


async def test_what_begins_may_enter_others_and_no_round_grows_by_that() -> None:
    """As links do that are reevaluated: the last one of some enters the next ones."""
    turns, begun = Turns(), list[int]()

    def enter_some() -> None:
        for number in range(AT_ONCE // 4):
            turns.enter(lambda number=number: begun.append(number))  # type: ignore[misc]  # bound for each
        if len(begun) < 20 * AT_ONCE:
            turns.enter(lambda: enter_some())

    turns.enter(enter_some)
    sizes: list[int] = []
    while len(begun) < 10 * AT_ONCE:
        before = len(begun)
        await rounds(1)
        sizes.append(len(begun) - before)
    assert max(sizes) <= AT_ONCE
    assert min(sizes) >= AT_ONCE // 2, "a round is used: what was entered in it begins in it"


async def test_what_takes_long_lets_everybody_else_be_heard() -> None:
    """Links are reevaluated many at a time, and each time may enter the next one."""
    now, begun = [0.0], list[float]()
    turns = Turns(clock=lambda: now[0])

    def work() -> None:
        now[0] += ROUND_SECONDS / 4
        begun.append(now[0])
        turns.enter(lambda: work())

    turns.enter(work)
    await rounds(1)
    assert len(begun) == 4
    await rounds(1)
    assert len(begun) == 8


async def test_error_at_one_entry_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    turns, begun = Turns(), list[int]()

    def fail() -> None:
        raise ValueError("a defect")

    turns.enter(fail)
    for number in range(2 * AT_ONCE):
        turns.enter(lambda number=number: begun.append(number))  # type: ignore[misc]  # bound for each
    await rounds(5)
    turns.enter(lambda: begun.append(-1))
    await rounds(2)
    assert begun == [*range(2 * AT_ONCE), -1]
    assert "an entry of the fair queue failed" in caplog.text


async def test_what_waits_for_company_waits_from_when_it_was_put_last() -> None:
    loop, turns, begun = asyncio.get_running_loop(), Turns(later=0.02), asyncio.Event()
    put: list[float] = []

    def put_again() -> None:
        put.append(loop.time())
        turns.enter_later(begun.set)

    put_again()
    loop.call_later(0.03, put_again)  # in the second round of the timer, in which it would have begun
    async with asyncio.timeout(10):
        await begun.wait()
    assert loop.time() - put[-1] >= 0.02
    assert len(put) == 2


async def test_what_is_waited_for_does_not_wait_for_the_rest() -> None:
    turns, begun = Turns(soon=0.01, later=60), asyncio.Event()
    turns.enter_later(lambda: None)
    turns.enter_later(begun.set, soon=True)
    async with asyncio.timeout(10):
        await begun.wait()
