"""What a link writes while other things are decided: the moments in which one of them could be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from enlist import certificates, documents
from enlist.channel import PROTOCOL
from enlist.documents import Item, SetVersion
from enlist.link.ends import SecondaryEnd
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2
from enlist_primary.authority.signer import Signer
from enlist_primary.federation.child_primary import Children
from enlist_primary.links.fair_queue import LATER_SECONDS
from enlist_primary.links.inbox import Inbox
from enlist_primary.links.link import Links, Peer
from enlist_primary.links.publisher import Desires
from enlist_primary.links.registry import Link
from enlist_primary.model.desired import Desired
from enlist_primary.model.levels import UpperState
from enlist_primary.model.reports import Word
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc.context import Context
from enlist_primary.store import servers as rows
from tests.attacks.above import Above, policy, stand_under, way_up
from tests.support.inprocess import ACCOUNT, Asker, Running
from tests.support.links import LinkClient, linked, read_set
from tests.support.pretender import new_signer
from tests.support.waiting import eventually


class Stream:
    """The primary's side of a call. `before` and `after` are called once, with the first message behind the welcome."""

    def __init__(
        self,
        end: SecondaryEnd,
        before: Callable[[], Awaitable[None]] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        self.written: list[hierarchy_pb2.FromPrimary] = []
        self.leave: asyncio.Event | None = None
        """What a read that is cancelled waits for before it ends."""
        self.leaving = asyncio.Event()
        self.reads = 0
        self._end = end
        self._before = before
        self._after = after
        self._said: asyncio.Queue[hierarchy_pb2.FromSecondary] = asyncio.Queue()

    async def write(self, message: Any) -> None:
        """As that of gRPC, which takes bytes too."""
        whole = message if isinstance(message, bytes) else message.SerializeToString()
        read = hierarchy_pb2.FromPrimary.FromString(whole)
        if read.challenge:
            self._said.put_nowait(self._end.on_challenge(read, hierarchy_pb2.Hello(protocol=PROTOCOL)))
        elif not read.HasField("welcome"):
            await self._take(read)

    async def _take(self, message: hierarchy_pb2.FromPrimary) -> None:
        before, self._before = self._before, None
        if before is not None:
            await before()
        self.written.append(message)
        after, self._after = self._after, None
        if after is not None:
            after()

    def say(self, message: hierarchy_pb2.FromSecondary) -> None:
        """The secondary says something behind its hello."""
        self._said.put_nowait(message)

    async def read(self) -> hierarchy_pb2.FromSecondary:
        """What the secondary says: its hello, and what a test says."""
        self.reads += 1
        try:
            return await self._said.get()
        finally:
            self.leaving.set()
            if self.leave is not None:
                await self.leave.wait()

    def numbers(self) -> list[int]:
        """The versions of the sets that were written."""
        return [read_set(each.desired).version.number for each in self.written if each.HasField("desired")]


async def trusted(running: Running) -> tuple[Asker, str]:
    """A server that is trusted, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


def links(own: Context) -> Links:
    """What the links of this primary need."""
    return Links(
        primary_name=own.config.name,
        signer=own.signer,
        registry=own.hub,
        publisher=own.desires,
        ancestors=own.upper,
        children=Children(own.signer, own.database, own.upper, own.below, own.clock),
        inbox=Inbox(own.reports, own.below, own.subtree, own.upper, own.desires, own.clock),
        observations=own.observations,
        changes=own.changes,
        clock=own.clock,
        random_bytes=own.random_bytes,
    )


@asynccontextmanager
async def holding(own: Context, stream: Any, asker: Asker, id: str) -> AsyncIterator[tuple[Link, asyncio.Task[Any]]]:
    """A link that is open over this stream, and the task that holds it."""
    (standing,) = await own.database.read(rows.standings, ACCOUNT, (id,))
    peer = Peer(standing, asker.public_key, "127.0.0.1", own.now() + 3600)
    held = asyncio.create_task(links(own).hold(stream, peer))
    try:
        await eventually(lambda: (link := own.hub.find(ACCOUNT, id)) is not None and link.attached, what="the link")
        link = own.hub.find(ACCOUNT, id)
        assert link is not None
        yield link, held
    finally:
        held.cancel()
        await asyncio.wait([held])


def wanted(number: int) -> Desired:
    """Something that is wanted."""
    return Desired((Item("policy/web", "/", number, documents.digest(b"%d" % number)),))


async def test_acknowledgement_that_nobody_waits_for_goes_with_the_next_set(running: Running, own: Context) -> None:
    asker, id = await trusted(running)
    stream = Stream(asker.link_end())
    async with holding(own, stream, asker, id) as (link, _):
        assert link.deliver is not None
        link.deliver(wanted(1), SetVersion(1, 1))
        await eventually(lambda: stream.numbers() == [1], what="what a link writes as it opens")  # or it would go with that
        stream.say(hierarchy_pb2.FromSecondary(reports=hierarchy_pb2.Reports(sequence=1)))
        await eventually(lambda: stream.reads == 3, what="the report to be heard")
        assert not any(each.acks for each in stream.written)
        link.deliver(wanted(2), SetVersion(1, 2))
        await eventually(lambda: stream.numbers() == [1, 2], what="the next set")
    written = [(each.HasField("desired"), [ack.sequence for ack in each.acks]) for each in stream.written]
    assert written == [(True, []), (True, [1])]


async def test_acknowledgements_of_a_server_that_says_more_do_not_wait_for_a_set(running: Running, own: Context) -> None:
    """Only so many of its messages may be on their way."""
    asker, id = await trusted(running)
    stream = Stream(asker.link_end())
    async with holding(own, stream, asker, id):
        for sequence in (1, 2):
            stream.say(hierarchy_pb2.FromSecondary(reports=hierarchy_pb2.Reports(sequence=sequence)))
        await eventually(lambda: [ack.sequence for each in stream.written for ack in each.acks] == [1, 2], 15, "both")
    assert not any(each.HasField("desired") for each in stream.written)


async def test_set_that_comes_as_the_writer_ends_is_sent(running: Running, own: Context) -> None:
    """The writer has nothing more to write, and is not known to have ended: one loop's round lies between the two."""
    loop = asyncio.get_running_loop()
    asker, id = await trusted(running)

    def later() -> None:
        link = own.hub.find(ACCOUNT, id)
        assert link is not None
        assert link.deliver is not None
        loop.call_soon(link.deliver, wanted(2), SetVersion(1, 2))

    stream = Stream(asker.link_end(), after=later)
    async with holding(own, stream, asker, id) as (link, _):
        assert link.deliver is not None
        link.deliver(wanted(1), SetVersion(1, 1))
        await eventually(lambda: stream.numbers() == [1, 2], 5, "both sets to be sent")


async def test_no_set_from_above_goes_out_before_its_origin_was_told(running: Running, own: Context) -> None:
    """While a link is told who is above, another primary comes to be there, and its set with it: the server would refuse that."""
    above = await stand_under(own)
    top = Above(above.signer, "top", "holding.example", "t" * 10)
    asker, id = await trusted(running)

    async def meanwhile() -> None:
        (near,) = own.upper.snapshot.message.ancestors
        await own.upper.ascend(way_up(near, top.step()))
        item, content = policy("web", 9, {"number": 9})
        await own.upper.take(top.set(9, item), {item.digest: content})

    stream = Stream(asker.link_end(), before=meanwhile)
    async with holding(own, stream, asker, id):
        await eventually(lambda: stream.numbers() == [9], 5, "the set")
    known: set[str] = set()
    for message in stream.written:
        if message.HasField("desired"):
            assert message.desired.origin in known
        certified = [each.authority_certificate for each in message.ancestry.ancestors]
        known |= {certificates.read_authority(each).primary_id for each in certified}


async def test_primary_that_was_above_may_be_below_once_it_is_not(running: Running, own: Context) -> None:
    """Nothing is decided about its server then, and it asks but once."""
    asker, id = await trusted(running)
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, id, True, None, PRIMARY_ITSELF, own.now())
    above = await stand_under(own)
    authority = certificates.der(above.signer.authority.certificate)
    async with linked(asker, listening=True) as link:
        await link.send(lower=consenting(above.signer, own))
        await eventually(lambda: answers(link) == [Reason.WOULD_LOOP], 5, "the refusal")
        await own.upper.join(authority, above.name, UpperState.GONE, own.now())
        await eventually(lambda: answers(link) == [Reason.WOULD_LOOP, ""], 5, "the certificate")


async def test_intermediate_hears_at_once_what_was_taken(running: Running, own: Context) -> None:
    """What others below it say next would wait: only so many of its messages may be on their way."""
    asker, id = await trusted(running)
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, id, True, None, PRIMARY_ITSELF, own.now())
    async with linked(asker, listening=True) as link:
        await link.send(lower=consenting(new_signer(), own))
        await eventually(lambda: answers(link) == [""], 5, "the certificate")
        await link.send(below=hierarchy_pb2.Below(sequence=1))
        await eventually(lambda: [ack.sequence for each in link.got for ack in each.acks] == [1], LATER_SECONDS / 2, "the answer")


def consenting(signer: Signer, own: Context) -> hierarchy_pb2.LowerPrimary:
    """This signer's primary consents to be below."""
    authority = certificates.der(signer.authority.certificate)
    present, parent = document_pb2.ANCESTOR_STATE_PRESENT, own.signer.authority.primary_id
    consent = document_pb2.Consent(parent_primary_id=parent, epoch=1, number=1, state=present).SerializeToString()
    signature = signer.sign_consent(consent)
    return hierarchy_pb2.LowerPrimary(authority_certificate=authority, consent=consent, consent_signature=signature)


def answers(link: LinkClient) -> list[str]:
    """What a link heard of whether its primary may be below: the reasons why not, "" for leave."""
    return [each.lower_answer.reason for each in link.got if each.HasField("lower_answer")]


async def test_link_whose_peer_goes_while_it_is_ended_is_taken_out(running: Running, own: Context) -> None:
    """Its server was suspended in that moment: it would be shown as connected until it comes back."""
    asker, id = await trusted(running)
    stream = Stream(asker.link_end())
    async with holding(own, stream, asker, id) as (link, held):
        stream.leave = asyncio.Event()
        stream.leaving.clear()
        link.end(Refused(Reason.SERVER_SUSPENDED, "Suspended."))
        await eventually(stream.leaving.is_set, 5, "the end to begin")
        held.cancel()
        await asyncio.sleep(0)
        stream.leave.set()
        await asyncio.wait([held])
    assert held.cancelled()
    assert not own.hub.connected(ACCOUNT, id)
    assert own.observations.seen(ACCOUNT, id).disconnected_at


class Reports:
    """Where reports wait to be written: the names of those for which there was room."""

    def __init__(self) -> None:
        self.room = False
        self.names: list[str] = []

    def put(self, account: str, word: Word, written: Any = None) -> bool:
        """See `StatusReports.put`."""
        if self.room:
            self.names.append(word.name)
        return self.room


async def test_run_that_could_not_be_noted_as_sent_is_noted_with_the_next_set(own: Context) -> None:
    waiting: Any = Reports()
    inbox = Inbox(waiting, own.below, own.subtree, own.upper, own.desires, own.clock)
    link, item = own.hub.open(ACCOUNT, "a" * 10, own.now() + 3600), Item("task/restart", "r" * 10, 1, documents.digest(b"run"))
    link.wanted = Desired((item,))
    for room, names in ((False, []), (True, [item.name]), (True, [item.name])):
        waiting.room = room
        inbox.on_set_held(link, [item.digest], own.now())
        assert waiting.names == names
    again = own.hub.open(ACCOUNT, link.key[1], own.now() + 3600)
    again.wanted = link.wanted
    inbox.on_set_held(again, [item.digest], own.now())
    assert waiting.names == [item.name], "it was noted: a storm of links brings nothing to write"


class Busy:
    """A database that refuses some reads of one query."""

    def __init__(self, database: Any, name: str, times: int) -> None:
        self._database = database
        self._name = name
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, query: Any, *arguments: Any) -> Any:
        """See `Database.read`."""
        if self.times and query.__name__ == self._name:
            self.times -= 1
            raise Refused(Reason.OVERLOADED, "Busy.")
        return await self._database.read(query, *arguments)


async def test_busy_database_ends_no_link(running: Running, own: Context) -> None:
    """In a storm of links it would bring more of them: neither one that opens, nor one to which a body travels."""
    asker, id = await trusted(running)
    busy: Any = Busy(own.database, "_place", 2)
    desires = Desires(busy, own.hub)
    stream = Stream(asker.link_end())
    async with holding(replace(own, desires=desires), stream, asker, id) as (link, held):
        assert busy.times == 0
        missing: Any = Busy(own.database, "body", 2)
        loading = Desires(missing, own.hub)
        assert await loading.piece(ACCOUNT, documents.digest(b"none"), 0) is None
        assert (missing.times, held.done(), link.ended.done()) == (0, False, False)


async def test_what_comes_as_the_link_is_ended_counts_no_more(running: Running, own: Context) -> None:
    asker, id = await trusted(running)
    stream = Stream(asker.link_end())
    async with holding(own, stream, asker, id) as (link, _):
        assert link.deliver is not None
        link.deliver(wanted(1), SetVersion(1, 1))
        await eventually(lambda: stream.numbers() == [1], 5, "the set")
        (sequence,) = {each.sequence for each in stream.written if each.HasField("desired")}
        origin = own.signer.authority.primary_id
        refused = hierarchy_pb2.SetRefused(origin=origin, epoch=1, number=1, reason="SET_INVALID", message="no", sequence=sequence)
        stream.say(hierarchy_pb2.FromSecondary(set_refusals=[refused]))
        link.end(Refused(Reason.SERVER_REVOKED, "Revoked."))
        await eventually(lambda: stream.reads == 3, 5, "the message to be read")
        assert not link.refusal
