"""Waiting for what others do: an administrator who authorizes, a daemon that connects."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.controller import Backoff, Pauses
from enlist.transport.dialer import Dialer
from enlist_secondary import config as configs
from enlist_secondary import dialling, enrol, identity, report, state
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig

LOOK = 0.2
"""Seconds between two looks at what the daemon writes down."""
ATTEMPTS = Backoff(first=0.5, longest=5.0)
"""Pauses between attempts to open a link, where no daemon does."""
SHARE = 1.0
"""Seconds between two looks whether a daemon has been started."""

END_TIMEOUT = 10.0
"""Seconds within which a daemon ends that has no more to do."""

Heed = Callable[[Refused], None]


class InVain(Refused):
    """A wait that took too long. Its sentence knows why, so that no advice about slow answers follows it."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.TIMED_OUT, message)


def once(tell: Heed) -> Heed:
    """Tells what interrupts a wait, each reason once: the attempts go on by themselves. What ends the wait is not among it."""
    told: set[Reason] = set(enrol.FINAL)

    def heed(refused: Refused) -> None:
        if refused.reason not in told:
            told.add(refused.reason)
            tell(refused)

    return heed


async def authorized(config: SecondaryConfig, dialer: Dialer, now: Clock, heed: Heed) -> None:
    """Waits, however long, until this server is trusted; `heed` hears of what interrupts the wait.

    Refuses with one of `enrol.FINAL` if the decision is a no. While enlist-secondary runs, asking is its affair: two processes must
    not write one enrolment's folder.
    """
    while not (await _told(config) if files.locked(config.lock) else await _asked(config, dialer, now, heed)):
        pass


async def _asked(config: SecondaryConfig, dialer: Dialer, now: Clock, heed: Heed) -> bool:
    """Asks and waits; False once a daemon does."""
    mine = identity.load(config.folder)
    if mine is None:
        raise Refused(Reason.SERVER_UNKNOWN, "This server has not asked to join.")

    async def tell(refused: Refused) -> None:
        heed(refused)

    asking = asyncio.create_task(enrol.until_final(lambda: enrol.resume(dialer, config, mine, now), tell, Pauses()))
    try:
        while not asking.done() and not files.locked(config.lock):
            await asyncio.wait({asking}, timeout=SHARE)
        if asking.done():
            asking.result()
        return asking.done()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _told(config: SecondaryConfig) -> bool:
    """Reads what the daemon is told; False once it has ended."""
    while files.locked(config.lock):
        if (stands := state.load(config.folder)).state == "trusted":
            return True
        _check_not_over(stands.state)
        await asyncio.sleep(SHARE)
    return False


async def connected(path: Path, dialer: Dialer, now: Clock) -> None:
    """Waits, however long, until the link is open; refuses once the primary has said a final no.

    It is enlist-secondary's link. Where that does not run yet, one is opened to see that it can be, and closed again.
    """
    pauses, next_attempt = Pauses(ATTEMPTS), 0.0
    while not (status := report.status(path)).connected:
        _check_not_over(status.state)
        if not status.running and time.monotonic() >= next_attempt:
            if await _tried(path, dialer, now):
                return
            next_attempt = time.monotonic() + pauses.next()
        await asyncio.sleep(LOOK)


async def _tried(path: Path, dialer: Dialer, now: Clock) -> bool:
    """Whether a link could be opened; False if this attempt failed. Nothing is written of it that a daemon says of its own link."""
    config = configs.load(path)
    mine = identity.load(config.folder)
    if mine is None or mine.certificate is None:
        return False
    with contextlib.suppress(Refused):
        await (await dialling.connect(dialer, config, mine, now)).close()
        return True
    return False


async def ended(config: SecondaryConfig) -> None:
    """Gives a daemon whose enrolment is over, or whose service was stopped, a moment to end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT):
            while files.locked(config.lock):  # noqa: ASYNC110 - another process's lock: nothing here hears of its end
                await asyncio.sleep(LOOK)


def _check_not_over(name: str) -> None:
    reason = f"SERVER_{name.upper()}"
    if reason in enrol.FINAL:
        raise Refused(Reason(reason), f"This server is {name}. Run enlist-setup to ask again.")
