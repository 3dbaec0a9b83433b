"""What is observed of the servers of accounts, on its way into the database: batches of one account, written behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from enlist.reasons import TABLE, Reason, Refused
from enlist.runtime.controller import Again, Backoff, Controller, each
from enlist.runtime.logs import Log
from enlist.runtime.write_behind import Taken, WriteBehind, Written, newest, one
from enlist_primary.store.database import Database, Transaction

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ACCOUNT_BYTES = 64 * 1024 * 1024
"""What waits to be written of one account takes at most about this much."""
BATCH = 500
"""Entries in one write, at most: a longer one would hold up decisions."""
AT_ONCE = 16
"""Accounts that are written side by side: they share commits."""
PACE = 0.025
"""Seconds from one write of an account to the next: what comes in between is written together."""
WRITE_SECONDS = 60.0
"""Seconds after which writing what waits of an account counts as failed, and is tried again."""
FLUSH_SECONDS = 10.0
_STORAGE = {Reason.STORAGE_FAILED, Reason.STORAGE_CORRUPT, Reason.JOURNAL_BROKEN}
"""Lasting refusals that are about no entry: nothing that waits may be dropped for them."""

log = Log("ingest")


@dataclass(eq=False)
class _Queue(Generic[K, V]):
    """What waits of one account. The lock is held while it is written, so that a flush also waits for what is on its way."""

    waiting: WriteBehind[K, V]
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    dropped: int = 0


class AccountWriter(Generic[K, V]):
    """One `WriteBehind` per account, and one controller that writes them. An acknowledged entry is committed.

    What the storage cannot take now is tried again. A batch that is refused for good is split, until the entry that is to blame is
    alone; that one is dropped, with a line in the log.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        operation: Callable[[Transaction, str, Sequence[V], int], Any],
        *,
        clock: Callable[[], float] = time.time,
        bound: int,
        merge: Callable[[V, V], V] = newest,
        weight: Callable[[V], int] = one,
        pace: float = PACE,
        on_commit: Callable[[str, Any], None] | None = None,
    ) -> None:
        """`name` is the noun for log lines. `bound`, `merge` and `weight` are those of each account's `WriteBehind`.

        `operation` gets a batch of values of one account, and what time it is, whole seconds of `clock`, which is Unix seconds.
        `on_commit` gets that account and what the operation returned.
        """
        self._name = name
        self._database = database
        self._operation = operation
        self._clock = clock
        self._bound = bound
        self._merge = merge
        self._weight = weight
        self._on_commit = on_commit
        self._queues: dict[str, _Queue[K, V]] = {}
        self._controller = Controller[str](
            name,
            each(self._reconcile),
            at_once=AT_ONCE,
            pace=pace,
            backoff=Backoff(first=1.0),
            deadline=WRITE_SECONDS,
            on_failure=self._log_failure,
        )

    def put(self, account: str, key: K, value: V, written: Written | None = None) -> bool:
        """Takes a value to be written; False if the account's queue is full: then its sender must not be told that it was taken.

        `written` is called once this value, or a later one of the same key, is committed or dropped.
        """
        queue = self._queues.get(account)
        if queue is None:
            queue = self._queues[account] = _Queue(WriteBehind(self._bound, self._merge, self._weight))
        taken = queue.waiting.put(key, value, written)
        queue.dropped += not taken
        self._controller.mark(account)
        return taken

    async def run(self) -> None:
        """Writes what waits, until cancelled: a lone value at once, of many in a row all but the first together."""
        await self._controller.run()

    async def flush(self, deadline: float = FLUSH_SECONDS) -> bool:
        """Writes all that waits now, within `deadline` seconds; whether all of it could be written."""
        accounts = list(self._queues)
        try:
            async with asyncio.timeout(deadline):
                done = [await self._flush(accounts[begin : begin + AT_ONCE]) for begin in range(0, len(accounts), AT_ONCE)]
        except TimeoutError:
            log.warning(f"{self._name} not written", reason=Reason.TIMED_OUT)
            return False
        return all(done)

    async def _flush(self, accounts: Sequence[str]) -> bool:
        errors = await asyncio.gather(*map(self._reconcile, accounts), return_exceptions=True)
        failed = [(account, error) for account, error in zip(accounts, errors, strict=True) if isinstance(error, Exception)]
        for account, error in failed:
            self._log_failure(account, error)
        return not failed

    async def _reconcile(self, account: str) -> Again:
        queue = self._queues.get(account)
        if queue is None:
            return None
        async with queue.writing:
            try:
                full = True
                while full and (taken := queue.waiting.take(BATCH)):
                    await self._write(account, queue.waiting, taken)
                    full = len(taken) == BATCH
            finally:
                self._settle(account, queue)
        return None

    def _settle(self, account: str, queue: _Queue[K, V]) -> None:
        """Says how much there was no room for, and lets go of an empty queue."""
        if queue.dropped:
            log.warning(f"{self._name} dropped (queue full)", account=account, count=queue.dropped)
            queue.dropped = 0
        if len(queue.waiting) == 0 and self._queues.get(account) is queue:
            del self._queues[account]

    async def _write(self, account: str, waiting: WriteBehind[K, V], taken: list[Taken[K, V]]) -> None:
        """Writes a batch, split where a part of it is refused for good. What was not written when this fails waits on."""
        left = [taken]
        try:
            while left:
                batch = left[-1]
                error = await self._attempt(account, batch)
                if error is not None and len(batch) > 1:
                    half = len(batch) // 2
                    left[-1:] = [batch[half:], batch[:half]]
                    continue
                left.pop()
                waiting.ack(batch)
                if error is not None:
                    self._log_dropped(account, batch[0].key, error)
        finally:
            for batch in left:
                waiting.nack(batch)

    async def _attempt(self, account: str, batch: Sequence[Taken[K, V]]) -> Exception | None:
        """Commits a batch; the error, if it is refused for good. Raises what may be tried again."""
        values = [taken.value for taken in batch]
        try:
            result = await self._database.write(account, self._operation, account, values, int(self._clock()))
        except Refused as refused:
            if TABLE[refused.reason].retry or refused.reason in _STORAGE:
                raise
            return refused
        except Exception as error:  # whatever an operation raises, its savepoint is undone and the others of a commit go on
            return error
        if self._on_commit is not None:
            self._on_commit(account, result)
        return None

    def _log_failure(self, account: str, error: Exception) -> None:
        if isinstance(error, Refused | TimeoutError):
            reason = error.reason if isinstance(error, Refused) else Reason.TIMED_OUT
            log.warning(f"{self._name} not written", account=account, reason=reason)
        else:
            log.fault(f"{self._name} not written", error, account=account)

    def _log_dropped(self, account: str, key: K, error: Exception) -> None:
        if isinstance(error, Refused):
            log.warning(f"{self._name} dropped (refused)", account=account, key=key, reason=error.reason, problem=error.message)
        else:
            log.fault(f"{self._name} dropped (refused)", error, account=account, key=key)
