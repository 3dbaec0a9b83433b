"""Staying linked: the certificate is renewed at half its life, and a link over the new one takes the place of the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from enlist import certificates
from enlist.reasons import Refused
from enlist.runtime.controller import Again, Backoff, Controller, each
from enlist.runtime.logs import Log
from enlist_secondary.checks import Clock
from enlist_secondary.connection.link import Link
from enlist_secondary.identity import Identity

LONGEST_SLEEP = 3600.0
"""Seconds between two looks at the clock, which may have been set meanwhile."""
RETRY_RENEWAL = 10.0
"""Seconds, at the least, between two attempts to renew."""
DEADLINE = 300.0
"""Seconds after which a renewal, with the link that follows it, counts as failed."""

_CERTIFICATE = "certificate"
_LOG = Log("enlist.secondary")


def renewal_due(begins: int, ends: int, chance: float) -> float:
    """When to renew a certificate that is good from `begins` to `ends`, all of it Unix seconds; `chance` is 0 to 1.

    That is at half its life, up to a twentieth of it earlier or later.
    """
    issued = begins + certificates.CLOCK_TOLERANCE
    return issued + (ends - issued) * (0.45 + 0.1 * chance)


class Staying:
    """An open link, and those over renewed certificates that follow it. Until a successor is open, the link before stays."""

    def __init__(
        self,
        link: Link,
        identity: Identity,
        renew: Callable[[Link, Identity], Awaitable[Identity]],
        connect: Callable[[Identity], Awaitable[Link]],
        on_refused: Callable[[Refused], Awaitable[None]],
        now: Clock,
        chance: Callable[[], float],
        backoff: Backoff,
    ) -> None:
        """`renew` gives the identity with a new certificate, `connect` the link over it; `on_refused` hears why one failed."""
        self._links = [link]
        """Those that are not closed; the last one is the one that counts."""
        self._identity = identity
        self._renew = renew
        self._connect = connect
        self._on_refused = on_refused
        self._now = now
        self._chance = chance
        self._due: float | None = self._half_life()
        """When to renew, Unix seconds; None while the link over the renewed certificate is to be opened."""
        self._following = asyncio.Lock()
        """Held while a successor is opened."""
        self._controller = Controller[str](
            "renewal", each(self._reconcile), backoff=backoff, deadline=DEADLINE, on_failure=_log_failure, chance=chance
        )

    async def until_ended(self) -> Refused:
        """Why the link ended. All links are closed then."""
        self._controller.mark(_CERTIFICATE)
        renewing = asyncio.create_task(self._controller.run())
        try:
            return await self._ended()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            for link in self._links:
                await link.close()

    async def _ended(self) -> Refused:
        while True:
            link = self._links[-1]
            ended = await link.ended()
            async with self._following:  # a primary ends the link before as soon as its successor is open
                if ended is None:
                    continue
                if link is self._links[-1]:
                    return ended
            _LOG.info("link ended", reason=ended.reason, problem=ended.message)

    def _half_life(self) -> float:
        certificate = self._identity.certificate
        assert certificate is not None, "a link needs a certificate"
        return renewal_due(certificates.begins_at(certificate), certificates.ends_at(certificate), self._chance())

    async def _reconcile(self, _: str) -> Again:
        if self._due is not None and self._now() < self._due:
            return min(max(self._due - self._now(), 1.0), LONGEST_SLEEP)
        if self._due is not None and not await self._renewed():
            return min(max(self._due - self._now(), 0.0), LONGEST_SLEEP)
        await self._follow()
        return 0.0

    async def _renewed(self) -> bool:
        try:
            self._identity = await self._renew(self._links[-1], self._identity)
        except Refused as refused:
            await self._on_refused(refused)
            assert self._identity.certificate is not None, "a link needs a certificate"
            left = certificates.ends_at(self._identity.certificate) - self._now()
            self._due = self._now() + max(left / 10, RETRY_RENEWAL)
            return False
        self._due = None
        return True

    async def _follow(self) -> None:
        """Opens the link over the renewed certificate, and closes the one before."""
        before = self._links[-1]
        async with self._following:
            try:
                self._links.append(await self._connect(self._identity))
            except Refused as refused:
                await self._on_refused(refused)
                raise
        self._due = self._half_life()
        await before.close()
        self._links.remove(before)


def _log_failure(_: str, error: Exception) -> None:
    if isinstance(error, TimeoutError):
        _LOG.warning("renewal failed", reason="TIMED_OUT")
    elif not isinstance(error, Refused):  # refusals were told
        _LOG.fault("unforeseen", error)
