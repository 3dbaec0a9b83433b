"""How often one address may be refused before it must wait: guessing is slow, and memory for it bounded."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from enlist.reasons import Reason, Refused

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
        begun, count = self._counts.get(_block(source), (0.0, 0))
        left = begun + WINDOW - self._clock()
        if count >= self._limit and left > 0:
            raise Refused(
                Reason.TOO_MANY_ATTEMPTS, f"Too many attempts from this address were refused. Wait {left + 1:.0f} s and try again."
            )

    def count(self, source: str, refused: Refused) -> None:
        """Remembers a refusal, if it is of a kind that counts."""
        if refused.reason not in COUNTED:
            return
        block, now = _block(source), self._clock()
        begun, count = self._counts.pop(block, (now, 0))
        self._counts[block] = (begun, count + 1) if now < begun + WINDOW else (now, 1)
        if len(self._counts) > ADDRESSES:
            self._counts.popitem(last=False)


def _block(source: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: its owner has all of that."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
