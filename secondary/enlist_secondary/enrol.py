"""Asking to join: one resumable act that serves wizard and daemon, wherever the last attempt stopped.

Every call proves that it comes from the holder of this server's key. The primary passed in must have been vouched for: only then
does the API key travel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import grpc.aio

from enlist import __version__, certificates, channel, proofs
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.runtime.controller import Pauses, retry
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.transport.dialer import Dialer
from enlist.v1 import registration_pb2 as pb
from enlist.v1 import registration_pb2_grpc, server_pb2
from enlist_secondary import api_key, checks, state
from enlist_secondary.checks import Clock, Primary
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.meeting import meet

FOLLOW_LIMIT = 3600.0
"""Seconds after which a waiting server asks anew, so that a wait which the primary lost sight of is not for ever."""

FINAL = frozenset(
    {
        Reason.SERVER_DENIED,
        Reason.SERVER_REVOKED,
        Reason.SERVER_WITHDRAWN,
        Reason.SERVER_DEPARTED,
        Reason.SERVER_REMOVED,
    }
)
"""Where a server stands that does not ask again by itself."""

PERHAPS_HEARD = frozenset(
    {
        Reason.UNREACHABLE,
        Reason.TIMED_OUT,
        Reason.NOT_ENLIST,
        Reason.SHUTTING_DOWN,
        Reason.STORAGE_FAILED,
        Reason.STORAGE_CORRUPT,
        Reason.INTERNAL,
    }
)
"""Refusals after which the primary, or what stands before it, may still have registered this server. Asking again is safe."""

_ASK = frozenset({Reason.SERVER_UNKNOWN, Reason.SERVER_EXPIRED})
_WAIT = frozenset({server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_SUSPENDED})
_FRESH = proofs.CHALLENGE_LIFETIME // 2

News = Callable[[pb.Enrolment], None]
"""Called with each word from the primary, once it is written down."""


OnRefused = Callable[[Refused], Awaitable[None]]
T = TypeVar("T")

_LOG = Log("enlist.secondary")


async def until_final(attempt: Callable[[], Awaitable[T]], on_refused: OnRefused, pauses: Pauses) -> T:
    """Attempts until one succeeds; a refusal for a reason of `FINAL` is raised. `on_refused` hears of each refusal.

    What nobody foresaw is logged whole and counts as INTERNAL: a daemon goes on.
    """

    async def failed(error: Exception) -> None:
        if not isinstance(error, Refused):
            _LOG.fault("unforeseen", error)
            error = Refused(Reason.INTERNAL, "Something unforeseen happened; this server's log has the details.")
        await on_refused(error)
        if error.reason in FINAL:
            raise error

    return await retry(attempt, failed, pauses)


def _quiet(_: pb.Enrolment) -> None:
    return


async def resume(dialer: Dialer, config: SecondaryConfig, identity: Identity, now: Clock, news: News = _quiet) -> Identity:
    """One attempt from wherever things stand to a certificate: meets the primary again, then `enrol`."""
    return await enrol(dialer, await meet(dialer, config, identity.authority, now), config, identity, now, news)


async def enrol(
    dialer: Dialer,
    primary: Primary,
    config: SecondaryConfig,
    identity: Identity,
    now: Clock,
    news: News = _quiet,
    ask_again: bool = False,
) -> Identity:
    """Waits for the certificate; asks first if this server never did, if the primary knows of no request, or if it expired.

    `ask_again`, a person's decision, asks in any case: also after having been denied, removed or withdrawn, or having left. Returns
    the identity with its certificate, kept, and the API key erased. Refuses with one of `FINAL`, where waiting is in vain, or with
    whatever interrupted it; the same call then goes on from there.
    """
    async with dialer.channel(primary.endpoint, primary.pin()) as api:
        applicant = Applicant(api, primary, config, identity, now)
        if state.load(config.folder).asked and not ask_again:
            try:
                return await applicant.follow(news)
            except Refused as refused:
                if refused.reason not in _ASK:
                    raise
        await applicant.register()
        return await applicant.follow(news)


async def leave(dialer: Dialer, primary: Primary, config: SecondaryConfig, identity: Identity, now: Clock) -> pb.Enrolment:
    """Takes a pending request back, or leaves the account for good; the answer is written down."""
    async with dialer.channel(primary.endpoint, primary.pin()) as api:
        return await Applicant(api, primary, config, identity, now).leave()


class Applicant:
    """This server, asking a primary over one channel."""

    def __init__(self, api: grpc.aio.Channel, primary: Primary, config: SecondaryConfig, identity: Identity, now: Clock) -> None:
        self._api = api
        self._stub = registration_pb2_grpc.RegistrationServiceStub(api)
        self._primary = primary
        self._config = config
        self._identity = identity
        self._now = now

    async def register(self) -> None:
        """Asks to join, or asks again. What came of it, `follow` says: the answer to this may be lost."""
        await self._count(1, strict=True)
        try:
            await self._register()
        except Refused as refused:
            if refused.reason not in PERHAPS_HEARD:
                await self._count(-1)
            raise

    async def _count(self, requests: int, strict: bool = False) -> None:
        """A number and no flag: where daemon and wizard ask at once, the plain no to one of them says nothing of the other."""
        await state.update(self._config.folder, lambda known: replace(known, requests=max(0, known.requests + requests)), strict)

    async def _register(self) -> None:
        registration = pb.Registration(
            account_domain=self._config.account,
            display_name=self._config.name,
            api_key=api_key.load(self._config.folder),
            public_key=self._identity.public_key,
            server_address=self._config.server_address,
            version=__version__,
        ).SerializeToString()
        request = pb.RegisterRequest(registration=registration, proof=await self._prove("Register", registration))
        await channel.answer(self._stub.Register(request, timeout=channel.RPC_TIMEOUT))

    async def follow(self, news: News) -> Identity:
        """Follows this server's own request until it is trusted, and keeps the certificate. Refuses as `enrol` does."""
        claim = self._claim()
        request = pb.AwaitAuthorizationRequest(claim=claim, proof=await self._prove("AwaitAuthorization", claim))
        call = self._stub.AwaitAuthorization(request, timeout=FOLLOW_LIMIT)
        try:
            enrolment = await asyncio.wait_for(call.read(), channel.RPC_TIMEOUT)
            while isinstance(enrolment, pb.Enrolment):
                received = await self._receive(enrolment)
                news(enrolment)
                if received is not None:
                    return received
                if enrolment.state not in _WAIT:
                    raise standings.not_trusted(state.state_name(enrolment.state), enrolment.state_time.seconds, enrolment.reason)
                enrolment = await call.read()
        except grpc.aio.AioRpcError as error:
            raise channel.refusal(error) from None
        except TimeoutError:
            raise Refused(Reason.TIMED_OUT, "The primary did not say in time where this server stands.") from None
        raise Refused(Reason.UNREACHABLE, "The primary ended the wait.")

    async def leave(self) -> pb.Enrolment:
        """Takes a pending request back, or leaves the account for good; the answer is written down."""
        claim = self._claim()
        request = pb.LeaveRequest(claim=claim, proof=await self._prove("Leave", claim))
        enrolment = await channel.answer(self._stub.Leave(request, timeout=channel.RPC_TIMEOUT))
        await self._write_down(enrolment)
        return enrolment

    async def _prove(self, rpc: str, request: bytes) -> server_pb2.Proof:
        primary, identity = self._primary, self._identity
        fresh = self._now() - primary.described_at < _FRESH
        challenge = primary.challenge if fresh else (await checks.describe(self._api)).challenge
        signature = proofs.sign(identity.key, rpc, challenge, identity.authority.public_key, request)
        return server_pb2.Proof(challenge=challenge, signature=signature)

    def _claim(self) -> bytes:
        return pb.Claim(account_domain=self._config.account, public_key=self._identity.public_key).SerializeToString()

    async def _receive(self, enrolment: pb.Enrolment) -> Identity | None:
        """Writes down what the primary said, then keeps the certificate if there is one, and only then erases the API key.

        A crash in between leaves a certificate for the next start to fetch, or an API key for it to erase: never a certificate and
        no word of whose it is, nor a server with neither.
        """
        final = not enrolment.certificate and enrolment.state not in _WAIT
        await self._write_down(enrolment, strict=final)  # by what it says of those below, the last word to them goes
        if not enrolment.certificate:
            return None
        received = await to_the_end(self._identity.keep, certificates.load(enrolment.certificate), self._config.account)
        await to_the_end(api_key.erase, self._config.folder)
        return received

    async def _write_down(self, enrolment: pb.Enrolment, strict: bool = False) -> None:
        await state.update(self._config.folder, lambda known: known.told(enrolment, int(self._now())), strict)
