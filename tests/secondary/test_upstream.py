"""What a secondary tells the primary on its host, while other things come down the link and out of that primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from enlist.link.pace import PIECE
from enlist.reasons import Reason, Refused
from enlist.runtime import sockets
from enlist.v1 import document_pb2, upstream_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary.documents import Documents
from enlist_secondary.federation.upstream import Upstream
from tests.secondary.engine import soon
from tests.secondary.origins import START, Line, Primary, Wish, bodies, policy
from tests.support.pretender import new_signer

CERTIFIED = pb.LowerAnswer(cross_certificate=b"certificate")
ONE = pb.LowerPrimary(consent=b"one")
Meanwhile = Callable[[], Awaitable[object]]


class Local:
    """The primary on this host, at the other end of its stream: it takes whatever it is told, and says so.

    `meanwhile` is awaited once, while the first message with `during` is written to it.
    """

    def __init__(self, during: Any = "upper", meanwhile: Meanwhile | None = None, lower: pb.LowerPrimary = ONE) -> None:
        self.told: list[upstream_pb2.FromDaemon] = []
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self._lower = lower
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
        if message.HasField("upper"):
            self.say(lower=self._lower)
            self.say(heard=message.upper)
        if message.sequence:
            self._answer(message)

    def _answer(self, message: upstream_pb2.FromDaemon) -> None:
        answer = upstream_pb2.ToDaemon()
        for piece in message.pieces:
            received, whole = piece.offset + len(piece.data), piece.offset + len(piece.data) == piece.size
            answer.body_acks.add(sequence=message.sequence, digest=piece.digest, received=received, whole=whole)
        self.says.put_nowait(answer)

    def say(self, **what: Any) -> None:
        """Says something."""
        self.says.put_nowait(upstream_pb2.ToDaemon(**what))

    def acknowledge(self, place: int = -1) -> None:
        """It holds a set that it was told, the last one if nothing else is said."""
        message, said = self._sets()[place]
        ack = pb.SetAck(sequence=message.sequence, origin=message.desired.origin, epoch=said.epoch, number=said.number)
        self.say(set_acks=[ack])

    def refuse(self, reason: Reason) -> None:
        """It refuses the last set that it was told."""
        message, said = self._sets()[-1]
        refused = pb.SetRefused(sequence=message.sequence, origin=message.desired.origin, epoch=said.epoch, number=said.number)
        refused.reason = reason
        self.say(set_refusals=[refused])

    def sets(self) -> list[tuple[str, int]]:
        """Origins and versions of the sets that were told."""
        return [(message.desired.origin, said.number) for message, said in self._sets()]

    def _sets(self) -> list[tuple[upstream_pb2.FromDaemon, document_pb2.DesiredSet]]:
        found = [each for each in self.told if each.HasField("desired")]
        return [(each, document_pb2.DesiredSet.FromString(each.desired.desired_set)) for each in found]

    def body(self, wanted: Wish) -> bytes:
        """What came of a body."""
        pieces = [piece for each in self.told for piece in each.pieces if piece.digest == wanted.item.digest]
        return b"".join(piece.data for piece in pieces)


class Above:
    """The primary above, at the other end of the link: what it knows of the servers below, from one link's beginning on."""

    def __init__(self, upstream: Upstream) -> None:
        self.numbers = 0
        self._cursor = upstream.local.open(self._number)
        self.servers: dict[str, pb.BelowServer] = {}
        self._said: set[str] = set()

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def hear(self, acknowledges: bool = True) -> list[pb.FromSecondary]:
        """Takes what is said now."""
        found = list(self._cursor.say(PIECE))
        for message in found:
            if message.HasField("below"):
                self._take(message.below)
                if acknowledges:
                    self._cursor.ack(message.below.sequence)
        return found

    def acknowledge(self, sequence: int) -> None:
        """A message is written."""
        self._cursor.ack(sequence)

    def refuse(self, sequence: int) -> None:
        """There was no room for a message."""
        self._cursor.nack(sequence)

    def _take(self, below: pb.Below) -> None:
        self.servers.update({each.path: each for each in below.servers})
        self._said |= {each.path for each in below.servers}
        for path in below.gone:
            self.servers.pop(path, None)
        if below.whole:
            self.servers = {path: each for path, each in self.servers.items() if path in self._said}
            self._said = set()


def below(*paths: str, whole: bool = False, **more: Any) -> pb.Below:
    return pb.Below(servers=[pb.BelowServer(path=path) for path in paths], whole=whole, **more)


class Host:
    """A secondary with a primary on its host, that may be below the one above."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.top = Primary(), Primary()
        self.held = Documents(folder / "documents", [self.primary.origin])
        self.held.load()
        self.line = Line(self.held)
        self.ancestry = document_pb2.Ancestry()
        self.authority = new_signer().authority
        self.changes = 0
        self.upstream = Upstream(
            folder / "upstream.sock", self.held, self.authority, "upper", lambda: self.ancestry, lambda: START, self._changed
        )
        self.upstream.linked("upper")

    def _changed(self) -> None:
        self.changes += 1

    async def send(self, primary: Primary, *wishes: Wish) -> None:
        """A set comes down the link."""
        self.line.bring(primary.sign(wishes), bodies(wishes))
        await self.held.save()
        self.upstream.changed()

    @asynccontextmanager
    async def attached(self, local: Any) -> AsyncIterator[asyncio.Task[None]]:
        """While the primary on this host is attached, and is certified."""
        self.upstream.answered(CERTIFIED)
        conversing = asyncio.create_task(self.upstream.converse(local))
        try:
            yield conversing
        finally:
            conversing.cancel()
            await asyncio.wait({conversing})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# --- Down -----------------------------------------------------------------------------------------------------------------------


async def test_sets_are_handed_down_with_their_bodies_in_pieces(host: Host) -> None:
    wanted = policy(5, {"text": "x" * 3 * PIECE})
    await host.send(host.primary, wanted)
    local = Local()
    async with host.attached(local):
        await soon(lambda: local.body(wanted) == wanted.body, "the whole body", 5)
    assert local.sets() == [(host.primary.name, 1)]
    assert all(len(piece.data) <= PIECE for each in local.told for piece in each.pieces)


async def test_set_that_the_local_primary_holds_is_not_handed_down(host: Host) -> None:
    await host.send(host.primary, policy(5, {"a": 1}))
    held = Line(host.held).hello.held
    other = policy(6, {"a": 2})
    local = Local()
    local.say(lower=ONE, held=held)
    async with host.attached(local):
        await host.send(host.primary, other)
        await soon(lambda: local.sets() == [(host.primary.name, 2)], "the second set", 5)
        await soon(lambda: local.body(other) == other.body, "its body", 5)


async def test_acknowledged_set_is_not_handed_down_again(host: Host) -> None:
    await host.send(host.primary, policy(5, {"a": 1}))
    local = Local()
    async with host.attached(local):
        await soon(local.sets, "the first set", 5)
        local.acknowledge()
        await host.send(host.primary, policy(6, {"a": 2}))
        await soon(lambda: len(local.sets()) == 2, "the second set", 5)
        host.upstream.changed()
        await soon(local.says.empty)
    assert local.sets() == [(host.primary.name, 1), (host.primary.name, 2)]


async def test_no_set_is_handed_down_before_the_local_primary_was_told_of_its_origin(host: Host) -> None:
    """It would refuse that as a stranger's."""

    async def meanwhile() -> None:
        host.held.stand([host.top.origin, host.primary.origin])
        host.ancestry = document_pb2.Ancestry(ancestors=[document_pb2.Ancestor(primary_name="top")])
        await host.send(host.top, policy(9, {"a": 1}))

    local = Local("ancestry", meanwhile)
    async with host.attached(local):
        await soon(lambda: local.sets() == [(host.top.name, 1)], "the set of the top", 5)
    ways = [(len(each.ancestry.ancestors), each.HasField("desired")) for each in local.told if not each.HasField("upper")]
    assert ways[:3] == [(1, False), (2, False), (0, True)]


async def test_set_that_was_refused_is_handed_down_after_another_consent(host: Host) -> None:
    """The local primary has taken the place of another one, and had yet to be certified itself."""
    await host.send(host.primary, policy(5, {"a": 1}))
    local = Local()
    async with host.attached(local):
        await soon(local.sets, "the set", 5)
        local.refuse(Reason.SET_INVALID)
        await soon(lambda: host.upstream.local.set_refusals and local.says.empty(), "the refusal", 5)
        assert len(local.sets()) == 1, "it is not tried over and over"
        local.say(lower=pb.LowerPrimary(consent=b"two"))
        await soon(lambda: len(local.sets()) == 2, "the set to be handed down again", 5)
    assert [each.ancestry.ancestors[0].consent for each in local.told if each.HasField("ancestry")] == [b"one", b"two"]


async def test_set_that_is_replaced_while_it_is_handed_down_does_not_end_the_stream(host: Host) -> None:
    """Were it begun anew, all below would be unknown for seconds, at every level above."""
    newer = policy(6, {"a": 2})

    async def meanwhile() -> None:
        await host.send(host.primary, newer)

    await host.send(host.primary, policy(5, {"a": 1}))
    local = Local("desired", meanwhile)
    async with host.attached(local) as conversing:
        await soon(lambda: conversing.done() or local.sets() == [(host.primary.name, 1), (host.primary.name, 2)], "both sets", 5)
        await soon(lambda: conversing.done() or local.body(newer) == newer.body)
        assert not conversing.done()


async def test_body_is_handed_down_again_once_a_set_without_it_was(host: Host) -> None:
    """What the local primary says that it holds may be from before that set."""
    wanted = policy(5, {"a": 1})
    await host.send(host.primary, wanted)
    held = Line(host.held).hello.held
    await host.send(host.primary)
    local = Local()
    local.say(lower=ONE, held=held)
    async with host.attached(local):
        await soon(lambda: local.sets() == [(host.primary.name, 2)], "the set without it", 5)
        local.acknowledge()
        await soon(local.says.empty)
        await host.send(host.primary, wanted)
        await soon(lambda: local.body(wanted) == wanted.body, "the body", 5)


async def test_refused_acknowledgements_end_the_stream(host: Host) -> None:
    local = Local()
    async with host.attached(local) as conversing:
        await soon(lambda: any(each.HasField("ancestry") for each in local.told), "who is above", 5)
        local.say(set_acks=[pb.SetAck(sequence=7, origin=host.primary.name, epoch=1, number=7)])
        await asyncio.wait({conversing}, timeout=5)
        error = conversing.exception()
    assert isinstance(error, Refused)
    assert error.reason is Reason.LINK_VIOLATION


# --- Up -------------------------------------------------------------------------------------------------------------------------


async def test_server_that_went_while_the_local_primary_was_away_is_gone_above_too(host: Host) -> None:
    """Also if it was last spoken of after everything had been said: the link above stays open all the while."""
    above = Above(host.upstream)
    one, two = "a" * 10, "b" * 10

    async def says(*said: pb.Below) -> list[str]:
        local = Local()
        async with host.attached(local):
            for each in said:
                local.say(below=each)
                await soon(local.says.empty)
                above.hear()
        return sorted(above.servers)

    assert await says(below(one, two), below(whole=True)) == [one, two]
    assert await says(below(one, two), below(whole=True), below(two)) == [one, two]
    assert await says(below(one), below(whole=True)) == [one]


def test_everything_below_is_said_again_with_each_certificate(host: Host) -> None:
    """That it may have secondaries was taken back and given again before the link was heard: above, all was forgotten."""
    above, local = Above(host.upstream), host.upstream.local
    local.begin_anew()
    local.on_below(below("a" * 10, whole=True))
    refusal = pb.SetRefused(origin=host.top.name, reason=Reason.SET_STALE)
    local.on_set_refused(refusal)
    assert above.hear() == [], "nobody has certified it"
    host.upstream.answered(CERTIFIED)
    said = above.hear()
    assert list(above.servers) == ["a" * 10]
    assert [each.origin for message in said for each in message.set_refusals] == [host.top.name]
    assert above.hear() == []
    for answers in ([pb.LowerAnswer(cross_certificate=b"another")], [pb.LowerAnswer(reason="NOT_ALLOWED"), CERTIFIED]):
        for answer in answers:
            host.upstream.answered(answer)
        above.servers.clear()
        said = above.hear()
        assert list(above.servers) == ["a" * 10]
        assert said[0].below.servers
        assert any(message.below.whole for message in said)
        assert [each.origin for message in said for each in message.set_refusals] == [host.top.name]


def test_unacknowledged_servers_are_said_again_over_the_next_link(host: Host) -> None:
    local = host.upstream.local
    local.begin_anew()
    local.on_below(below("a" * 10, "b" * 10, whole=True))
    lost = Above(host.upstream)
    host.upstream.answered(CERTIFIED)
    lost.hear(acknowledges=False)
    above = Above(host.upstream)
    host.upstream.answered(CERTIFIED)
    above.hear()
    assert sorted(above.servers) == ["a" * 10, "b" * 10]
    local.on_below(pb.Below(gone=["a" * 10]))
    above.hear()
    assert sorted(above.servers) == ["b" * 10]


def test_word_that_everything_was_said_is_said_again_where_there_was_no_room_for_it(host: Host) -> None:
    """Else servers that are gone stay listed above until the next link."""
    local = host.upstream.local
    local.begin_anew()
    local.on_below(below("a" * 10, whole=True))
    above = Above(host.upstream)
    host.upstream.answered(CERTIFIED)
    said = above.hear(acknowledges=False)
    assert [message.below.whole for message in said] == [False, True]
    above.refuse(said[-1].below.sequence)
    assert [message.below.whole for message in above.hear()] == [True]
    assert above.hear() == []


async def test_message_on_what_is_below_is_acknowledged_down(host: Host) -> None:
    local = Local()
    async with host.attached(local):
        local.say(below=below("a" * 10, sequence=0))
        local.say(below=below(whole=True, sequence=7))
        await soon(lambda: [ack.sequence for each in local.told for ack in each.acks] == [7], "the acknowledgement", 5)


async def test_outcome_that_arrived_is_told_to_the_local_primary_each_time_it_is_reported(host: Host) -> None:
    """The parent's own run: that it has taken the report is all. Others wait until their origin says so."""
    own, other = (
        document_pb2.Report(kind="task/update", name=run, task_state=document_pb2.TASK_STATE_SUCCEEDED) for run in ("own", "other")
    )
    own.observed_items.add(origin=host.authority.primary_id)
    other.observed_items.add(origin=host.top.name)
    said = pb.Below(servers=[pb.BelowServer(path="a/b", reports=[own, other])], whole=True)
    above, local = Above(host.upstream), Local()

    def settled() -> list[tuple[str, str]]:
        return [(each.path, each.run) for message in local.told for each in message.settled]

    async with host.attached(local):
        local.say(below=said)
        await soon(lambda: local.says.empty() and host.upstream.local.whole)
        above.hear(acknowledges=False)
        assert settled() == [], "it has not arrived"
    above = Above(host.upstream)
    async with host.attached(local):
        above.hear()
        await soon(lambda: settled() == [("a/b", "own")], "that it has arrived", 5)
        host.upstream.settled("a/b", "other")
        await soon(lambda: settled() == [("a/b", "own"), ("a/b", "other")], "that the other one has", 5)
        local.say(below=said)
        await soon(lambda: sorted(settled()[2:]) == [("a/b", "other"), ("a/b", "own")], "both once more", 5)


async def test_outcome_has_arrived_also_if_its_server_was_said_without_it_meanwhile(host: Host) -> None:
    """Acknowledgements may take seconds; a local primary that was restarted names a server before that has reported."""
    outcome = document_pb2.Report(kind="task/update", name="own", task_state=document_pb2.TASK_STATE_SUCCEEDED)
    outcome.observed_items.add(origin=host.authority.primary_id)
    above, local = Above(host.upstream), Local()
    async with host.attached(local):
        local.say(below=pb.Below(servers=[pb.BelowServer(path="a/b", reports=[outcome])], whole=True))
        await soon(lambda: local.says.empty() and host.upstream.local.whole)
        first = next(said for said in above.hear(acknowledges=False) if said.below.servers)
        host.upstream.local.on_below(below("a/b"))
        above.hear(acknowledges=False)
        above.acknowledge(first.below.sequence)
        await soon(lambda: any(each.settled for each in local.told), "that it has arrived", 5)


async def test_refusal_of_the_local_primary_is_said_above_until_it_holds_a_set(host: Host) -> None:
    above, local = Above(host.upstream), Local()
    await host.send(host.primary, policy(5, {"a": 1}))
    async with host.attached(local):
        await soon(local.sets, "the set", 5)
        local.refuse(Reason.SET_CONFLICT)
        await soon(local.says.empty)
        told = [each for message in above.hear() for each in message.set_refusals]
        assert [(each.origin, each.reason, each.below) for each in told] == [(host.primary.name, Reason.SET_CONFLICT, True)]
        await host.send(host.primary, policy(6, {"a": 1}))
        await soon(lambda: len(local.sets()) == 2, "the second set", 5)
        local.acknowledge()
        await soon(local.says.empty)
        told = [each for message in above.hear() for each in message.set_refusals]
        assert [(each.origin, each.reason, each.below) for each in told] == [(host.primary.name, "", True)]


async def test_fault_on_the_way_to_the_local_primary_leaves_nothing_below_known(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be shown as it was before, for as long as the fault comes back (never green)."""
    attempts: list[None] = []

    def strained(_: Path) -> Any:
        attempts.append(None)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sockets, "target", strained)
    above = Above(host.upstream)
    host.upstream.answered(CERTIFIED)
    host.upstream.local.begin_anew()
    host.upstream.local.on_below(below("a" * 10, whole=True))
    assert above.hear()[-1].below.unknown_since.seconds == 0
    running = asyncio.create_task(host.upstream.run())
    await soon(lambda: attempts and host.upstream.local.unknown_since, "the fault", 5)
    (said,) = above.hear()
    assert said.below.unknown_since.seconds == START
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})


def test_local_primary_is_unknown_until_it_has_answered(host: Host) -> None:
    above = Above(host.upstream)
    host.upstream.answered(CERTIFIED)
    (said,) = above.hear()
    assert said.below.unknown_since.seconds == START
