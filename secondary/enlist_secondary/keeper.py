"""Keeps one enrolment: from wherever things stand to an open link, and there again whenever it ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import NoReturn

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import memory
from enlist.runtime.controller import Backoff, Pauses
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.transport.dialer import Dialer
from enlist.v1.registration_pb2 import Enrolment
from enlist_secondary import api_key, dialling, state
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.connection.link import Link
from enlist_secondary.connection.staying import Staying
from enlist_secondary.enrol import resume, until_final
from enlist_secondary.identity import Identity
from enlist_secondary.meeting import prepare
from enlist_secondary.work import Work

BACKOFF = Backoff(first=0.5, longest=60.0)
"""Pauses between attempts: servers that lost one primary do not all return at once."""

STOOD = 30.0
"""Seconds after which a link counts as one that stood: the next attempt comes soon again."""

CONTRADICTION = 1.0
"""Seconds: a primary that has refused the link, and within this time says "trusted" when asked, is not dialled again at once."""

_ABOUT_US = frozenset({Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_INVALID, Reason.NOT_LOGGED_ON, Reason.NOT_ALLOWED})
_LOG = Log("enlist.secondary")


def _about_us(refused: Refused) -> bool:
    """Whether the primary, rather than the way to it, is why there is no link: then it is asked where this server stands."""
    return refused.reason in _ABOUT_US or refused.reason.startswith("SERVER_")


def _settle(_: Enrolment) -> None:
    """The primary has said where this server stands, and now there is nothing to do but wait."""
    memory.give_back()


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
        self._pauses = Pauses(BACKOFF, chance)
        self._work: Work | None = None
        self._works_for = ""
        self._working: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Asks, waits, links, renews, and comes back from every interruption. Ends only by a refusal of `enrol.FINAL`."""
        try:
            await until_final(self._attempt, self._heed, self._pauses)
        except Refused:
            await self._say_farewell()
            raise
        finally:
            await self._end_work()

    async def authorized(self) -> None:
        """Asks and waits until this server holds a certificate, and opens no link. Raises as `keep` does."""
        await until_final(self._certified, self._heed, self._pauses)

    async def _heed(self, refused: Refused) -> None:
        _LOG.warning("attempt failed", primary=self._config.primary, reason=refused.reason, problem=refused.message)
        await state.update(self._config.folder, lambda known: known.failed(refused, int(self._now())))

    async def _certified(self) -> None:
        mine = await prepare(self._dialer, self._config, self._now)
        if not mine.usable(int(self._now())):
            await resume(self._dialer, self._config, mine, self._now, _settle)

    async def _attempt(self) -> NoReturn:
        """From wherever things stand to a link, and on over whatever the primary decides; raises what else comes between."""
        mine = await prepare(self._dialer, self._config, self._now)
        await self._begin_work(mine)
        if not mine.usable(int(self._now())):
            mine = await resume(self._dialer, self._config, mine, self._now, _settle)
        elif state.load(self._config.folder).state == state.TRUSTED:  # else the wizard may be about to ask anew, with this API key
            await to_the_end(api_key.erase, self._config.folder)  # a crash may have come between certificate and erasure
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
                await asyncio.sleep(self._pauses.next())
                if not mine.usable(int(self._now())):  # the pause was longer than what was left of it
                    mine = await resume(self._dialer, self._config, mine, self._now, _settle)

    async def _say_farewell(self) -> None:
        """The primary on this host, if there is one, stands under the one above no more."""
        if self._work is not None:
            await self._work.farewell(state.load(self._config.folder).bequest)

    async def _begin_work(self, mine: Identity) -> Work | None:
        """Documents are worked on as soon as it is known for whom they must be made out, and from then on without a link too.

        A server that is given another id begins anew. The sets on its disk are made out for the id before: the next link brings
        others, and until then everything stays in force.
        """
        if mine.server_id and mine.server_id != self._works_for:
            await self._end_work()
            work = Work(self._config, mine, self._now)
            await to_the_end(work.load)  # it reads many files, and writes down which runs were interrupted
            self._work, self._works_for = work, mine.server_id
            self._working = asyncio.create_task(work.keep_up())
        return self._work

    async def _end_work(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait({self._working})
        self._work = self._working = None
        self._works_for = ""

    async def _link(self, mine: Identity) -> NoReturn:
        """Opens the link and stays; raises why it did not open, or why it ended."""
        work = await self._begin_work(mine)
        assert work is not None, "a server that holds a certificate has an id"
        try:
            await self._stay(await dialling.connect(self._dialer, self._config, mine, self._now, work), mine, work)
        finally:  # last, for everybody who waits for this word; also the last word of a daemon that is stopped
            await state.update(self._config.folder, lambda known: known.unlinked(int(self._now())))

    async def _stay(self, link: Link, mine: Identity, work: Work) -> NoReturn:
        """Stays at the link, and at those over the renewed certificates that follow it; raises why the last one ended."""
        memory.give_back()
        opened = time.monotonic()

        async def connect(renewed: Identity) -> Link:
            return await dialling.connect(self._dialer, self._config, renewed, self._now, work)

        try:
            raise await Staying(link, mine, self._renew, connect, self._heed, self._now, self._chance, BACKOFF).until_ended()
        finally:
            work.unlinked()
            if time.monotonic() - opened > STOOD:
                self._pauses.reset()

    async def _renew(self, link: Link, mine: Identity) -> Identity:
        certificate = await link.renew(mine)
        _LOG.info("certificate renewed", primary=self._config.primary)
        return await to_the_end(mine.keep, certificates.load(certificate), self._config.account)
