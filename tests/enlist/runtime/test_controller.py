"""`Controller`: each key when it is due, one at a time, whatever happens at the others. Run in virtual time."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Again, Backoff, Controller, DueQueue, Pauses, each, insist
from tests.support import virtual_time
from tests.support.waiting import eventually

Work = Callable[[str], Awaitable[Again]]


class Record:
    """What was reconciled, and when."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.failures: list[str] = []

    def note(self, key: str) -> None:
        self.begun.append((key, asyncio.get_running_loop().time()))

    def failed(self, key: str, error: Exception) -> None:
        self.failures.append(key)

    def times(self, key: str) -> list[float]:
        return [when for each, when in self.begun if each == key]


async def running(controller: Controller[Any], seconds: float, steps: Callable[[], Awaitable[None]] | None = None) -> None:
    task = asyncio.create_task(controller.run())
    if steps is not None:
        await steps()
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_unmarked_controller_does_nothing_and_has_no_timer() -> None:
    async def main() -> None:
        await Controller[str]("test", each(lambda key: asyncio.sleep(0))).run()

    with pytest.raises(RuntimeError, match="no timer brings"):
        virtual_time.run(main())


def test_key_is_reconciled_again_when_it_says_so() -> None:
    async def main() -> list[float]:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            return 10.0 if len(record.begun) < 3 else None

        controller = Controller[str]("test", each(work))
        controller.mark("a")
        await running(controller, 100)
        return record.times("a")

    assert virtual_time.run(main()) == [0.0, 10.0, 20.0]


def test_error_at_one_key_is_isolated_and_backed_off() -> None:
    async def main() -> Record:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            if key == "bad":
                raise Refused(Reason.OVERLOADED, "Not now.")
            return 1.0

        controller = Controller[str](
            "test", each(work), batch=2, backoff=Backoff(1.0, 4.0), on_failure=record.failed, chance=lambda: 1.0
        )
        controller.mark("bad")
        controller.mark("good")
        await running(controller, 10.5)
        return record

    record = virtual_time.run(main())
    assert record.times("bad") == [0.0, 1.0, 3.0, 7.0]
    assert len(record.times("good")) == 11
    assert set(record.failures) == {"bad"}


def test_success_makes_the_next_pause_short_again() -> None:
    async def main() -> list[float]:
        record = Record()
        outcomes = iter([True, True, False, True])

        async def work(key: str) -> Again:
            record.note(key)
            if next(outcomes):
                raise ValueError
            return 1.0

        controller = Controller[str]("test", each(work), backoff=Backoff(1.0, 60.0), on_failure=record.failed, chance=lambda: 1.0)
        controller.mark("a")
        await running(controller, 4.5)
        return record.times("a")

    assert virtual_time.run(main()) == [0.0, 1.0, 3.0, 4.0]


def test_mark_while_running_reconciles_once_more() -> None:
    async def main() -> list[float]:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            await asyncio.sleep(5)
            return None

        controller = Controller[str]("test", each(work))

        async def steps() -> None:
            controller.mark("a")
            await asyncio.sleep(1)
            controller.mark("a")
            controller.mark("a")

        await running(controller, 100, steps)
        return record.times("a")

    assert virtual_time.run(main()) == [0.0, 5.0]


def test_pace_gathers_what_is_marked_in_a_row() -> None:
    async def main() -> list[float]:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            return None

        controller = Controller[str]("test", each(work), pace=1.0)

        async def steps() -> None:
            for _ in range(25):
                controller.mark("a")
                await asyncio.sleep(0.1)

        await running(controller, 10, steps)
        return record.times("a")

    assert virtual_time.run(main()) == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_key_rests_after_a_call_that_took_long() -> None:
    async def main() -> list[float]:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            await asyncio.sleep(2)
            return 0.0

        controller = Controller[str]("test", each(work), rest_after=lambda took: 3 * took)
        controller.mark("a")
        await running(controller, 20)
        return record.times("a")

    assert virtual_time.run(main()) == [0.0, 8.0, 16.0]


def test_failure_that_cannot_be_reported_leaves_every_key_reconciled() -> None:
    async def main() -> Record:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            raise ValueError

        def fail(key: str, error: Exception) -> None:
            raise RuntimeError

        backoff = Backoff(1.0, 1.0)
        controller = Controller[str]("test", each(work), batch=2, backoff=backoff, on_failure=fail, chance=lambda: 1.0)
        controller.mark("a")
        controller.mark("b")
        await running(controller, 2.5)
        return record

    record = virtual_time.run(main())
    assert record.times("a") == record.times("b") == [0.0, 1.0, 2.0]


def test_key_never_runs_beside_itself() -> None:
    async def main() -> int:
        most = running_now = 0

        async def work(key: str) -> Again:
            nonlocal most, running_now
            running_now += 1
            most = max(most, running_now)
            await asyncio.sleep(1)
            running_now -= 1
            return 0.0

        controller = Controller[str]("test", each(work), at_once=4)
        controller.mark("a")
        await running(controller, 20, None)
        return most

    assert virtual_time.run(main()) == 1


def test_at_once_bounds_what_runs_side_by_side() -> None:
    async def main() -> int:
        most = running_now = 0

        async def work(key: str) -> Again:
            nonlocal most, running_now
            running_now += 1
            most = max(most, running_now)
            await asyncio.sleep(1)
            running_now -= 1
            return None

        controller = Controller[str]("test", each(work), at_once=3)
        for key in "abcdefgh":
            controller.mark(key)
        await running(controller, 20)
        return most

    assert virtual_time.run(main()) == 3


def test_call_beyond_its_deadline_has_failed() -> None:
    async def main() -> Record:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            await asyncio.sleep(1000)
            return None

        controller = Controller[str](
            "test", each(work), deadline=2.0, backoff=Backoff(1.0, 1.0), on_failure=record.failed, chance=lambda: 1.0
        )
        controller.mark("a")
        await running(controller, 5.5)
        return record

    record = virtual_time.run(main())
    assert record.times("a") == [0.0, 3.0]
    assert record.failures == ["a", "a"]


def test_forgotten_key_is_not_reconciled() -> None:
    async def main() -> list[float]:
        record = Record()

        async def work(key: str) -> Again:
            record.note(key)
            return 1.0

        controller = Controller[str]("test", each(work))

        async def steps() -> None:
            controller.mark("a")
            await asyncio.sleep(2.5)
            controller.forget("a")

        await running(controller, 10, steps)
        return record.times("a")

    assert virtual_time.run(main()) == [0.0, 1.0, 2.0]


def test_cancelled_controller_leaves_no_task() -> None:
    async def main() -> bool:
        ended = False

        async def work(key: str) -> Again:
            nonlocal ended
            try:
                await asyncio.sleep(1000)
            finally:
                ended = True
            return None

        controller = Controller[str]("test", each(work))
        controller.mark("a")
        await running(controller, 1)
        return ended and len(asyncio.all_tasks()) == 1

    assert virtual_time.run(main())


class Account:
    """A key that comes once and never again."""


def test_keys_that_never_come_again_are_forgotten() -> None:
    alive: weakref.WeakSet[Account] = weakref.WeakSet()

    async def main() -> None:
        controller = Controller[Account]("test", each(lambda _: asyncio.sleep(0)), pace=1.0)

        async def steps() -> None:
            for _ in range(1000):
                key = Account()
                alive.add(key)
                controller.mark(key)
                del key
                await asyncio.sleep(0.1)

        await running(controller, 5, steps)
        assert len(alive) < 200

    virtual_time.run(main())


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_pause_stays_in_the_upper_half_of_its_range(failures: int, chance: float) -> None:
    pause = Backoff(0.5, 60.0).pause(failures, chance)
    ceiling = min(60.0, 0.5 * 2 ** min(failures - 1, 20))
    assert ceiling / 2 <= pause <= ceiling


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 20), st.sampled_from(["mark", "discard", "pop"])), max_size=200))
def test_due_queue_agrees_with_a_plain_table(steps: list[tuple[str, int, str]]) -> None:
    queue, table = DueQueue[str](), dict[str, float]()
    for key, number, step in steps:
        if step == "mark":
            queue.mark(key, number)
            table[key] = min(table.get(key, number), number)
        elif step == "discard":
            queue.discard(key)
            table.pop(key, None)
        else:
            popped = queue.pop(number, 2)
            due = sorted(when for when in table.values() if when <= number)[:2]
            assert sorted(table.pop(each) for each in popped) == due
        assert queue.first_due == min(table.values(), default=None)
        assert len(queue) == len(table)


async def test_clock_of_its_own_says_what_is_due() -> None:
    now = 100.0
    record = Record()

    async def work(key: str) -> Again:
        record.note(key)
        return 10.0

    controller = Controller[str]("test", each(work), clock=lambda: now)
    controller.mark("a")
    assert controller.busy == {"a"}
    task = asyncio.create_task(controller.run())
    await eventually(lambda: controller.first_due == 110.0)
    assert not controller.busy
    now = 110.0
    assert controller.busy == {"a"}
    controller.mark("b")  # it looks at the clock then
    await eventually(lambda: controller.first_due == 120.0 and not controller.busy)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [key for key, _ in record.begun] == ["a", "a", "b"]


# --- Insisted on --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "within", "raised"),
    [
        pytest.param([Refused(Reason.OVERLOADED, "busy")] * 3, 60.0, None, id="busy for a moment"),
        pytest.param([Refused(Reason.OVERLOADED, "busy")] * 3, 0.0, Refused, id="busy for too long"),
        pytest.param([Refused(Reason.SERVER_SUSPENDED, "no")], 60.0, Refused, id="a no that may change"),
        pytest.param([ValueError("a defect")], 60.0, ValueError, id="a defect"),
    ],
)
async def test_attempt_is_made_again_where_it_may_succeed_later(
    failures: list[Exception], within: float, raised: type[Exception] | None
) -> None:
    left = list(failures)

    async def attempt() -> str:
        if left:
            raise left.pop()
        return "done"

    insisting = insist(attempt, within, Pauses(Backoff(0.001, 0.001)))
    if raised is None:
        assert await insisting == "done"
    else:
        with pytest.raises(raised):
            await insisting
