"""Open links and their end: `links.hub` by itself, then over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, trust_pb2
from enlist_primary.config import Certificates
from enlist_primary.links.registry import Hub, Link
from enlist_primary.model.servers import State
from enlist_primary.store.servers import Standing
from tests.support.inprocess import Asker, Running, refused_by, running_primary
from tests.support.links import open_link
from tests.support.waiting import eventually

A, FAR = "acme.example", 2_000_000_000


def why(link: Link) -> Reason | None:
    """Why a link ended, or None if it is open."""
    return link.ended.result().reason if link.ended.done() else None


def standing(id: str, state: State, account: str = A) -> Standing:
    """How a server stands."""
    return Standing(account, id, "key", state, 1_800_000_000, None)


# --- By itself -----------------------------------------------------------------------------------------------------------------


async def test_the_newest_link_of_a_server_replaces_the_one_before_and_no_other_s() -> None:
    hub = Hub()
    first, other, elsewhere = hub.open(A, "one", FAR), hub.open(A, "two", FAR), hub.open("b.example", "one", FAR)
    second = hub.open(A, "one", FAR)
    assert [why(link) for link in (first, second, other, elsewhere)] == [Reason.LINK_REPLACED, None, None, None]
    assert not hub.close(first)
    assert hub.connected(A, "one")
    assert hub.close(second)
    assert not hub.connected(A, "one")
    assert hub.count(lambda account: account == A) == 1


async def test_a_link_ends_once_and_keeps_the_first_reason() -> None:
    link = Hub().open(A, "one", FAR)
    link.end(Refused(Reason.SERVER_REVOKED, "first"))
    link.end(Refused(Reason.SHUTTING_DOWN, "second"))
    assert link.ended.result().message == "first"


@pytest.mark.parametrize("state", State)
async def test_every_state_but_trusted_ends_the_link(state: State) -> None:
    hub = Hub()
    link, other, elsewhere = hub.open(A, "one", FAR), hub.open(A, "two", FAR), hub.open("b.example", "one", FAR)
    hub.judge(standing("one", state))
    hub.judge(standing("three", state))
    expected = (
        None if state is State.TRUSTED else Reason.SERVER_PENDING if state is State.INVITED else Reason[f"SERVER_{state.name}"]
    )
    assert why(link) is expected
    assert (why(other), why(elsewhere)) == (None, None)


async def test_links_end_with_their_certificates_and_not_before() -> None:
    hub = Hub()
    assert hub.expire(0) is None
    links = {end: hub.open(A, f"s{end}", end) for end in (300, 100, 200)}
    assert hub.expire(99) == 100
    assert [why(links[end]) for end in (100, 200, 300)] == [None] * 3
    assert hub.expire(200) == 300
    assert [why(links[end]) for end in (100, 200, 300)] == [Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_EXPIRED, None]
    assert hub.expire(10**12) is None


async def test_a_certificate_that_ends_before_all_others_wakes_whoever_sleeps_until_the_next() -> None:
    hub = Hub()
    hub.open(A, "one", 200)
    hub.sooner.clear()
    hub.open(A, "later", 300)
    assert not hub.sooner.is_set()
    hub.open(A, "sooner", 100)
    assert hub.sooner.is_set()


async def test_links_that_come_and_go_leave_nothing_behind() -> None:
    """A secondary that reconnects for ever costs no more than one that stays."""
    hub = Hub()
    stays = hub.open(A, "stays", FAR)
    for _ in range(5000):
        hub.close(hub.open(A, "comes and goes", FAR))
    assert len(hub._expiries) < 200
    assert why(stays) is None
    assert hub.count(lambda _: True) == 1


async def test_once_closing_every_link_ends_and_none_is_taken_in() -> None:
    hub = Hub()
    link = hub.open(A, "one", FAR)
    hub.end_all(Refused(Reason.SHUTTING_DOWN, "bye"))
    assert why(link) is Reason.SHUTTING_DOWN
    with pytest.raises(Refused) as raised:
        hub.open(A, "two", FAR)
    assert raised.value.reason is Reason.SHUTTING_DOWN


# --- Over the wire -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One primary for this file."""
    async with running_primary(tmp_path_factory.mktemp("hub")) as running:
        yield running


async def enrolled(running: Running, name: str = "server") -> tuple[Asker, str]:
    """A trusted server, and its id."""
    asker = Asker(running, name)
    async with running.stranger() as stub:
        enrolment = await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    return asker, enrolment.server_id


@pytest.mark.parametrize(
    ("decision", "reason"),
    [("Suspend", Reason.SERVER_SUSPENDED), ("Revoke", Reason.SERVER_REVOKED), ("Remove", Reason.SERVER_REMOVED)],
)
async def test_a_decision_closes_the_link_and_says_why(running: Running, decision: str, reason: Reason) -> None:
    """Attacks row 16: the link, every RPC over its connection, and every link after it."""
    asker, id = await enrolled(running)
    request = getattr(trust_pb2, f"{decision}ServerRequest")(name=f"accounts/{A}/servers/{id}", reason="seen on the moon")
    async with asker.at_ssl_port() as stub:
        link = await open_link(stub, asker)
        decided = await getattr(running.admin.trust, f"{decision}Server")(request)
        assert not decided.connected
        ended = await refused_by(link.read())
        assert ended.reason is reason
        assert '"seen on the moon"' in ended.message
        assert (await refused_by(open_link(stub, asker))).reason is reason
        assert (await refused_by(stub.trust.RenewCertificate(await asker.renewal(stub)))).reason is reason
    server = await running.server(id)
    assert not server.connected
    assert server.connected_time.seconds > 0


async def test_a_server_that_leaves_has_its_link_closed(running: Running) -> None:
    asker, _ = await enrolled(running)
    async with asker.at_ssl_port() as stub, running.stranger() as stranger:
        link = await open_link(stub, asker)
        claim, proof = await asker.claim(stranger, "Leave")
        await stranger.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
        assert (await refused_by(link.read())).reason is Reason.SERVER_DEPARTED


async def test_a_server_revoked_between_its_challenge_and_its_hello_gets_no_link(running: Running) -> None:
    """Attacks row 16: it is let in as trusted, holds its hello back until it was revoked, and would have had a link for ever."""
    asker, id = await enrolled(running)
    async with asker.at_ssl_port() as stub:
        stream: Any = stub.hierarchy.Connect()
        challenge = await stream.read()
        await running.admin.trust.RevokeServer(trust_pb2.RevokeServerRequest(name=f"accounts/{A}/servers/{id}"))
        await stream.write(asker.link_end().on_challenge(challenge, hierarchy_pb2.Hello(protocol=PROTOCOL)))
        assert (await refused_by(stream.read())).reason is Reason.SERVER_REVOKED
    assert not (await running.server(id)).connected


async def test_a_newer_link_of_the_same_server_replaces_the_older(running: Running) -> None:
    asker, id = await enrolled(running)
    async with asker.at_ssl_port() as stub, asker.at_ssl_port() as again:
        first = await open_link(stub, asker)
        second = await open_link(again, asker)
        assert (await refused_by(first.read())).reason is Reason.LINK_REPLACED
        assert not second.stream.done()
        assert (await running.server(id)).connected


async def test_a_secondary_that_goes_away_is_not_connected(running: Running) -> None:
    """By its own word, by hanging up, and when its connection is gone."""
    asker, id = await enrolled(running)

    async def connected() -> bool:
        return (await running.server(id)).connected

    async def gone() -> bool:
        return not await connected()

    async with asker.at_ssl_port() as stub:
        for end in ("done", "cancel"):
            link = await open_link(stub, asker)
            assert await connected()
            if end == "done":
                await link.stream.done_writing()
                assert await link.read() is grpc.aio.EOF
            else:
                link.cancel()
            await eventually(gone)
        await open_link(stub, asker)
    await eventually(gone)


async def test_the_end_of_a_certificate_closes_its_link(tmp_path: Path) -> None:
    """Attacks row 17: also where nothing else would have woken the one timer before."""
    async with running_primary(tmp_path, certificates=Certificates(lifetime="2s")) as running:
        asker, id = await enrolled(running)
        async with asker.at_ssl_port() as stub:
            link = await open_link(stub, asker)
            async with asyncio.timeout(20):
                assert (await refused_by(link.read())).reason is Reason.CERTIFICATE_EXPIRED
        assert not (await running.server(id)).connected
        assert not running.primary.broken.is_set()


async def test_a_peer_that_does_not_read_is_counted_until_it_is_gone(running: Running) -> None:
    hub = Hub()
    assert hub.stalled == 0
    with hub.delivering(), hub.delivering():
        assert hub.stalled == 2
    assert hub.stalled == 0
    status = await running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())
    assert status.stalled == 0
