"""Keeps one enrolment: from wherever things stand to an open link, and there again whenever it ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import NoReturn

from cryptography import x509

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import memory
from enlist.runtime.logs import Log
from enlist.transport.dialer import Dialer
from enlist.v1.registration_pb2 import Enrolment
from enlist_secondary import api_key, dialling, state
from enlist_secondary.backoff import Backoff, persevere
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.enrol import FINAL, resume
from enlist_secondary.identity import Identity
from enlist_secondary.link import Link
from enlist_secondary.meeting import prepare
from enlist_secondary.work import Work

STOOD = 30.0
"""Seconds after which a link counts as one that stood: the next attempt comes soon again."""

LONGEST_SLEEP = 3600.0
"""Seconds between two looks at the clock, which may have been set meanwhile."""

CONTRADICTION = 1.0
"""Seconds: a primary that has refused the link, and within this time says "trusted" when asked, is not dialled again at once."""

RETRY_RENEWAL = 10.0
"""Seconds, at the least, between two attempts to renew."""

_ABOUT_US = frozenset({Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_INVALID, Reason.NOT_LOGGED_ON, Reason.NOT_ALLOWED})
_LOG = Log("enlist.secondary")


def _about_us(refused: Refused) -> bool:
    """Whether the primary, rather than the way to it, is why there is no link: then it is asked where this server stands."""
    return refused.reason in _ABOUT_US or refused.reason.startswith("SERVER_")


def _settle(_: Enrolment) -> None:
    """The primary has said where this server stands, and now there is nothing to do but wait."""
    memory.give_back()


def renewal_due(certificate: x509.Certificate, chance: float) -> float:
    """When to renew a certificate, Unix seconds: at half its life, up to a twentieth of it earlier or later. `chance` is 0 to 1."""
    issued = certificates.begins_at(certificate) + certificates.CLOCK_TOLERANCE
    return issued + (certificates.ends_at(certificate) - issued) * (0.45 + 0.1 * chance)


class Keeper:
    """One enrolment, kept up until it is cancelled or the primary has said a final no."""

    def __init__(
        self,
        config: SecondaryConfig,
        dialer: Dialer,
        now: Clock = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`now` gives Unix seconds, `chance` numbers from 0 up to 1."""
        self._config = config
        self._dialer = dialer
        self._now = now
        self._chance = chance
        self._backoff = Backoff(chance)
        self._work: Work | None = None
        self._working: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Asks, waits, links, renews, and comes back from every interruption. Ends only by a refusal of `enrol.FINAL`."""
        try:
            await persevere(self._attempt, self._heed, FINAL, self._backoff)
        except Refused:
            await self._say_farewell()
            raise
        finally:
            if self._working is not None:
                self._working.cancel()
                await asyncio.wait({self._working})

    async def authorized(self) -> None:
        """Asks and waits until this server holds a certificate, and opens no link. Raises as `keep` does."""
        await persevere(self._certified, self._heed, FINAL, self._backoff)

    def _heed(self, refused: Refused) -> None:
        _LOG.warning("attempt failed", primary=self._config.primary, reason=refused.reason, problem=refused.message)
        state.change(self._config.folder, lambda known: known.failed(refused, int(self._now())))

    async def _certified(self) -> None:
        mine = await prepare(self._dialer, self._config, self._now)
        if not mine.usable(int(self._now())):
            await resume(self._dialer, self._config, mine, self._now, _settle)

    async def _attempt(self) -> NoReturn:
        """From wherever things stand to a link, and on over whatever the primary decides; raises what else comes between."""
        mine = await prepare(self._dialer, self._config, self._now)
        self._begin_work(mine)
        if not mine.usable(int(self._now())):
            mine = await resume(self._dialer, self._config, mine, self._now, _settle)
        api_key.erase(self._config.folder)  # a crash may have come between certificate and erasure
        self._begin_work(mine)
        while True:
            try:
                await self._link(mine)
            except Refused as refused:
                if not _about_us(refused):
                    raise
                _LOG.warning("no link", primary=self._config.primary, reason=refused.reason, problem=refused.message)
            asked = time.monotonic()
            mine = await resume(self._dialer, self._config, mine, self._now, _settle)
            if time.monotonic() - asked < CONTRADICTION:
                await asyncio.sleep(self._backoff.next())

    async def _say_farewell(self) -> None:
        """The primary on this host, if there is one, stands under the one above no more."""
        if self._work is not None:
            await self._work.farewell(state.load(self._config.folder).bequest)

    def _begin_work(self, mine: Identity) -> None:
        """Documents are worked on as soon as it is known for whom they must be made out, and from then on without a link too."""
        if self._work is None and mine.server_id:
            work = Work(self._config, mine, self._now)
            work.load()
            self._work = work
            self._working = asyncio.create_task(work.keep_up())

    async def _link(self, mine: Identity) -> NoReturn:
        """Opens the link and stays; raises why it did not open, or why it ended."""
        assert self._work is not None, "a server that holds a certificate has begun its work"
        link = await dialling.connect(self._dialer, self._config, mine, self._now, self._work)
        memory.give_back()
        opened = time.monotonic()
        try:
            while True:
                mine = await self._until_renewed(link, mine)
                before, link = link, await dialling.connect(self._dialer, self._config, mine, self._now, self._work)
                await before.close()
        finally:
            state.change(self._config.folder, lambda known: known.unlinked(int(self._now())))
            self._work.unlinked()
            if time.monotonic() - opened > STOOD:
                self._backoff.reset()
            await link.close()

    async def _until_renewed(self, link: Link, mine: Identity) -> Identity:
        """Stays at the link until the certificate has been renewed; raises why the link ended before that."""
        if mine.certificate is None:
            raise AssertionError("a link needs a certificate")
        due = renewal_due(mine.certificate, self._chance())
        ends = certificates.ends_at(mine.certificate)
        while True:
            wait = min(max(due - self._now(), 1.0), LONGEST_SLEEP)
            ended = await link.ended(within=wait)
            if ended is not None:
                raise ended
            if self._now() >= due:
                try:
                    return self._renewed(mine, await link.renew())
                except Refused as refused:
                    self._heed(refused)
                    due = self._now() + max((ends - self._now()) / 10, RETRY_RENEWAL)

    def _renewed(self, mine: Identity, certificate: bytes) -> Identity:
        _LOG.info("certificate renewed", primary=self._config.primary)
        return mine.keep(certificates.load(certificate), self._config.account)
