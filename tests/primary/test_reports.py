"""What servers say, on its way into the database: `links.reports`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.ingest import reports as lines
from enlist_primary.ingest.reports import Reports
from enlist_primary.model.reports import Word
from tests.support.waiting import eventually

ACCOUNT = "acme.example"


class Kept:
    """Takes the place of a database, and keeps the words that would be written."""

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.refusals = 0

    async def write(self, account: str, operation: object, *arguments: Any) -> None:
        """One batch."""
        if self.refusals:
            self.refusals -= 1
            raise Refused(Reason.STORAGE_FULL, "Full.")
        self.words += arguments[1]


def word(state: str, name: str = "aaaaaaaaaa", kind: str = "task/restart") -> Word:
    return Word("bbbbbbbbbb", kind, name, state, 1_800_000_000)


async def written(*words: Word) -> list[str]:
    """The states that are written of these words, which came one right behind the other."""
    kept: Any = Kept()
    reports = Reports(kept)
    for each in words:
        reports.take(ACCOUNT, each)
    await reports.flush()
    return [each.state for each in kept.words]


async def test_of_words_on_the_same_thing_the_newest_is_written() -> None:
    assert await written(word("sent"), word("running"), word("succeeded")) == ["succeeded"]
    assert await written(word("running"), word("succeeded", "cccccccccc")) == ["running", "succeeded"]
    assert await written(word("running"), word("failed"), word("succeeded"), word("running")) == ["failed"], "a run ends once"
    assert await written(word("failed", "", "policy/chrony"), word("applied", "", "policy/chrony")) == ["applied"]


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "interrupted"])
async def test_a_word_that_waits_is_not_lost_because_the_run_was_sent_once_more(state: str) -> None:
    """Every set names the runs that are open: one that goes out for another reason says "sent" of each again."""
    assert await written(word(state), word("sent")) == [state]


async def test_words_that_the_storage_refused_wait_on_and_newer_ones_replace_them() -> None:
    """Else a full disk would lose for days what servers say once."""
    kept: Any = Kept()
    kept.refusals = 1
    reports = Reports(kept)
    reports.take(ACCOUNT, word("running"))
    reports.take(ACCOUNT, word("succeeded", "cccccccccc"))
    assert not await reports.flush()
    reports.take(ACCOUNT, word("failed"))
    reports.take(ACCOUNT, word("sent", "cccccccccc"))
    assert await reports.flush()
    assert {each.name: each.state for each in kept.words} == {"aaaaaaaaaa": "failed", "cccccccccc": "succeeded"}


async def test_what_the_storage_refused_is_tried_again_without_another_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "RETRY_SECONDS", 0.01)
    kept: Any = Kept()
    kept.refusals = 3
    reports = Reports(kept)
    task = asyncio.create_task(reports.run())
    reports.take(ACCOUNT, word("succeeded"))
    await eventually(lambda: kept.words)
    task.cancel()
    await asyncio.wait([task])


async def test_the_line_is_bounded_while_the_storage_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile server says new things on and on; what was known before is still brought up to date."""
    monkeypatch.setattr(lines, "LINE_BYTES", 10_000)
    kept: Any = Kept()
    kept.refusals = 1
    reports = Reports(kept)
    for number in range(1000):
        reports.take(ACCOUNT, word("running", f"{number:010}"))
    assert not await reports.flush()
    reports.take(ACCOUNT, word("succeeded", f"{0:010}"))
    assert await reports.flush()
    assert 0 < len(kept.words) < 30
    assert kept.words[0].state == "succeeded"


async def test_words_that_grow_keep_the_bound_and_one_account_fills_no_other_s_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small words first, each replaced by one with an output; another tenant is heard all the while."""
    monkeypatch.setattr(lines, "LINE_BYTES", 100_000)
    kept: Any = Kept()
    reports = Reports(kept)
    for state, output in (("running", b""), ("succeeded", bytes(50_000))):
        for number in range(100):
            reports.take(ACCOUNT, Word(f"{number:010}", "task/restart", "r" * 10, state, 1, output=output))
    reports.take("beta.example", word("succeeded"))
    assert sum(len(each.output) for each in reports._waiting[ACCOUNT].values()) <= 100_000
    assert len(reports._waiting["beta.example"]) == 1


async def test_words_that_are_being_written_when_the_primary_stops_are_written_at_the_end() -> None:
    """What has not begun by then is dropped by the database; and what stands behind it was asked of nobody yet."""
    kept: Any = Kept()
    reports, stopped = Reports(kept), asyncio.Event()

    async def held_up(*_: Any) -> None:
        stopped.set()
        await asyncio.Event().wait()

    reports.take(ACCOUNT, word("running"))
    reports.take("other.example", word("failed"))
    write, kept.write = kept.write, held_up
    running = asyncio.create_task(reports.run())
    await stopped.wait()
    reports.take(ACCOUNT, word("succeeded"))
    running.cancel()
    await asyncio.wait([running])
    kept.write = write
    assert await reports.flush()
    assert sorted(each.state for each in kept.words) == ["failed", "succeeded"]
