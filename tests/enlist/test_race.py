"""The race between a name's addresses, without a network: who starts when, who wins, and what becomes of the others."""

import asyncio

import pytest

from enlist.transport.race import race

SOON = 0.01
"""A delay that passes; the tests wait for nothing else."""

NEVER = 3600.0


class Runners:
    """Attempts whose ends a test decides, with what it saw of them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.changed = asyncio.Condition()
        self._ends: dict[str, asyncio.Future[str]] = {}

    async def run(self, name: str) -> str:
        end = self._ends.setdefault(name, asyncio.get_running_loop().create_future())
        self.started.append(name)
        async with self.changed:
            self.changed.notify_all()
        try:
            return await asyncio.shield(end)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    def ends(self, name: str, with_: str | Exception) -> None:
        end = self._ends.setdefault(name, asyncio.get_running_loop().create_future())
        if isinstance(with_, Exception):
            end.set_exception(with_)
        else:
            end.set_result(with_)

    async def have_started(self, *names: str) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.started == list(names))


async def test_the_first_candidate_alone_is_tried_while_it_answers() -> None:
    runners = Runners()
    runners.ends("a", "A")
    assert await race(["a", "b"], runners.run, NEVER) == "A"
    assert runners.started == ["a"]


async def test_a_silent_candidate_gets_company_after_the_delay_and_loses() -> None:
    runners = Runners()
    racing = asyncio.create_task(race(["a", "b", "c"], runners.run, SOON))
    await runners.have_started("a", "b", "c")
    runners.ends("b", "B")
    assert await racing == "B"
    assert runners.cancelled == ["a", "c"]


async def test_a_late_first_candidate_still_wins() -> None:
    runners = Runners()
    racing = asyncio.create_task(race(["a", "b"], runners.run, SOON))
    await runners.have_started("a", "b")
    runners.ends("a", "A")
    assert await racing == "A"
    assert runners.cancelled == ["b"]


async def test_a_failure_starts_the_next_candidate_at_once() -> None:
    runners = Runners()
    runners.ends("a", OSError("refused"))
    runners.ends("b", OSError("refused"))
    runners.ends("c", "C")
    async with asyncio.timeout(5):
        assert await race(["a", "b", "c"], runners.run, NEVER) == "C"


async def test_if_all_fail_every_error_is_told_in_order() -> None:
    runners = Runners()
    errors = [OSError("a"), EOFError("b")]
    runners.ends("a", errors[0])
    runners.ends("b", errors[1])
    with pytest.raises(ExceptionGroup) as failed:
        await race(["a", "b"], runners.run, NEVER)
    assert list(failed.value.exceptions) == errors


async def test_a_failure_beside_a_success_is_not_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio would complain of an error that nobody looked at."""
    runners = Runners()
    racing = asyncio.create_task(race(["a", "b"], runners.run, SOON))
    await runners.have_started("a", "b")
    runners.ends("a", OSError("refused"))
    runners.ends("b", "B")
    assert await racing == "B"
    assert not caplog.records


async def test_a_race_that_is_cancelled_ends_its_attempts_first() -> None:
    runners = Runners()
    racing = asyncio.create_task(race(["a", "b"], runners.run, SOON))
    await runners.have_started("a", "b")
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert runners.cancelled == ["a", "b"]


async def test_an_attempt_that_is_slow_to_end_is_awaited() -> None:
    ended = asyncio.Event()

    async def attempt(name: str) -> str:
        if name == "b":
            return "B"
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()
        return ""

    assert await race(["a", "b"], attempt, SOON) == "B"
    assert ended.is_set()
