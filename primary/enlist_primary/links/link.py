"""A link as the primary holds it: challenge, hello, welcome; then sets going out where something changed, and reports coming in.

What a link says and when is `enlist.link`'s; here bytes are moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import grpc.aio

from enlist import __version__, documents, names, proofs
from enlist.channel import PROTOCOL
from enlist.documents import SetVersion
from enlist.link.ends import PrimaryEnd
from enlist.link.pace import travels
from enlist.link.phases import violation
from enlist.link.sender import Held, Offer, Out
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.runtime.controller import Backoff, Pauses, insist
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer
from enlist_primary.changes.publisher import ChangePublisher, PresenceChange
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.child_primary import Children, Lower
from enlist_primary.federation.snapshot import StoredSet
from enlist_primary.ingest.observations import Observations
from enlist_primary.links.hearing import Hearing
from enlist_primary.links.inbox import Inbox
from enlist_primary.links.publisher import Desires
from enlist_primary.links.registry import Hub, Link
from enlist_primary.messages.servers import moment
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import NOTHING, Desired
from enlist_primary.model.levels import read_refusals
from enlist_primary.model.servers import Server, State
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.servers import Standing

HELLO_TIMEOUT = 20.0
"""Seconds within which a secondary that opened the stream must say hello."""
PATIENCE = 10.0
BACKOFF = Backoff(first=0.2, longest=2.0)
"""For how many seconds, and with which pauses, a link that opens asks a database that is busy; less than its server waits."""
ALARMS = 16
KINDS = 256

log = Log("link")

_Stream = grpc.aio.ServicerContext[Any, Any]
_NEVER = SetVersion(0, 0)


class Peer(NamedTuple):
    """The trusted server that opened a stream.

    `public_key` is that of the certificate it showed (SubjectPublicKeyInfo, DER), `source` the address it comes from;
    `certificate_ends` is in Unix seconds.
    """

    standing: Standing
    public_key: bytes
    source: str
    certificate_ends: int


@dataclass(frozen=True)
class Links:
    """What every link of this primary needs. `clock` is Unix seconds."""

    primary_name: str
    signer: Signer
    registry: Hub
    publisher: Desires
    ancestors: Upper
    children: Children
    inbox: Inbox
    observations: Observations
    changes: ChangePublisher
    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]

    def now(self) -> int:
        """Unix seconds, whole."""
        return int(self.clock())

    async def hold(self, stream: _Stream, peer: Peer) -> Refused | None:
        """Runs a link until it ends; why this primary ended it, or None if the secondary did. Raises what else went wrong.

        Its body is an inner task: that ends with trust, and the refusal still reaches the peer.
        """
        secret, key = self.signer.challenge_secret, self.signer.authority.public_key
        end = PrimaryEnd(proofs.new_challenge(secret, self.now(), self.random_bytes), peer.public_key, key)
        hello = await self._greeted(stream, end, peer)
        account, id = peer.standing.account, peer.standing.id
        lost = self.observations.seen(account, id).disconnected_at  # None where this link replaces one
        link = self.registry.open(account, id, peer.certificate_ends)
        self.inbox.opened(account, id, lost)  # at once: until it speaks, nothing is known of those below
        body = asyncio.create_task(_Body(self, stream, link, end, hello, peer).run())
        try:
            both: list[asyncio.Future[Any]] = [body, link.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = link.ended.result() if link.ended.done() else None
            fault = await self._close(link, body, ended)
        if fault is not None:
            raise fault
        return ended

    async def _greeted(self, stream: _Stream, end: PrimaryEnd, peer: Peer) -> pb.Hello:
        """The hello; a line in the log says why there is none."""
        try:
            return await _greet(stream, end)
        except Refused as refused:
            account, id = peer.standing.account, peer.standing.id
            log.warning(
                "link refused", account=account, server=id, address=peer.source, why=refused.reason, problem=refused.message
            )
            raise

    async def _close(self, link: Link, body: asyncio.Task[None], ended: Refused | None) -> Exception | None:
        """Takes the link out; what the body failed with, unless it was the connection that went away."""
        account, id = link.key
        body.cancel()
        try:
            await asyncio.wait([body])
        finally:  # also if the peer goes in this moment
            if self.registry.close(link):
                self.observations.disconnected(account, id, self.now())
                self.changes.publish(PresenceChange(account, [id]))
        failure = None if body.cancelled() else body.exception()
        refused = failure if isinstance(failure, Refused) else ended
        why = refused.reason if refused else "closed by the secondary"
        if isinstance(failure, Refused):  # for what the server said
            log.warning("link closed", account=account, server=id, why=why, problem=failure.message)
        else:
            log.info("link closed", account=account, server=id, why=why)
        lost = isinstance(failure, grpc.aio.BaseError)
        return failure if isinstance(failure, Exception) and not lost else None


def still_trusted(tx: Transaction, standing: Standing) -> Server:
    """The row of a server that called as trusted; refused if it is that no longer."""
    row = rows.load(tx, standing.account, standing.id)
    if row.state is not State.TRUSTED:
        raise standings.not_trusted(row.state, row.since, row.reason or "")
    return row


async def _greet(stream: _Stream, end: PrimaryEnd) -> pb.Hello:
    """The hello, once it has proved the server's key. Nothing of the server is changed before."""
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            await stream.write(end.challenge())
            message = await stream.read()
    except TimeoutError:
        raise Refused(Reason.TIMED_OUT, "The secondary opened a link and said nothing.") from None
    if message is grpc.aio.EOF:
        raise violation("a link begins with a hello")
    hello = end.on_hello(message)
    if hello.protocol != PROTOCOL:
        sentence = f"This primary speaks protocol {PROTOCOL}, the secondary {hello.protocol}. Update the older one."
        raise Refused(Reason.VERSION_INCOMPATIBLE, sentence)
    return hello


class _Body:
    """What happens while a link is open. At rest it is one read that waits; a writer lives while there is something to write."""

    def __init__(self, own: Links, stream: _Stream, link: Link, end: PrimaryEnd, hello: pb.Hello, peer: Peer) -> None:
        self._own = own
        self._stream = stream
        self._link = link
        self._end = end
        self._hello = hello
        self._peer = peer
        self._account, self._id = link.key
        self._origin = own.signer.authority.primary_id
        self._ancestors_version = -1
        self._ancestry = document_pb2.Ancestry()  # as it was told over this link
        self._writer: asyncio.Task[None] | None = None
        self._welcomed = False
        self._child: Lower = own.children.child(self._account, self._id, self._begin_writing)

    async def run(self) -> None:
        """Welcomes the server, then hears it until it goes."""
        loop = asyncio.get_running_loop()
        hearing = Hearing(loop.time())
        try:
            await self._welcome()
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                paced, begun = _is_paced(message), loop.time()
                turn = hearing.turn(paced)
                if begun < turn:  # one that says little, as most do, costs no timer
                    await asyncio.sleep(turn - begun)
                    begun = loop.time()
                if not self._link.ended.done():
                    self._on_acknowledged(message, begun)
                    self._own.inbox.on_message(self._link, message, self._child, self._acknowledge)
                hearing.heard(paced, begun, loop.time())
        finally:
            self._end.close()
            self._link.detach()
            await self._child.close()
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.wait([self._writer])

    async def _welcome(self) -> None:
        own, link = self._own, self._link
        # Read once the registry holds the link: this read knows of a decision made before, and the link is told of one made later.
        # A database that is busy for a moment ends no link: the one before, which this one replaces, has ended already.
        read = partial(own.publisher.snapshot, self._peer.standing, still_trusted)
        snapshot = await insist(read, PATIENCE, Pauses(BACKOFF))
        row = snapshot.row
        link.group_id, link.number, link.wanted = row.group_id, snapshot.version.number, snapshot.desired
        if self._end.sender.held(self._origin) is None and snapshot.desired.content == NOTHING.content:
            self._end.sender.assume(self._origin, Held(_NEVER, NOTHING.content, frozenset(), self._id))
        self._offer(snapshot.desired, snapshot.version)
        self._note_held()  # the link before may have ended before the server could say so
        link.attach(self._deliver, self._on_ancestors, self._child.reevaluate, self._settle)
        welcome = pb.Welcome(
            primary_name=own.primary_name,
            version=__version__,
            display_name=row.name or "",
            group=row.group,
            time=moment(own.now()),
        )
        await self._stream.write(self._end.welcome(welcome))
        self._welcomed = True
        self._note(row)
        self._begin_writing()

    def _note(self, row: Server) -> None:
        """Writes down what the hello said."""
        own, hello, source, now = self._own, self._hello, self._peer.source, self._own.now()
        kinds = frozenset(filter(names.is_document_kind, hello.kinds[:KINDS]))
        where = _host(hello.server_address)
        own.observations.connected(row.account, row.id, source, hello.version[:40], now, where, " ".join(sorted(kinds)))
        own.changes.publish(PresenceChange(row.account, [row.id]))
        log.info("link opened", account=row.account, server=row.id, name=row.shown_name, address=source)
        for alarm in hello.identity_alarms[:ALARMS]:
            own.observations.refused(row.account, Reason.IDENTITY_CHANGED, source, now)
            log.alarm(
                "a secondary met a strange authority at this primary's address",
                account=row.account,
                server=row.id,
                address=alarm.address[:300],
                fingerprint=alarm.fingerprint[:64],
            )

    # --- Out ------------------------------------------------------------------------------------------------------------------

    def _offer(self, wanted: Desired, version: SetVersion) -> None:
        encode = partial(documents.encode, self._account, self._id, version, wanted.encoded)
        sign = self._own.signer.sets.add(self._account, encode, len(wanted.encoded))
        self._end.sender.offer(self._origin, Offer(version, wanted.content, wanted.digests, sign, False, self._id, wanted.order))

    def _deliver(self, wanted: Desired, version: SetVersion) -> None:
        """Something else is wanted here."""
        self._offer(wanted, version)
        self._note_refusals()
        self._begin_writing()

    def _on_ancestors(self) -> None:
        """Something above this primary changed."""
        self._begin_writing()
        self._child.on_ancestry_changed()

    def _settle(self, path: str, run: str) -> None:
        """The outcome of a run has arrived at the primary that ordered it."""
        self._end.settle(path, run)
        self._own.publisher.turns.enter_later(self._write_what_is_left)

    def _acknowledge(self, sequence: int, refused: bool) -> None:
        """A message is taken for good. A server that has nothing else to say does not wait to hear that: it goes with the next set.

        One that has more to say may wait, for only so many messages may be on their way; and one that was refused does. An
        intermediate speaks for the servers below it, and hears it at once.
        """
        if self._link.ended.done():
            return
        waited_for = refused or self._end.answers_ready
        self._end.acknowledge(sequence, refused)
        if self._child.certified and not refused:
            self._begin_writing()
        else:
            self._own.publisher.turns.enter_later(self._write_what_is_left, soon=waited_for)

    def _write_what_is_left(self) -> None:
        """Writes what did not go with a set meanwhile."""
        if self._unwritten:
            self._start_writer()

    def _begin_writing(self) -> None:
        """There is something to write, or something above this primary changed. Nothing comes before the welcome."""
        if self._welcomed and self._writer is None:
            self._own.publisher.turns.enter(self._start_writer)

    def _start_writer(self) -> None:
        if self._writer is None and self._welcomed and self._link.attached:  # or the link has ended meanwhile
            self._writer = asyncio.create_task(self._write())
            self._writer.add_done_callback(self._written)

    def _written(self, writer: asyncio.Task[None]) -> None:
        """Where the writer failed, the server opens a new link, and says there what it holds."""
        error = None if writer.cancelled() else writer.exception()
        if error is None:
            return
        if not isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError):
            log.fault("a set was not sent", error, account=self._account, server=self._id)
        self._link.end(Refused(Reason.INTERNAL, "The primary could not send this server its documents. Open a new link."))

    @property
    def _unwritten(self) -> bool:
        """Whether there is something to write."""
        if self._child.answer is not None or self._ancestors_version != self._own.ancestors.version:
            return True
        return self._end.answers_ready or self._end.sender.ready

    async def _write(self) -> None:
        """Writes all there is. Then it is the writer no more, in the same moment: what comes after that begins another one."""
        while self._unwritten:
            await self._write_next()
        self._writer = None

    async def _write_next(self) -> None:
        if (answer := self._child.answer) is not None:
            await self._stream.write(pb.FromPrimary(lower_answer=answer))
            self._child.answered(answer)
        if self._ancestors_version != self._own.ancestors.version:
            await self._hand_down()
        out = self._end.sender.next()
        encoded = await self._encoded(out) if out is not None else b""
        if self._end.answers_ready:  # they go with a set, if there is one
            encoded += self._end.answers().SerializeToString()
        if encoded:
            await asyncio.sleep(0)  # what was prepared in this round goes out in a row: fewer wake-ups, here and at the other ends
            await self._stream.write(encoded)

    async def _hand_down(self) -> None:
        """What the primaries above want, as they signed it. First who they are: or their sets would be taken for strangers'."""
        snapshot, sender = self._own.ancestors.snapshot, self._end.sender
        self._ancestors_version = snapshot.version  # what is taken together: while this is written, others may come
        targets = {origin: each.target for origin, each in snapshot.origins.items()}
        gone = [origin for origin in sender.origins if origin != self._origin and sender.target(origin) != targets.get(origin)]
        if snapshot.message != self._ancestry or gone:
            await self._stream.write(pb.FromPrimary(ancestry=snapshot.message))
            self._ancestry = snapshot.message
        for origin in gone:  # the server forgets the sets and bodies of primaries that are not above, or by another step
            sender.withdraw(origin)
        for kept in snapshot.sets:
            sender.offer(kept.verified.origin, _handed_down(kept))

    async def _encoded(self, out: Out) -> bytes:
        """A message: what is this link's own, and behind it the pieces, which were serialised once for all links."""
        own, sender, now = self._own, self._end.sender, asyncio.get_running_loop().time()
        parts: list[bytes] = []
        for piece in out.pieces:
            large = sender.large_set(piece.digest)
            ours = self._origin in piece.origins
            found = await own.publisher.piece(self._account if ours else PRIMARY, piece.digest, piece.offset, large)
            if found is None:  # what ended it was decided since, and brings another set of this origin, or of those
                sender.body_gone(piece.digest, (self._origin,) if ours else piece.origins)
                continue
            sender.piece_sent(out, piece, found.length, found.size, now)
            parts += [found.encoded] if travels(found.length, found.size) else []
        if out.sent is None and not parts:
            return b""
        head = pb.FromPrimary(sequence=out.sequence, desired=out.desired, large_set=out.large_set)
        return b"".join((head.SerializeToString(), *parts))

    # --- In -------------------------------------------------------------------------------------------------------------------

    def _on_acknowledged(self, message: pb.FromSecondary, now: float) -> None:
        """What the server has, or does not take, decides what travels next."""
        before = self._end.sender.held(self._origin)
        self._end.on_message(message, now)
        held = self._end.sender.held(self._origin)
        if held is not before:
            self._note_held()
        self._note_refusals()
        if self._unwritten:
            self._begin_writing()

    def _note_held(self) -> None:
        """What of what is wanted has arrived at the server."""
        held = self._end.sender.held(self._origin)
        if held is not None:
            self._own.inbox.on_set_held(self._link, held.digests, self._own.now())

    def _note_refusals(self) -> None:
        """What the server refuses of what is wanted there now."""
        refused = self._end.sender.refusals()
        if not (refused or self._link.refusal or self._link.refused_sets):
            return
        said = [pb.SetRefused(origin=origin, reason=each.reason, message=each.message) for origin, each in refused.items()]
        own = next((each.why for each in read_refusals(said) if each.origin == self._origin), "")
        others = tuple(each for each in said if each.origin != self._origin)
        if (own, others) == (self._link.refusal, tuple(self._link.refused_sets)):
            return
        self._link.refusal, self._link.refused_sets = own, others
        for refusal in said:
            log.warning(
                "a desired set is refused", account=self._account, server=self._id, origin=refusal.origin, reason=refusal.reason
            )
        self._own.changes.publish(PresenceChange(self._account, [self._id]))


def _handed_down(kept: StoredSet) -> Offer:
    verified, desired = kept.verified, kept.desired
    sign: Callable[[], document_pb2.SignedSet] = lambda: kept.signed  # noqa: E731  # as it was signed
    return Offer(verified.version, verified.content, desired.digests, sign, True, verified.target, desired.order)


def _is_paced(message: pb.FromSecondary) -> bool:
    """Whether a message is one that flood pacing is for: all but those that only acknowledge."""
    said = message.HasField("reports") or message.HasField("below") or message.HasField("lower")
    return said or bool(message.set_refusals)


def _host(text: str) -> str:
    """The address where clients find a server; what is none counts as not said."""
    try:
        return names.host(text)
    except Refused:
        return ""
