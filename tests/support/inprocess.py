"""A real primary inside the test's own process: its listeners, its database in a temporary folder, its administrator's stubs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from enlist import certificates, names, proofs
from enlist.channel import PROTOCOL, ClientIdentity, Pin, refusal
from enlist.link.ends import SecondaryEnd
from enlist.names import Address
from enlist.reasons import Refused
from enlist.runtime import sockets
from enlist.v1 import (
    account_pb2,
    account_pb2_grpc,
    hierarchy_pb2_grpc,
    journal_pb2_grpc,
    policy_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    server_pb2,
    task_pb2_grpc,
    trust_pb2,
    trust_pb2_grpc,
)
from enlist_primary.app import Primary
from enlist_primary.authority import keys
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.founding import found
from enlist_primary.store.sqlite import open_sqlite
from tests.support.dialling import dial, served

ACCOUNT = "acme.example"


@dataclass
class Stubs:
    """Every service over one channel."""

    registration: registration_pb2_grpc.RegistrationServiceAsyncStub
    trust: trust_pb2_grpc.TrustServiceAsyncStub
    hierarchy: hierarchy_pb2_grpc.HierarchyServiceAsyncStub
    accounts: account_pb2_grpc.AccountServiceAsyncStub
    journal: journal_pb2_grpc.JournalServiceAsyncStub
    policies: policy_pb2_grpc.PolicyServiceAsyncStub
    tasks: task_pb2_grpc.TaskServiceAsyncStub


def stubs(on: grpc.aio.Channel) -> Stubs:
    """The stubs of all services on a channel."""
    return Stubs(
        registration_pb2_grpc.RegistrationServiceStub(on),
        trust_pb2_grpc.TrustServiceStub(on),
        hierarchy_pb2_grpc.HierarchyServiceStub(on),
        account_pb2_grpc.AccountServiceStub(on),
        journal_pb2_grpc.JournalServiceStub(on),
        policy_pb2_grpc.PolicyServiceStub(on),
        task_pb2_grpc.TaskServiceStub(on),
    )


@dataclass
class Running:
    """A primary that serves, with its local administrator's stubs."""

    primary: Primary
    folder: DataFolder
    admin: Stubs

    @property
    def authority(self) -> certificates.Authority:
        """The authority, as everybody may know it."""
        return self.primary.context.signer.authority

    @property
    def api(self) -> Address:
        """The API port."""
        return Address("127.0.0.1", self.primary.context.ports.api)

    @property
    def ssl(self) -> Address:
        """The SSL port."""
        return Address("127.0.0.1", self.primary.context.ports.ssl)

    @property
    def owner_token(self) -> str:
        """The first owner's token."""
        return self.folder.owner_token.read_text().strip()

    async def pin(self, address: Address) -> Pin:
        """A pin on what is served there now."""
        leaf = certificates.load(await served(address))
        return Pin(certificates.pem(leaf), certificates.channel_name(leaf))

    @asynccontextmanager
    async def stranger(self) -> AsyncIterator[Stubs]:
        """Stubs at the API port without token or certificate."""
        async with dial(self.api, await self.pin(self.api)) as on:
            yield stubs(on)

    async def server(self, id: str) -> server_pb2.Server:
        """A server as the administrator sees it."""
        from enlist.v1 import hierarchy_pb2

        name = names.resource("accounts", ACCOUNT, "servers", id)
        return await self.admin.hierarchy.GetServer(hierarchy_pb2.GetServerRequest(name=name))

    async def api_key(self, **fields: Any) -> str:
        """A fresh API key of the account; restricted unless said otherwise."""
        fields = {"parent": f"accounts/{ACCOUNT}", "kind": account_pb2.API_KEY_KIND_RESTRICTED, **fields}
        return (await self.admin.accounts.CreateApiKey(account_pb2.CreateApiKeyRequest(**fields))).secret

    async def authorize(self, id: str, code: str = "") -> server_pb2.Server:
        """The administrator clicks Authorize."""
        name = names.resource("accounts", ACCOUNT, "servers", id)
        return await self.admin.trust.AuthorizeServer(trust_pb2.AuthorizeServerRequest(name=name, comparison_code=code))


class Asker:
    """A server without a daemon: a key, and the RPCs signed with it."""

    def __init__(self, running: Running, name: str = "asker", account: str = ACCOUNT) -> None:
        self.running = running
        self.name = name
        self.account = account
        self.key = certificates.new_key()
        self.public_key = certificates.spki(self.key.public_key())
        self.certificate = b""

    async def proof(self, stub: Stubs, rpc: str, signed: bytes) -> server_pb2.Proof:
        """A proof over `signed` with a fresh challenge."""
        described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))
        signature = proofs.sign(self.key, rpc, described.challenge, self.running.authority.public_key, signed)
        return server_pb2.Proof(challenge=described.challenge, signature=signature)

    async def register(self, stub: Stubs, api_key: str = "") -> registration_pb2.Enrolment:
        """Asks to join; the certificate is fetched at once if this made it trusted."""
        registration = registration_pb2.Registration(
            account_domain=self.account,
            display_name=self.name,
            api_key=api_key,
            public_key=self.public_key,
            version="0.1.0",
        ).SerializeToString()
        proof = await self.proof(stub, "Register", registration)
        request = registration_pb2.RegisterRequest(registration=registration, proof=proof)
        enrolment = await stub.registration.Register(request)
        if enrolment.state == server_pb2.SERVER_STATE_TRUSTED:
            await self.fetch(stub)
        return enrolment

    async def fetch(self, stub: Stubs) -> registration_pb2.Enrolment:
        """The first word of the wait, with the certificate if this server is trusted."""
        claim, proof = await self.claim(stub, "AwaitAuthorization")
        call = stub.registration.AwaitAuthorization(registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof))
        enrolment = await anext(aiter(call))
        call.cancel()
        self.certificate = enrolment.certificate or self.certificate
        return enrolment

    async def claim(self, stub: Stubs, rpc: str) -> tuple[bytes, server_pb2.Proof]:
        """A signed claim for `AwaitAuthorization` or `Leave`."""
        claim = registration_pb2.Claim(account_domain=self.account, public_key=self.public_key).SerializeToString()
        return claim, await self.proof(stub, rpc, claim)

    async def renewal(self, stub: Stubs) -> trust_pb2.RenewCertificateRequest:
        """The request for another certificate, with a proof over a fresh challenge."""
        return trust_pb2.RenewCertificateRequest(proof=await self.proof(stub, "RenewCertificate", b""))

    def link_end(self) -> SecondaryEnd:
        """This server's end of a link that is about to open."""
        return SecondaryEnd(self.key, self.running.authority.public_key)

    def identity(self) -> ClientIdentity:
        """For mutual TLS, with the certificate last received."""
        pem = certificates.pem(certificates.load(self.certificate))
        return ClientIdentity(pem, keys.private_pem(self.key))

    @asynccontextmanager
    async def at_ssl_port(self) -> AsyncIterator[Stubs]:
        """Stubs at the SSL port with this server's certificate."""
        pin = await self.running.pin(self.running.ssl)
        async with dial(self.running.ssl, pin, self.identity()) as on:
            yield stubs(on)


@asynccontextmanager
async def running_primary(path: Path, clock: Callable[[], float] = time.time, **config: Any) -> AsyncIterator[Running]:
    """A primary on loopback at ports the system chooses, with the account `acme.example`."""
    folder = DataFolder(path / "primary")
    fields = {"name": "Test Primary", "listen": "127.0.0.1", "ssl_port": 0, "api_port": 0, **config}
    settings = Config(**fields)
    await found(folder, settings, int(time.time()))
    async with serving(folder, settings, clock) as running:
        request = account_pb2.CreateAccountRequest(domain=ACCOUNT, contact="ops@acme.example")
        await running.admin.accounts.CreateAccount(request)
        yield running


@asynccontextmanager
async def serving(folder: DataFolder, config: Config, clock: Callable[[], float] = time.time) -> AsyncIterator[Running]:
    """Serves a data folder that is there."""
    with folder.lock():
        async with open_sqlite(folder.database) as database:
            primary = Primary(folder, config, keys.load(folder), database, clock)
            async with primary.serving():
                with sockets.target(folder.admin_socket) as target:
                    async with grpc.aio.insecure_channel(target) as on:
                        yield Running(primary, folder, stubs(on))


async def refused_by(call: Any) -> Refused:
    """The refusal a call ends with; fails if it succeeds."""
    try:
        result = await call
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    raise AssertionError(f"the call was not refused: {result}")
