"""The link as the primary holds it: hello, welcome, then sets going out where something changed, and reports coming in."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from enlist import __version__, documents, names
from enlist.channel import PROTOCOL
from enlist.documents import SetVersion
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.changes.publisher import PresenceChange
from enlist_primary.federation.child_primary import Lower
from enlist_primary.links.registry import Link
from enlist_primary.messages import servers as render
from enlist_primary.model import reports
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import NOTHING, Desired
from enlist_primary.model.reports import Asked, Word
from enlist_primary.model.servers import Server, State
from enlist_primary.rpc import errors
from enlist_primary.rpc.access import Caller, caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Transaction
from enlist_primary.store.servers import Standing

HELLO_TIMEOUT = 20.0
"""Seconds within which a secondary that opened the stream must say hello."""
ALARMS = 16
KINDS = 256
PACE = 0.05
"""Seconds from one message of a secondary to the next that is heard: one that floods holds up itself alone."""
SHARE = 5
"""The same for one that took long to hear: so many times as long."""

log = Log("link")

_Stream = grpc.aio.ServicerContext[Any, Any]


def still_trusted(tx: Transaction, standing: Standing) -> Server:
    """The row of a server that called as trusted; refused if it is that no longer."""
    row = rows.load(tx, standing.account, standing.id)
    if row.state is not State.TRUSTED:
        raise standings.not_trusted(row.state, row.since, row.reason or "")
    return row


async def hold(own: Context, stream: _Stream) -> None:
    """Runs a link. Its body is an inner task: it is that which ends with trust, and the refusal still reaches the peer."""
    who = caller()
    standing = who.server
    hello = await _hello(stream)
    link = own.hub.open(standing.account, standing.id, who.certificate_ends)
    body = asyncio.create_task(_Body(own, stream, link, hello, who).run())
    try:
        both: list[asyncio.Future[Any]] = [body, link.ended]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = link.ended.result() if link.ended.done() else None
        fault = await _close(own, link, body, standing, ended)
    if fault is not None:
        raise fault
    if ended is not None:
        with own.hub.delivering():
            await errors.abort(stream, ended)


async def _hello(stream: _Stream) -> pb.Hello:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            message = await stream.read()
    except TimeoutError:
        raise Refused(Reason.TIMED_OUT, "The secondary opened a link and said nothing.") from None
    if message is grpc.aio.EOF or message.WhichOneof("message") != "hello":
        raise Refused(Reason.INVALID_ARGUMENT, "A link begins with hello.")
    if message.hello.protocol != PROTOCOL:
        sentence = f"This primary speaks protocol {PROTOCOL}, the secondary {message.hello.protocol}. Update the older one."
        raise Refused(Reason.VERSION_INCOMPATIBLE, sentence)
    hello: pb.Hello = message.hello
    return hello


async def _close(own: Context, link: Link, body: asyncio.Task[None], standing: Standing, ended: Refused | None) -> Exception | None:
    """Takes the link out; what the body failed with, unless it was the connection that went away."""
    body.cancel()
    try:
        await asyncio.wait([body])
    finally:  # also if the peer goes in this moment
        if own.hub.close(link):
            own.observations.disconnected(standing.account, standing.id, own.now())
            own.changes.publish(PresenceChange(standing.account, [standing.id]))
    failure = None if body.cancelled() else body.exception()
    refused = failure if isinstance(failure, Refused) else ended
    why = refused.reason if refused else "closed by the secondary"
    log.info("link closed", account=standing.account, server=standing.id, why=why)
    lost = isinstance(failure, grpc.aio.BaseError)
    return failure if isinstance(failure, Exception) and not lost else None


class _Body:
    """What happens while a link is open. At rest it is one read that waits; a writer lives while there is something to write."""

    def __init__(self, own: Context, stream: _Stream, link: Link, hello: pb.Hello, who: Caller) -> None:
        self._own = own
        self._stream = stream
        self._link = link
        self._hello = hello
        self._who = who
        self._account, self._id = link.key
        self._held = {each.origin: (each.epoch, each.number, each.content, each.target) for each in hello.held}
        self._has = {each.origin: frozenset(each.digests[: documents.ITEM_LIMIT]) for each in hello.held}
        self._runs: frozenset[tuple[str, str]] = frozenset()
        self._upper_version = -1
        self._ancestry = document_pb2.Ancestry()  # as it was told over this link
        self._next: tuple[Desired, SetVersion] | None = None
        self._welcomed = False
        self._writer: asyncio.Task[None] | None = None
        self._lower = Lower(own, self._account, self._id, self._begin_writing)

    async def run(self) -> None:
        """Welcomes the server, then hears it until it goes."""
        loop = asyncio.get_running_loop()
        earliest = 0.0
        try:
            await self._welcome()
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                begun = loop.time()
                if begun < earliest:  # one that says little, as most do, costs no timer
                    await asyncio.sleep(earliest - begun)
                    begun = loop.time()
                if not self._link.ended.done():
                    self._hear(message)
                earliest = loop.time() + max(PACE, SHARE * (loop.time() - begun))
        finally:
            self._link.deliver = self._link.look_up = self._link.reconsider = None
            await self._lower.close()
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.wait([self._writer])

    async def _welcome(self) -> None:
        own, link = self._own, self._link
        # Read once the hub holds the link: of a decision made before, this read knows; of one made later, the hub will be told.
        placed = await own.desires.placed(self._who.server, still_trusted)
        row = placed.row
        link.group_id, link.number, link.wanted = row.group_id, placed.stamp.number, placed.desired
        _, _, content, _ = self._held.get(own.signer.authority.primary_id, (0, 0, NOTHING.content, ""))
        if placed.desired.content != content:
            self._next = placed.desired, placed.stamp  # now: what the hub brings from here on is newer
        link.deliver, link.look_up, link.reconsider = self._deliver, self._look_up, self._lower.reconsider
        now = own.now()
        welcome = pb.Welcome(
            primary_name=own.config.name,
            version=__version__,
            display_name=row.name or "",
            group=row.group,
            time=render.moment(now),
        )
        await self._stream.write(pb.FromPrimary(welcome=welcome))
        self._welcomed = True
        self._note(row, now)
        self._begin_writing()
        own.below.opened(row.account, row.id)
        own.changes.publish(PresenceChange(row.account, [row.id]))

    def _note(self, row: Server, now: int) -> None:
        """Writes down what the hello said."""
        own, hello, source = self._own, self._hello, self._who.source
        kinds = frozenset(filter(names.is_document_kind, hello.kinds[:KINDS]))
        where = _host(hello.server_address)
        own.observations.connected(row.account, row.id, source, hello.version[:40], now, where, " ".join(sorted(kinds)))
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

    def _deliver(self, wanted: Desired, stamp: SetVersion) -> None:
        """Puts a set in line in place of one that waits there; the line is one place long."""
        self._next = wanted, stamp
        self._begin_writing()

    def _look_up(self) -> None:
        """Something above this primary changed."""
        self._begin_writing()
        self._lower.look_up()

    def _begin_writing(self) -> None:
        """There is something to write, or something above this primary changed. Nothing comes before the welcome."""
        if self._welcomed and self._writer is None:
            self._own.desires.turns.enter(self._start_writer)

    def _start_writer(self) -> None:
        if self._writer is None and self._link.deliver is not None:  # or the link has ended meanwhile
            self._writer = asyncio.create_task(self._write())
            self._writer.add_done_callback(self._written)

    def _written(self, writer: asyncio.Task[None]) -> None:
        self._writer = None
        error = None if writer.cancelled() else writer.exception()
        if error is not None and not isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError):
            log.fault("a set was not sent", error, account=self._account, server=self._id)
        if error is not None:  # the server shall open a new link, and say there what it holds
            self._link.end(Refused(Reason.INTERNAL, "The primary could not send this server its documents. Open a new link."))
        elif self._unwritten:  # it came once the writer had looked for the last time
            self._begin_writing()

    @property
    def _unwritten(self) -> bool:
        """Whether there is something to write."""
        return self._next is not None or self._lower.answer is not None or self._upper_version != self._own.upper.version

    async def _write(self) -> None:
        own = self._own
        while self._unwritten:
            if (answer := self._lower.answer) is not None:
                self._lower.answer = None
                await self._stream.write(pb.FromPrimary(lower_answer=answer))
            if self._upper_version != own.upper.version:
                await self._hand_down()
            if self._next is not None:
                wanted, stamp = self._next
                self._next = None
                encoded = documents.encode(self._account, self._id, stamp, wanted.encoded)
                if await self._send(self._account, own.signer.sign_set(encoded), wanted):
                    self._sent(wanted)

    async def _hand_down(self) -> None:
        """What the primaries above want, as they signed it. First who they are: or their sets would be taken for strangers'."""
        upper = self._own.upper
        self._upper_version, sets = upper.version, upper.sets  # of one moment: while this is written, others may come
        above = {origin: each.target for origin, each in upper.origins.items()}
        held = self._held.items()
        own = self._own.signer.authority.primary_id
        gone = [origin for origin, (*_, target) in held if origin != own and above.get(origin) != target]
        for origin in gone:  # the server forgets the sets and bodies of whoever does not stand above, or by another step
            del self._held[origin]
            self._has.pop(origin, None)
        if upper.message != self._ancestry or gone:
            self._ancestry = upper.message
            await self._stream.write(pb.FromPrimary(ancestry=self._ancestry))
        for kept in sets:
            origin = kept.signed.origin
            stamp = kept.verified.version
            said = (stamp.epoch, stamp.number, kept.verified.content, kept.verified.target)
            if self._held.get(origin) != said and await self._send(PRIMARY, kept.signed, kept.desired):
                self._held[origin] = said

    async def _send(self, account: str, signed: document_pb2.SignedSet, wanted: Desired) -> bool:
        """Whether it was sent: it is not where a newer set, which is about to come, took a body away."""
        has = self._has.get(signed.origin, frozenset())
        messages = await self._own.desires.messages(account, pb.FromPrimary(desired=signed), wanted, has)
        for message in messages:
            await self._stream.write(message)
        if messages:
            self._has[signed.origin] = wanted.digests
        else:
            log.info("a set was passed over: another follows", account=self._account, server=self._id)
        return bool(messages)

    def _sent(self, wanted: Desired) -> None:
        """Notes which runs have gone out, each once for each link."""
        now = self._own.now()
        runs = {(item.kind, item.name): None for item in wanted.items if item.kind.startswith(documents.TASK)}
        for kind, name in runs.keys() - self._runs:
            self._own.reports.put(self._account, Word(self._id, kind, name, "sent", now))
        self._runs = frozenset(runs)

    # --- In -------------------------------------------------------------------------------------------------------------------

    def _hear(self, message: pb.FromSecondary) -> None:
        """What a newer secondary says besides is passed over, and so are words on what it was not asked about."""
        own, now = self._own, self._own.now()
        asked = Asked(self._link.wanted.subjects, own.desires.ended(self._account))
        said = message.reports.reports[: documents.ITEM_LIMIT]
        for word in reports.heard(said, self._id, asked, own.signer.authority.primary_id, now):
            own.reports.put(self._account, word)
        above = own.upper.items
        wanted = (asked.subjects, above)
        self._link.remnants = reports.remnants(self._link.remnants, said, self._id, wanted, now)
        own.subtree.heard(self._account, self._id, said, above)
        if message.HasField("below") and self._lower.certified:
            changed = own.below.on_message(self._account, self._id, asked, message.below, now).changed
            taken = frozenset(changed)
            for server in message.below.servers:
                if server.path in taken:
                    own.subtree.heard(self._account, f"{self._id}/{server.path}", server.reports, above)
        if message.HasField("lower"):
            self._lower.take(message.lower)


def _host(text: str) -> str:
    """The address where clients find a server; what is none counts as not said."""
    try:
        return names.host(text)
    except Refused:
        return ""
