"""The one loop behind everything that is reconciled: keys, when each is due, and what to do when one fails.

A module that has something to do now and then, or again after a failure, has no loop of its own: it names its keys, marks those
about which something changed, and says in `reconcile` what is to be done about one and when to look at it again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

Again = float | None
"""In how many seconds a key is due again; None: only once it is marked."""

Outcome = Again | Exception
Reconcile = Callable[[K], Awaitable[Again]]
ReconcileBatch = Callable[[Sequence[K]], Awaitable[Mapping[K, Outcome]]]

log = Log("controller")


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts, in seconds: they double from `first` to `longest`, each drawn from the upper half of its range.

    The jitter keeps many servers that lost one primary from returning together.
    """

    first: float = 0.5
    longest: float = 60.0

    def pause(self, failures: int, chance: float) -> float:
        """The pause after so many failures in a row, from 1; `chance` is from 0 up to 1."""
        ceiling = min(self.longest, self.first * 2.0 ** min(failures - 1, 62))
        return ceiling * (1 + chance) / 2


class Pauses:
    """The pauses of one series of attempts, in their order."""

    def __init__(self, backoff: Backoff | None = None, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers from 0 up to 1."""
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """After a success that lasted: the next pause is short again."""
        self._failures = 0

    def next(self) -> float:
        """The next pause in seconds."""
        self._failures += 1
        return self._backoff.pause(self._failures, self._chance())


class DueQueue(Generic[K]):
    """When each key is due, in one heap. Pure: it is told what time it is."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._dues: dict[K, float] = {}
        self._order = itertools.count()

    def mark(self, key: K, due: float) -> bool:
        """The key is due then, or earlier if it was marked for earlier; whether it is the first of all now."""
        if due >= self._dues.get(key, float("inf")):
            return False
        self._dues[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        if len(self._heap) > 2 * len(self._dues) + 64:  # most of it are dues that were replaced by earlier ones
            self._heap = [entry for entry in self._heap if self._dues.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        return self.first_due == due

    def discard(self, key: K) -> None:
        """The key is not due any more."""
        self._dues.pop(key, None)

    @property
    def first_due(self) -> float | None:
        """When the next key is due."""
        while self._heap and self._dues.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float, limit: int) -> list[K]:
        """At most `limit` keys that are due, the longest overdue first."""
        due: list[K] = []
        while len(due) < limit and (first := self.first_due) is not None and first <= now:
            key = heapq.heappop(self._heap)[2]
            del self._dues[key]
            due.append(key)
        return due

    def due(self, now: float) -> list[K]:
        """The keys that are due; they stay so."""
        return [key for key, due in self._dues.items() if due <= now]

    def __len__(self) -> int:
        return len(self._dues)


class Controller(Generic[K]):
    """Reconciles keys until cancelled. A key is reconciled by one task at a time; an error at one is no other's affair.

    What is marked while it is being reconciled is reconciled once more afterwards. Without a due key it has no timer.
    """

    def __init__(
        self,
        name: str,
        reconcile: ReconcileBatch[K],
        *,
        batch: int = 1,
        at_once: int = 1,
        pace: float = 0.0,
        rest_after: Callable[[float], float] = lambda _: 0.0,
        backoff: Backoff | None = None,
        deadline: float | None = None,
        on_failure: Callable[[K, Exception], None] | None = None,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`reconcile` gets at most `batch` keys at a time and runs at most `at_once` times side by side.

        `pace` is the least number of seconds from one begin to the next of the same key; `rest_after` says for how many seconds a
        key rests after a call that took so many. A call that takes longer than `deadline` seconds has failed; None is only for what
        lives as long as a link. `on_failure` hears of each failure; without it a refusal is one line in the log, and anything else
        a fault. `clock` counts the seconds that go by; None is the loop's own.
        """
        self._name = name
        self._reconcile = reconcile
        self._batch = batch
        self._at_once = at_once
        self._pace = pace
        self._rest_after = rest_after
        self._backoff = backoff or Backoff()
        self._deadline = deadline
        self._on_failure = on_failure or self._log_failure
        self._chance = chance
        self._clock = clock or _loop_time
        self._queue: DueQueue[K] = DueQueue()
        self._running: dict[K, float | None] = {}
        """Keys being reconciled, each with the time for which it was marked meanwhile."""
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}
        """Until when keys rest that were reconciled a moment ago."""
        self._sweep_at = 64
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def mark(self, key: K, after: float = 0.0) -> None:
        """Something about this key changed: it is reconciled, `after` so many seconds at the earliest."""
        due = self._clock() + after
        if key in self._running:
            marked = self._running[key]
            self._running[key] = due if marked is None else min(marked, due)
        elif self._queue.mark(key, max(due, self._not_before.get(key, due))):
            self._wake.set()

    def forget(self, key: K) -> None:
        """There is no such key any more; what is being done about it is done to its end."""
        self._queue.discard(key)
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        if key in self._running:
            self._running[key] = None

    @property
    def busy(self) -> frozenset[K]:
        """The keys that are being reconciled, or are due."""
        return frozenset([*self._running, *self._queue.due(self._clock())])

    @property
    def first_due(self) -> float | None:
        """When the next key is due that is not being reconciled, by the clock; None for never."""
        return self._queue.first_due

    async def run(self) -> None:
        """Until cancelled; what runs then is cancelled and awaited."""
        try:
            while True:
                self._wake.clear()
                self._begin_due()
                await self._rest()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin_due(self) -> None:
        now = self._clock()
        while len(self._tasks) < self._at_once and (keys := self._queue.pop(now, self._batch)):
            self._running.update(dict.fromkeys(keys))
            for key in keys:
                self._not_before.pop(key, None)
            task = asyncio.create_task(self._run_batch(keys, now))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _rest(self) -> None:
        """Until a key is due and there is room for it."""
        first = self._queue.first_due if len(self._tasks) < self._at_once else None
        if first is None:
            await self._wake.wait()
            return
        timer = asyncio.get_running_loop().call_later(first - self._clock(), self._wake.set)  # a timeout costs an exception more
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _run_batch(self, keys: Sequence[K], began: float) -> None:
        outcomes: Mapping[K, Outcome] = {}
        try:
            async with asyncio.timeout(self._deadline):
                outcomes = await self._reconcile(keys)
        except Exception as error:
            outcomes = dict.fromkeys(keys, error)
        finally:
            for key in keys:
                self._settle(key, outcomes.get(key), began)

    def _settle(self, key: K, outcome: Outcome, began: float) -> None:
        """When the key is due again, after this outcome and what was marked meanwhile."""
        marked = self._running.pop(key)
        now = self._clock()
        earliest = max(began + self._pace, now + self._rest_after(now - began))
        if isinstance(outcome, Exception):
            self._failures[key] = failures = self._failures.get(key, 0) + 1
            earliest = max(earliest, now + self._backoff.pause(failures, self._chance()))
            marked = earliest
            self._report(key, outcome)
        else:
            self._failures.pop(key, None)
            if outcome is not None:
                marked = now + outcome if marked is None else min(marked, now + outcome)
        if earliest > now:
            self._rest_until(key, earliest, now)
        if marked is not None:
            self._queue.mark(key, max(marked, earliest))

    def _rest_until(self, key: K, earliest: float, now: float) -> None:
        self._not_before[key] = earliest
        if len(self._not_before) > self._sweep_at:  # keys that have rested may never be marked again
            self._not_before = {each: until for each, until in self._not_before.items() if until > now}
            self._sweep_at = 2 * len(self._not_before) + 64

    def _report(self, key: K, error: Exception) -> None:
        try:
            self._on_failure(key, error)
        except Exception as fault:  # or the other keys of this call would never be reconciled again
            log.fault("a failure was not reported", fault, controller=self._name, key=key)

    def _log_failure(self, key: K, error: Exception) -> None:
        if isinstance(error, Refused):
            log.warning("reconciliation failed", controller=self._name, key=key, reason=error.reason, problem=error.message)
        elif isinstance(error, TimeoutError):
            log.warning("reconciliation failed", controller=self._name, key=key, reason="TIMED_OUT")
        else:
            log.fault("reconciliation failed", error, controller=self._name, key=key)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def each(reconcile: Reconcile[K]) -> ReconcileBatch[K]:
    """A batch of keys, one after the other: for what is no cheaper together."""

    async def one_by_one(keys: Sequence[K]) -> Mapping[K, Outcome]:
        return {key: await _outcome(reconcile, key) for key in keys}

    return one_by_one


async def _outcome(reconcile: Reconcile[K], key: K) -> Outcome:
    try:
        return await reconcile(key)
    except Exception as error:
        return error


async def retry(attempt: Callable[[], Awaitable[T]], on_failure: Callable[[Exception], Awaitable[None]], pauses: Pauses) -> T:
    """Attempts until one succeeds, and returns its result: for a step that what comes next waits for.

    `on_failure` hears of each failure; it raises where another attempt is of no use.
    """
    while True:
        try:
            return await attempt()
        except Exception as error:
            await on_failure(error)
        await asyncio.sleep(pauses.next())


async def insist(attempt: Callable[[], Awaitable[T]], within: float, pauses: Pauses) -> T:
    """Attempts again while it is refused as OVERLOADED, for so many seconds; anything else is raised."""
    end = _loop_time() + within

    async def on_failure(error: Exception) -> None:
        busy = isinstance(error, Refused) and error.reason is Reason.OVERLOADED
        if not busy or _loop_time() >= end:
            raise error

    return await retry(attempt, on_failure, pauses)


async def run_all(controllers: Iterable[Controller[Any]]) -> None:
    """Runs these until cancelled."""
    async with asyncio.TaskGroup() as group:
        for controller in controllers:
            group.create_task(controller.run())
