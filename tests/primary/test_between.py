"""A primary between others: what its links are told of those above it, and what it says upward of those below."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from enlist import certificates, documents
from enlist.link.pace import PIECE
from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Backoff
from enlist.runtime.link_outbox import WINDOW
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, server_pb2, upstream_pb2
from enlist_primary.changes.publisher import AncestorChange, Changes, PresenceChange
from enlist_primary.federation import parent_stream, subtree, upward_reports
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.child_primary import Children
from enlist_primary.federation.descendants import Descendants, Reception
from enlist_primary.federation.parent_stream import ParentStream
from enlist_primary.federation.subtree import SubtreeStream
from enlist_primary.federation.upward_reports import OUTCOMES
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import Bequest, UpperState
from enlist_primary.model.reports import Asked
from enlist_primary.model.rollouts import Presence
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc.context import Context
from enlist_primary.rpc.upstream import Upstream
from enlist_primary.store import changes, policies
from enlist_primary.store import levels as rows
from tests.attacks.above import Above, policy, stand_under, way_up
from tests.primary.holding import Holding
from tests.support import upward
from tests.support.inprocess import ACCOUNT, Asker, Running
from tests.support.links import LinkClient, linked
from tests.support.pretender import new_signer
from tests.support.waiting import eventually

PATH = "b" * 10
ITEMS = frozenset({("policy/web", "")})
NOW = 1_800_000_000


def about_web(report: document_pb2.Report) -> bool:
    """What concerns the primaries above."""
    return (report.kind, report.name) in ITEMS


async def trusted(running: Running) -> tuple[Asker, str]:
    """A server that is trusted, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


async def hand_down(own: Context, above: Above, number: int) -> None:
    """The primary above wants something else."""
    item, body = policy("web", number, {"number": number})
    await own.upper.take(above.set(number, item), {item.digest: body})


async def ancestries(link: LinkClient, number: int) -> int:
    """How often the link is told who is above, until the set of this number comes."""
    before = len(link.got)
    await link.until_held(number)
    return sum(message.HasField("ancestry") for message in link.got[before:])


async def test_a_link_is_told_who_stands_above_when_it_opens_and_when_that_changes(running: Running, own: Context) -> None:
    """Not with every set: there may be thousands of links, and each would verify the same again."""
    above = await stand_under(own)
    asker, _ = await trusted(running)
    async with linked(asker) as link:
        await hand_down(own, above, 5)
        assert await ancestries(link, 5) == 1
        await hand_down(own, above, 6)
        assert await ancestries(link, 6) == 0
        (near,) = own.upper.snapshot.message.ancestors
        await own.upper.ascend(way_up(near, Above(above.signer, "top", "holding.example", "t" * 10).step()))
        await hand_down(own, above, 7)
        assert await ancestries(link, 7) == 1


async def test_what_another_writer_kept_of_those_above_is_taken_over_from_the_change_log(running: Running, own: Context) -> None:
    """Another primary over this database, or whoever was cancelled once it was committed: links are told all the same."""
    above = await stand_under(own)
    asker, _ = await trusted(running)
    item, body = policy("web", 5, {"n": 5})
    signed = above.set(5, item)
    verified, bodies = own.upper.check(signed), [(item.digest.hex(), body)]
    authority, gone = certificates.der(above.signer.authority.certificate), UpperState.GONE
    async with linked(asker) as link:
        writing = (verified, signed.SerializeToString(), bodies, own.now())
        await own.database.write(PRIMARY, levels.hand_down, *writing)
        await link.until_held(5)
        assert [kept.verified.version.number for kept in own.upper.snapshot.sets] == [5]
        leaving = (authority, above.fingerprint, above.name, gone, own.signer.sign_consent, own.now())
        await own.database.write(PRIMARY, levels.stand_under, *leaving)
        await eventually(lambda: not own.upper.above, what="the end of what was above")
        assert not own.upper.snapshot.sets


async def test_links_hear_of_those_above_from_the_change_log_alone(own: Context) -> None:
    """What is told to the caller is known here at once; nobody is woken by hand."""
    above = await stand_under(own)
    told: list[int] = []
    own.changes.subscribe(AncestorChange, lambda change: told.append(change.version))
    await hand_down(own, above, 5)
    assert [kept.verified.version.number for kept in own.upper.snapshot.sets] == [5]
    version = own.upper.version
    await eventually(lambda: version in told, what="the change log's word")
    assert own.upper.version == version  # the rows say what was known already


async def test_a_middle_servers_word_on_its_own_documents_says_nothing_anew_of_those_below_it(
    running: Running, own: Context
) -> None:
    """There may be thousands; that the middle server itself comes or goes concerns them all."""
    _, middle = await trusted(running)
    below = hierarchy_pb2.BelowServer(path=PATH, display_name="k1", state=server_pb2.SERVER_STATE_TRUSTED, connected=True)
    report = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED)
    own.below.on_message(ACCOUNT, middle, Asked(ITEMS), hierarchy_pb2.Below(servers=[below], whole=True), own.now())
    stream = own.subtree.open()
    await caught_up(own)
    await upward.whole(stream)
    own.subtree.heard(ACCOUNT, middle, [report], about_web)
    assert await said(stream) == {middle: 1}
    own.subtree.heard(ACCOUNT, f"{middle}/{PATH}", [report], about_web)
    assert await said(stream) == {f"{middle}/{PATH}": 1}
    own.changes.publish(PresenceChange(ACCOUNT, [middle]))
    assert await said(stream) == {middle: 1, f"{middle}/{PATH}": 1}


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
    taken = own.below.on_message(ACCOUNT, middle, Asked(ITEMS), message, own.now())
    assert taken.accepted
    for server in message.servers:
        own.subtree.heard(ACCOUNT, f"{middle}/{server.path}", server.reports, about_web)


APPLIED = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED)


async def test_that_nothing_is_known_below_a_middle_server_is_news_at_every_level(running: Running, own: Context) -> None:
    """Else the primaries further up would show it as it was before the cut (design: unknown since, never green)."""
    middle = await middle_server(running, own)
    take(own, middle, named(PATH, whole=True))
    await own.below.flush()
    stream = own.subtree.open()
    await upward.whole(stream)
    watch = own.changes.changed(ACCOUNT)
    take(own, middle, hierarchy_pb2.Below(unknown_since=Timestamp(seconds=own.now() - 5)))
    async with asyncio.timeout(20):
        await watch
    assert upward.by_path(await upward.due(stream))[f"{middle}/{PATH}"].HasField("unknown_since")


async def test_what_is_below_is_unknown_until_the_primary_there_was_heard(running: Running, own: Context) -> None:
    """The host has started again, and its primary has not: nothing that was applied there counts (design: never green)."""
    middle = await middle_server(running, own)
    own.hub.open(ACCOUNT, middle, own.now() + 3600)
    take(own, middle, named(PATH, reports=[APPLIED], whole=True))
    id = f"{middle}/{PATH}"
    assert own.reach.view(ACCOUNT).connected(id)
    lost = own.now() - 500
    for _ in range(2):
        own.below.opened(ACCOUNT, middle, lost, own.now())
        assert own.reach.view(ACCOUNT).of(id) == Presence(False, lost), "since the link was lost, however often one opens"
    take(own, middle, hierarchy_pb2.Below())
    assert not own.reach.view(ACCOUNT).connected(id), "a word on others"
    take(own, middle, named(PATH))
    assert own.reach.view(ACCOUNT).connected(id)


async def test_what_is_below_a_link_that_was_replaced_is_not_held_against_it(running: Running, own: Context) -> None:
    """A renewed certificate stops no rollout, and confirms none: nobody can say that the servers there have gone."""
    middle, (one, two) = await middle_server(running, own), paths(2)
    own.hub.open(ACCOUNT, middle, own.now() + 3600)
    take(own, middle, named(one, two, whole=True))
    now = own.now()
    own.below.opened(ACCOUNT, middle, None, now)
    assert own.reach.view(ACCOUNT).of(f"{middle}/{one}") == Presence(False, now, unheard=True)
    (shown, _) = own.below.of(ACCOUNT, middle)
    assert own.reach.cut_since(ACCOUNT, shown) == now
    own.below.opened(ACCOUNT, middle, None, now + 5)
    assert own.reach.view(ACCOUNT).of(f"{middle}/{one}") == Presence(False, now, unheard=True), "however often"
    take(own, middle, named(one))
    assert [own.reach.view(ACCOUNT).connected(f"{middle}/{path}") for path in (one, two)] == [True, False]
    own.below.opened(ACCOUNT, middle, now + 7, now + 9)
    assert own.reach.view(ACCOUNT).of(f"{middle}/{one}") == Presence(False, now + 7), "it was heard over the link before"
    assert own.reach.view(ACCOUNT).of(f"{middle}/{two}") == Presence(False, now), "it was not, and that link was lost"
    take(own, middle, hierarchy_pb2.Below(whole=True))
    assert own.below.find(ACCOUNT, middle, two) is None


async def test_what_is_below_is_unknown_since_the_link_was_lost(running: Running, own: Context) -> None:
    """The host comes back, and its primary does not."""
    asker, middle = await trusted(running)
    async with linked(asker, listening=True):
        take(own, middle, named(PATH, whole=True))
        await eventually(lambda: own.reach.view(ACCOUNT).connected(f"{middle}/{PATH}"), what="the link")
    await eventually(lambda: own.observations.seen(ACCOUNT, middle).disconnected_at, what="the end of the link")
    lost = own.observations.seen(ACCOUNT, middle).disconnected_at
    async with linked(asker, listening=True):
        await eventually(lambda: own.observations.seen(ACCOUNT, middle).disconnected_at is None, what="the next link")
        assert own.reach.view(ACCOUNT).of(f"{middle}/{PATH}") == Presence(False, lost)


def outcome(run: str, size: int = 0, origin: str = "") -> document_pb2.Report:
    """How a run ended, and so many bytes that it wrote."""
    state, by = document_pb2.TASK_STATE_SUCCEEDED, [document_pb2.OriginItems(origin=origin)]
    output = bytes(range(256)) * (size // 256)
    return document_pb2.Report(kind="task/restart", name=run, task_state=state, output=output, observed_items=by)


async def test_outcome_goes_upward_whatever_is_wanted_by_now_until_it_has_arrived(running: Running, own: Context) -> None:
    """Its time was up above, and this primary was started anew, before its server could say so: it would be said in vain."""
    above, middle = await stand_under(own), await middle_server(running, own)
    stream = own.subtree.open()
    await upward.whole(stream)
    concerns = own.upper.snapshot.concerns
    own.subtree.heard(ACCOUNT, middle, [outcome("a" * 10, origin=above.fingerprint), outcome("b" * 10, origin="ab" * 32)], concerns)
    (server,) = upward.by_path(await upward.due(stream)).values()
    assert [each.name for each in server.reports] == ["a" * 10], "the other one is of no primary above"
    own.subtree.prune(concerns)
    assert len(own.subtree.reports) == 1
    own.subtree.settled(middle, "a" * 10)
    assert len(own.subtree.reports) == 0
    assert await upward.due(stream) == []


async def test_word_on_an_outcome_is_passed_down_where_it_was_said_from_here(running: Running, own: Context, caplog: Any) -> None:
    """A primary above could fill the links of all others with words on what it makes up."""
    above = await stand_under(own)
    _, id = await trusted(running)
    link, told = own.hub.open(ACCOUNT, id, own.now() + 3600), list[tuple[str, str]]()
    link.settle = lambda path, run: told.append((path, run))
    own.subtree.heard(ACCOUNT, id, [outcome("a" * 10, origin=above.fingerprint)], own.upper.snapshot.concerns)
    words = [("b" * 10, id), ("a" * 10, id), ("a" * 10, id), ("x" * 400_000, id), ("c" * 10, f"{id}/../..")]
    said = upstream_pb2.FromDaemon(settled=[hierarchy_pb2.Settled(path=path, run=run) for run, path in words])
    await attached(own, Stream(said)).hear()
    assert told == [("", "a" * 10)]
    (line,) = [each for each in caplog.records if each.getMessage() == "words on outcomes were not taken"]
    assert line.fields == {"reason": Reason.LINK_VIOLATION, "count": 2}


async def test_outcomes_that_are_kept_for_above_are_bounded(
    running: Running, own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks row 37: an intermediate makes up servers, and runs of a primary above. Reports on documents go up all the same."""
    above, middle = await stand_under(own), await middle_server(running, own)
    another = await middle_server(running, own)
    monkeypatch.setattr(upward_reports, "VIA_BYTES", 3 * 4096)
    concerns, stream = own.upper.snapshot.concerns, own.subtree.open()
    await upward.whole(stream)

    async def kept(id: str, *runs: str) -> list[str]:
        for run in runs:
            own.subtree.heard(ACCOUNT, id, [outcome(run * 10, 4096, above.fingerprint)], concerns)
        server = upward.by_path(await upward.due(stream))[id]
        return sorted(each.name[:1] for each in server.reports)

    assert await kept(middle, *"abc") == ["a", "b"]
    assert await kept(middle, "a") == ["a", "b"], "what is there already takes no more room"
    assert await kept(another, *"ab") == ["a", "b"], "another one has its own"
    own.subtree.settled(middle, "a" * 10)
    assert await kept(middle, *"cd") == ["b", "c"]
    item, body = policy("web", 9, {"number": 9})
    await own.upper.take(above.set(9, item), {item.digest: body})
    own.subtree.heard(ACCOUNT, middle, [APPLIED], own.upper.snapshot.concerns)
    server = upward.by_path(await upward.due(stream))[middle]
    assert sorted(each.kind for each in server.reports) == ["policy/web", "task/restart", "task/restart"]
    own.subtree.reports.forget((ACCOUNT, middle))
    assert await kept(middle, *"def") == ["d", "e"]


async def test_outcomes_that_have_no_room_together_go_up_whole_one_after_another(running: Running, own: Context) -> None:
    """To cut what they wrote would lose it: with the word that they arrived their servers forget it."""
    above, middle = await stand_under(own), await middle_server(running, own)
    stream = own.subtree.open()
    await upward.whole(stream)
    runs = [letter * 10 for letter in "abcdefgh"]
    sizes = [outcome(run, 64 * 1024 - 256, above.fingerprint) for run in runs]
    own.subtree.heard(ACCOUNT, middle, sizes, own.upper.snapshot.concerns)
    arrived = set[str]()
    while messages := await upward.due(stream):
        (server,) = upward.by_path(messages).values()
        assert server.ByteSize() < 2 * subtree.PAGE_BYTES
        assert {len(each.output) for each in server.reports} == {64 * 1024 - 256}
        for each in server.reports:
            arrived.add(each.name)
            own.subtree.settled(middle, each.name)
    assert arrived == set(runs)


async def test_of_outcomes_the_last_ones_are_kept(running: Running, own: Context) -> None:
    """Attacks row 37. A server says those again over its next link that nobody said arrived."""
    above, middle = await stand_under(own), await middle_server(running, own)
    stream = own.subtree.open()
    await upward.whole(stream)
    runs = paths(OUTCOMES + 5)
    for run in runs:
        own.subtree.heard(ACCOUNT, middle, [outcome(run, origin=above.fingerprint)], own.upper.snapshot.concerns)
    (server,) = upward.by_path(await upward.due(stream)).values()
    assert sorted(each.name for each in server.reports) == runs[5:]


async def test_words_of_servers_that_are_gone_below_are_gone_too(running: Running, own: Context) -> None:
    """Or a middle server that names others on and on fills memory and tables (attacks row 37)."""
    middle = await middle_server(running, own)
    for letter in "cdefgh":
        take(own, middle, named(letter * 10, reports=[APPLIED]))
        assert len(own.subtree.reports) == 1
        await own.below.flush()
        assert len(await own.database.read(policies.reports, ACCOUNT, "web")) == 1
        take(own, middle, hierarchy_pb2.Below(gone=[letter * 10]))
        take(own, middle, named("zzzzzzzzzz", reports=[APPLIED], gone=["zzzzzzzzzz"]))
        await own.below.flush()
        assert await own.database.read(policies.reports, ACCOUNT, "web") == {}
        assert len(own.subtree.reports) == 0


async def test_a_word_that_is_kept_for_the_way_up_is_bounded_whatever_it_holds(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    items = [document_pb2.ItemVersion(revision=1, digest=b"d" * 100_000)]
    observed = [document_pb2.OriginItems(origin="x" * 1_000_000, items=items)]
    fat = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_APPLIED, observed_items=observed)
    unknown = document_pb2.Report.FromString(fat.SerializeToString() + b"\xfa\x3f\x80\x80\x04" + b"y" * 65_536)
    own.subtree.heard(ACCOUNT, middle, [unknown], about_web)
    assert sum(each.ByteSize() for each in own.subtree.reports.of((ACCOUNT, middle))) < 1000


class Refusing:
    """A database that refuses some operations a few times."""

    def __init__(self, database: Any, name: str, times: int, reason: Reason = Reason.STORAGE_FULL) -> None:
        self._database = database
        self._name = name
        self.times = times
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, account: str, operation: Any, *arguments: Any) -> Any:
        """See `Database.write`."""
        if operation.__name__ == self._name and self.times:
            self.times -= 1
            raise Refused(self._reason, "No.")
        return await self._database.write(account, operation, *arguments)


class Stream:
    """The primary's side of a stream on which the secondary on this host says these messages, and goes."""

    def __init__(self, *messages: upstream_pb2.FromDaemon) -> None:
        self._said: list[Any] = [*messages, grpc.aio.EOF]
        self.told: list[upstream_pb2.ToDaemon] = []

    async def read(self) -> Any:
        return self._said.pop(0)

    async def write(self, message: upstream_pb2.ToDaemon) -> None:
        self.told.append(message)


def attached(own: Context, stream: Any, ancestors: Upper | None = None) -> ParentStream:
    """What the primary makes of such a stream."""
    return ParentStream(stream, own.config.name, ancestors or own.upper, own.subtree, own.hub, own.clock)


async def test_a_set_from_above_that_could_not_be_written_down_is_tried_again(
    own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secondary on this host does not say it twice."""
    monkeypatch.setattr(parent_stream, "RETRY_SECONDS", 0.01)
    above = await stand_under(own)
    refusing: Any = Refusing(own.database, "hand_down", 3)
    ancestors = Upper(refusing, own.signer, own.changes.publish, own.clock)
    await ancestors.load()
    item, body = policy("web", 5, {"n": 5})
    piece = hierarchy_pb2.BodyPiece(digest=item.digest, data=body, size=len(body))
    stream = Stream(
        upstream_pb2.FromDaemon(sequence=1, desired=above.set(5, item)), upstream_pb2.FromDaemon(sequence=2, pieces=[piece])
    )
    await attached(own, stream, ancestors).hear()
    assert [kept.verified.version.number for kept in ancestors.snapshot.sets] == [5]
    (ack,) = [ack for message in stream.told for ack in message.set_acks]
    assert (ack.origin, ack.epoch, ack.number) == (above.fingerprint, 1, 5)


async def test_a_refused_set_from_above_holds_up_no_complete_one_behind_it(own: Context) -> None:
    """Of two origins: what is wrong with the first shows only when it is handed down."""
    above = await stand_under(own)
    top = Above(above.signer, "top", "holding.example", "t" * 10)
    (near,) = own.upper.snapshot.message.ancestors
    await own.upper.ascend(way_up(near, top.step()))
    (first, first_body), (second, second_body) = policy("web", 5, {"n": 5}), policy("web", 6, {"n": 6})
    refusing: Any = Refusing(own.database, "hand_down", 1, Reason.SET_STALE)
    ancestors = Upper(refusing, own.signer, own.changes.publish, own.clock)
    await ancestors.load()
    pieces = [
        hierarchy_pb2.BodyPiece(digest=item.digest, data=body, size=len(body))
        for item, body in ((first, first_body), (second, second_body))
    ]
    stream = Stream(
        upstream_pb2.FromDaemon(sequence=1, desired=top.set(5, first)),
        upstream_pb2.FromDaemon(sequence=2, desired=above.set(6, second)),
        upstream_pb2.FromDaemon(sequence=3, pieces=pieces),
    )
    await attached(own, stream, ancestors).hear()
    (refused,) = [each for message in stream.told for each in message.set_refusals]
    assert (refused.origin, refused.number, refused.reason) == (top.fingerprint, 5, Reason.SET_STALE)
    (ack,) = [each for message in stream.told for each in message.set_acks]
    assert (ack.origin, ack.number) == (above.fingerprint, 6)
    assert [kept.verified.version.number for kept in ancestors.snapshot.sets] == [6]


async def test_set_that_cannot_be_written_down_holds_up_no_acknowledgement(own: Context, caplog: pytest.LogCaptureFixture) -> None:
    """Faults row 7. Else nothing more of what is below would be said while the disk is full."""
    above = await stand_under(own)
    refusing: Any = Refusing(own.database, "hand_down", 10**9)
    ancestors = Upper(refusing, own.signer, own.changes.publish, own.clock)
    await ancestors.load()
    desired = upstream_pb2.FromDaemon(sequence=1, desired=above.set(5))
    acks = [acknowledging(sequence) for sequence in range(1, 2 * parent_stream.MESSAGES)]
    hearing = asyncio.create_task(attached(own, Stream(desired, *acks), ancestors).hear())
    heard = "acknowledgement of what was not sent"
    await eventually(lambda: caplog.messages.count(heard) == len(acks), what="all acknowledgements to be heard")
    assert ancestors.snapshot.sets == []
    hearing.cancel()
    await asyncio.wait([hearing])


async def test_stream_ends_where_a_body_that_was_here_went_with_another_set(own: Context) -> None:
    """The secondary was told that it is here, and would never send it: with the next stream it does."""
    above = await stand_under(own)
    top = Above(above.signer, "top", "holding.example", "t" * 10)
    (near,) = own.upper.snapshot.message.ancestors
    await own.upper.ascend(way_up(near, top.step()))
    (both, body), (other, _) = policy("web", 5, {"n": 5}), policy("web", 6, {"n": 6})
    await own.upper.take(top.set(5, both), {both.digest: body})
    stream = Stream(
        upstream_pb2.FromDaemon(sequence=1, desired=above.set(6, both, other)),
        upstream_pb2.FromDaemon(sequence=2, desired=top.set(6)),
    )
    with pytest.raises(Refused, match="Attach again"):
        await attached(own, stream).hear()
    assert [kept.verified.version.number for kept in own.upper.snapshot.sets] == [6]


async def test_bodies_of_sets_that_are_not_complete_are_bounded(own: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 37: a primary above names as many of them as it likes."""
    monkeypatch.setattr(documents, "BODIES_LIMIT", 20)
    above = await stand_under(own)
    items, bodies = zip(*(policy("web", number, {"number": number}) for number in (1, 2, 3)), strict=True)
    pieces = [
        hierarchy_pb2.BodyPiece(digest=item.digest, data=body, size=len(body))
        for item, body in zip(items[:2], bodies, strict=False)
    ]
    stream = Stream(
        upstream_pb2.FromDaemon(sequence=1, desired=above.set(6, *items)), upstream_pb2.FromDaemon(sequence=2, pieces=pieces)
    )
    with pytest.raises(Refused) as caught:
        await attached(own, stream).hear()
    assert caught.value.reason is Reason.LINK_VIOLATION


async def test_stream_that_breaks_the_protocol_is_ended_with_one_line(own: Context, caplog: pytest.LogCaptureFixture) -> None:
    above = await stand_under(own)
    item, _ = policy("web", 5, {"n": 5})
    piece = hierarchy_pb2.BodyPiece(digest=item.digest, data=b"x" * (PIECE + 1), size=PIECE + 1)
    stream: Any = Stream(
        upstream_pb2.FromDaemon(sequence=1, desired=above.set(5, item)), upstream_pb2.FromDaemon(sequence=2, pieces=[piece])
    )
    with pytest.raises(Refused):
        await Upstream(own).Attach(None, stream)
    reasons = [getattr(each, "fields", {}).get("reason") for each in caplog.records]
    assert reasons.count(Reason.LINK_VIOLATION) == 1


class Attached(Stream):
    """A stream on which the secondary on this host says these messages, and stays until the primary ends it."""

    async def read(self) -> Any:
        return self._said.pop(0) if len(self._said) > 1 else await asyncio.Event().wait()


async def test_stream_begins_once_the_one_before_has_ended(own: Context) -> None:
    """Else what the first one still writes would be taken for the second one's."""
    holding: Any = Holding(own.database, "stand_under")
    ancestors = Upper(holding, own.signer, own.changes.publish, own.clock)
    upstream = Upstream(replace(own, upper=ancestors))
    first, second = (Attached(joining(name)) for name in ("first", "second"))
    one: Any = first
    two: Any = second
    before = asyncio.create_task(upstream.Attach(None, one))
    await holding.asked.wait()
    after = asyncio.create_task(upstream.Attach(None, two))
    await asyncio.wait([after], timeout=0)
    holding.leave.set()
    await before
    await eventually(lambda: any(message.HasField("heard") for message in second.told), what="an answer to the second")
    assert ancestors.row is not None
    assert (ancestors.row.name, ancestors.connected) == ("second", True)
    after.cancel()
    await asyncio.wait([after])


def joining(name: str) -> upstream_pb2.FromDaemon:
    """The word of a secondary on this host that is linked to another primary of this name."""
    certificate = certificates.der(new_signer().authority.certificate)
    present = document_pb2.ANCESTOR_STATE_PRESENT
    said = upstream_pb2.Upper(authority_certificate=certificate, primary_name=name, bequest=present, connected=True)
    return upstream_pb2.FromDaemon(upper=said)


async def test_whether_a_primary_may_stand_below_is_decided_once_that_can_be_written_down(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    database: Any = Refusing(own.database, "certify", 3)
    signer = new_signer()
    parent, present = own.signer.authority.primary_id, document_pb2.ANCESTOR_STATE_PRESENT
    consent = document_pb2.Consent(parent_primary_id=parent, epoch=1, number=1, state=present).SerializeToString()
    authority, signature = certificates.der(signer.authority.certificate), signer.sign_consent(consent)
    said = hierarchy_pb2.LowerPrimary(authority_certificate=authority, consent=consent, consent_signature=signature)
    children = Children(own.signer, database, own.upper, own.below, own.clock, Backoff(0.01, 0.01))
    deciding = asyncio.create_task(children.run())
    theirs = children.child(ACCOUNT, middle, lambda: None)
    theirs.take(said)
    await eventually(lambda: theirs.certified)
    database.times = 3
    leave = (ACCOUNT, middle, False, Bequest.DELETE, PRIMARY_ITSELF, own.now())
    theirs.reevaluate()
    await own.database.write(ACCOUNT, levels.allow, *leave)
    await eventually(lambda: theirs.answer is not None and theirs.answer.reason == Reason.NOT_ALLOWED, what="the refusal")
    assert not theirs.certified
    await theirs.close()
    deciding.cancel()
    await asyncio.wait([deciding])


async def test_refusal_for_a_link_that_has_ended_forgets_nothing_of_what_the_next_one_said(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, middle, False, Bequest.DELETE, PRIMARY_ITSELF, own.now())
    await caught_up(own)
    holding: Any = Holding(own.database, "bequest")
    children = Children(own.signer, holding, own.upper, own.below, own.clock)
    deciding = asyncio.create_task(children.run())
    theirs = children.child(ACCOUNT, middle, lambda: None)
    theirs.take(hierarchy_pb2.LowerPrimary())
    await holding.asked.wait()
    await theirs.close()
    take(own, middle, named(PATH, whole=True))
    another = children.child(ACCOUNT, await middle_server(running, own), lambda: None)
    another.take(hierarchy_pb2.LowerPrimary())
    holding.leave.set()
    await eventually(lambda: another.answer, what="the refusal behind it")
    assert [each.path for each in own.below.of(ACCOUNT)] == [PATH]
    deciding.cancel()
    await asyncio.wait([deciding])


async def said(stream: SubtreeStream) -> dict[str, int]:
    """How many reports of which servers are said upward now."""
    return {path: len(server.reports) for path, server in upward.by_path(await upward.due(stream)).items()}


def descendants(own: Context, database: Any, **fields: Any) -> Descendants:
    """Descendants of their own over a database."""
    return Descendants(database, own.signer.authority.primary_id, lambda _: None, own.clock, **fields)


def on_message(below: Descendants, middle: str, message: hierarchy_pb2.Below, **fields: Any) -> Reception:
    """They take a message in which the policy `web` is asked about."""
    return below.on_message(ACCOUNT, middle, Asked(ITEMS), message, NOW, **fields)


async def reported(own: Context) -> dict[str, str]:
    """The states that are written down, by server."""
    return {id: report.state for id, report in (await own.database.read(policies.reports, ACCOUNT, "web")).items()}


async def test_newer_report_is_never_overtaken_by_an_older_one(running: Running, own: Context) -> None:
    """The server comes back saying "received", and "applied" while that is being written down: the last report counts."""
    middle = await middle_server(running, own)
    holding: Any = Holding(own.database, "record_below")
    below = descendants(own, holding)
    received = document_pb2.Report(kind="policy/web", state=document_pb2.DOCUMENT_STATE_RECEIVED)
    on_message(below, middle, named(PATH, reports=[received], whole=True))
    flushing = asyncio.create_task(below.flush())
    await holding.asked.wait()
    on_message(below, middle, named(PATH, reports=[APPLIED]))
    holding.leave.set()
    await flushing
    await below.flush()
    assert await reported(own) == {f"{middle}/{PATH}": "applied"}


def paths(count: int) -> list[str]:
    """So many paths."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{'p' * 7}{a}{b}{c}" for a in letters for b in letters for c in letters][:count]


@pytest.mark.parametrize("fails", [0, 1])
async def test_report_never_overtakes_its_row(running: Running, own: Context, fails: int) -> None:
    """More servers than one write holds, the disk full for a moment, and the last one reports while the first are written."""
    middle = await middle_server(running, own)
    holding: Any = Holding(Refusing(own.database, "record_below", fails), "record_below")
    below, many = descendants(own, holding), paths(700)
    on_message(below, middle, named(*many, whole=True))
    flushing = asyncio.create_task(below.flush())
    await holding.asked.wait()
    on_message(below, middle, named(many[-1], reports=[APPLIED]))
    await own.reports.flush()
    holding.leave.set()
    assert await flushing is not bool(fails)
    await below.flush()
    await own.reports.flush()
    assert await reported(own) == {f"{middle}/{many[-1]}": "applied"}
    assert len(await own.database.read(rows.below, ACCOUNT)) == 700


async def test_all_reports_are_written_with_their_rows(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    below, many, told = descendants(own, own.database), paths(700), list[int]()
    taken = on_message(below, middle, named(*many, reports=[APPLIED], whole=True), written=lambda: told.append(1))
    assert taken.accepted
    assert set(taken.changed) == set(many)
    assert told == []
    await below.flush()
    assert told == [1]
    assert len(await reported(own)) == 700


async def test_what_there_is_no_room_for_is_not_accepted_and_taken_when_said_again(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    below, told = descendants(own, own.database, bound=2500), list[int]()
    message = named(*paths(5), whole=True)
    taken = on_message(below, middle, message, written=lambda: told.append(1))
    assert not taken.accepted
    assert list(taken.changed) == paths(5)[:2] == [each.path for each in below.of(ACCOUNT)]
    for _ in range(3):
        await below.flush()
        taken = on_message(below, middle, message)
    assert taken.accepted
    assert told == [], "the first message was never all written"
    await below.flush()
    assert [each.path for each in await own.database.read(rows.below, ACCOUNT)] == paths(5)


async def test_server_whose_news_found_no_room_is_not_gone(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    below, (one, two) = descendants(own, own.database, bound=2500), paths(2)
    on_message(below, middle, named(one, two))
    await below.flush()
    below.opened(ACCOUNT, middle, NOW, NOW)
    on_message(below, middle, hierarchy_pb2.Below())
    assert on_message(below, middle, named(one, two, reports=[APPLIED])).changed == [one]
    assert on_message(below, middle, named(whole=True)).accepted
    assert [each.path for each in below.of(ACCOUNT)] == [one, two]


async def test_word_that_everything_was_said_counts_once_there_is_room_for_what_it_ends(running: Running, own: Context) -> None:
    """It is said again then: the servers that were named before it are there all the same."""
    middle = await middle_server(running, own)
    below, (one, two, three) = descendants(own, own.database, bound=2500), paths(3)
    for path in (one, two, three):
        on_message(below, middle, named(path))
        await below.flush()
    below.opened(ACCOUNT, middle, NOW, NOW)
    assert on_message(below, middle, named(one)).accepted
    assert on_message(below, middle, named(one, reports=[APPLIED])).accepted
    refused = 0
    while not on_message(below, middle, named(whole=True)).accepted:
        refused += 1
        await below.flush()
    assert refused
    assert [each.path for each in below.of(ACCOUNT)] == [one]


async def test_servers_that_are_not_said_any_more_are_gone_everywhere(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    below, (one, two, three) = descendants(own, own.database), paths(3)
    on_message(below, middle, named(one, two, three, reports=[APPLIED], whole=True))
    await below.flush()
    below.opened(ACCOUNT, middle, NOW, NOW)
    on_message(below, middle, named(one))
    assert set(on_message(below, middle, named(two, whole=True)).changed) == {two, three}
    await below.flush()
    assert [each.path for each in await own.database.read(rows.below, ACCOUNT)] == [one, two]
    assert (await reported(own)).keys() == {f"{middle}/{one}", f"{middle}/{two}"}


async def test_what_waits_brings_no_forgotten_server_back(running: Running, own: Context) -> None:
    """What is below is forgotten with a decision, which may be taken back before all is written."""
    middle = await middle_server(running, own)
    below = descendants(own, own.database)
    on_message(below, middle, named(PATH, whole=True))
    below.forget(ACCOUNT, middle)
    await below.flush()
    assert await own.database.read(rows.below, ACCOUNT) == []


async def test_what_was_not_acknowledged_is_said_once_more_when_it_changed(running: Running, own: Context) -> None:
    """A server that changes while its message is on its way is said again, at once: nobody knows which of both was said."""
    _, server = await trusted(running)
    stream = own.subtree.open()
    first = await upward.whole(stream)
    own.changes.publish(PresenceChange(ACCOUNT, [server]))
    message = [each async for each in stream.due()][-1]
    own.changes.publish(PresenceChange(ACCOUNT, [server]))
    assert list(upward.by_path(await upward.due(stream))) == [server]
    upward.acknowledge(stream, message)
    assert not stream.ack(message.sequence), "it was acknowledged already"
    assert server in upward.by_path(first)


async def test_all_that_is_below_is_said_in_acknowledged_messages(
    running: Running, own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last message says that it is all, and nothing more is read while nobody acknowledges."""
    monkeypatch.setattr(subtree, "PAGE", 5)
    middle = await middle_server(running, own)
    take(own, middle, named(*paths(200)))
    silent = own.subtree.open()
    told: list[hierarchy_pb2.Below] = []
    telling = asyncio.create_task(listen(silent, told))
    await eventually(lambda: len(told) == WINDOW)
    assert not telling.done()
    telling.cancel()
    stream = own.subtree.open()
    said = await upward.whole(stream)
    assert len(upward.by_path(said)) == 201
    assert [each.whole for each in said] == [False] * (len(said) - 1) + [True]
    own.subtree.close(silent)
    own.changes.publish(PresenceChange(ACCOUNT, [middle]))
    assert len(upward.by_path(await upward.due(stream))) == 201, "the stream that was replaced closes no other"


async def test_acknowledgement_of_what_was_not_sent_is_one_log_line(own: Context, caplog: pytest.LogCaptureFixture) -> None:
    """However many of them are in one message."""
    await attached(own, Stream(acknowledging(*range(7, 100)))).hear()
    (line,) = [each for each in caplog.records if each.getMessage() == "acknowledgement of what was not sent"]
    fields: dict[str, Any] = getattr(line, "fields", {})
    assert fields == {"reason": Reason.LINK_VIOLATION, "sequence": 7}


async def test_stream_ends_where_the_secondary_has_no_room(own: Context) -> None:
    """It attaches again, and is told everything."""
    with pytest.raises(Refused) as refused:
        await attached(own, Stream(upstream_pb2.FromDaemon(acks=[hierarchy_pb2.Ack(sequence=1, refused=True)]))).hear()
    assert refused.value.reason is Reason.OVERLOADED


def acknowledging(*sequences: int) -> upstream_pb2.FromDaemon:
    """Acknowledges these."""
    return upstream_pb2.FromDaemon(acks=[hierarchy_pb2.Ack(sequence=sequence) for sequence in sequences])


async def listen(stream: SubtreeStream, told: list[hierarchy_pb2.Below]) -> None:
    """Reads, and acknowledges nothing."""
    async for message in stream.messages():
        told.append(message)


async def test_a_farewell_to_a_primary_that_was_never_above_is_heard_too(own: Context) -> None:
    """The secondary on this host waits for that before it ends; this primary may have come to be after it was said."""
    certificate = certificates.der(new_signer().authority.certificate)
    gone = upstream_pb2.Upper(authority_certificate=certificate, bequest=document_pb2.ANCESTOR_STATE_UNSPECIFIED)
    stream = Stream(upstream_pb2.FromDaemon(upper=gone))
    await attached(own, stream).hear()
    assert stream.told == [upstream_pb2.ToDaemon(heard=gone)]
    assert own.upper.row is None


async def test_what_stands_below_while_the_primary_stops_is_written_at_the_end(running: Running, own: Context) -> None:
    middle = await middle_server(running, own)
    before = descendants(own, own.database)
    on_message(before, middle, named(PATH, "c" * 10, whole=True))
    await before.flush()
    holding: Any = Holding(own.database, "record_below")
    below = descendants(own, holding)
    await below.load()
    on_message(below, middle, named("d" * 10, gone=[PATH], reports=[APPLIED]))
    writing = asyncio.create_task(below.run())
    await holding.asked.wait()
    writing.cancel()
    await asyncio.wait([writing])
    holding.leave.set()
    await below.flush()
    assert {each.path for each in await own.database.read(rows.below, ACCOUNT)} == {"c" * 10, "d" * 10}
    assert list(await own.database.read(policies.reports, ACCOUNT, "web")) == [f"{middle}/{'d' * 10}"]
