"""Channels to a primary, each pinned to one server certificate that our own code has looked at.

gRPC alone checks chains and names, and would accept a certificate that any intermediate below the same root made out. So a channel
here trusts exactly one leaf: `probe` fetches what is served, the caller verifies it (`enlist.certificates`), `dial` pins it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio
from cryptography import x509
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from enlist import certificates
from enlist.names import Address
from enlist.reasons import DOMAIN, Reason, Refused

T = TypeVar("T")

PROTOCOL = 2
"""The protocol this version speaks; it is the oldest one too: 1 was that of Enlist 0.1."""

CONNECT_TIMEOUT = 10.0
"""Seconds within which a TCP connection and its TLS handshake must stand."""

RPC_TIMEOUT = 20.0
"""Seconds within which a unary RPC must be answered."""

MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes in a message that a client accepts."""

OPTIONS: Mapping[str, int | str] = {
    # Liveness is HTTP/2's own: a dead peer is noticed within 30 s without a line of Python. `keepalive_timeout_ms` has no effect.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.http2.ping_timeout_ms": 8_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    # A proxy is dialled by our own byte bridge, or not at all: gRPC's own support connects directly where it should fail.
    "grpc.enable_http_proxy": 0,
    "grpc.enable_retries": 0,
    "grpc.max_receive_message_length": MESSAGE_LIMIT,
}


async def probe(address: Address, within: float = CONNECT_TIMEOUT, context: ssl.SSLContext | None = None) -> bytes:
    """The certificate (DER) served at an address; it is not verified, unless `context` does. Sends nothing but a handshake.

    Refuses with NAME_NOT_FOUND, UNREACHABLE or NOT_ENLIST (nothing there speaks TLS and HTTP/2). With a verifying `context` an
    unvouched certificate raises `ssl.SSLCertVerificationError`.
    """
    try:
        async with asyncio.timeout(within):
            return await _handshake(address, context or _unverified())
    except TimeoutError:
        raise Refused(Reason.UNREACHABLE, f"{address} does not answer: nothing came back within {within:g} s.") from None
    except socket.gaierror:
        raise Refused(Reason.NAME_NOT_FOUND, f'The name "{address.host}" does not resolve to an address.') from None
    except ssl.SSLCertVerificationError:
        raise
    except (ssl.SSLError, ConnectionResetError, EOFError):
        raise Refused(Reason.NOT_ENLIST, f"Something answers at {address}, but it is not an Enlist primary.") from None
    except OSError as error:
        raise Refused(Reason.UNREACHABLE, f"{address} cannot be reached: {_why(error)}.") from None


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who it is is verified by the caller, against the authority
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _handshake(address: Address, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    name = address.host if context.check_hostname else ""
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=name)
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        leaf = tls.getpeercert(binary_form=True)
        if leaf is None or tls.selected_alpn_protocol() != "h2":
            raise EOFError
        return leaf
    finally:
        writer.transport.abort()  # a polite TLS farewell would wait for a peer that owes us nothing


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused there"
    return (error.strerror or "the connection failed").lower()


@dataclass(frozen=True)
class Pin:
    """What a channel trusts: one exact certificate (PEM), and the name under which gRPC's host check finds it in order."""

    leaf_pem: bytes
    name: str


def pin(leaf: x509.Certificate) -> Pin:
    """Pins a server certificate that has been verified."""
    return Pin(certificates.pem(leaf), certificates.channel_name(leaf))


@dataclass(frozen=True)
class ClientIdentity:
    """A secondary's own certificate and private key, PEM, for mutual TLS. The key stays out of the repr."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "ClientIdentity()"


def dial(address: Address, pin: Pin, identity: ClientIdentity | None = None) -> grpc.aio.Channel:
    """A channel to `address` that accepts the pinned certificate and no other."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=pin.leaf_pem,
        private_key=identity.key_pem if identity else None,
        certificate_chain=identity.certificate_pem if identity else None,
    )
    options = {**OPTIONS, "grpc.ssl_target_name_override": pin.name}
    return grpc.aio.secure_channel(_target(address), credentials, options=list(options.items()))


def _target(address: Address) -> str:
    if ":" in address.host:
        return f"ipv6:[{address.host}]:{address.port}"
    return f"{address.host}:{address.port}"


_LOST = (Reason.UNREACHABLE, "The connection failed or was lost.")
_UNEXPLAINED = {
    grpc.StatusCode.UNAVAILABLE: _LOST,
    grpc.StatusCode.CANCELLED: _LOST,
    grpc.StatusCode.DEADLINE_EXCEEDED: (Reason.TIMED_OUT, "No answer came in time."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Reason.OVERLOADED, "The primary has too much to do, or the message was too large."),
    grpc.StatusCode.INTERNAL: (Reason.INTERNAL, "The primary failed at this request."),
}


async def answer(call: Awaitable[T]) -> T:
    """The answer to a unary RPC; a failed one raises its `refusal`."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise refusal(error) from None


def refusal(error: grpc.aio.AioRpcError) -> Refused:
    """The refusal in a failed RPC; where Enlist gave no reason, the nearest one to the bare gRPC status."""
    try:
        reason = _reason(error)
    except (ValueError, DecodeError):  # what somebody sent in place of a reason cannot be read, or contradicts the status
        reason = None
    if reason is not None:
        return Refused(reason, error.details() or reason)
    other = (Reason.NOT_ENLIST, "Something answers there, but not as Enlist does.")
    return Refused(*_UNEXPLAINED.get(error.code(), other))


def _reason(error: grpc.aio.AioRpcError) -> Reason | None:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads code, details and trailers, which this has too
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
            return Reason(info.reason)
    return None
