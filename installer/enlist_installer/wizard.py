"""The wizard: a person is asked, sees a summary and says yes; then it is written, and the wait for an administrator begins."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.terminal import escape
from enlist.transport.dialer import Dialer
from enlist_installer import questions, service, setup, waiting, words
from enlist_installer.answers import Answers
from enlist_installer.interview import Interview
from enlist_installer.setup import Answered, Setup
from enlist_installer.words import Say
from enlist_secondary import enrol, identity, state
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig

CONNECT_TIMEOUT = 20.0
"""Seconds for which the wizard looks whether the service it started connects."""


@dataclass
class Wizard:
    """One run with one person at a terminal."""

    say: Say
    dialer: Dialer
    now: Clock
    person: str
    """The system user's name, for the list of known primaries."""
    service: bool | None
    """Whether to install the service; None to ask."""
    written: bool = False
    """Whether anything has been written: what an interruption leaves behind."""
    shown: SecondaryConfig | None = None
    """The configuration that stood when the person was asked what to do."""

    async def new(self, given: Answers, path: Path) -> None:
        """Sets up a server that has no configuration at `path`."""
        interview = Interview(self.say, self.dialer, self.now, given, path, None)
        await interview.join_line()
        await self.finish(await self.agreed(interview.everything))

    async def agreed(self, ask: Callable[[], Awaitable[Answered]]) -> Setup:
        """Asks until the summary is agreed to and the primary has registered what was written."""
        while True:
            answered = await ask()
            self.say(words.summary(answered))
            if await questions.confirm(questions.WRITE_AND_REGISTER if answered.admission else questions.WRITE, default=True):
                try:
                    return await self._carried_out(answered)
                except Refused as refused:
                    if refused.reason is Reason.INTERRUPTED or (self.written and refused.reason in setup.PASSING):
                        raise
                    self.say(words.told(refused))
            if not await questions.confirm(questions.AGAIN, default=True):
                raise Refused(Reason.INTERRUPTED, "Stopped.")

    async def _carried_out(self, answered: Answered) -> Setup:
        try:
            return await self._carry_out(answered, ask_again=bool(answered.api_key))
        except Refused as refused:
            if refused.reason not in enrol.FINAL:
                raise
            self.say(words.told(refused))
        if not await questions.confirm(questions.ASK_AGAIN, default=False):
            raise Refused(Reason.INTERRUPTED, "Stopped.")
        return await self._carry_out(answered, ask_again=True)

    async def _carry_out(self, answered: Answered, ask_again: bool) -> Setup:
        planned = setup.planned(answered, self.person, ask_again)
        if planned.present != self.shown:
            raise setup.changed_meanwhile(answered.path)
        before, self.written = setup.content(planned.target), True
        try:
            await setup.carry_out(planned, self.dialer, self.now)
        except Refused:
            self.written = setup.content(planned.target) != before
            raise
        finally:
            self.shown = setup.present(answered.path)
        return planned

    async def finish(self, done: Setup) -> None:
        """Says where the server stands, offers the service, and waits until it is authorized."""
        config = done.config
        self._stands(config)
        runs = await self._service(done.answered.path, config)
        if state.load(config.folder).state != "trusted":
            await self._wait(config, runs)
            await setup.take_over_if_trusted(done)
        if runs and state.load(config.folder).state == "trusted":
            await self._see_connected(done.answered.path)

    def _stands(self, config: SecondaryConfig) -> None:
        mine, stands = identity.load(config.folder), state.load(config.folder)
        if stands.state == "pending" and mine is not None:
            self.say(words.pending(stands, mine.comparison_code(config.account)))
        else:
            self.say(f"This server is {escape(stands.state)}.\n")

    async def _service(self, path: Path, config: SecondaryConfig) -> bool:
        """Whether the secondary runs: already, or because a service was installed for it."""
        if files.locked(config.lock):
            return True
        install = self.service
        if install is None and service.available():
            install = await questions.confirm(questions.SERVICE, default=True)
        if install and service.available():
            try:
                await service.install(path, config.data_folder)
                self.say(f"  {service.UNIT} is installed and running.\n")
                return True
            except Refused as refused:
                self.say(words.told(refused))
        self.say(words.run_by_hand(service.shown(path)))
        return False

    async def _wait(self, config: SecondaryConfig, runs: bool) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        self.say(words.waiting(runs))
        heed = waiting.once(lambda refused: self.say(words.told(refused)))
        tasks = [asyncio.create_task(stop.wait()), asyncio.create_task(waiting.authorized(config, self.dialer, self.now, heed))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                self.say("\n  Left. The request stands until somebody decides.")
            else:
                tasks[1].result()
                self.say("  Authorized: this server is trusted.\n")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    async def _see_connected(self, path: Path) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await waiting.connected(path, self.dialer, self.now)
                self.say("  Connected to its primary.")
                return
        self.say(f"  Not connected yet. {words.to_see_why(path)}")
