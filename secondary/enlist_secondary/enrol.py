"""Asking to join: one resumable act that serves wizard and daemon, wherever the last attempt stopped.

Every call proves that it comes from the holder of this server's key. The primary passed in must have been vouched for: only then
does the API key travel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc.aio

from enlist import __version__, certificates, channel, proofs
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
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

_ASK = frozenset({Reason.SERVER_UNKNOWN, Reason.SERVER_EXPIRED})
_WAIT = frozenset({server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_SUSPENDED})
_FRESH = proofs.CHALLENGE_LIFETIME // 2

News = Callable[[pb.Enrolment], None]
"""Called with each word from the primary, once it is written down."""


def _quiet(_: pb.Enrolment) -> None:
    return


async def resume(config: SecondaryConfig, identity: Identity, now: Clock, news: News = _quiet) -> Identity:
    """One attempt from wherever things stand to a certificate: meets the primary again, then `enrol`."""
    return await enrol(await meet(config, identity.authority, now), config, identity, now, news)


async def enrol(
    primary: Primary, config: SecondaryConfig, identity: Identity, now: Clock, news: News = _quiet, ask_again: bool = False
) -> Identity:
    """Waits for the certificate; asks first if this server never did, if the primary knows of no request, or if it expired.

    `ask_again`, a person's decision, asks in any case: also after having been denied, removed or withdrawn, or having left. Returns
    the identity with its certificate, kept, and the API key erased. Refuses with one of `FINAL`, where waiting is in vain, or with
    whatever interrupted it; the same call then goes on from there.
    """
    if state.load(config.folder).asked and not ask_again:
        try:
            return await await_authorization(primary, config, identity, now, news)
        except Refused as refused:
            if refused.reason not in _ASK:
                raise
    enrolment = await register(primary, config, identity, api_key.load(config.folder), now)
    news(enrolment)
    if enrolment.certificate:
        return _receive(config, identity, enrolment)
    return await await_authorization(primary, config, identity, now, news)


async def register(primary: Primary, config: SecondaryConfig, identity: Identity, api_key: str, now: Clock) -> pb.Enrolment:
    """Asks to join, or asks again; the answer is written down. The same key asking again gets the same answer."""
    state.change(config.folder, lambda known: replace(known, asked=True))
    registration = pb.Registration(
        account_domain=config.account,
        display_name=config.name,
        api_key=api_key,
        certification_request=certificates.make_request(identity.key),
        server_address=config.server_address,
        version=__version__,
    ).SerializeToString()
    async with channel.dial(primary.address, primary.pin()) as api:
        request = pb.RegisterRequest(
            registration=registration, proof=await _prove(api, primary, identity, "Register", registration, now)
        )
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        enrolment = await channel.answer(stub.Register(request, timeout=channel.RPC_TIMEOUT))
    _write_down(config, enrolment, now)
    return enrolment


async def await_authorization(
    primary: Primary, config: SecondaryConfig, identity: Identity, now: Clock, news: News = _quiet
) -> Identity:
    """Follows this server's own request until it is trusted, and keeps the certificate. Refuses as `enrol` does."""
    claim = _claim(config, identity)
    async with channel.dial(primary.address, primary.pin()) as api:
        proof = await _prove(api, primary, identity, "AwaitAuthorization", claim, now)
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        call = stub.AwaitAuthorization(pb.AwaitAuthorizationRequest(claim=claim, proof=proof), timeout=FOLLOW_LIMIT)
        try:
            enrolment = await asyncio.wait_for(call.read(), channel.RPC_TIMEOUT)
            while isinstance(enrolment, pb.Enrolment):
                _write_down(config, enrolment, now)
                news(enrolment)
                if enrolment.certificate:
                    return _receive(config, identity, enrolment)
                if enrolment.state not in _WAIT:
                    raise standings.not_trusted(state.state_name(enrolment.state), enrolment.state_time.seconds, enrolment.reason)
                enrolment = await call.read()
        except grpc.aio.AioRpcError as error:
            raise channel.refusal(error) from None
        except TimeoutError:
            raise Refused(Reason.TIMED_OUT, "The primary did not say in time where this server stands.") from None
    raise Refused(Reason.UNREACHABLE, "The primary ended the wait.")


async def leave(primary: Primary, config: SecondaryConfig, identity: Identity, now: Clock) -> pb.Enrolment:
    """Takes a pending request back, or leaves the account for good; the answer is written down."""
    claim = _claim(config, identity)
    async with channel.dial(primary.address, primary.pin()) as api:
        proof = await _prove(api, primary, identity, "Leave", claim, now)
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        enrolment = await channel.answer(stub.Leave(pb.LeaveRequest(claim=claim, proof=proof), timeout=channel.RPC_TIMEOUT))
    _write_down(config, enrolment, now)
    return enrolment


async def _prove(api: grpc.aio.Channel, primary: Primary, identity: Identity, rpc: str, request: bytes, now: Clock) -> pb.Proof:
    fresh = now() - primary.described_at < _FRESH
    challenge = primary.challenge if fresh else (await checks.describe(api)).challenge
    signature = proofs.sign(identity.key, rpc, challenge, identity.authority.public_key, request)
    return pb.Proof(challenge=challenge, signature=signature)


def _claim(config: SecondaryConfig, identity: Identity) -> bytes:
    return pb.Claim(account_domain=config.account, public_key=identity.public_key).SerializeToString()


def _write_down(config: SecondaryConfig, enrolment: pb.Enrolment, now: Clock) -> None:
    state.change(config.folder, lambda known: known.told(enrolment, int(now())))


def _receive(config: SecondaryConfig, identity: Identity, enrolment: pb.Enrolment) -> Identity:
    """Keeps the certificate first: a crash in between leaves an API key that the next start erases, never a server with neither."""
    received = identity.keep(certificates.load(enrolment.certificate), config.account)
    api_key.erase(config.folder)
    return received
