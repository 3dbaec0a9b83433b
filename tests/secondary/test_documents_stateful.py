"""Sets, policies and tasks under everything at once: two honest origins, a relay that lies, and a server that dies anywhere.

Sets and bodies travel as over a real link, in pieces, which may be lost at any message and goes on where it stopped. What must hold
after every step is in `_check`, what must come of honest delivery in `_converges`. Attacks rows 24, 38, 46; faults rows 2, 7, 9,
25, 27.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from enlist import documents
from enlist.documents import Item, SetVersion
from enlist.link.ends import PrimaryEnd, SecondaryEnd
from enlist.link.pace import PIECE
from enlist.link.sender import Offer
from enlist.reasons import Refused
from enlist.runtime import threads
from enlist.v1 import document_pb2 as pb
from enlist.v1 import hierarchy_pb2
from enlist_secondary import policies as engine
from enlist_secondary import policy_records as records
from enlist_secondary import tasks
from enlist_secondary.documents import Document, Documents, Subject, origin_items
from tests.enlist.link.sets import AUTHORITY, KEY
from tests.enlist.link.sets import SERVER as SERVER_KEY
from tests.secondary.disks import Crash, Disk
from tests.secondary.engine import HALF, Machine, soon
from tests.secondary.origins import Line, Primary, Wish, bodies, policy, run, run_id, shown, window

T = TypeVar("T")
KINDS = ("motd", "ntp")
GROUPS = ("Paris", "Tokyo")
CONFIRM = 60
SIBLING = "bbbbbbbbbb"
BAD = "bad"
"""What handlers refuse."""
LONG = "long"
"""What takes several messages."""
CONFIGURED = (*KINDS, "update")
NEVER_WANTED = [policy(999, {"text": "lie"}), run(run_id(999), 999, who="lie")]
LIES = ("one bit", "for a sibling", "under the other's name", "a stranger's", "a stranger's as ours")
ENDED = {"succeeded", "failed", "timed_out", "interrupted"}


@dataclass(frozen=True)
class Layer:
    """What a group says of a kind."""

    revision: int
    text: str
    confirm: int = 0
    put_back: bool = False


@dataclass
class Realm:
    """What an origin has decided, and thus what a backup of it holds."""

    number: int = 0
    group: str = GROUPS[0]
    layers: dict[tuple[str, str], Layer] = field(default_factory=dict)
    window: int = 0
    runs: dict[str, int] = field(default_factory=dict)

    def confirm(self) -> None:
        """What waited for that is final now."""
        self.layers = {where: replace(layer, confirm=0) for where, layer in self.layers.items()}


@dataclass
class Decider:
    """An honest origin: one that signs what it decided, each time it decided something."""

    primary: Primary
    below: bool
    realm: Realm = field(default_factory=Realm)
    past: list[Realm] = field(default_factory=lambda: [Realm()])
    signed: list[tuple[pb.SignedSet, list[Wish]]] = field(default_factory=list)
    said: dict[SetVersion, list[Any]] = field(default_factory=dict)

    def wishes(self) -> list[Wish]:
        """All it wants at the server now."""
        realm, key = self.realm, "high" if self.below else "low"
        found = [
            policy(layer.revision, _settings(layer, key), kind, layer.confirm, group, put_back=layer.put_back)
            for (group, kind), layer in sorted(realm.layers.items())
            if group == realm.group
        ]
        if realm.window:
            found.append(window(realm.window, "*/2 * * * *", 60))
        deadline = 2_000_000_000
        return found + [run(id, number, deadline=deadline, below=self.below, who=id) for id, number in realm.runs.items()]

    def sign(self) -> None:
        """It has decided something."""
        wishes, version = self.wishes(), SetVersion(self.primary.epoch, self.realm.number)
        self.signed.append((self.primary.sign(wishes, version), wishes))
        self.said[version] = [wish.item for wish in wishes]
        self.past.append(copy.deepcopy(self.realm))

    def next(self) -> int:
        """The number of a decision."""
        self.realm.number += 1
        return self.realm.number


class Wire:
    """A link that has opened: the primary's half of it, against the documents of the server."""

    def __init__(self, held: Documents) -> None:
        self._held = held
        hello = hierarchy_pb2.Hello()
        held.introduce(hello)
        primary, secondary = PrimaryEnd(b"challenge", SERVER_KEY, AUTHORITY), SecondaryEnd(KEY, AUTHORITY)
        primary.on_hello(secondary.on_challenge(primary.challenge(), hello))
        secondary.on_welcome(primary.welcome(hierarchy_pb2.Welcome()))
        held.linked()
        self.end = primary
        self._bodies: dict[bytes, bytes] = {}

    def offer(self, each: Decider, exact: bool) -> None:
        """What an origin decided last is wanted."""
        if not each.signed:
            return
        signed, wishes = each.signed[-1]
        self._bodies.update({wish.item.digest: wish.body for wish in wishes})
        items = [wish.item for wish in wishes]
        order = tuple(dict.fromkeys(item.digest for item in items))
        version = max(each.said)
        offer = Offer(version, documents.content(items), frozenset(order), lambda: signed, exact, each.primary.target, order)
        self.end.sender.offer(each.primary.name, offer)

    def send(self) -> bool:
        """One message arrives; whether there was one."""
        self.answer()
        sender = self.end.sender
        out = sender.next()
        if out is None:
            return False
        message = hierarchy_pb2.FromPrimary(sequence=out.sequence, desired=out.desired, large_set=out.large_set)
        for piece in out.pieces:
            body = sender.large_set(piece.digest) or self._bodies[piece.digest]
            data = body[piece.offset : piece.offset + PIECE]
            if data:
                message.pieces.add(digest=piece.digest, offset=piece.offset, data=data, size=len(body))
            sender.piece_sent(out, piece, len(data), len(body), 0.0)
        self._held.take(message)
        return True

    def answer(self) -> None:
        """What the server says of it arrives."""
        told = self._held.receiver.replies()
        said = hierarchy_pb2.FromSecondary(set_acks=told.set_acks, set_refusals=told.set_refusals, body_acks=told.body_acks)
        self.end.on_message(said, 0.0)


@dataclass(frozen=True)
class Way:
    """How a set fares: how many messages arrive before the link is lost, and at which operation on files the server dies then."""

    messages: int
    lost: bool
    dies: int | None
    after: bool
    seconds: int
    """That pass then."""


MANY = 100
messages = st.sampled_from([MANY] * 3 + [0, 1, 1, 2, 3])
deaths = st.one_of(st.none(), st.none(), st.integers(0, 10))
ways = st.builds(Way, messages, st.sampled_from([False] * 3 + [True]), deaths, st.booleans(), st.sampled_from([0, 0, 11, 30, 61]))


def at_once(work: Callable[..., Any], *arguments: Any) -> asyncio.Future[tuple[Any, BaseException | None]]:
    """In the place of a thread: what happens beside the loop is not tried here, and many more steps are."""
    future: asyncio.Future[tuple[Any, BaseException | None]] = asyncio.get_running_loop().create_future()
    try:
        future.set_result((work(*arguments), None))
    except BaseException as error:
        future.set_result((None, error))
    return future


class Tree(RuleBasedStateMachine):
    """The server, its two origins, and everything between them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(tasks, "AGAIN_SECONDS", 0.001)
        self.patch.setattr(threads, "in_thread", at_once)
        self.disk = Disk(self.patch)
        self.folder = Path(tempfile.mkdtemp())
        self.machine = Machine(self.folder, upper=[Primary()])
        self.machine.ntp.restores = False
        for kind in KINDS:
            self._handler(kind).refuse(BAD)
        self.top = Decider(self.machine.upper[0], below=True)
        self.own = Decider(self.machine.primary, below=False)
        self.deciders = {each.primary.name: each for each in (self.top, self.own)}
        self.highest: dict[str, SetVersion] = {}
        self.counted: dict[tuple[str, Subject], SetVersion] = {}
        """For each thing of each origin the version whose items counted last."""
        self.wire: Wire | None = None
        self.possible: set[tuple[str, str]] = set()
        self.left: dict[str, tuple[int, Any]] = {}  # how often a handler had been called, and what it left when its record ended
        self.runs = 0
        self.server = self.machine.server()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self._do(self._start())

    def teardown(self) -> None:
        try:
            self._do(self._converges())
        finally:
            self._do(self.server.stop())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    # --- The origins --------------------------------------------------------------------------------------------------------------

    @rule(
        top=st.booleans(),
        what=st.sampled_from(["set"] * 6 + ["confirm"] * 3 + ["end", "end", "move", "window", "restore"]),
        where=st.tuples(st.sampled_from([GROUPS[0], *GROUPS]), st.sampled_from(KINDS)),
        text=st.sampled_from(["a", "b", BAD, LONG, LONG]),
        confirm=st.sampled_from([0, CONFIRM]),
        put_back=st.booleans(),
        way=ways,
    )
    def decide(self, top: bool, what: str, where: tuple[str, str], text: str, confirm: int, put_back: bool, way: Way) -> None:
        each = self._decider(top)
        if what == "restore":  # numbers are given again, under another epoch
            each.realm = copy.deepcopy(each.past[-3:][0])
            each.primary.epoch += 1
        number, realm = each.next(), each.realm
        if what == "set":
            realm.layers[where] = Layer(number, text, confirm, put_back)
        elif what == "confirm":
            realm.confirm()
        elif what == "end":
            realm.layers.pop(where, None)
        elif what == "move":
            realm.group = GROUPS[1 - GROUPS.index(realm.group)]
        elif what == "window":
            realm.window = 0 if realm.window else number
        self._decided(each, way)

    @rule(top=st.booleans(), begin=st.sampled_from([True, True, False]), data=st.data(), way=ways)
    def run_a_task(self, top: bool, begin: bool, data: st.DataObject, way: Way) -> None:
        each = self._decider(top)
        if begin:
            self.runs += 1
            each.realm.runs[run_id(self.runs)] = each.next()
        elif each.realm.runs:
            del each.realm.runs[data.draw(st.sampled_from(sorted(each.realm.runs)))]
            each.next()
        self._decided(each, way)

    def _decided(self, each: Decider, way: Way) -> None:
        each.sign()
        self._dies(way)
        self._do(self._bring(way.messages))
        if way.lost:
            self.wire = None
        self._do(self._passes(way.seconds))

    def _decider(self, top: bool) -> Decider:
        return self.top if top else self.own

    # --- The relay ----------------------------------------------------------------------------------------------------------------

    @rule(top=st.booleans(), how=st.sampled_from(["again", "some bodies", "bodies alone", "lie"]), data=st.data(), way=ways)
    def relay(self, top: bool, how: str, data: st.DataObject, way: Way) -> None:
        """Late, again, out of order, without bodies, or bodies alone, over a link of its own."""
        each = self._decider(top)
        if not each.signed:
            return
        self._dies(way)
        signed, wishes = data.draw(st.sampled_from(each.signed[-12:]))
        carried = bodies(wishes)
        if how == "lie":
            signed = self._lie(each, data.draw(st.sampled_from(LIES)), data.draw(st.integers(0, 8000)))
            carried = bodies(NEVER_WANTED) + bodies(each.signed[-1][1])
        if how == "some bodies":
            carried = carried[::2]
        self._do(self._hand(None if how == "bodies alone" else signed, carried))
        self._do(self._passes(way.seconds))

    @rule(way=ways)
    def link(self, way: Way) -> None:
        """The link is lost, and another one opens; so many messages arrive over it."""
        self.wire = None
        self._dies(way)
        self._do(self._bring(way.messages))
        self._do(self._passes(way.seconds))

    def _lie(self, each: Decider, lie: str, place: int) -> pb.SignedSet:
        other, stranger = self._decider(each is self.own), Primary()
        wishes, version = NEVER_WANTED, SetVersion(each.primary.epoch + 1, 10**6)
        if lie == "one bit":
            signed = pb.SignedSet.FromString(each.signed[-1][0].SerializeToString())
            changed = bytearray(signed.desired_set)
            changed[place // 8 % len(changed)] ^= 1 << place % 8
            signed.desired_set = bytes(changed)
        elif lie == "for a sibling":
            signed = each.primary.sign(wishes, version, target=SIBLING)
        elif lie == "under the other's name":
            signed = other.primary.sign(wishes, version)
            signed.origin = each.primary.name
        else:
            signed = stranger.sign(wishes, version)
            signed.origin = each.primary.name if lie.endswith("ours") else stranger.name
        return signed

    async def _hand(self, signed: pb.SignedSet | None, carried: list[bytes]) -> None:
        self.wire = None
        Line(self.server.held).bring(signed, carried)
        await self._save()
        await self._lives_on()

    async def _bring(self, messages: int) -> None:
        """Over the link that is open, or a new one, what is wanted now."""
        wire = self.wire = self.wire or Wire(self.server.held)
        for each in (self.top, self.own):
            wire.offer(each, exact=each is self.top)
        for _ in range(messages):
            if self.disk.dead or not wire.send():
                break
            await self._save()
        wire.answer()
        await self._lives_on()

    async def _save(self) -> None:
        with suppress(Refused, Crash):  # as `Work` does, it is tried again later
            await self.server.held.save()
        await self._note_what_is_possible()
        self.server.look()

    # --- The server ---------------------------------------------------------------------------------------------------------------

    def _dies(self, way: Way) -> None:
        if way.dies is not None:
            self.disk.dies_at, self.disk.after = way.dies, way.after

    async def _passes(self, seconds: int) -> None:
        if not seconds:
            return
        await self._save()
        await self.server.pass_by(seconds)
        await self._lives_on()

    @rule(
        what=st.sampled_from(["handler", "handler", "handler", "somebody", "disk", "tasks", "restart", "owner"]),
        kind=st.sampled_from(KINDS),
        comes=st.booleans(),
    )
    def trouble(self, what: str, kind: str, comes: bool) -> None:
        """It comes, and it goes."""
        handler, gate, motd = self._handler(kind), self.machine.worker.gate, self.machine.motd
        if what == "handler":
            handler.refuse() if comes else handler.refuse(BAD)
        elif what == "somebody" and motd.in_force not in (None, HALF):
            motd.in_force, motd.change = {"text": "local"}, "Somebody was here."
        elif what == "disk":
            self.disk.full = lambda _: comes
        elif what == "tasks":
            gate.close() if comes else gate.open()
            self._do(self._lives_on())
        elif what in ("restart", "owner"):
            removed = kind if what == "owner" and comes else ""
            self._do(self._restart(tuple(each for each in CONFIGURED if each != removed)))

    def _handler(self, kind: str) -> Any:
        return {"motd": self.machine.motd, "ntp": self.machine.ntp}[kind]

    async def _start(self) -> None:
        self.server = self.machine.server()
        self.wire = None
        with suppress(Crash):
            self.server.start()
        await self._note_what_is_possible()
        await self._lives_on()

    async def _restart(self, configured: tuple[str, ...]) -> None:
        await self.server.stop()
        self.machine.configured = configured
        if self.disk.dead:
            self.disk.live()
        await self._start()

    async def _lives_on(self) -> None:
        """Until it rests; a dead one is started again, and then what must hold is looked at."""
        await soon(lambda: self.disk.dead or (not self.server.policies.busy and self.server.rests), "rest", within=5.0)
        if self.disk.dead:
            await self._restart(self.machine.configured)
        else:
            await self._check()

    # --- What must hold -----------------------------------------------------------------------------------------------------------

    async def _note_what_is_possible(self) -> None:
        for kind, want in records.wanted(await self.server.held.all(documents.POLICY)).items():
            self.possible.add((kind, shown(want.settings)))

    def _check_sets(self) -> None:
        """What counts of each thing is what one set said of it, and never an older one than before."""
        hello = hierarchy_pb2.Hello()
        self.server.held.introduce(hello)
        complete = {each.origin: SetVersion(each.epoch, each.number) for each in hello.held}
        assert self.highest.keys() <= complete.keys(), "a set was lost"
        for name, version in complete.items():
            assert version >= self.highest.get(name, version), "a version went backwards"
        self.highest = complete
        found = self.server.held.items("")
        for each in self.deciders.values():
            mine = [item for origin, item in found if origin == each.primary.name]
            subjects = {documents.about(item) for said in each.said.values() for item in said}
            assert {documents.about(item) for item in mine} <= subjects, "what counts was never signed for this server"
            for subject in subjects:
                self._check_subject(each, subject, _of(mine, subject))

    def _check_subject(self, each: Decider, subject: Subject, counts: list[Item]) -> None:
        key, nothing = (each.primary.name, subject), SetVersion(0, 0)
        said = {nothing: list[Item](), **each.said}
        before = self.counted.get(key, nothing)
        fitting = [version for version, items in said.items() if version >= before and _of(items, subject) == counts]
        assert fitting, "what counts was said by no set, or by an older one than before"
        self.counted[key] = min(fitting)

    async def _check(self) -> None:
        self._check_sets()
        found = await self.server.held.all("")
        folded = records.wanted(found)
        assert all(documents.digest(document.body) == document.item.digest for document in found)
        self._check_handlers()
        known = self.server.policies.records()
        for kind in KINDS:
            if kind not in known:
                self.left[kind] = len(self._handler(kind).calls), self._handler(kind).in_force
        for kind, record in known.items():
            self._check_record(kind, record, folded.get(kind))
        begun = [args["who"] for args, _ in self.machine.worker.calls]
        assert len(begun) == len(set(begun)), "a run was begun twice"

    def _check_handlers(self) -> None:
        for kind in KINDS:
            applied = {shown(each) for call, each in self._handler(kind).calls if call == "apply"}
            for call, each in self._handler(kind).calls:
                if call == "apply":
                    assert (kind, shown(each)) in self.possible, "a handler got settings that no sets held came to"
                else:
                    assert each is None or shown(each) in applied, "a handler was to go back to what never was in force"

    def _in_force(self, kind: str, record: records.Record) -> Any:
        """What the record says. A new record says nothing of what was left with an earlier one, until the handler is called."""
        calls, left = self.left.get(kind, (0, None))
        return left if len(self._handler(kind).calls) == calls else record.running.settings

    def _check_record(self, kind: str, record: records.Record, want: records.Wanted | None) -> None:
        handler = self._handler(kind)
        local = handler.change is not None
        sure = not record.doubtful or (handler.restores and record.state == records.FAILED and not local)
        if sure and not record.uncertain and not local:
            assert handler.in_force == self._in_force(kind, record), "what is in force is not what the record says"
        if kind not in self.machine.configured:
            return
        waits = record.provisional
        assert waits is None or self.machine.times.now < waits.since + waits.seconds, "it was not rolled back in time"
        if record.state == records.APPLIED:
            assert record.versions == record.running.versions
            if want is not None and record.content == want.content:
                assert shown(record.running.settings) == shown(want.settings), "older settings under newer revisions"

    async def _converges(self) -> None:
        """All is well from now on, and everything is delivered honestly: then what holds is what the origins want."""
        self.disk.dies_at, self.disk.full = None, lambda _: False
        for kind in KINDS:
            self._handler(kind).accept()
        self.machine.worker.gate.open()
        for each in (self.top, self.own):
            each.next()
            each.realm.window = 0
            each.realm.confirm()
            each.sign()
        await self._restart(CONFIGURED)
        await self._bring(MANY)
        assert self.wire is not None
        assert not any(self.wire.end.sender.behind(name) for name in self.deciders), "the primary does not know what is held"
        for _ in range(3):
            await self._passes(int(engine.GO_BACK_SECONDS) + 1)
        await self._check_wishes()
        calls = [len(self._handler(kind).calls) for kind in KINDS]
        await self._restart(CONFIGURED)
        await self._check_wishes()
        assert calls == [len(self._handler(kind).calls) for kind in KINDS], "a restart does nothing again"

    async def _check_wishes(self) -> None:
        await soon(lambda: not self.server.tasks.going)
        await self._check()
        wishes = [Document(each.primary.name, wish.item, wish.body) for each in (self.top, self.own) for wish in each.wishes()]
        wanted = records.wanted(wishes)
        for kind in KINDS:
            want, handler = wanted.get(kind), self._handler(kind)
            if want is None:
                assert self.server.state(kind) in ("", "unspecified"), "nothing is said of it, or that it is over"
                assert handler.in_force in (None, HALF), "what no layer speaks of is taken back"
            elif handler.change is None:
                assert handler.in_force == want.settings
                report = self.server.report(kind)
                assert report is not None
                assert report.state == pb.DOCUMENT_STATE_APPLIED
                for told in (report.observed_items, report.applied_items):
                    assert list(told) == origin_items(want.versions)
        for each in (self.top, self.own):
            for id in each.realm.runs:
                assert self.server.of_run(id) in ENDED, "a run is neither done nor told"


def _settings(layer: Layer, key: str) -> dict[str, str]:
    found = {"text": layer.text, key: layer.text}
    return {**found, "more": f"{layer.revision} " * PIECE} if layer.text == LONG else found


def _of(items: Sequence[Item], subject: Subject) -> list[Item]:
    return [item for item in items if documents.about(item) == subject]


TestTree = Tree.TestCase
# Not made smaller: where something never comes to rest, each attempt takes seconds, and the steps as they were tell enough.
TestTree.settings = settings(max_examples=100, stateful_step_count=40, phases=[Phase.generate])
