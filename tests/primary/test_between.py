"""A primary between others: what its links are told of those above it, and what it says upward of those below."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from enlist import certificates
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, server_pb2, upstream_pb2
from enlist_primary.changes.publisher import Changes, PresenceChange
from enlist_primary.federation import child_primary as lower
from enlist_primary.federation.descendants import Below
from enlist_primary.model.levels import Bequest
from enlist_primary.model.reports import Asked
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc import upstream
from enlist_primary.rpc.context import Context
from enlist_primary.store import changes, policies
from enlist_primary.store import levels as rows
from tests.attacks.above import Above, policy, stand_under, way_up
from tests.primary.holding import Holding
from tests.support.inprocess import ACCOUNT, Asker, Running
from tests.support.pretender import new_signer
from tests.support.waiting import eventually

PATH = "b" * 10
ITEMS = frozenset({("policy/web", "")})


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
    await caught_up(own)
    assert [each async for each in subtree.whole()][-1].whole
    try:
        subtree.heard(ACCOUNT, middle, [report], ITEMS)
        assert await said(own) == {middle: 1}
        subtree.heard(ACCOUNT, f"{middle}/{PATH}", [report], ITEMS)
        assert await said(own) == {f"{middle}/{PATH}": 1}
        own.changes.publish(PresenceChange(ACCOUNT, [middle]))
        assert await said(own) == {middle: 1, f"{middle}/{PATH}": 1}
    finally:
        subtree.detached()


async def caught_up(own: Context) -> None:
    """Waits until the tail has published what is committed now: a later change is published after it."""
    numbers: list[int] = []
    own.changes.subscribe(Changes, lambda page: numbers.append(page.number) if page.account == ACCOUNT else None)
    await own.database.write(ACCOUNT, changes.note, ACCOUNT, own.now(), changes.ACCOUNT)
    last = await own.database.read(changes.last, ACCOUNT)
    await eventually(lambda: numbers and numbers[-1] >= last, what="the changes of its enrolment")


async def middle_server(running: Running, own: Context) -> str:
    """A server whose host may run a primary."""
    _, id = await trusted(running)
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, id, True, None, PRIMARY_ITSELF, own.now())
    return id


def named(*paths: str, reports: Sequence[document_pb2.Report] = (), **fields: Any) -> hierarchy_pb2.Below:
    """What a middle server says of trusted servers below it."""
    trusted = server_pb2.SERVER_STATE_TRUSTED
    servers = [hierarchy_pb2.BelowServer(path=path, state=trusted, connected=True, reports=reports) for path in paths]
    return hierarchy_pb2.Below(servers=servers, **fields)


def take(own: Context, middle: str, message: hierarchy_pb2.Below) -> None:
    """What the link does with such a message."""
    own.below.take(ACCOUNT, middle, Asked(ITEMS), message, own.now())
    for server in message.servers:
        own.subtree.heard(ACCOUNT, f"{middle}/{server.path}", server.reports, ITEMS)


APPLIED = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED)


async def test_that_nothing_is_known_below_a_middle_server_is_news_at_every_level(running: Running, own: Context) -> None:
    """Else the primaries further up would show it as it was before the cut (design: unknown since, never green)."""
    middle = await middle_server(running, own)
    take(own, middle, named(PATH, whole=True))
    await own.below.flush()
    assert [each async for each in own.subtree.whole()][-1].whole
    try:
        watch = own.changes.changed(ACCOUNT)
        take(own, middle, hierarchy_pb2.Below(unknown_since=Timestamp(seconds=own.now() - 5)))
        async with asyncio.timeout(20):
            await watch
            while f"{middle}/{PATH}" not in (found := {s.path: s for m in await own.subtree.changes() for s in m.servers}):
                pass
        assert found[f"{middle}/{PATH}"].HasField("unknown_since")
    finally:
        own.subtree.detached()


async def test_words_of_servers_that_are_gone_below_are_gone_too(running: Running, own: Context) -> None:
    """Or a middle server that names others on and on fills memory and tables (attacks row 37)."""
    middle = await middle_server(running, own)
    for letter in "cdefgh":
        take(own, middle, named(letter * 10, reports=[APPLIED]))
        assert len(own.subtree._words) == 1
        await own.below.flush()
        await own.reports.flush()
        assert len(await own.database.read(policies.reports, ACCOUNT, "web")) == 1
        take(own, middle, hierarchy_pb2.Below(gone=[letter * 10]))
        take(own, middle, named("zzzzzzzzzz", reports=[APPLIED], gone=["zzzzzzzzzz"]))
        await own.below.flush()
        await own.reports.flush()
        assert await own.database.read(policies.reports, ACCOUNT, "web") == {}
        assert own.subtree._words == {}


async def test_a_word_that_is_kept_for_the_way_up_is_bounded_whatever_it_holds(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    items = [document_pb2.ItemVersion(revision=1, digest=b"d" * 100_000)]
    observed = [document_pb2.OriginItems(origin="x" * 1_000_000, items=items)]
    fat = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED, observed_items=observed)
    unknown = document_pb2.Report.FromString(fat.SerializeToString() + b"\xfa\x3f\x80\x80\x04" + b"y" * 65_536)
    own.subtree.heard(ACCOUNT, middle, [unknown], ITEMS)
    assert sum(each.ByteSize() for each in own.subtree._words[ACCOUNT, middle].values()) < 1000


class Refusing:
    """A database that refuses some operations a few times."""

    def __init__(self, database: Any, name: str, times: int) -> None:
        self._database = database
        self._name = name
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        if operation.__name__ == self._name and self.times:
            self.times -= 1
            raise Refused(Reason.STORAGE_FULL, "Full.")
        return await self._database.write(account, operation, *arguments)


async def test_a_set_from_above_that_could_not_be_written_down_is_tried_again(
    own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secondary on this host does not say it twice."""
    monkeypatch.setattr(upstream, "RETRY_SECONDS", 0.01)
    above = await stand_under(own)
    refusing: Any = Refusing(own.upper._database, "hand_down", 3)
    own.upper._database = refusing
    item, body = policy("web", 5, {"n": 5})
    messages = [upstream_pb2.FromDaemon(desired=above.set(5, item)), upstream_pb2.FromDaemon(bodies=[body]), grpc.aio.EOF]

    class Stream:
        async def read(self) -> Any:
            return messages.pop(0)

    stream: Any = Stream()
    await upstream._Attached(own, stream).hear()
    assert [kept.verified.version.number for kept in own.upper.sets] == [5]


async def test_whether_a_primary_may_stand_below_is_decided_once_that_can_be_written_down(
    running: Running, own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lower, "RETRY_SECONDS", 0.01)
    middle = await middle_server(running, own)
    database: Any = Refusing(own.database, "certify", 3)
    signer = new_signer()
    parent, present = own.signer.authority.primary_id, document_pb2.ANCESTOR_STATE_PRESENT
    consent = document_pb2.Consent(parent_primary_id=parent, epoch=1, number=1, state=present).SerializeToString()
    authority, signature = certificates.der(signer.authority.certificate), signer.sign_consent(consent)
    said = hierarchy_pb2.LowerPrimary(authority_certificate=authority, consent=consent, consent_signature=signature)
    theirs = lower.Lower(replace(own, database=database), ACCOUNT, middle, lambda: None)
    theirs.take(said)
    await eventually(lambda: theirs.certified)
    database.times = 3
    leave = (ACCOUNT, middle, False, Bequest.DELETE, PRIMARY_ITSELF, own.now())
    theirs.reconsider()
    await own.database.write(ACCOUNT, levels.allow, *leave)
    await eventually(lambda: theirs.answer is not None and theirs.answer.reason == Reason.NOT_ALLOWED, what="the refusal")
    assert not theirs.certified
    await theirs.close()


async def said(own: Context) -> dict[str, int]:
    """How many reports of which servers are said upward now."""
    return {server.path: len(server.reports) for message in await own.subtree.changes() for server in message.servers}


async def test_a_newer_word_is_never_overtaken_by_one_that_waited_for_its_server_to_be_written(
    running: Running, own: Context
) -> None:
    """The server comes back saying "received", and "applied" while that is being written down: the last word counts."""
    middle = await middle_server(running, own)
    holding: Any = Holding(own.below._database, "record_below")
    own.below._database = holding
    received = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_RECEIVED)
    take(own, middle, named(PATH, reports=[received], whole=True))
    async with asyncio.timeout(20):
        await holding.asked.wait()
    take(own, middle, named(PATH, reports=[APPLIED]))
    await own.reports.flush()
    holding.leave.set()

    async def states() -> list[str]:
        return [word.state for word in (await own.database.read(policies.reports, ACCOUNT, "web")).values()]

    await eventually(lambda: not own.below._branches[ACCOUNT, middle].words, what="the words to be in line")
    await own.reports.flush()
    assert await states() == ["applied"]


async def test_a_farewell_to_a_primary_that_was_never_above_is_heard_too(own: Context) -> None:
    """The secondary on this host waits for that before it ends; this primary may have come to be after it was said."""
    certificate = certificates.der(new_signer().authority.certificate)
    gone = upstream_pb2.Upper(authority_certificate=certificate, bequest=document_pb2.ANCESTOR_STATE_UNSPECIFIED)
    messages = [upstream_pb2.FromDaemon(upper=gone), grpc.aio.EOF]
    told: list[upstream_pb2.ToDaemon] = []

    class Stream:
        async def read(self) -> Any:
            return messages.pop(0)

        async def write(self, message: upstream_pb2.ToDaemon) -> None:
            told.append(message)

    stream: Any = Stream()
    await upstream._Attached(own, stream).hear()
    assert told == [upstream_pb2.ToDaemon(heard=gone)]
    assert own.upper.row is None


async def test_what_stands_below_while_the_primary_stops_is_written_at_the_end(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    below = Below(own.database, own.reports, own.signer.authority.fingerprint, lambda _: None)
    below.take(ACCOUNT, middle, Asked(ITEMS), named(PATH, "c" * 10, whole=True), own.now())
    await below.flush()
    holding: Any = Holding(own.database, "record_below")
    below._database = holding
    below.take(ACCOUNT, middle, Asked(ITEMS), named("d" * 10, gone=[PATH], reports=[APPLIED]), own.now())
    writing = asyncio.create_task(below.run())
    await holding.asked.wait()
    writing.cancel()
    await asyncio.wait([writing])
    holding.leave.set()
    await below.flush()
    await own.reports.flush()
    assert {each.path for each in await own.database.read(rows.below, ACCOUNT)} == {"c" * 10, "d" * 10}
    assert list(await own.database.read(policies.reports, ACCOUNT, "web")) == [f"{middle}/{'d' * 10}"]
