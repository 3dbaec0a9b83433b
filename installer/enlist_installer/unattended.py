"""Setting up without asking anybody: the same checks and the same plan; what is missing or doubtful is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist_installer import answers, clients_address, examine, places, service, setup, waiting, words
from enlist_installer.answers import Answers
from enlist_installer.setup import Answered, Setup
from enlist_installer.words import Say
from enlist_secondary import api_key, checks, identity, meeting, state
from enlist_secondary.checks import Clock
from enlist_secondary.config import DEFAULT_PATH, SecondaryConfig
from enlist_secondary.state import State

_AGAINST_US = frozenset({"denied", "removed", "revoked"})
_BY_OURSELVES = frozenset({"departed", "withdrawn"})
_SETTLED = frozenset({"trusted", "suspended"})


@dataclass(frozen=True)
class Wait:
    """What to wait for, `trusted` or `connected`, and for how many seconds."""

    state: str
    seconds: int


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    given: Answers
    person: str
    """The system user's name, for the list of known primaries."""
    check: bool = False
    """Whether to write nothing."""
    wait: Wait | None = None
    service: bool = False
    ask_again: bool = False
    """Whether to ask again where an administrator said no."""

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self.given.config or DEFAULT_PATH


@dataclass(frozen=True)
class Outcome:
    """What came of it; the fields are the keys of the JSON. `reason` is empty where nothing was refused."""

    changed: bool
    state: str
    reason: str
    retry: bool
    server_id: str


class Unattended:
    """One run; what it has changed is known also where it is refused half-way."""

    _request: Request

    def __init__(self, say: Say, dialer: Dialer, now: Clock) -> None:
        """`say` is where sentences for people go."""
        self._say = say
        self._dialer = dialer
        self._now = now
        self._changed = False
        self._stands = State()

    def outcome(self, refused: Refused | None = None) -> Outcome:
        """What came of the run, or of as much of it as there was."""
        reason, retry = (refused.reason.value, refused.retry) if refused else ("", False)
        return Outcome(self._changed, self._stands.state, reason, retry, self._stands.server_id)

    async def run(self, request: Request) -> None:
        """Checks everything, then writes what differs, asks the primary, and waits as asked."""
        self._request = request
        self._check_service()
        planned = await self._planned()
        if self._request.check:
            asks = planned.ask_again or self._stands.state == state.NEW
            self._changed = planned.plan.changes or asks
            self._say(words.would(planned.plan.change, asks, planned.plan.drops_staged))
            return
        await self._carry_out(planned)
        if self._request.service:
            self._changed |= await service.install(self._request.path, planned.config.data_folder)
        await self._conclude(planned)

    async def _conclude(self, planned: Setup) -> None:
        """Waits as asked, and says where this server stands and what is left to do."""
        before = self._stands.state
        await self._wait(planned)
        self._report(planned, self._changed or self._stands.state != before)
        if not (self._request.service or files.locked(planned.config.lock)):
            self._say(words.run_by_hand(service.shown(self._request.path)))
        if left := setup.left_behind(planned):
            self._say(words.left_behind(left, state.load(left.folder)))

    def _check_service(self) -> None:
        if self._request.service and not service.available():
            command = service.shown(self._request.path)
            raise Refused(Reason.INVALID_ARGUMENT, f"--service needs systemd, and root. Without them, keep this running: {command}")

    async def _planned(self) -> Setup:
        """Everything checked, nothing written."""
        request = self._request
        current = setup.standing(request.path)
        given = answers.filled(request.given, current.config) if current else request.given
        if current:
            self._stands = state.load(current.config.folder)
        wanted = answers.wanted(given)
        self._check_places(wanted, current.config if current else None)
        alarmed = current.config if current and not request.check else None
        met = await examine.meet(self._dialer, wanted.address, given, wanted.data_folder, self._now, alarmed)
        if met.way is None:
            raise meeting.not_confirmed(met.primary)
        answered = Answered(met.primary, met.way, wanted, request.path)
        stay = request.given.primary is not None  # said outright, and not only read from the configuration
        planned = setup.planned(answered, request.person, request.ask_again, stay)
        self._stands = state.load(planned.config.folder)
        planned = self._asking(planned, given.api_key)
        if planned.ask_again:
            admission = await checks.validate(self._dialer, met.primary, wanted.account, planned.answered.api_key or "")
            if admission.server_name and request.given.name is None:
                planned = setup.invited_as(planned, admission.server_name)
        await self._note_address(wanted, met.primary.endpoint)
        return planned

    def _check_places(self, wanted: SecondaryConfig, current: SecondaryConfig | None) -> None:
        if current is None:
            places.check_config(self._request.path)
            places.check_data(wanted.data_folder, self._request.path)
        elif current.data != wanted.data:
            raise Refused(Reason.INVALID_ARGUMENT, f"--data: this server's data is in {current.data}, and stays there.")

    def _asking(self, planned: Setup, given: str | None) -> Setup:
        """Whether the primary is asked, and with which API key: not once it has decided, unless that is wished, and not twice.

        The API key of a request that never went out is still meant; one that did is done with.
        """
        new, stands, wished = planned.plan.new_enrolment, self._stands, self._request.ask_again
        if not new and not wished and stands.state in _SETTLED | _AGAINST_US:
            return replace(planned, ask_again=False)
        kept = api_key.load(planned.config.folder)
        unasked = stands.state == state.NEW and not stands.asked
        if not (new or wished or unasked or stands.state in _BY_OURSELVES or given not in (None, kept)):
            return replace(planned, ask_again=False)
        secret = kept if given is None and unasked else given or ""
        return replace(planned, answered=replace(planned.answered, api_key=secret), ask_again=True)

    async def _note_address(self, wanted: SecondaryConfig, primary: Endpoint) -> None:
        if wanted.server_address:
            found = await clients_address.find(wanted.server_address, clients_address.own_address(primary))
            if found.warning:
                self._say(words.finding(found))

    async def _carry_out(self, planned: Setup) -> None:
        before, name, content = self._stands.state, setup.name_before(planned), setup.content(planned.target)
        given_up = setup.waiting_elsewhere(planned)
        try:
            self._stands = await setup.carry_out(planned, self._dialer, self._now)
            self._changed = planned.plan.changes or planned.ask_again or self._stands.state != before
            if self._stands.server_id and planned.config.name not in (name, self._stands.display_name):
                self._say(words.renamed(planned.config.name, self._stands.server_id))
            if given_up is not None:
                self._say(words.left_behind(*given_up))
        except BaseException:  # an interruption, too
            self._changed = setup.content(planned.target) != content
            self._stands = state.load(planned.config.folder)
            raise

    async def _wait(self, planned: Setup) -> None:
        wait = self._request.wait
        if wait is None:
            return
        if self._stands.state == "pending":
            self._report(planned, changed=True)  # whoever is to authorize it needs the comparison code now
        try:
            async with asyncio.timeout(wait.seconds):
                await self._reach(wait.state, planned)
        except TimeoutError:
            stands = state.load(planned.config.folder)
            raise waiting.InVain(words.in_vain(wait.seconds, stands, self._request.path)) from None
        finally:
            self._stands = state.load(planned.config.folder)

    async def _reach(self, wanted: str, planned: Setup) -> None:
        if self._stands.state != "trusted":
            await waiting.authorized(
                planned.config, self._dialer, self._now, waiting.once(lambda refused: self._say(words.refusal(refused)))
            )
            await setup.take_over_if_trusted(planned)
        if wanted == "connected":
            await waiting.connected(self._request.path, self._dialer, self._now)

    def _report(self, planned: Setup, changed: bool) -> None:
        mine = identity.load(planned.config.folder)
        if not changed:
            self._say(words.unchanged(planned.config, self._stands.state))
        elif self._stands.state == "pending" and mine is not None:
            self._say(words.pending(self._stands, mine.comparison_code(planned.config.account)))
        else:
            self._say(words.now_is(planned.config, self._stands.state))
