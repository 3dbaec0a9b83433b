"""A primary between others: what its links are told of those above it, and what it says upward of those below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enlist.channel import PROTOCOL
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, server_pb2
from enlist_primary.model.reports import Asked
from enlist_primary.rpc.context import Context
from enlist_primary.store.desired import place
from tests.attacks.above import Above, policy, stand_under, way_up
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary
from tests.support.waiting import eventually

PATH = "b" * 10
ITEMS = frozenset({("policy/web", "")})


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_primary(tmp_path) as running:
        yield running


@pytest.fixture
def own(running: Running) -> Context:
    return running.primary.context


async def trusted(running: Running) -> tuple[Asker, str]:
    """A server that is trusted, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


async def hand_down(own: Context, above: Above, number: int) -> None:
    """The primary above wants something else."""
    item, body = policy("web", number, {"number": number})
    await own.upper.take(above.set(number, item), {item.digest: body})


async def ancestries(stream: Any, number: int) -> int:
    """How often the link is told who stands above, until the set of this number comes."""
    told: int = 0
    while True:
        message = await stream.read()
        told += bool(message.HasField("ancestry"))
        if message.HasField("desired") and document_pb2.DesiredSet.FromString(message.desired.desired_set).number == number:
            return told


async def test_a_link_is_told_who_stands_above_when_it_opens_and_when_that_changes(running: Running, own: Context) -> None:
    """Not with every set: there may be thousands of links, and each would verify the same again."""
    above = await stand_under(own)
    asker, _ = await trusted(running)
    async with asker.at_ssl_port() as stub:
        stream: Any = stub.hierarchy.Connect()
        await stream.write(hierarchy_pb2.FromSecondary(hello=hierarchy_pb2.Hello(protocol=PROTOCOL, version="0.1.0")))
        await hand_down(own, above, 5)
        assert await ancestries(stream, 5) == 1
        await hand_down(own, above, 6)
        assert await ancestries(stream, 6) == 0
        (near,) = own.upper.message.ancestors
        await own.upper.ascend(way_up(near, Above(above.signer, "top", "holding.example", "t" * 10).step()))
        await hand_down(own, above, 7)
        assert await ancestries(stream, 7) == 1
        stream.cancel()


async def test_a_middle_servers_word_on_its_own_documents_says_nothing_anew_of_those_below_it(
    running: Running, own: Context
) -> None:
    """There may be thousands; that the middle server itself comes or goes concerns them all."""
    _, middle = await trusted(running)
    below = hierarchy_pb2.BelowServer(path=PATH, display_name="k1", state=server_pb2.SERVER_STATE_TRUSTED, connected=True)
    report = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED)
    own.below.take(ACCOUNT, middle, Asked(ITEMS), hierarchy_pb2.Below(servers=[below], whole=True), own.now())
    subtree = own.subtree
    head = (await own.database.read(place, ACCOUNT)).head
    await eventually(lambda: running.primary._feed._known.get(ACCOUNT) == head, what="the news of its enrolment")
    await subtree.whole()
    try:
        subtree.heard(ACCOUNT, middle, [report], ITEMS)
        assert await said(own) == {middle: 1}
        subtree.heard(ACCOUNT, f"{middle}/{PATH}", [report], ITEMS)
        assert await said(own) == {f"{middle}/{PATH}": 1}
        subtree.touch(ACCOUNT, [middle])
        assert await said(own) == {middle: 1, f"{middle}/{PATH}": 1}
    finally:
        subtree.detached()


async def said(own: Context) -> dict[str, int]:
    """How many reports of which servers are said upward now."""
    return {server.path: len(server.reports) for message in await own.subtree.changes() for server in message.servers}
