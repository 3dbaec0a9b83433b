"""The address where clients find a server: looked up in the DNS and nowhere else; a missing record is named, never a refusal."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

import pytest

from enlist.transport.endpoints import Endpoint
from enlist_installer import clients_address
from enlist_installer.clients_address import find, own_address, record
from tests.installer.name_server import name_server

OWN = ip_address("192.0.2.10")
NAME = "gw1.acme.example"


async def test_full_name_is_offered() -> None:
    assert await clients_address.suggestion(lambda: "GW1.acme.example") == NAME
    assert await clients_address.suggestion(lambda: "localhost.localdomain") == ""
    assert await clients_address.suggestion(lambda: "gw1") == ""


async def test_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_address, "LOOKUP_TIMEOUT", 0.05)
    answers = threading.Event()

    def look_up() -> str:
        answers.wait(60)
        return NAME

    assert await clients_address.suggestion(look_up) == ""
    answers.set()


async def test_a_name_the_dns_knows_is_fine() -> None:
    async with name_server({(f"{NAME}.", "A"): "192.0.2.10"}) as resolver:
        found = await find(NAME, OWN, resolver)
    assert not found.warning
    assert "192.0.2.10" in found.message


async def test_an_ipv6_record_alone_is_fine() -> None:
    async with name_server({(f"{NAME}.", "AAAA"): "2001:db8::1"}) as resolver:
        assert not (await find(NAME, ip_address("2001:db8::1"), resolver)).warning


async def test_a_missing_record_is_named_exactly() -> None:
    async with name_server({}) as resolver:
        found = await find(NAME, OWN, resolver)
    assert found.warning
    assert found.record == "gw1.acme.example. IN A 192.0.2.10"
    assert "Print jobs and embedded terminals" in found.message


async def test_a_missing_record_of_an_ipv6_server_is_an_aaaa() -> None:
    async with name_server({}) as resolver:
        found = await find(NAME, ip_address("2001:db8::1"), resolver)
    assert found.record == "gw1.acme.example. IN AAAA 2001:db8::1"


@pytest.mark.parametrize("loopback", ["127.0.1.1", "127.0.0.1"])
async def test_a_loopback_answer_does_not_count(loopback: str) -> None:
    async with name_server({(f"{NAME}.", "A"): loopback}) as resolver:
        found = await find(NAME, OWN, resolver)
    assert found.warning
    assert found.record == "gw1.acme.example. IN A 192.0.2.10"


async def test_a_hosts_file_answer_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver knows the name here, as with Debian's `127.0.1.1 gw1.acme.example gw1`; the DNS does not."""

    def from_hosts_file(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.10", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", from_hosts_file)
    async with name_server({}) as resolver:
        assert (await find(NAME, OWN, resolver)).warning


async def test_a_record_that_points_elsewhere_warns_and_names_the_right_one() -> None:
    async with name_server({(f"{NAME}.", "A"): "198.51.100.7"}) as resolver:
        found = await find(NAME, OWN, resolver)
    assert found.warning
    assert "198.51.100.7" in found.message
    assert found.record == "gw1.acme.example. IN A 192.0.2.10"


async def test_a_dns_that_does_not_answer_warns_within_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_address, "LOOKUP_TIMEOUT", 0.2)
    async with name_server({}, silent=True) as resolver:
        found = await find(NAME, OWN, resolver)
    assert found.warning
    assert "did not answer" in found.message
    assert found.record == "gw1.acme.example. IN A 192.0.2.10"


@pytest.mark.parametrize(("address", "warning"), [("", True), ("gw1", True), ("192.0.2.10", False), ("2001:db8::1", False)])
async def test_what_is_not_a_full_name_is_judged_without_a_look_up(address: str, warning: bool) -> None:
    async with name_server({}, silent=True) as resolver:
        assert (await find(address, OWN, resolver)).warning is warning


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
async def test_an_address_at_which_every_client_finds_itself_is_a_warning(address: str) -> None:
    found = await find(address, OWN)
    assert found.warning
    assert f"At {address} every client finds itself" in found.message
    assert not found.record, "no DNS record would help"


@pytest.mark.parametrize("address", ["169.254.7.8", "fe80::1", "fe80::1%eth0"])
async def test_a_link_local_address_is_a_warning(address: str) -> None:
    found = await find(address, OWN)
    assert found.warning
    assert f"{address} is a link-local address" in found.message


def test_a_server_that_does_not_know_its_own_address_says_what_to_put_there() -> None:
    assert record(NAME, None) == "gw1.acme.example. IN A <the IP address of this server>"


def test_the_own_address_is_the_one_on_the_way_to_the_primary() -> None:
    assert own_address(Endpoint("255.255.255.255", 13299)) is None
    beside_the_primary = own_address(Endpoint("127.0.0.1", 13299))
    assert beside_the_primary is None or not beside_the_primary.is_loopback
