"""Dialling a primary on loopback, where there is nothing to race."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from enlist.channel import ClientIdentity, Pin
from enlist.names import Address
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint


async def served(address: Address) -> bytes:
    """The certificate (DER) that is served at an address."""
    return (await Dialer().probe(address)).leaf_der


def dial(address: Address, pin: Pin, identity: ClientIdentity | None = None) -> grpc.aio.Channel:
    """A channel to an IP address and port."""
    return Dialer().channel(Endpoint(*address), pin, identity)


class Names:
    """A resolver that knows one name, and counts how often it is asked."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = endpoints
        self.asked: list[Address] = []

    async def __call__(self, address: Address) -> Sequence[Endpoint]:
        self.asked.append(address)
        return self.endpoints
