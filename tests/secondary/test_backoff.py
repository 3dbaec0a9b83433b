"""Trying again: faults rows 16 (refuses once, then recovers) and 18 (jitter)."""

import asyncio

import pytest

from enlist.reasons import Reason, Refused
from enlist_secondary import backoff
from enlist_secondary.backoff import Backoff, persevere

FINAL = frozenset({Reason.SERVER_REVOKED})


class Heard:
    """The refusals that were told."""

    def __init__(self) -> None:
        self.refusals: list[Refused] = []

    async def hear(self, refused: Refused) -> None:
        """Takes the next one."""
        self.refusals.append(refused)


def test_pauses_double_up_to_a_minute_and_start_again_after_a_success() -> None:
    pauses = Backoff(lambda: 1.0)
    assert [pauses.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    pauses.reset()
    assert pauses.next() == 0.5


def test_pauses_are_spread_over_half_their_length() -> None:
    """Faults row 18: servers that lost one primary at one moment do not return at one moment."""
    assert (Backoff(lambda: 0.0).next(), Backoff(lambda: 0.5).next(), Backoff(lambda: 1.0).next()) == (0.25, 0.375, 0.5)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.001)


@pytest.mark.usefixtures("_quick")
async def test_it_goes_on_until_it_succeeds() -> None:
    """Faults row 16."""
    answers: list[Exception | str] = [Refused(Reason.UNREACHABLE, "1"), Refused(Reason.ACCOUNT_UNKNOWN, "2"), "done"]
    heard = Heard()

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await persevere(attempt, heard.hear, FINAL, Backoff()) == "done"
    assert [refused.message for refused in heard.refusals] == ["1", "2"]


async def test_a_final_no_is_heard_and_raised() -> None:
    heard = Heard()

    async def attempt() -> None:
        raise Refused(Reason.SERVER_REVOKED, "No.")

    with pytest.raises(Refused, match="No"):
        await persevere(attempt, heard.hear, FINAL, Backoff())
    assert len(heard.refusals) == 1


@pytest.mark.usefixtures("_quick")
async def test_what_nobody_foresaw_is_bland_and_not_the_end() -> None:
    heard = Heard()

    async def attempt() -> None:
        if not heard.refusals:
            raise ZeroDivisionError("secret detail")

    await persevere(attempt, heard.hear, FINAL, Backoff())
    assert [refused.reason for refused in heard.refusals] == [Reason.INTERNAL]
    assert "secret detail" not in heard.refusals[0].message


async def test_it_can_be_cancelled() -> None:
    async def attempt() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(persevere(attempt, Heard().hear, FINAL, Backoff()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
