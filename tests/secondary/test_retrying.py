"""Trying again: faults rows 16 (refuses once, then recovers) and 18 (jitter). In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Backoff, Pauses
from enlist_secondary.enrol import until_final
from enlist_secondary.keeper import BACKOFF
from tests.support import virtual_time


class Heard:
    """The refusals that were told."""

    def __init__(self) -> None:
        self.refusals: list[Refused] = []

    async def hear(self, refused: Refused) -> None:
        """Takes the next one."""
        self.refusals.append(refused)


def test_pauses_double_up_to_a_minute_and_start_again_after_a_success() -> None:
    pauses = Pauses(BACKOFF, lambda: 1.0)
    assert [pauses.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    pauses.reset()
    assert pauses.next() == 0.5


def test_pauses_are_spread_over_half_their_length() -> None:
    """Faults row 18: servers that lost one primary at one moment do not return at one moment."""
    chances = [0.0, 0.5, 1.0]
    assert [Pauses(BACKOFF, lambda: chances.pop(0)).next() for _ in range(3)] == [0.25, 0.375, 0.5]


def test_attempts_go_on_until_one_succeeds() -> None:
    """Faults row 16."""
    answers: list[Exception | str] = [Refused(Reason.UNREACHABLE, "1"), Refused(Reason.ACCOUNT_UNKNOWN, "2"), "done"]
    heard = Heard()

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> tuple[str, float]:
        done = await until_final(attempt, heard.hear, Pauses(Backoff(0.5, 60.0), lambda: 1.0))
        return done, asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == ("done", 1.5)
    assert [refused.message for refused in heard.refusals] == ["1", "2"]


async def test_a_final_no_is_heard_and_raised() -> None:
    heard = Heard()

    async def attempt() -> None:
        raise Refused(Reason.SERVER_REVOKED, "No.")

    with pytest.raises(Refused, match="No"):
        await until_final(attempt, heard.hear, Pauses())
    assert len(heard.refusals) == 1


def test_what_nobody_foresaw_is_bland_and_not_the_end() -> None:
    heard = Heard()

    async def attempt() -> None:
        if not heard.refusals:
            raise ZeroDivisionError("secret detail")

    virtual_time.run(until_final(attempt, heard.hear, Pauses()))
    assert [refused.reason for refused in heard.refusals] == [Reason.INTERNAL]
    assert "secret detail" not in heard.refusals[0].message


async def test_it_can_be_cancelled() -> None:
    async def attempt() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(until_final(attempt, Heard().hear, Pauses()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
