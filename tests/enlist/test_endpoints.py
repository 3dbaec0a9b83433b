"""Endpoints: the order in which a name's addresses are tried, how gRPC is given them, and looking them up."""

import asyncio
import socket
import threading

import pytest

from enlist.names import Address
from enlist.transport.endpoints import Endpoint, interleaved, literal, look_up

V4 = [Endpoint(f"192.0.2.{number}", 13299) for number in range(4)]
V6 = [Endpoint(f"2001:db8::{number}", 13299) for number in range(4)]


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        (V4, V4),
        ([*V6[:2], *V4[:2]], [V6[0], V4[0], V6[1], V4[1]]),
        ([*V4[:1], *V6[:3]], [V4[0], V6[0], V6[1], V6[2]]),
        ([V6[0], V6[0], V4[0]], [V6[0], V4[0]]),
    ],
)
def test_families_are_tried_by_turns(found: list[Endpoint], order: list[Endpoint]) -> None:
    """RFC 8305, section 4: the system's preference stays, and no family waits for all of the other."""
    assert interleaved(found) == order


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        (Endpoint("192.0.2.1", 13000), "ipv4:192.0.2.1:13000"),
        (Endpoint("2001:db8::1", 13000), "ipv6:[2001:db8::1]:13000"),
        (Endpoint("fe80::1%2", 13000), "ipv6:[fe80::1%252]:13000"),
    ],
)
def test_grpc_is_given_a_literal_address(endpoint: Endpoint, target: str) -> None:
    assert endpoint.target == target


def test_an_ip_address_is_an_endpoint_and_a_name_is_none() -> None:
    assert literal(Address("fe80::1%eth0", 1)) == Endpoint("fe80::1%eth0", 1)
    assert literal(Address("192.0.2.1", 1)) == Endpoint("192.0.2.1", 1)
    assert literal(Address("primary.example", 1)) is None


async def test_the_hosts_file_is_asked() -> None:
    assert {each.host for each in await look_up(Address("localhost", 7))} & {"127.0.0.1", "::1"}


async def test_a_zone_that_the_resolver_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 7, 0, 2))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert await look_up(Address("primary.example", 7)) == [Endpoint("fe80::1%2", 7)]


async def test_a_look_up_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gives up leaves a daemon thread, whose late answer goes nowhere; no shared thread is taken."""
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await look_up(Address("primary.example", 7))
    (thread,) = [each for each in threading.enumerate() if each.name == "enlist-look-up"]
    assert thread.daemon
    answered.set()
    thread.join(5)
    await asyncio.sleep(0)
