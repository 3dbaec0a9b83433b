"""The interview: every question in its order, each answer checked as soon as it can be, a wrong one asked for again.

What was given beforehand (flags, answers file, join line) is checked first and asked for only if it is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from enlist import joinline, names
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist.v1 import registration_pb2 as pb
from enlist_installer import answers, clients_address, examine, places, questions, words
from enlist_installer.answers import Answers
from enlist_installer.questions import Question
from enlist_installer.setup import Answered
from enlist_installer.words import Say
from enlist_secondary import checks, state
from enlist_secondary.checks import Clock, Primary, Way
from enlist_secondary.config import DEFAULT_DATA, SecondaryConfig

T = TypeVar("T")


class Interview:
    """One person, asked until everything is answered. The last answers are the defaults when a question comes again."""

    def __init__(self, say: Say, dialer: Dialer, now: Clock, given: Answers, path: Path, standing: SecondaryConfig | None) -> None:
        """`standing` is the enrolment that `path` stands for already: its values are the first defaults, and its places stay."""
        self._say = say
        self._dialer = dialer
        self._now = now
        self._path = path
        self._preset = answers.with_policy(given, standing) if standing else given
        self._standing = standing
        self._given = _texts(given)
        self._last = _texts(answers.of(standing)) if standing else {}

    async def join_line(self) -> None:
        """Asks for a join line, which answers most of what follows; not if the address was given otherwise."""

        async def check(text: str) -> Answers:
            return answers.joined(self._preset, joinline.parse(text)) if text else self._preset

        if questions.PRIMARY not in self._given:
            self._preset = await self._settle(questions.JOIN_LINE, check)
            self._given |= _texts(self._preset)

    async def everything(self) -> Answered:
        """All that an enrolment needs."""
        primary, way = await self._primary()
        account = await self._account(primary)
        admission, api_key = await self._admission(primary, account)
        if admission.server_name:
            self._given[questions.NAME] = admission.server_name
        name = await self._name()
        server_address = await self._server_address(primary.endpoint)
        path, data = await self._places()
        wanted = self._wanted(primary.address, account, name, server_address, data)
        return Answered(primary, way, wanted, path, admission, api_key)

    async def onward(self, standing: SecondaryConfig, asked: frozenset[Question]) -> Answered:
        """What may change while the enrolment stays: only `asked` is asked, everything else keeps its answer."""
        kept = _texts(answers.of(standing))
        self._given |= {question: kept[question] for question in kept.keys() - asked - self._given.keys()}
        primary, way = await self._primary()
        admission, api_key = await self._lifting(primary, standing) if questions.API_KEY in asked else (None, None)
        name = await self._name()
        server_address = await self._server_address(primary.endpoint)
        wanted = self._wanted(primary.address, standing.account, name, server_address, standing.data_folder)
        return Answered(primary, way, wanted, self._path, admission, api_key)

    def _wanted(self, address: Address, account: str, name: str, server_address: str, data: Path) -> SecondaryConfig:
        everything = replace(self._preset, primary=address, account=account, name=name, server_address=server_address, data=data)
        return answers.wanted(everything)

    async def _primary(self) -> tuple[Primary, Way]:
        return await self._settle(questions.PRIMARY, self._meet)

    async def _meet(self, text: str) -> tuple[Primary, Way]:
        address = names.address(text)
        self._say(words.looking(address))
        met = await examine.meet(self._dialer, address, self._preset, self._data, self._now, self._standing)
        self._say(words.found(met.primary))
        if met.way is not None:
            return met.primary, met.way
        self._say(words.fingerprint(met.primary))
        if not await questions.confirm(questions.SAME_FINGERPRINT, default=False):
            raise Refused(Reason.IDENTITY_NOT_CONFIRMED, "Nobody confirmed that this is the right primary.")
        return met.primary, Way.COMPARED

    async def _account(self, primary: Primary) -> str:
        async def check(text: str) -> str:
            domain = names.account_domain(text)
            await examine.account(self._dialer, primary, domain)
            return domain

        return await self._settle(questions.ACCOUNT, check)

    async def _admission(self, primary: Primary, account: str) -> tuple[pb.ValidateResponse, str]:
        async def check(text: str) -> tuple[pb.ValidateResponse, str]:
            return await checks.validate(self._dialer, primary, account, text), text

        before = self._last.get(questions.API_KEY)
        if before and await questions.confirm(questions.SAME_API_KEY, default=True):
            self._given[questions.API_KEY] = before
        return await self._settle(questions.API_KEY, check)

    async def _lifting(self, primary: Primary, standing: SecondaryConfig) -> tuple[pb.ValidateResponse | None, str | None]:
        """Another API key for a server that has asked already; without one its request stands as it is.

        If the primary was never heard to have it, a blank answer gives the API key up that went with it.
        """
        stands = state.load(standing.folder)
        if not (stands.asked and stands.state in (state.NEW, state.PENDING)):
            return await self._admission(primary, standing.account)

        async def check(text: str) -> tuple[pb.ValidateResponse | None, str | None]:
            if text:
                return await checks.validate(self._dialer, primary, standing.account, text), text
            return None, None if stands.state == state.PENDING else ""

        self._say(words.HAS_ASKED)
        return await self._settle(questions.API_KEY, check)

    async def _name(self) -> str:
        async def check(text: str) -> str:
            return names.display_name(text)

        return await self._settle(questions.NAME, check, answers.own_name())

    async def _server_address(self, primary: Endpoint) -> str:
        """What the DNS knows of it is said, and never refused."""

        async def check(text: str) -> str:
            return answers.optional_host(text)

        known = questions.SERVER_ADDRESS in self._given.keys() | self._last.keys()
        suggestion = "" if known else await clients_address.suggestion()
        address = await self._settle(questions.SERVER_ADDRESS, check, suggestion)
        own = clients_address.own_address(primary)
        self._say(words.finding(await clients_address.find(address, own)))
        return address

    async def _places(self) -> tuple[Path, Path]:
        async def check_config(text: str) -> Path:
            return places.check_config(answers.path(text))

        async def check_data(text: str) -> Path:
            return places.check_data(answers.path(text), config)

        if self._standing is not None:
            return self._path, self._standing.data_folder
        config = await self._settle(questions.CONFIG, check_config, str(self._path))
        data = await self._settle(questions.DATA, check_data, str(DEFAULT_DATA))
        self._say("")
        return config, data

    @property
    def _data(self) -> Path:
        """The data folder as far as it is known: where the known primaries are."""
        return Path(self._given.get(questions.DATA) or self._last.get(questions.DATA) or DEFAULT_DATA)

    async def _settle(self, question: Question, check: Callable[[str], Awaitable[T]], default: str = "") -> T:
        """The first answer that passes its check, beginning with the given one; the old answer is the next one's default."""
        given = self._given.pop(question, None)
        if given is not None:
            self._say(question.shown(given))
        while True:
            answer = await questions.ask(question, self._last.get(question, default)) if given is None else given
            self._last[question], given = answer, None
            try:
                return await check(answer)
            except Refused as refused:
                if refused.reason is Reason.INTERRUPTED:
                    raise
                self._say(words.told(refused))


def _texts(given: Answers) -> dict[Question, str]:
    """Answers as they would be typed."""
    texts: dict[Question, str | None] = {
        questions.PRIMARY: given.primary.shown() if given.primary else None,
        questions.ACCOUNT: given.account,
        questions.API_KEY: given.api_key,
        questions.NAME: given.name,
        questions.SERVER_ADDRESS: given.server_address,
        questions.CONFIG: str(given.config) if given.config else None,
        questions.DATA: str(given.data) if given.data else None,
    }
    return {question: text for question, text in texts.items() if text is not None}
