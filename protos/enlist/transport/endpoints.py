"""What a name stands for: the literal addresses to try, in the order in which they are tried."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from enlist.names import Address


class Endpoint(NamedTuple):
    """A literal IP address, with its zone if it is link-local, and a port: something that can be connected to as it is."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether this is an IPv6 address."""
        return ":" in self.host

    @property
    def target(self) -> str:
        """The same for gRPC, which must not resolve anything itself. The sign before a zone is escaped (RFC 6874)."""
        if self.is_ipv6:
            return f"ipv6:[{self.host.replace('%', '%25')}]:{self.port}"
        return f"ipv4:{self.host}:{self.port}"


def literal(address: Address) -> Endpoint | None:
    """The endpoint that an IP address is; None for a name."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return None
    return Endpoint(address.host, address.port)


def interleaved(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Each endpoint once, IPv6 and IPv4 by turns, beginning with the family that the system prefers (RFC 8305, section 4)."""
    distinct = list(dict.fromkeys(endpoints))
    first = [each for each in distinct if each.is_ipv6 == distinct[0].is_ipv6]
    second = [each for each in distinct if each.is_ipv6 != distinct[0].is_ipv6]
    return [each for each in chain.from_iterable(zip_longest(first, second)) if each is not None]


async def look_up(address: Address) -> list[Endpoint]:
    """What the system's resolver knows of a name, the hosts file included, in its order (RFC 6724). Raises `socket.gaierror`.

    A look-up cannot be cancelled, and with a dead DNS it lasts long. So it has a daemon thread of its own: once its caller gives
    up, neither the loop's shared threads nor the end of the process wait for it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Endpoint]] = loop.create_future()

    def look() -> None:
        found, error = _ask_system(address)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_settle, answer, found, error)

    threading.Thread(target=look, name="enlist-look-up", daemon=True).start()
    return await answer


def _ask_system(address: Address) -> tuple[list[Endpoint], OSError | None]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return [], error
    except UnicodeError as error:  # a label that is too long
        return [], socket.gaierror(socket.EAI_NONAME, str(error))
    return [_endpoint(*sockaddr) for *_, sockaddr in found], None


def _endpoint(host: str, port: int, flow: int = 0, zone: int = 0) -> Endpoint:
    """The endpoint that a socket address of the system means."""
    return Endpoint(f"{host}%{zone}" if zone else host, port)


def _settle(answer: asyncio.Future[list[Endpoint]], found: list[Endpoint], error: OSError | None) -> None:
    if answer.done():  # the caller gave up
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(found)
