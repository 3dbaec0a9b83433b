"""The staged checks that wizard, daemon and `doctor` share: each failure has its own reason code, and advice for people.

A primary is *reached* (its port, its certificate, its version, its clock), then *vouched for* (accepted before, by a fingerprint,
by the company's authority, or by a person), and only then told anything.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import grpc.aio
from cryptography import x509

from enlist import certificates, channel
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape, moment
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist.v1 import registration_pb2, registration_pb2_grpc
from enlist_secondary.known_primaries import KnownPrimaries

Clock = Callable[[], float]
"""Unix seconds, such as `time.time`."""


@dataclass(frozen=True)
class Primary:
    """A primary reached at its API port, whose served certificate the authority it shows answers for; not yet *accepted*."""

    address: Address
    endpoint: Endpoint
    """The one of its addresses that answered."""
    authority: certificates.Authority
    leaf_der: bytes
    name: str
    """The primary's own name, escaped for showing."""
    ssl_port: int
    version: str
    challenge: bytes
    """For the first proof; good for `proofs.CHALLENGE_LIFETIME` seconds after `described_at`."""
    described_at: int

    def pin(self) -> channel.Pin:
        """What a channel to the API port trusts."""
        return channel.pin(certificates.load(self.leaf_der))

    @property
    def ssl_address(self) -> Address:
        """Where trusted servers connect: the host that was dialled, and the port learnt there."""
        return Address(self.address.host, self.ssl_port)


class Way(StrEnum):
    """How an authority came to be accepted."""

    JOIN_LINE = "join-line"
    FINGERPRINT = "fingerprint"
    COMPANY_CA = "company-ca"
    COMPARED = "compared"
    KNOWN = "known"


ADVICE: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.NAME_NOT_FOUND: "Check the spelling, or give the IP address.",
        Reason.UNREACHABLE: "Check the address, that enlist-primary serves there, and the firewalls in between.",
        Reason.SSL_PORT_UNREACHABLE: "Have the firewalls in between let this port through as well.",
        Reason.NOT_ENLIST: "Check the address and the port; the API port is 13299 unless it was changed.",
        Reason.TIMED_OUT: "Try again; if it stays so, look at the primary's load and the network.",
        Reason.CLOCK_SKEW: "Set this server's clock, or the primary's; a time service keeps both right.",
        Reason.VERSION_INCOMPATIBLE: "Install the same release of Enlist at both ends.",
        Reason.TLS_INTERCEPTED: "Have the device that opens TLS connections leave this address alone.",
        Reason.IDENTITY_MISMATCH: "Do not go on before you know why: ask the primary's administrator.",
        Reason.IDENTITY_CHANGED: "Do not go on before you know why: ask the primary's administrator. If it really has a new key, "
        "take its entry out of known-primaries.toml in the data folder, and set this server up again. "
        "To move to a different primary, run enlist-setup; writing another address into secondary.toml is not enough.",
        Reason.IDENTITY_NOT_CONFIRMED: "Compare the fingerprint with what `enlist-primary status` shows.",
        Reason.SERVER_SUSPENDED: "Ask an administrator of the account to resume it. "
        "It then connects by itself, while enlist-secondary runs.",
        Reason.NOT_RUNNING: "Start its service, or enlist-secondary run.",
        Reason.SERVER_EXPIRED: "While enlist-secondary runs, it asks again by itself; so does enlist-setup.",
    }
)
"""What to do about a reason where its own sentence cannot know; it follows that sentence."""


def advice(reason: str) -> str:
    """What to do about a reason code, or nothing."""
    return ADVICE.get(Reason(reason), "") if reason in Reason.__members__ else ""


async def reach(dialer: Dialer, address: Address, now: Clock) -> Primary:
    """Dials a primary's API port and has it describe itself. Sends nothing of this server's.

    Refuses with NAME_NOT_FOUND, UNREACHABLE, NOT_ENLIST, TIMED_OUT, VERSION_INCOMPATIBLE, CLOCK_SKEW, or TLS_INTERCEPTED: the
    certificate served is neither the authority's own nor covered by its statement.
    """
    probed = await dialer.probe(address)
    leaf = certificates.load(probed.leaf_der)
    _check_validity(address, leaf, int(now()))
    described = await _describe(address, dialer.channel(probed.endpoint, channel.pin(leaf)))
    _check_version(address, described)
    _check_clock(address, described.time.seconds, int(now()))
    authority = _authority(address, described)
    if not 0 < described.ssl_port < 65536:
        raise Refused(Reason.NOT_ENLIST, f"{address} names no proper SSL port.")
    _check_leaf(address, authority, leaf, described.leaf_statement, int(now()))
    return Primary(
        address=address,
        endpoint=probed.endpoint,
        authority=authority,
        leaf_der=probed.leaf_der,
        name=escape(described.primary_name),
        ssl_port=described.ssl_port,
        version=escape(described.version),
        challenge=described.challenge,
        described_at=int(now()),
    )


def _check_validity(address: Address, leaf: x509.Certificate, now: int) -> None:
    """gRPC would only say that the connection failed, so this comes before it."""
    if not certificates.valid_at(leaf, now):
        begins, ends = moment(certificates.begins_at(leaf)), moment(certificates.ends_at(leaf))
        raise Refused(
            Reason.CLOCK_SKEW,
            f"The certificate at {address} is good from {begins} to {ends}, but this server's clock says {moment(now)}.",
        )


async def _describe(address: Address, dialled: grpc.aio.Channel) -> registration_pb2.DescribePrimaryResponse:
    try:
        async with dialled as api:
            return await describe(api)
    except Refused as refused:
        if refused.reason is not Reason.UNREACHABLE:
            raise
    raise Refused(Reason.UNREACHABLE, f"{address} ends the connection right after the TLS handshake. Is it the API port?")


async def describe(api: grpc.aio.Channel) -> registration_pb2.DescribePrimaryResponse:
    """Asks over an open channel; the answer carries a fresh challenge."""
    request = registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL)
    stub = registration_pb2_grpc.RegistrationServiceStub(api)
    return await channel.answer(stub.DescribePrimary(request, timeout=channel.RPC_TIMEOUT))


def _check_version(address: Address, described: registration_pb2.DescribePrimaryResponse) -> None:
    if not described.oldest_protocol <= channel.PROTOCOL <= described.newest_protocol:
        raise Refused(
            Reason.VERSION_INCOMPATIBLE,
            f"The primary at {address} runs Enlist {escape(described.version)} and speaks protocols {described.oldest_protocol} to "
            f"{described.newest_protocol}; this server speaks {channel.PROTOCOL}.",
        )


def _check_clock(address: Address, theirs: int, ours: int) -> None:
    if abs(theirs - ours) > certificates.CLOCK_TOLERANCE:
        raise Refused(
            Reason.CLOCK_SKEW,
            f"The clocks differ too much: it is {moment(theirs)} at {address}, but {moment(ours)} here.",
        )


def _authority(address: Address, described: registration_pb2.DescribePrimaryResponse) -> certificates.Authority:
    try:
        authority = certificates.read_authority(described.authority_certificate)
    except Refused as refused:
        raise Refused(Reason.NOT_ENLIST, f"{address} shows no proper authority: {refused.message}") from None
    if described.primary_id != authority.primary_id:
        raise Refused(Reason.CERTIFICATE_INVALID, f"The primary at {address} goes by an id that its authority does not prove.")
    return authority


def _check_leaf(address: Address, authority: certificates.Authority, leaf: x509.Certificate, statement: bytes, now: int) -> None:
    if not certificates.answers_for(authority, leaf, statement, now):
        raise Refused(
            Reason.TLS_INTERCEPTED,
            f"The certificate at {address} is not one the primary answers for: somebody in between opens the connection.",
        )


class SslPort(NamedTuple):
    """Where the SSL port answered, and the pin on what it serves there."""

    endpoint: Endpoint
    pin: channel.Pin


async def reach_ssl_port(dialer: Dialer, address: Address, authority: certificates.Authority, now: Clock) -> SslPort:
    """Looks at what is served where trusted servers connect, and pins it if the authority itself issued it.

    Refuses with NAME_NOT_FOUND, SSL_PORT_UNREACHABLE, TLS_INTERCEPTED or CLOCK_SKEW. A company's certificate has no place at this
    port.
    """
    try:
        probed = await dialer.probe(address)
    except Refused as refused:
        if refused.reason is Reason.NAME_NOT_FOUND:
            raise
        raise Refused(Reason.SSL_PORT_UNREACHABLE, f"The SSL port does not answer: {refused.message}") from None
    leaf = certificates.load(probed.leaf_der)
    if certificates.issued_by(leaf, authority.certificate):
        _check_validity(address, leaf, int(now()))
    if not certificates.is_server_leaf_of(leaf, authority, int(now())):
        raise Refused(
            Reason.TLS_INTERCEPTED,
            f"The certificate at the SSL port {address} is not the primary's own: somebody in between opens the connection.",
        )
    return SslPort(probed.endpoint, channel.pin(leaf))


async def vouched(
    dialer: Dialer,
    primary: Primary,
    known: KnownPrimaries,
    fingerprint: str | None,
    company_ca: str = "system",
    confirm_identity: str = "auto",
) -> Way | None:
    """How this primary's authority is vouched for, or None: then a person must compare its fingerprint, default No.

    `fingerprint` came with a flag or a join line (the answer is FINGERPRINT for both); the last two are as in the configuration.
    Refuses with IDENTITY_MISMATCH (the fingerprint given is another one) or IDENTITY_CHANGED (a different
    authority was accepted at this address: a hard stop and, at the caller, an alarm).
    """
    shown = primary.authority.fingerprint
    if fingerprint is not None and fingerprint != shown:
        raise Refused(
            Reason.IDENTITY_MISMATCH,
            f"The primary at {primary.address} has the fingerprint {shown}, not {fingerprint}.",
        )
    check_unchanged(primary, known.accepted(primary.address))
    if known.holds(primary.authority.primary_id):
        return Way.KNOWN
    if fingerprint is not None:
        return Way.FINGERPRINT
    if confirm_identity == "auto" and await _company_vouches(dialer, primary, company_ca):
        return Way.COMPANY_CA
    return None


def check_unchanged(primary: Primary, accepted: certificates.Authority | None) -> None:
    """Refuses with IDENTITY_CHANGED if another authority was accepted where this primary now answers."""
    if accepted is not None and accepted.fingerprint != primary.authority.fingerprint:
        raise Refused(
            Reason.IDENTITY_CHANGED,
            f"Another primary answers at {primary.address}: its fingerprint is {primary.authority.fingerprint}, but "
            f"{accepted.fingerprint} was accepted there.",
        )


def check_own(primary: Primary, own: certificates.Authority) -> None:
    """Refuses with IDENTITY_CHANGED if this is another primary than the one this server's key was made for, at whatever address."""
    if own.fingerprint != primary.authority.fingerprint:
        raise Refused(
            Reason.IDENTITY_CHANGED,
            f"Another primary answers at {primary.address}: its fingerprint is {primary.authority.fingerprint}, but that of this "
            f"server's own primary is {own.fingerprint}.",
        )


async def _company_vouches(dialer: Dialer, primary: Primary, company_ca: str) -> bool:
    """Whether the company's authority, checked as a browser would, stands behind exactly the certificate that was reached.

    That the primary's authority answers for that certificate has been seen by `reach`.
    """
    if company_ca == "none":
        return False
    bundle = None if company_ca == "system" else company_ca
    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=bundle)
    except OSError as error:  # SSLError, of a file that holds no certificates, is one
        raise Refused(Reason.FILE_FAILED, f"{bundle}: no certificates can be read from it ({error.strerror or error}).") from None
    try:
        probed = await dialer.probe(primary.address, context, at=primary.endpoint)
    except ssl.SSLCertVerificationError:
        return False
    return probed.leaf_der == primary.leaf_der


async def validate(dialer: Dialer, primary: Primary, account: str, api_key: str) -> registration_pb2.ValidateResponse:
    """Asks whether account and API key would be accepted; the primary writes nothing. Only after the primary was vouched for.

    Refuses with ACCOUNT_UNKNOWN, one of the API_KEY reasons, or TOO_MANY_ATTEMPTS.
    """
    request = registration_pb2.ValidateRequest(account_domain=account, api_key=api_key)
    async with dialer.channel(primary.endpoint, primary.pin()) as api:
        stub = registration_pb2_grpc.RegistrationServiceStub(api)
        return await channel.answer(stub.Validate(request, timeout=channel.RPC_TIMEOUT))
