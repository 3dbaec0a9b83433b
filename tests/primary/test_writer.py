"""`AccountWriter`: whatever fails, the store ends with the last accepted value of each key, and nothing is lost unsaid."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist_primary.ingest.writer import BATCH, AccountWriter
from tests.support.waiting import eventually

ACME, BETA = "acme.example", "beta.example"
BOUND = 6
NOW = 1_800_000_000
Fault = Literal["full", "failed", "cancelled before", "cancelled after", ""]
Entry = tuple[str, int]
"""A key and its value."""


class FaultyStore:
    """Takes the place of a database. Each write meets the next fault; a batch with an entry that is `refused` never succeeds."""

    def __init__(self, refused: Callable[[int], Exception | None] = lambda _: None) -> None:
        self.refused = refused
        self.fault: Fault = ""
        self.held = asyncio.Event()
        self.batches: list[int] = []
        self.history: dict[tuple[str, str], list[int]] = defaultdict(list)

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        if self.fault == "full":
            raise Refused(Reason.STORAGE_FULL, "Full.")
        if self.fault == "failed":
            raise Refused(Reason.STORAGE_CORRUPT, "Damaged.")
        if self.fault == "cancelled before":
            await self._hold()
        result = operation(self, *arguments)
        if self.fault == "cancelled after":
            await self._hold()
        return result

    async def _hold(self) -> None:
        self.held.set()
        await asyncio.Event().wait()

    def commit(self, _: Any, account: str, batch: Sequence[Entry], now: int) -> int:
        """The operation."""
        assert now == NOW
        self.batches.append(len(batch))
        for _, value in batch:
            if (error := self.refused(value)) is not None:
                raise error
        for key, value in batch:
            known = self.history[account, key]
            assert not known or value >= known[-1], "an older value follows a newer one"
            if value not in known[-1:]:
                known.append(value)
        return len(batch)


def writer(store: Any, bound: int = BOUND, **fields: Any) -> AccountWriter[str, Entry]:
    return AccountWriter[str, Entry]("numbers", store, store.commit, clock=lambda: NOW + 0.5, bound=bound, **fields)


def poison(value: int) -> Exception | None:
    """Some values are refused for good, in both ways in which that may be said."""
    refusals = {0: Refused(Reason.INVALID_ARGUMENT, "No."), 1: ValueError("no")}
    return refusals.get(value % 9)


PUT = st.tuples(st.sampled_from((ACME, BETA)), st.sampled_from("abcd"))
FLUSH = st.sampled_from(("", "full", "failed", "cancelled before", "cancelled after"))


@given(st.lists(st.one_of(PUT, FLUSH), max_size=40))
def test_store_ends_with_the_last_accepted_value(steps: list[Any]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[Any]) -> None:
    store = FaultyStore(poison)
    own = writer(store)
    accepted: dict[tuple[str, str], list[int]] = defaultdict(list)
    told: list[int] = []
    for number, step in enumerate(steps, start=2):
        if isinstance(step, str):
            await _flush(own, store, step)  # type: ignore[arg-type]  # one of the faults
        elif own.put(step[0], step[1], (step[1], number), lambda number=number: told.append(number)):  # type: ignore[misc]
            accepted[step].append(number)
    await _flush(own, store, "")
    for key, numbers in accepted.items():
        written = store.history[key]
        assert len(set(written)) == len(written), "a value was written twice"
        assert set(written) <= set(numbers)
        if poison(numbers[-1]) is None:
            assert written[-1] == numbers[-1]
    assert sorted(told) == sorted(number for numbers in accepted.values() for number in numbers), "each is told once"


async def _flush(own: AccountWriter[str, Entry], store: FaultyStore, fault: Fault) -> None:
    store.fault = fault
    store.held.clear()
    flushing = asyncio.create_task(own.flush())
    if fault.startswith("cancelled"):
        held = asyncio.create_task(store.held.wait())
        await asyncio.wait([flushing, held], return_when=asyncio.FIRST_COMPLETED)
        held.cancel()
        flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    store.fault = ""


async def test_entry_refused_alone_is_dropped_and_all_others_are_written(caplog: pytest.LogCaptureFixture) -> None:
    store = FaultyStore(lambda value: ValueError("no") if value == 77 else None)
    own = writer(store, bound=1000)
    for value in range(100):
        own.put(ACME, str(value), (str(value), value))
    assert await own.flush()
    assert {values[-1] for values in store.history.values()} == set(range(100)) - {77}
    assert len(store.batches) < 20, "it is found by halves"
    assert caplog.text.count("numbers dropped (refused)") == 1


async def test_damaged_storage_drops_nothing() -> None:
    """Nobody may be told that something is written because the disk is gone."""
    store = FaultyStore()
    own, told = writer(store), list[str]()
    own.put(ACME, "a", ("a", 1), lambda: told.append("a"))
    store.fault = "failed"
    assert not await own.flush()
    assert told == []
    store.fault = ""
    assert await own.flush()
    assert told == ["a"]


async def test_full_queue_is_said_once_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    store = FaultyStore()
    own = writer(store)
    taken = [own.put(ACME, str(value), (str(value), value)) for value in range(1000)]
    assert taken.count(True) == BOUND
    assert own.put(BETA, "a", ("a", 1)), "one account fills no other one's queue"
    await own.flush()
    (record,) = [each for each in caplog.records if "queue full" in each.getMessage()]
    assert vars(record)["fields"] == {"account": ACME, "count": 1000 - BOUND}


async def test_batches_are_of_one_account_and_bounded() -> None:
    store = FaultyStore()
    own = writer(store, bound=10_000)
    for value in range(2 * BATCH + 1):
        own.put(ACME, str(value), (str(value), value))
    own.put(BETA, "a", ("a", 1))
    await own.flush()
    assert sorted(store.batches) == [1, 1, BATCH, BATCH]


async def test_refused_write_is_tried_again_by_itself() -> None:
    store = FaultyStore()
    store.fault = "full"
    own = writer(store)
    running = asyncio.create_task(own.run())
    own.put(ACME, "a", ("a", 1))
    await asyncio.sleep(0)
    store.fault = ""
    await eventually(lambda: store.history[ACME, "a"] == [1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_flush_waits_for_what_is_being_written() -> None:
    store = FaultyStore()
    own, go = writer(store), asyncio.Event()
    write = store.write

    async def slow(*arguments: Any) -> Any:
        store.held.set()
        await go.wait()
        return await write(*arguments)

    store.write = slow  # type: ignore[method-assign,assignment]  # it takes its time
    running = asyncio.create_task(own.run())
    own.put(ACME, "a", ("a", 1))
    await store.held.wait()
    flushing = asyncio.create_task(own.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    go.set()
    assert await flushing
    assert store.history[ACME, "a"] == [1]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_flush_ends_at_its_deadline_and_keeps_what_it_could_not_write() -> None:
    store = FaultyStore()
    own = writer(store)
    own.put(ACME, "a", ("a", 1))
    store.fault = "cancelled before"
    assert not await own.flush(deadline=0.01)
    store.fault = ""
    assert await own.flush()
    assert store.history[ACME, "a"] == [1]


async def test_commit_is_told_with_its_account_and_result() -> None:
    store, told = FaultyStore(), list[tuple[str, int]]()
    own = writer(store, on_commit=lambda account, count: told.append((account, count)))
    own.put(ACME, "a", ("a", 1))
    own.put(ACME, "b", ("b", 2))
    await own.flush()
    assert told == [(ACME, 2)]
