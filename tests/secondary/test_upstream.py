"""What a secondary tells the primary on its host, while other things come down the link and out of that primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from enlist_secondary.upstream import Upstream

from enlist.v1 import document_pb2, hierarchy_pb2, server_pb2, upstream_pb2
from enlist_primary.federation.descendants import Descendants
from enlist_primary.model.reports import Asked
from enlist_secondary.documents import Documents
from tests.secondary.engine import soon
from tests.secondary.origins import ACCOUNT, START, Primary, Wish, bodies, policy
from tests.support.pretender import new_signer

CERTIFIED = hierarchy_pb2.LowerAnswer(cross_certificate=b"certificate")


class Call:
    """The stream to the primary on this host. `meanwhile` is awaited once, while the first message with `during` is written."""

    def __init__(self, during: Any = "upper", meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.told: list[upstream_pb2.FromDaemon] = []
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self._during, self._meanwhile = during, meanwhile

    async def read(self) -> Any:
        """See grpc.aio."""
        return await self.says.get()

    async def write(self, message: upstream_pb2.FromDaemon) -> None:
        """See grpc.aio."""
        if self._meanwhile is not None and message.HasField(self._during):
            meanwhile, self._meanwhile = self._meanwhile, None
            await meanwhile()
        self.told.append(message)

    def sets(self) -> list[tuple[str, int]]:
        """Origins and versions of the sets that were told."""
        said = [each.desired for each in self.told if each.HasField("desired")]
        return [(each.origin, document_pb2.DesiredSet.FromString(each.desired_set).number) for each in said]


class Host:
    """A secondary with a primary on its host, that may stand under the one above."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.top = Primary(), Primary()
        self.held = Documents(folder / "documents", [self.primary.origin])
        self.held.load()
        self.above = document_pb2.Ancestry()
        authority = new_signer().authority
        self.upstream = Upstream(
            folder / "upstream.sock", self.held, authority, "upper", lambda: self.above, lambda: START, lambda: None
        )
        self.upstream.linked("upper")

    async def send(self, primary: Primary, *wishes: Wish) -> None:
        """A set comes down the link."""
        self.held.receive(primary.sign(wishes), bodies(wishes))
        await self.held.save()
        self.upstream.changed()

    @asynccontextmanager
    async def attached(self, call: Any) -> AsyncIterator[asyncio.Task[None]]:
        """While the primary on this host is attached: it has said who it is, and is certified."""
        call.says.put_nowait(upstream_pb2.ToDaemon(lower=hierarchy_pb2.LowerPrimary(consent=b"one")))
        self.upstream.answered(CERTIFIED)
        conversing = asyncio.create_task(self.upstream._converse(call))
        try:
            yield conversing
        finally:
            conversing.cancel()
            await asyncio.wait({conversing})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_no_set_is_handed_down_before_the_local_primary_was_told_of_its_origin(host: Host) -> None:
    """It would refuse that as a stranger's, and it counted as handed down."""

    async def meanwhile() -> None:
        host.held.stand([host.top.origin, host.primary.origin])
        host.above = document_pb2.Ancestry(ancestors=[document_pb2.Ancestor(primary_name="top")])
        await host.send(host.top, policy(9, {"a": 1}))

    call = Call("ancestry", meanwhile)
    async with host.attached(call):
        await soon(lambda: call.sets() == [(host.top.name, 1)], "the set of the top", 5)
    ways = [(len(each.ancestry.ancestors), each.HasField("desired")) for each in call.told if not each.HasField("upper")]
    assert ways[:3] == [(1, False), (2, False), (0, True)]


async def test_what_the_local_primary_says_it_holds_counts_also_while_a_set_is_on_its_way(host: Host) -> None:
    """It has taken the place of another one, and refused the set: it had yet to be certified itself."""
    anew = upstream_pb2.ToDaemon(lower=hierarchy_pb2.LowerPrimary(consent=b"two"))

    async def meanwhile() -> None:
        call.says.put_nowait(anew)
        await soon(lambda: host.upstream._lower == anew.lower)

    await host.send(host.primary, policy(5, {"a": 1}))
    call = Call("desired", meanwhile)
    async with host.attached(call):
        await soon(lambda: len(call.sets()) == 2, "the set to be handed down again", 5)
    assert [each.ancestry.ancestors[0].consent for each in call.told if each.HasField("ancestry")] == [b"one", b"two"]


async def test_a_set_that_is_replaced_while_it_is_handed_down_costs_nothing_but_its_bodies(host: Host) -> None:
    """The stream goes on: were it begun anew, all below would be unknown for seconds, at every level above."""

    async def meanwhile() -> None:
        await host.send(host.primary, policy(6, {"a": 2}))

    await host.send(host.primary, policy(5, {"a": 1}))
    call = Call("desired", meanwhile)
    async with host.attached(call) as conversing:
        await soon(lambda: conversing.done() or call.sets() == [(host.primary.name, 1), (host.primary.name, 2)], "both sets", 5)
        await soon(lambda: conversing.done() or bodies([policy(6, {"a": 2})]) in [list(each.bodies) for each in call.told])
        assert not conversing.done()


async def test_a_server_that_went_while_the_local_primary_was_not_attached_is_gone_above_too(host: Host) -> None:
    """Also if it was last spoken of after everything had been said: the link above stands all the while."""
    database: Any = None
    above = Descendants(database, "f" * 64, lambda _: None)
    one, two = "a" * 10, "b" * 10

    def named(*paths: str, **more: Any) -> upstream_pb2.ToDaemon:
        servers = [hierarchy_pb2.BelowServer(path=path, state=server_pb2.SERVER_STATE_TRUSTED) for path in paths]
        return upstream_pb2.ToDaemon(below=hierarchy_pb2.Below(servers=servers, **more))

    async def says(*said: upstream_pb2.ToDaemon) -> list[str]:
        call = Call()
        async with host.attached(call):
            for message in said:
                call.says.put_nowait(message)
                await soon(call.says.empty)
                for each in host.upstream.take():
                    if each.HasField("below"):
                        above.on_message(ACCOUNT, "m" * 10, Asked(frozenset()), each.below, START)
        return sorted(server.path for server in above.of(ACCOUNT))

    above.opened(ACCOUNT, "m" * 10)
    assert await says(named(one, two), named(whole=True)) == [one, two]
    assert await says(named(one, two), named(whole=True), named(two)) == [one, two]
    assert await says(named(one), named(whole=True)) == [one]


async def test_everything_below_is_said_again_with_each_certificate(host: Host) -> None:
    """That it may have secondaries was taken back and given again before the link was heard: above, all was forgotten."""
    call = Call()
    below = hierarchy_pb2.Below(servers=[hierarchy_pb2.BelowServer(path="a" * 10)], whole=True)
    async with host.attached(call):
        call.says.put_nowait(upstream_pb2.ToDaemon(below=below))
        await soon(call.says.empty)
        assert [each.below for each in host.upstream.take() if each.HasField("below")] == [below]
        assert host.upstream.take() == []
        host.upstream.answered(hierarchy_pb2.LowerAnswer(cross_certificate=b"another"))
        assert [each.below for each in host.upstream.take()] == [below]


async def test_a_fault_on_the_way_to_the_local_primary_leaves_nothing_below_known(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be shown as it was before, for as long as the fault comes back (never green)."""

    async def attach() -> None:
        host.upstream._begin_anew()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(host.upstream, "_attach", attach)
    with pytest.raises(RuntimeError):
        await host.upstream.run()
    host.upstream.answered(CERTIFIED)
    (said,) = host.upstream.take()
    assert said.below.unknown_since.seconds == START


async def test_a_body_is_handed_down_again_once_a_set_without_it_was(host: Host) -> None:
    """What the local primary says it holds may be from before that set: it answers to what it was told first."""
    wanted = policy(5, {"a": 1})

    async def meanwhile() -> None:
        call.says.put_nowait(upstream_pb2.ToDaemon(lower=hierarchy_pb2.LowerPrimary(consent=b"one"), held=held))
        await soon(call.says.empty)
        await host.send(host.primary, wanted)

    await host.send(host.primary, wanted)
    held = host.held.held()
    await host.send(host.primary)
    call = Call("desired", meanwhile)
    async with host.attached(call):
        await soon(lambda: (host.primary.name, 3) in call.sets(), "the third set", 5)
        await soon(lambda: host.upstream._has[host.primary.name].number == 3, "its bodies", 5)
    assert bodies([wanted]) in [list(each.bodies) for each in call.told]
