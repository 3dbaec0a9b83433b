"""The daemon: keeps the enrolment its configuration names, and beside it awaits a different primary, should one be staged.

Whoever changes the configuration - the wizard, a person, the switch to the staged primary - needs to tell nobody: the files are
watched.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from enlist.reasons import Reason, Refused
from enlist.runtime import files, readiness
from enlist.runtime.controller import Again, Backoff, Controller, each
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.transport.dialer import Dialer
from enlist_secondary import api_key, identity, state
from enlist_secondary import config as configs
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.keeper import Keeper
from enlist_secondary.known_primaries import KnownPrimaries

POLL = 1.0
"""Seconds between two looks at the configuration files."""

_LOG = Log("enlist.secondary")


def run(path: Path, now: Clock = time.time) -> None:
    """Runs until a signal ends it. Refuses to start over a damaged, copied or unsafe folder, and with ALREADY_RUNNING.

    Refuses with one of `enrol.FINAL` when the primary has said a final no.
    """
    config = configs.load(path)
    files.make_folder(config.data_folder)
    with files.lock(config.lock, Reason.ALREADY_RUNNING, f"An enlist-secondary is running over {config.data}."):
        identity.check_machine(config.folder)
        identity.load(config.folder)
        KnownPrimaries.load(config.data_folder)
        asyncio.run(Daemon(path, config, Dialer(), now).run())


class Daemon:
    """The two things a secondary does at a time: keep its enrolment, and await the next one."""

    def __init__(self, path: Path, config: SecondaryConfig, dialer: Dialer, now: Clock) -> None:
        """`config` is what `path` said at the start."""
        self._path = path
        self._staged = configs.next_path(path)
        self._config = config
        self._dialer = dialer
        self._now = now
        self._over: Refused | None = None  # the kept primary's final no
        self._hope = self._staged.exists()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until nothing is left to hope for."""
        # A daemon that was killed could not write down that its link had closed.
        await state.update(self._config.folder, lambda known: known.unlinked(int(self._now())))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        kept = asyncio.create_task(_watching(self._path, self._reload, self._keep))
        staged = asyncio.create_task(_watching(self._staged, lambda: True, self._await_staged))
        stopped = asyncio.create_task(stop.wait())
        _LOG.info("started", primary=self._config.primary, account=self._config.account)
        readiness.notify("READY=1")
        try:
            done, _ = await asyncio.wait({kept, staged, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(kept, staged, stopped)
            _LOG.info("stopped")
        for task in done:
            task.result()

    async def _keep(self) -> None:
        self._over = None
        try:
            await Keeper(self._config, self._dialer, self._now).keep()
        except Refused as refused:
            self._over = refused
            self._end_if_hopeless()

    def _reload(self) -> bool:
        """Whether the configuration now says something else; while it is damaged, the one before holds."""
        before = self._config
        try:
            after = configs.load(self._path)
            if after.data != before.data:
                raise Refused(Reason.CONFIG_INVALID, "Another data folder counts only after a restart.")
        except Refused as refused:
            _LOG.warning("configuration ignored", reason=refused.reason, problem=refused.message)
            return False
        self._config = after
        return after != before

    async def _await_staged(self) -> None:
        self._hope = self._staged.exists()
        if self._hope:
            try:
                await self._take_over()
            except Refused as refused:
                _LOG.warning("the different primary is given up", reason=refused.reason, problem=refused.message)
                self._hope = False
        self._end_if_hopeless()

    async def _take_over(self) -> None:
        config, before = configs.load(self._staged), self._config
        _LOG.info("awaiting a different primary", primary=config.primary, account=config.account)
        await Keeper(config, self._dialer, self._now).authorized()
        await to_the_end(self._switch, config, before)  # whole: once the staged file is gone, this task is cancelled

    def _switch(self, config: SecondaryConfig, before: SecondaryConfig) -> None:
        if configs.switch(self._path).enrolment != config.enrolment:
            return  # a person gave the different primary up in this moment
        self._over = None
        api_key.erase(before.folder)
        _LOG.info("the different primary takes over", primary=config.primary, account=config.account)
        if left := state.load(before.folder).server_id:  # nobody told it, and whoever ran the wizard may be gone
            _LOG.warning(
                "the primary before still lists this server, until it is removed there", primary=before.primary, server=left
            )

    def _end_if_hopeless(self) -> None:
        if self._over is not None and not self._hope:
            raise self._over


class _Watch:
    """Looks at a file now and then; `news` is set when it was written, came or went and `changed` agrees."""

    def __init__(self, path: Path, changed: Callable[[], bool]) -> None:
        self._changed = changed
        self._seen: tuple[int, int, int] | None = None
        self._controller = Controller[Path]("configuration", each(self._look), backoff=Backoff(POLL, POLL))
        self._controller.mark(path)
        self.news = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await self._controller.run()

    async def _look(self, path: Path) -> Again:
        stamp = _stamp(path)
        if stamp != self._seen and self._changed():
            self.news.set()
        self._seen = stamp
        return POLL


async def _watching(path: Path, changed: Callable[[], bool], work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs `work`, and anew when the file was written, came or went and `changed` agrees. Ends only by what `work` raises."""
    watch = _Watch(path, changed)
    looking = asyncio.create_task(watch.run())
    try:
        while True:
            await _until(watch.news, work)
            watch.news.clear()
    finally:
        await _end(looking)


async def _until(news: asyncio.Event, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs `work` until there are news, also if it is done before; raises what it raises."""
    working, told = asyncio.create_task(work()), asyncio.create_task(news.wait())
    try:
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        await told
    finally:
        await _end(working, told)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
