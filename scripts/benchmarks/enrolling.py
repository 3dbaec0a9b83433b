"""A server that enrols in the shortest way there is, at a primary or at the floor: one channel to each port, every call once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import grpc.aio
from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates, channel, names, proofs
from enlist.channel import ClientIdentity
from enlist.link.ends import SecondaryEnd
from enlist.names import Address
from enlist.transport.dialer import Dialer
from enlist.v1 import (
    hierarchy_pb2,
    hierarchy_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    server_pb2,
    trust_pb2,
    trust_pb2_grpc,
)
from enlist_primary.authority.keys import private_pem
from enlist_primary.authority.signer import DAY, Signer
from scripts.benchmarks.said import Said

ACCOUNT = "acme.example"
PENDING = server_pb2.SERVER_STATE_PENDING

_numbers = count(1)
_Call = grpc.aio.StreamStreamCall[hierarchy_pb2.FromSecondary, hierarchy_pb2.FromPrimary]


@dataclass(frozen=True)
class Server:
    """A server process to enrol at: a primary, or the floor. Both stand for the same authority."""

    pid: int
    api: Address
    ssl: Address
    admin: str
    signer: Signer


class Applicant:
    """A server about to enrol. All its own work is done beforehand, the signatures over fresh challenges aside.

    The floor hands out a constant certificate, which is somebody else's; so every applicant brings one of the same kind along.
    """

    def __init__(self, signer: Signer, api_key: str, now: int, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or certificates.new_key()
        self.name = f"server-{next(_numbers):06}"
        public = self.key.public_key()
        spki = certificates.spki(public)
        self.brought = signer.issue_secondary(public, ACCOUNT, "a" * 10, 30 * DAY, now)
        self._authority_key = signer.authority.public_key
        self.registration = registration_pb2.Registration(
            account_domain=ACCOUNT,
            display_name=self.name,
            api_key=api_key,
            public_key=spki,
            version="0.1.0",
        ).SerializeToString()
        self.validate = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=api_key)
        self.claim = registration_pb2.Claim(account_domain=ACCOUNT, public_key=spki).SerializeToString()

    def prove(self, rpc: str, challenge: bytes, signed: bytes) -> server_pb2.Proof:
        """A proof over `signed`."""
        signature = proofs.sign(self.key, rpc, challenge, self._authority_key, signed)
        return server_pb2.Proof(challenge=challenge, signature=signature)

    def register(self, challenge: bytes) -> registration_pb2.RegisterRequest:
        """The request for `Register`."""
        return registration_pb2.RegisterRequest(
            registration=self.registration, proof=self.prove("Register", challenge, self.registration)
        )

    def identity(self, certificate: bytes) -> ClientIdentity:
        """For mutual TLS, with this certificate (DER)."""
        return ClientIdentity(certificates.pem(certificates.load(certificate)), private_pem(self.key))


@dataclass
class Link:
    """An open link, with what the primary said on the way to it."""

    channel: grpc.aio.Channel
    call: _Call
    end: SecondaryEnd
    said: Said = field(default_factory=Said)

    async def close(self) -> None:
        """Ends the link."""
        self.call.cancel()
        await self.channel.close()


async def enrol(at: Server, applicant: Applicant, issued: bool = True) -> Link:
    """Enrols and opens the link. A request that is pending is authorized by the local administrator.

    Where certificates are not really issued, at the floor, the one that was brought along is used.
    """
    said = Said()
    await _ask(at, applicant, said)
    certificate = said.awaited[-1].certificate if issued else applicant.brought
    return await connect(at, applicant, certificate, said)


async def _ask(at: Server, applicant: Applicant, said: Said) -> None:
    """At the API port: look, describe, validate, register, wait."""
    async with await _dial(at.api) as api:
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        said.described = await stub.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL))
        said.validated = await stub.Validate(applicant.validate)
        challenge = said.described.challenge
        said.registered = await stub.Register(applicant.register(challenge))
        proof = applicant.prove("AwaitAuthorization", challenge, applicant.claim)
        call = stub.AwaitAuthorization(registration_pb2.AwaitAuthorizationRequest(claim=applicant.claim, proof=proof))
        async for enrolment in call:
            said.awaited.append(enrolment)
            if enrolment.state == PENDING:
                said.authorized = await authorize(at, enrolment.server_id)


async def authorize(at: Server, id: str) -> server_pb2.Server:
    """The local administrator authorizes a server."""
    request = trust_pb2.AuthorizeServerRequest(name=names.resource("accounts", ACCOUNT, "servers", id))
    async with grpc.aio.insecure_channel(at.admin) as admin:
        return await trust_pb2_grpc.TrustServiceStub(admin).AuthorizeServer(request)


async def connect(at: Server, applicant: Applicant, certificate: bytes, said: Said | None = None) -> Link:
    """At the SSL port: look, open the link, answer the challenge with a hello, be welcomed."""
    dialled = await _dial(at.ssl, applicant.identity(certificate))
    call: _Call = hierarchy_pb2_grpc.HierarchyServiceStub(dialled).Connect()
    link = Link(dialled, call, SecondaryEnd(applicant.key, at.signer.authority.public_key), said or Said())
    link.said.challenge = await _message(call)
    hello = hierarchy_pb2.Hello(protocol=channel.PROTOCOL, version="0.1.0")
    await call.write(link.end.on_challenge(link.said.challenge, hello))
    link.said.welcome = await _message(call)
    link.end.on_welcome(link.said.welcome)
    return link


async def _message(call: _Call) -> hierarchy_pb2.FromPrimary:
    message = await call.read()
    assert isinstance(message, hierarchy_pb2.FromPrimary), "the link was closed before the welcome"
    return message


async def _dial(address: Address, identity: ClientIdentity | None = None) -> grpc.aio.Channel:
    """A channel to what is served there, pinned as it is found."""
    dialer = Dialer()
    probed = await dialer.probe(address)
    return dialer.channel(probed.endpoint, channel.pin(certificates.load(probed.leaf_der)), identity)


async def close_all(links: Sequence[Link]) -> None:
    """Ends all of these links."""
    await asyncio.gather(*(link.close() for link in links))
