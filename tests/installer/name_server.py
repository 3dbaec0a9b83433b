"""A small DNS server on loopback, so that look-ups are real and their answers known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Mapping[tuple[str, str], str]
"""("gw1.acme.example.", "A") -> "192.0.2.10"."""


class _NameServer(asyncio.DatagramProtocol):
    def __init__(self, records: Records, silent: bool) -> None:
        self._records = records
        self._silent = silent
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._silent and self._transport is not None:
            self._transport.sendto(self._answer(dns.message.from_wire(data)).to_wire(), addr)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
        if value := self._records.get((name, kind)):
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, value))
        elif all(known != name for known, _ in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


@asynccontextmanager
async def name_server(records: Records, silent: bool = False) -> AsyncIterator[dns.asyncresolver.Resolver]:
    """Serves the records, and gives a resolver that asks nobody else."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _NameServer(records, silent), local_addr=("127.0.0.1", 0)
    )
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield resolver
    finally:
        transport.close()
