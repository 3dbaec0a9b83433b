"""The dialer: the one place from which a primary is reached. What lies between is its business, and nobody's above it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from enlist.channel import OPTIONS, ClientIdentity, Pin
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.endpoints import Endpoint, interleaved, literal, look_up
from enlist.transport.race import race

CONNECT_TIMEOUT = 10.0
"""Seconds for one probe: look-up, TCP connection and TLS handshake together."""

SILENCE = 4.0
"""Seconds after which one of several addresses counts as dead if it has not accepted a TCP connection: a SYN has then been repeated
twice (RFC 6298). Otherwise a dead address would hold an attempt open that the other addresses have long refused."""


Resolve = Callable[[Address], Awaitable[Sequence[Endpoint]]]
"""Looks a name up; raises `socket.gaierror`, or finds nothing, where there is none."""


@dataclass(frozen=True)
class Probed:
    """What a port serves, and which of its addresses answered: a channel that trusts the one goes to the other."""

    leaf_der: bytes
    """The certificate served (DER), not verified."""
    endpoint: Endpoint


class Dialer:
    """Dials primaries directly.

    A name is resolved once for each `attempt`, by the system's resolver and within the deadline; its addresses then race to the end
    of a TLS handshake. gRPC would do neither: its own resolver waits for a dead DNS server even where the hosts file has the name,
    and it stays with an address that is silent. So a channel is only ever opened to the literal address that answered a probe.
    This costs one handshake more, which also shows the certificate, and tells why a connection fails.
    """

    def __init__(
        self,
        within: float = CONNECT_TIMEOUT,
        silence: float = SILENCE,
        resolve: Resolve = look_up,
    ) -> None:
        """`within` is the deadline of a probe, `silence` that of a TCP connection to one of several addresses, in seconds.

        `resolve` looks a name up.
        """
        self._within = within
        self._silence = silence
        self._resolve = resolve

    def attempt(self) -> Dialer:
        """The dialer for one attempt to reach a primary, whatever ports that takes: it looks each name up once, found or not."""
        return Dialer(self._within, self._silence, _Once(self._resolve))

    async def probe(self, address: Address, context: ssl.SSLContext | None = None, at: Endpoint | None = None) -> Probed:
        """The certificate served at an address; it is not verified, unless `context` does. Sends nothing but a handshake.

        With `at`, only that one of its addresses is tried. Refuses with NAME_NOT_FOUND, UNREACHABLE or NOT_ENLIST (nothing there
        speaks TLS and HTTP/2). With a verifying `context` an unvouched certificate raises `ssl.SSLCertVerificationError`.
        """
        context = context or _unverified()
        context.set_alpn_protocols(["h2"])
        name = address.host if context.check_hostname else ""
        deadline = asyncio.get_running_loop().time() + self._within
        endpoints = [at] if at else await self._endpoints(address, deadline)

        silence = self._silence if len(endpoints) > 1 else self._within

        async def attempt(endpoint: Endpoint) -> Probed:
            async with asyncio.timeout_at(deadline):
                connected = await _connect(endpoint, silence)
                return Probed(await _handshake(connected, name, context), endpoint)

        try:
            return await race(endpoints, attempt)
        except ExceptionGroup as failed:
            furthest = max(failed.exceptions, key=_got_far)
        raise self._refusal(address, furthest)

    def channel(self, endpoint: Endpoint, pin: Pin, identity: ClientIdentity | None = None) -> grpc.aio.Channel:
        """A channel to an endpoint that has answered a probe; it accepts the pinned certificate and no other."""
        credentials = grpc.ssl_channel_credentials(
            root_certificates=pin.leaf_pem,
            private_key=identity.key_pem if identity else None,
            certificate_chain=identity.certificate_pem if identity else None,
        )
        options = {**OPTIONS, "grpc.ssl_target_name_override": pin.name}
        return grpc.aio.secure_channel(endpoint.target, credentials, options=list(options.items()))

    async def _endpoints(self, address: Address, deadline: float) -> Sequence[Endpoint]:
        if known := literal(address):
            return [known]
        try:
            async with asyncio.timeout_at(deadline):
                found = interleaved(await self._resolve(address))
        except TimeoutError:
            message = f'The name "{address.host}" could not be looked up: no answer came within {self._within:g} s.'
            raise Refused(Reason.NAME_NOT_FOUND, message) from None
        except socket.gaierror:
            found = []
        if not found:
            raise Refused(Reason.NAME_NOT_FOUND, f'The name "{address.host}" does not resolve to an address.')
        return found

    def _refusal(self, address: Address, error: Exception) -> Exception:
        """What to raise for the error of the attempt that got furthest."""
        match error:
            case ssl.SSLCertVerificationError():
                return error
            case ssl.SSLError() | ConnectionResetError() | EOFError():
                return Refused(Reason.NOT_ENLIST, f"Something answers at {address}, but it is not an Enlist primary.")
            case TimeoutError():
                return Refused(Reason.UNREACHABLE, f"{address} does not answer: nothing came back in time.")
            case OSError():
                return Refused(Reason.UNREACHABLE, f"{address} cannot be reached: {_why(error)}.")
        return error


class _Once:
    """What a resolver says of each name, asked once; nobody asks it for two ports at a time."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._hosts: dict[str, Sequence[str]] = {}

    async def __call__(self, address: Address) -> Sequence[Endpoint]:
        if address.host not in self._hosts:
            self._hosts[address.host] = ()  # as it stays where the look-up fails, or is given up
            self._hosts[address.host] = [found.host for found in await self._resolve(address)]
        return [Endpoint(host, address.port) for host in self._hosts[address.host]]


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller verifies it, against the authority
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _connect(endpoint: Endpoint, silence: float) -> socket.socket:
    """A TCP connection, if it is accepted within so many seconds."""
    made = socket.socket(socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        async with asyncio.timeout(silence):
            await asyncio.get_running_loop().sock_connect(made, endpoint)
    except BaseException:
        made.close()
        raise
    return made


async def _handshake(connected: socket.socket, name: str, context: ssl.SSLContext) -> bytes:
    """The certificate shown in a TLS handshake. The connection is closed."""
    _, writer = await asyncio.open_connection(sock=connected, ssl=context, server_hostname=name)
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        leaf = tls.getpeercert(binary_form=True)
        if leaf is None or tls.selected_alpn_protocol() != "h2":
            raise EOFError
        return leaf
    finally:
        writer.transport.abort()  # closing TLS politely would wait for the peer


_STEPS: tuple[tuple[type[Exception], ...], ...] = (
    (ssl.SSLCertVerificationError,),
    (ssl.SSLError, ConnectionResetError, EOFError),
    (ConnectionRefusedError,),
    (TimeoutError,),
    (OSError,),
)
"""Errors of an attempt, from the one that got furthest on."""


def _got_far(error: Exception) -> int:
    """How far the attempt got that ended with this error. One that nobody foresaw counts most."""
    return next((-step for step, kinds in enumerate(_STEPS) if isinstance(error, kinds)), 1)


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused there"
    return os.strerror(error.errno).lower() if error.errno else "the connection failed"
