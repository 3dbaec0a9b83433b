"""How often one address may be refused before it must wait: guessing is slow, and memory for it bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from enlist.reasons import Reason, Refused
from enlist_primary.model.sources import block

WINDOW = 60.0
"""Seconds over which refused attempts are counted."""
ADDRESSES = 10_000
"""Addresses remembered; the one that has been quiet longest is forgotten first."""

COUNTED = frozenset(
    {
        Reason.ACCOUNT_UNKNOWN,
        Reason.API_KEY_INVALID,
        Reason.API_KEY_REQUIRED,
        Reason.API_KEY_NETWORK,
        Reason.PROOF_INVALID,
        Reason.KEY_UNSUITABLE,
        Reason.TOO_MANY_PENDING,
        Reason.NOT_LOGGED_ON,
    }
)
"""Refusals that somebody who guesses collects."""


class Attempts:
    """Counts refused attempts by address; `clock` is monotonic seconds."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, source: str) -> None:
        """Refuses an address that was refused too often within the last minute."""
        begun, count = self._counts.get(block(source), (0.0, 0))
        left = begun + WINDOW - self._clock()
        if count >= self._limit and left > 0:
            raise Refused(
                Reason.TOO_MANY_ATTEMPTS, f"Too many attempts from this address were refused. Wait {left + 1:.0f} s and try again."
            )

    def count(self, source: str, refused: Refused) -> None:
        """Remembers a refusal, if it is of a kind that counts."""
        if refused.reason not in COUNTED:
            return
        where, now = block(source), self._clock()
        begun, count = self._counts.pop(where, (now, 0))
        self._counts[where] = (begun, count + 1) if now < begun + WINDOW else (now, 1)
        if len(self._counts) > ADDRESSES:
            self._counts.popitem(last=False)
