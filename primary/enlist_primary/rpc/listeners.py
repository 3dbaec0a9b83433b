"""The listeners and the certificates they serve, which are swapped while connections stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enlist import certificates
from enlist.channel import OPTIONS
from enlist.documents import BODY_LIMIT
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary.authority.keys import private_pem
from enlist_primary.authority.signer import Signer

MESSAGE_LIMIT = BODY_LIMIT + 64 * 1024
"""Bytes in a message that the primary accepts: the largest body of a document, and what goes around it."""

SERVER_OPTIONS = {
    "grpc.keepalive_time_ms": OPTIONS["grpc.keepalive_time_ms"],
    "grpc.http2.ping_timeout_ms": OPTIONS["grpc.http2.ping_timeout_ms"],
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    "grpc.so_reuseport": 0,  # or a second server on the same port would silently get half of the connections
    "grpc.max_receive_message_length": MESSAGE_LIMIT,
    "grpc.max_metadata_size": 16 * 1024,
    "grpc.max_concurrent_streams": 100,
    "grpc.server.max_pending_requests": 20_000,  # a burst of reconnecting secondaries is served late, not refused
    "grpc.server.max_pending_requests_hard_limit": 40_000,
    "grpc.server_handshake_timeout_ms": 10_000,  # silent TCP and half a ClientHello are shed
}


_CURVES = ("secp256r1", "secp384r1")  # with Ed25519 or P-521 every handshake would fail, without a word to anybody


class Credential:
    """A served certificate that can be replaced while the listener runs. `publish` validates; gRPC only ever sees what is good.

    (If the callback raised, or returned bad PEM, gRPC would silently go on with the old one.)
    """

    def __init__(self, key_pem: bytes, chain_pem: bytes, client_root: bytes | None) -> None:
        self._client_root = client_root
        self._current = self._configuration(key_pem, chain_pem)
        self._fresh = False
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._current,
            self._fetch,  # type: ignore[arg-type]  # the stubs leave out that None means nothing new
            client_root is not None,
        )

    def _configuration(self, key_pem: bytes, chain_pem: bytes) -> grpc.ServerCertificateConfiguration:
        self.leaf = check_pair(key_pem, chain_pem)
        return grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)], root_certificates=self._client_root)

    def publish(self, key_pem: bytes, chain_pem: bytes) -> None:
        """Serves another certificate to every connection from now on; open ones stay."""
        self._current = self._configuration(key_pem, chain_pem)
        self._fresh = True

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on threads of its own, for every new connection: None means nothing new."""
        if not self._fresh:
            return None
        self._fresh = False
        return self._current


def check_pair(key_pem: bytes, chain_pem: bytes) -> x509.Certificate:
    """The leaf of a chain, once it is certain that the private key belongs to it."""
    try:
        key = serialization.load_pem_private_key(key_pem, None)
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    except (ValueError, TypeError, IndexError, UnsupportedAlgorithm):
        raise Refused(Reason.CONFIG_INVALID, "The certificate or its private key cannot be read (PEM is expected).") from None
    fit = isinstance(key, rsa.RSAPrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES)
    if not fit:
        raise Refused(Reason.CONFIG_INVALID, "The certificate's key must be RSA, or elliptic-curve on P-256 or P-384.")
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*public) != leaf.public_key().public_bytes(*public):
        raise Refused(Reason.CONFIG_INVALID, "The certificate and the private key do not belong together.")
    return leaf


def own_certificate(signer: Signer, addresses: Sequence[str], lifetime: int, now: int) -> tuple[bytes, bytes]:
    """Key and certificate (PEM) for the primary's own ports, made anew: nothing needs to remember them."""
    key = certificates.new_key()
    return private_pem(key), certificates.pem(signer.issue_server(key.public_key(), addresses, lifetime, now))


def company_certificate(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Key and certificate chain (PEM) that the company's CA made out for the API port."""
    try:
        return files.read(key, secret=True), files.read(certificate)
    except FileNotFoundError as error:
        raise Refused(Reason.CONFIG_INVALID, f"There is no file {error.filename}, which the configuration names.") from None


async def bind(server: grpc.aio.Server, host: str, port: int, what: str, credentials: grpc.ServerCredentials) -> int:
    """Listens, and returns the port; refused with PORT_IN_USE, saying which."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(target, credentials)
    except RuntimeError:
        bound = 0
    if bound:
        return bound
    if port and await _taken(host, port):
        raise Refused(Reason.PORT_IN_USE, f"The {what}, {port}, is in use by another program. Stop that, or set another port.")
    raise Refused(Reason.CONFIG_INVALID, f"The {what} cannot listen at {target}: is this an address of this machine?")


async def _taken(host: str, port: int) -> bool:
    try:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, port)
    except OSError as error:
        return error.errno == 98  # EADDRINUSE
    server.close()
    await server.wait_closed()
    return False
