"""Status reports on their way into the database: `ingest.reports`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.model.reports import Word

ACCOUNT = "acme.example"


class Kept:
    """Takes the place of a database, and keeps the reports that would be written."""

    def __init__(self, refusals: int = 0) -> None:
        self.words: list[Word] = []
        self.refusals = refusals

    async def write(self, account: str, operation: object, *arguments: Any) -> None:
        """One batch."""
        if self.refusals:
            self.refusals -= 1
            raise Refused(Reason.STORAGE_FULL, "Full.")
        self.words += arguments[1]


def word(state: str, name: str = "aaaaaaaaaa", kind: str = "task/restart") -> Word:
    return Word("bbbbbbbbbb", kind, name, state, 1_800_000_000)


async def written(*words: Word) -> list[str]:
    """The states that are written of these reports, which came one right behind the other."""
    kept: Any = Kept()
    reports = StatusReports(kept)
    for each in words:
        assert reports.put(ACCOUNT, each)
    await reports.flush()
    return [each.state for each in kept.words]


async def test_newest_report_on_a_thing_is_written() -> None:
    assert await written(word("sent"), word("running"), word("succeeded")) == ["succeeded"]
    assert await written(word("running"), word("succeeded", "cccccccccc")) == ["running", "succeeded"]
    assert await written(word("running"), word("failed"), word("succeeded"), word("running")) == ["failed"], "a run ends once"
    assert await written(word("failed", "", "policy/chrony"), word("applied", "", "policy/chrony")) == ["applied"]


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "interrupted"])
async def test_waiting_report_outlives_that_the_run_was_sent_again(state: str) -> None:
    """Every set names the runs that are open: one that goes out for another reason says "sent" of each again."""
    assert await written(word(state), word("sent")) == [state]


async def test_refused_reports_wait_on_and_newer_ones_replace_them() -> None:
    """Else a full disk would lose for days what servers say once."""
    kept: Any = Kept(refusals=1)
    reports = StatusReports(kept)
    reports.put(ACCOUNT, word("running"))
    reports.put(ACCOUNT, word("succeeded", "cccccccccc"))
    assert not await reports.flush()
    reports.put(ACCOUNT, word("failed"))
    reports.put(ACCOUNT, word("sent", "cccccccccc"))
    assert await reports.flush()
    assert {each.name: each.state for each in kept.words} == {"aaaaaaaaaa": "failed", "cccccccccc": "succeeded"}


async def test_report_is_acknowledged_once_it_is_committed() -> None:
    kept: Any = Kept(refusals=1)
    reports, told = StatusReports(kept), list[str]()
    assert reports.put(ACCOUNT, word("succeeded"), lambda: told.append("succeeded"))
    assert reports.put(ACCOUNT, word("sent"), lambda: told.append("sent"))
    assert not await reports.flush()
    assert told == []
    assert await reports.flush()
    assert told == ["succeeded", "sent"]


async def test_queue_is_bounded_while_the_storage_refuses() -> None:
    """A hostile server says new things on and on; what was known before is still brought up to date."""
    kept: Any = Kept(refusals=1)
    reports = StatusReports(kept, bound=10_000)
    taken = [reports.put(ACCOUNT, word("running", f"{number:010}")) for number in range(1000)]
    assert taken == sorted(taken, reverse=True), "those that came too late are not acknowledged"
    assert not await reports.flush()
    assert reports.put(ACCOUNT, word("succeeded", f"{0:010}"))
    assert await reports.flush()
    assert taken.count(True) == len(kept.words) < 30
    assert kept.words[0].state == "succeeded"


async def test_reports_that_grow_keep_the_bound_of_their_account() -> None:
    """Small reports first, each replaced by one with an output; another tenant is heard all the while."""
    kept: Any = Kept()
    reports = StatusReports(kept, bound=100_000)
    for state, output in (("running", b""), ("succeeded", bytes(50_000))):
        for number in range(100):
            reports.put(ACCOUNT, Word(f"{number:010}", "task/restart", "r" * 10, state, 1, output=output))
    assert reports.put("beta.example", word("succeeded"))
    await reports.flush()
    assert sum(len(each.output) for each in kept.words) <= 100_000
    assert len(kept.words) == 101


async def test_reports_being_written_at_the_stop_are_written_at_the_end() -> None:
    """What has not begun by then is dropped by the database; and what stands behind it was asked of nobody yet."""
    kept: Any = Kept()
    reports, stopped = StatusReports(kept), asyncio.Event()

    async def held_up(*_: Any) -> None:
        stopped.set()
        await asyncio.Event().wait()

    reports.put(ACCOUNT, word("running"))
    reports.put("other.example", word("failed"))
    write, kept.write = kept.write, held_up
    running = asyncio.create_task(reports.run())
    await stopped.wait()
    reports.put(ACCOUNT, word("succeeded"))
    running.cancel()
    await asyncio.wait([running])
    kept.write = write
    assert await reports.flush()
    assert sorted(each.state for each in kept.words) == ["failed", "succeeded"]
