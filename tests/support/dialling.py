"""Dialling a primary on loopback, where there is nothing to race."""

from __future__ import annotations

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
