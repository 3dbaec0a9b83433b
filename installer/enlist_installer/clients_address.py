"""Whether clients find this server: its name is looked up in the DNS, and what is missing there is said as the record to ask for.

Print jobs and embedded terminals need that record. The system's resolver would not do: it also answers from the hosts file, and on
Debian with 127.0.1.1, so that a name which no client can resolve looks fine on the server itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enlist import names
from enlist.reasons import Refused
from enlist.runtime.threads import in_thread
from enlist.transport.endpoints import Endpoint

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

LOOKUP_TIMEOUT = 3.0
"""Seconds after which a DNS that does not answer is given up."""

_ELSEWHERE = Endpoint("192.0.2.1", 9)  # nobody's (RFC 5737): only the way there is of interest

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Finding:
    """What clients will find at an address: a sentence, whether it is a warning, and the DNS record to ask for, if there is one."""

    warning: bool
    message: str
    record: str = ""


async def find(server_address: str, own: IpAddress | None, resolver: Resolver | None = None) -> Finding:
    """Looks up where clients would find this server; refuses nothing.

    `server_address` is a name, an IP address or "" for none; `own` is this machine's address as the primary's network sees it, for
    the record to ask for. `resolver` is another than the system's DNS servers, for tests.
    """
    if not server_address:
        return Finding(True, "Without an address, clients cannot send print jobs or use embedded terminals at this server.")
    if (ip := _ip(server_address)) is not None:
        return _judge_ip(server_address, ip)
    if "." not in server_address.rstrip("."):
        return Finding(
            True, f'"{server_address}" is a short name, which clients in other networks cannot find. Give the full name.'
        )
    found = await _look_up(server_address, resolver)
    if found is None:
        return Finding(
            True, "The DNS did not answer, so nobody knows whether clients find this server.", record(server_address, own)
        )
    return _judge(server_address, found, own)


def _judge_ip(shown: str, ip: IpAddress) -> Finding:
    """An IP address needs no look-up, but some lead no client here."""
    meant = getattr(ip, "ipv4_mapped", None) or ip
    if meant.is_loopback or meant.is_unspecified:
        return Finding(True, f"At {shown} every client finds itself, not this server. Give the address that others use.")
    if meant.is_link_local:
        return Finding(True, f"{shown} is a link-local address, which clients in other networks cannot reach.")
    return Finding(False, "An IP address needs no DNS entry.")


async def _look_up(name: str, resolver: Resolver | None) -> list[IpAddress] | None:
    """The addresses the DNS knows, but for loopback ones; None if it does not answer."""
    import dns.asyncresolver  # heavy, and not every run has a name to look up
    import dns.exception

    try:
        asked = resolver or dns.asyncresolver.Resolver()
        answers = await asyncio.gather(*(_query(name, kind, asked) for kind in ("A", "AAAA")))
    except dns.exception.DNSException:
        return None
    return [address for answer in answers for address in answer if not address.is_loopback]


async def _query(name: str, kind: str, resolver: Resolver) -> list[IpAddress]:
    import dns.resolver

    try:
        answer = await resolver.resolve(name, kind, search=False, lifetime=LOOKUP_TIMEOUT)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    return [ipaddress.ip_address(data.address) for data in answer]


def _judge(name: str, found: Sequence[IpAddress], own: IpAddress | None) -> Finding:
    shown = ", ".join(map(str, found))
    if not found:
        message = f'The DNS does not know "{name}". Print jobs and embedded terminals need it.'
        return Finding(True, message, record(name, own))
    if own is None or own in found:
        return Finding(False, f"The DNS knows it: {shown}.")
    return Finding(True, f"The DNS has {shown} for it, but this server is {own}. Do clients reach it there?", record(name, own))


def record(name: str, own: IpAddress | None) -> str:
    """The DNS record to ask for, as it stands in a zone file (RFC 1035, section 5.1)."""
    kind = "AAAA" if own is not None and own.version == 6 else "A"
    return f"{name.rstrip('.')}. IN {kind} {own or '<the IP address of this server>'}"


def own_address(primary: Endpoint) -> IpAddress | None:
    """This machine's address on the way to the primary - or, if both are one machine, to the world; None if there is no way."""
    way = _source(primary)
    return _source(_ELSEWHERE) if way is not None and way.is_loopback else way


def _source(target: Endpoint) -> IpAddress | None:
    """The address that packets to `target` bear; none is sent, for UDP's connect only picks the route."""
    try:
        with socket.socket(socket.AF_INET6 if target.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return _ip(probe.getsockname()[0])
    except OSError:
        return None


async def suggestion(look_up: Callable[[], str] = socket.getfqdn) -> str:
    """The address to offer: this machine's full name, else nothing. The system's resolver is given up like the DNS."""
    looking = in_thread(look_up)
    await asyncio.wait({looking}, timeout=LOOKUP_TIMEOUT)
    if not looking.done():
        return ""
    found, error = looking.result()
    return _suggested(found.lower()) if error is None else ""


def _suggested(name: str) -> str:
    if "." not in name or name.startswith("localhost."):
        return ""
    try:
        return names.host(name)
    except Refused:
        return ""


def _ip(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
