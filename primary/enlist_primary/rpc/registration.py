"""RegistrationService: how a server that is not trusted asks to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from enlist import __version__, certificates, names, proofs
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.v1 import registration_pb2 as pb
from enlist.v1 import registration_pb2_grpc, server_pb2
from enlist_primary.messages import servers as render
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.servers import Server, State
from enlist_primary.operations import enrolment
from enlist_primary.operations.enrolment import Asked, Caps
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import accounts, servers
from enlist_primary.store.database import Transaction

M = TypeVar("M", bound=Message)

WORTH_WAITING = frozenset({State.PENDING, State.SUSPENDED})
REQUEST_LIMIT = 16 * 1024
"""Bytes of a signed message that are parsed."""


class Registration(registration_pb2_grpc.RegistrationServiceServicer):
    """Serves strangers: everything they send is refused as cheaply as it can be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        limits = context.config.limits
        self._caps = Caps(limits.pending_per_account, limits.pending_per_address)

    async def DescribePrimary(self, request: pb.DescribePrimaryRequest, context: Any) -> pb.DescribePrimaryResponse:
        own, now = self._context, self._context.now()
        return pb.DescribePrimaryResponse(
            primary_name=own.config.name,
            primary_id=own.signer.authority.primary_id,
            authority_certificate=own.signer.authority.certificate_der,
            leaf_statement=own.served.statement,
            ssl_port=own.ports.ssl,
            oldest_protocol=PROTOCOL,
            newest_protocol=PROTOCOL,
            time=render.moment(now),
            version=__version__,
            challenge=proofs.new_challenge(own.signer.challenge_secret, now, own.random_bytes),
        )

    async def Validate(self, request: pb.ValidateRequest, context: Any) -> pb.ValidateResponse:
        source = caller().source
        with self._counted(request.account_domain, guarded=True):
            domain = names.account_domain(request.account_domain)
            place = await self._context.database.read(enrolment.validate, domain, request.api_key, source, self._context.now())
        trusted = place.state is State.TRUSTED
        return pb.ValidateResponse(
            admission=pb.ADMISSION_TRUSTED if trusted else pb.ADMISSION_ASK,
            contact=place.contact,
            server_name=place.name or "",
            group=place.group,
        )

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.Enrolment:
        registration = _parse(pb.Registration, request.registration)
        with self._counted(registration.account_domain, guarded=True):
            domain = names.account_domain(registration.account_domain)
            asked = self._asked(registration, request)
            own = self._context
            server, account = await own.database.write(domain, enrolment.register, domain, asked, self._caps, own.new_id, own.now())
        return self._enrolment(server, account)

    async def AwaitAuthorization(self, request: pb.AwaitAuthorizationRequest, context: Any) -> AsyncIterator[pb.Enrolment]:
        claim = _parse(pb.Claim, request.claim)
        with self._counted(claim.account_domain):
            domain = names.account_domain(claim.account_domain)
            key = self._proven(claim, "AwaitAuthorization", request.claim, request.proof)
        with self._context.waiting.place(domain, certificates.fingerprint(claim.public_key)) as changed:
            with self._counted(claim.account_domain):
                found = await self._look(domain, claim.public_key)
            async for enrolment in self._follow(found, claim.public_key, key, changed):
                yield enrolment

    async def _follow(
        self, found: tuple[Server, Account], public_key: bytes, key: ec.EllipticCurvePublicKey, changed: asyncio.Event
    ) -> AsyncIterator[pb.Enrolment]:
        """The state of the server with this key as it was found and after each change, to the first in which waiting is in vain.

        `changed` is set by whatever changed since before it was found. Here alone a server gets its first certificate: the key has
        been proven in this very RPC.
        """
        told: Server | None = None
        while True:
            server, account = found
            if server != told:
                yield self._enrolment(server, account, self._issued(server, key))
                told = server
            if server.state not in WORTH_WAITING:
                return
            self._context.waiting.check()
            await changed.wait()
            changed.clear()
            found = await self._look(account.domain, public_key)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.Enrolment:
        claim = _parse(pb.Claim, request.claim)
        with self._counted(claim.account_domain):
            domain, own = names.account_domain(claim.account_domain), self._context
            self._proven(claim, "Leave", request.claim, request.proof)
            key = certificates.fingerprint(claim.public_key)
            server = await own.database.write(domain, enrolment.leave, domain, key, caller().source, own.now())
        return self._enrolment(server, None)

    def _asked(self, registration: pb.Registration, request: pb.RegisterRequest) -> Asked:
        self._proven(registration, "Register", request.registration, request.proof)
        return Asked(
            name=names.display_name(registration.display_name),
            api_key=registration.api_key,
            key=certificates.fingerprint(registration.public_key),
            public_key=registration.public_key,
            server_address=names.host(registration.server_address) if registration.server_address else "",
            version=registration.version,
            source=caller().source,
        )

    def _proven(
        self, said: pb.Registration | pb.Claim, rpc: str, signed: bytes, proof: server_pb2.Proof
    ) -> ec.EllipticCurvePublicKey:
        """The key in what was said, once it is sure that its holder said it, here and now."""
        key, signer = certificates.load_public_key(said.public_key), self._context.signer
        proofs.check_challenge(signer.challenge_secret, proof.challenge, self._context.now())
        proofs.verify(key, rpc, proof.challenge, signer.authority.public_key, signed, proof.signature)
        return key

    async def _look(self, domain: str, public_key: bytes) -> tuple[Server, Account]:
        server, account = await self._context.database.read(_load, domain, certificates.fingerprint(public_key))
        return server.at(self._context.now()), account

    def _issued(self, server: Server, key: ec.EllipticCurvePublicKey) -> bytes:
        """A certificate for this server's key, if it is trusted."""
        own = self._context
        if server.state is not State.TRUSTED:
            return b""
        return own.signer.issue_secondary(key, server.account, server.id, own.certificate_lifetime, own.now())

    def _enrolment(self, server: Server, account: Account | None, certificate: bytes = b"") -> pb.Enrolment:
        contact = account.contact if account and account.contact else ""
        return render.enrolment(server, self._context.signer.authority, contact, certificate)

    @contextmanager
    def _counted(self, account: str, guarded: bool = False) -> Iterator[None]:
        """Counts a refusal against its source and its account; `guarded` RPCs are closed to a source refused too often."""
        own, source = self._context, caller().source
        if guarded:
            own.attempts.check(source)
        try:
            yield
        except Refused as refused:
            own.attempts.count(source, refused)
            unnamed = refused.reason in (Reason.ACCOUNT_UNKNOWN, Reason.INVALID_ARGUMENT)
            own.observations.refused(PRIMARY if unnamed else account, refused.reason, source, own.now())
            if refused.reason is Reason.ACCOUNT_UNKNOWN:
                sentence = f'The connection is fine, but {own.config.name} has no account "{account}". Check the domain name.'
                raise Refused(Reason.ACCOUNT_UNKNOWN, sentence) from None
            raise


def _parse(kind: type[M], data: bytes) -> M:
    if len(data) > REQUEST_LIMIT:
        raise Refused(Reason.INVALID_ARGUMENT, "The request is too large.")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Refused(Reason.INVALID_ARGUMENT, f"The request does not hold a {kind.DESCRIPTOR.name}.") from None


def _load(tx: Transaction, domain: str, key: str) -> tuple[Server, Account]:
    account = accounts.load(tx, domain)
    server = servers.by_key(tx, domain, key)
    if server is None:
        raise enrolment.unknown_key()
    return server, account
