"""Whoever answers where a primary is expected: real certificates, real gRPC, and one thing wrong with it, as a test says.

It answers `DescribePrimary` and nothing else, and keeps what it was asked: a server that met a stranger must have told it nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates
from enlist.channel import PROTOCOL
from enlist.names import Address
from enlist.reasons import Refused
from enlist.v1 import registration_pb2 as pb
from enlist.v1 import registration_pb2_grpc
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer, new_authority

DAY = 86400


def new_signer() -> Signer:
    """An authority of its own."""
    key = certificates.new_key()
    return Signer(key, new_authority(key, int(time.time())))


def primary_id_of(authority_certificate: bytes) -> str:
    """The id that goes with an authority; empty where the bytes are none."""
    try:
        return certificates.read_authority(authority_certificate).primary_id
    except Refused:
        return ""


@dataclass
class Leaf:
    """A certificate and its key, as a server serves them."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        """The certificate's DER."""
        return certificates.der(self.certificate)

    @property
    def pem(self) -> tuple[bytes, bytes]:
        """Key and certificate, PEM."""
        return keys.private_pem(self.key), certificates.pem(self.certificate)


def server_leaf(signer: Signer, *addresses: str, now: float | None = None, lifetime: int = DAY) -> Leaf:
    """A primary's own server certificate."""
    key = certificates.new_key()
    made_at = int(time.time() if now is None else now)
    return Leaf(signer.issue_server(key.public_key(), addresses, lifetime, made_at), key)


def secondary_leaf(signer: Signer) -> Leaf:
    """A secondary's certificate."""
    key = certificates.new_key()
    der = signer.issue_secondary(key.public_key(), "acme.example", "abcdefghij", DAY, int(time.time()))
    return Leaf(certificates.load(der), key)


@dataclass
class Pretender(registration_pb2_grpc.RegistrationServiceServicer):
    """Describes itself as it is told to; whatever else it is asked is kept and refused."""

    signer: Signer
    leaf: Leaf
    address: Address
    described: dict[str, Any] = field(default_factory=dict)
    clock_error: int = 0
    told: list[str] = field(default_factory=list)

    async def DescribePrimary(self, request: pb.DescribePrimaryRequest, context: Any) -> pb.DescribePrimaryResponse:
        """The one thing anybody may know."""
        shown = self.described.get("authority_certificate", certificates.der(self.signer.authority.certificate))
        answer = pb.DescribePrimaryResponse(
            **{
                "primary_name": "Pretender",
                "primary_id": primary_id_of(shown),
                "authority_certificate": shown,
                "leaf_statement": b"",
                "ssl_port": self.address.port,
                "oldest_protocol": PROTOCOL,
                "newest_protocol": PROTOCOL,
                "version": "0.1.0",
                "challenge": b"c" * 56,
                **self.described,
            }
        )
        answer.time.seconds = int(time.time()) + self.clock_error
        return answer

    async def _keep(self, name: str, context: Any) -> Any:
        self.told.append(name)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    async def Validate(self, request: pb.ValidateRequest, context: Any) -> Any:
        """Kept."""
        return await self._keep("Validate", context)

    async def Register(self, request: pb.RegisterRequest, context: Any) -> Any:
        """Kept."""
        return await self._keep("Register", context)

    async def AwaitAuthorization(self, request: pb.AwaitAuthorizationRequest, context: Any) -> AsyncIterator[pb.Enrolment]:
        """Kept."""
        yield await self._keep("AwaitAuthorization", context)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> Any:
        """Kept."""
        return await self._keep("Leave", context)


@asynccontextmanager
async def pretending(signer: Signer, leaf: Leaf | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Pretender]:
    """A pretender that serves; its fields may be changed while it does."""
    pretender = Pretender(signer, leaf or server_leaf(signer), Address(host, port))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    registration_pb2_grpc.add_RegistrationServiceServicer_to_server(pretender, server)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bound = server.add_secure_port(target, grpc.ssl_server_credentials([pretender.leaf.pem]))
    pretender.address = Address(host, bound)
    await server.start()
    try:
        yield pretender
    finally:
        await server.stop(None)
