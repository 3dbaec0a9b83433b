"""Joins the primary on this host to the one above it: what comes down the link is handed on, what stands below is said up it.

The local primary is reached through its `upstream.sock`. Everything it is given is signed by those whom it comes from; it verifies
that itself, and so does every server below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from enlist import certificates
from enlist.certificates import Authority
from enlist.channel import OPTIONS, refusal
from enlist.reasons import Refused
from enlist.runtime import sockets
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2, upstream_pb2, upstream_pb2_grpc
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary.checks import Clock
from enlist_secondary.documents import Documents, Kept

AGAIN_SECONDS = 2.0
"""Seconds between two attempts to reach the local primary."""
CONNECT_SECONDS = 10.0
SERVERS_AT_ONCE = 300
"""Servers in one message up the link, at most."""
MESSAGE_BYTES = 256 * 1024
FAREWELL_SECONDS = 5.0
"""Seconds after which a local primary that has not heard of the end is a line in the log."""

_LOG = Log("enlist.secondary")

_Call = grpc.aio.StreamStreamCall[upstream_pb2.FromDaemon, upstream_pb2.ToDaemon]


class Upstream:
    """The local primary, while it answers, and what it said last."""

    def __init__(
        self,
        socket: Path,
        held: Documents,
        authority: Authority,
        name: str,
        above: Callable[[], document_pb2.Ancestry],
        now: Clock,
        nudge: Callable[[], None],
    ) -> None:
        """`authority` and `name` are the primary's above, `above` says who stands above that.

        `nudge` is called when there is something to say up the link.
        """
        self._socket = socket
        self._held = held
        self._above = above
        self._now = now
        self._nudge = nudge
        self._upper = upstream_pb2.Upper(authority_certificate=certificates.der(authority.certificate), primary_name=name)
        self._upper.bequest = document_pb2.ANCESTOR_STATE_PRESENT
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self._last_heard: upstream_pb2.Upper | None = None
        # What the local primary said.
        self._lower: pb.LowerPrimary | None = None
        self._has: dict[str, document_pb2.Held] = {}
        self._servers: dict[str, pb.BelowServer] = {}
        self._whole = False
        self._before: set[str] = set()  # servers that it named before it began anew, until it has named all
        self._unknown_since: int | None = int(now())
        self._unacknowledged: list[int] = []  # its messages that were taken over and are not acknowledged yet
        # What the primary above said.
        self._cross_certificate = b""
        self._certified = False  # over this link
        # What is yet to be said up the link.
        self._say_lower = False
        self._say_servers: dict[str, None] = {}
        self._say_whole = False
        self._said_unknown: int | None = 0  # what was last said of `_unknown_since`; 0 for nothing

    # --- The link ---------------------------------------------------------------------------------------------------------------

    def linked(self, primary_name: str) -> None:
        """The link to the primary above has opened: it is told everything."""
        self._upper.primary_name = primary_name
        self._note(connected=True)
        self._certified, self._said_unknown = False, 0
        self._say_lower = self._lower is not None
        self._nudge()

    def unlinked(self) -> None:
        """The link has closed."""
        self._note(connected=False)

    def _note(self, connected: bool) -> None:
        self._upper.connected = connected
        self._upper.connected_time.seconds = int(self._now())
        self._wake.set()

    def answered(self, answer: pb.LowerAnswer) -> None:
        """Whether the local primary may stand under the one above."""
        self._cross_certificate = answer.cross_certificate
        if answer.cross_certificate:  # what was said before it was of no interest there, or was forgotten with the one before
            self._say_servers |= dict.fromkeys(self._servers)
            self._say_whole = True
        self._certified = bool(answer.cross_certificate)
        self._upper.refusal = answer.message
        self._upper.bequest = document_pb2.ANCESTOR_STATE_PRESENT if answer.cross_certificate else answer.left
        if answer.message:
            _LOG.warning("the primary on this host may not stand below", reason=answer.reason, problem=answer.message)
        self._wake.set()
        self._nudge()

    def changed(self) -> None:
        """Other sets hold, or others stand above."""
        self._wake.set()

    def take(self) -> list[pb.FromSecondary]:
        """What is to be said up the link now."""
        if not self._upper.connected:
            return []
        said: list[pb.FromSecondary] = []
        if self._say_lower and self._lower is not None:
            said.append(pb.FromSecondary(lower=self._lower))
        self._say_lower = False
        if self._certified:
            said += self._below()
        return said

    def _below(self) -> Iterator[pb.FromSecondary]:
        """What changed below; nothing if nothing did."""
        say, self._say_servers = list(self._say_servers), {}
        whole, self._say_whole = self._say_whole and self._whole, self._say_whole and not self._whole
        if not say and not whole and self._said_unknown == self._unknown_since:
            return
        self._said_unknown = self._unknown_since
        there = [self._servers[path] for path in say if path in self._servers]
        messages = [self._message()]
        size = 0
        for server in there:
            if size > MESSAGE_BYTES or len(messages[-1].below.servers) >= SERVERS_AT_ONCE:
                messages.append(self._message())
                size = 0
            messages[-1].below.servers.append(server)
            size += server.ByteSize()
        messages[-1].below.gone.extend(path for path in say if path not in self._servers)
        messages[-1].below.whole = whole
        yield from messages

    def _message(self) -> pb.FromSecondary:
        message = pb.FromSecondary(below=pb.Below())
        if self._unknown_since is not None:
            message.below.unknown_since.seconds = self._unknown_since
        return message

    # --- The local primary --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stays attached to the local primary, until cancelled."""
        while True:
            try:
                await self._attach()
            except (Refused, OSError) as error:
                _LOG.warning("the primary on this host cannot be reached", socket=self._socket, problem=str(error))
            finally:
                self._lost()
            await asyncio.sleep(AGAIN_SECONDS)

    def _lost(self) -> None:
        if self._unknown_since is None:
            self._unknown_since = int(self._now())
            self._nudge()

    async def _attach(self) -> None:
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        with sockets.target(self._socket) as target:
            async with grpc.aio.secure_channel(target, credentials, options=list(OPTIONS.items())) as channel:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await channel.channel_ready()
                call: _Call = upstream_pb2_grpc.UpstreamServiceStub(channel).Attach()
                await self._converse(call)

    async def _converse(self, call: _Call) -> None:
        self._unacknowledged.clear()
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._hear(call)), asyncio.create_task(self._tell(call))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if isinstance(error, grpc.aio.AioRpcError):
                raise refusal(error)
            if error is not None and not isinstance(error, asyncio.InvalidStateError):  # the call has ended; its reader knows why
                raise error

    async def _hear(self, call: _Call) -> None:
        first = True
        while isinstance(message := await call.read(), upstream_pb2.ToDaemon):
            if message.HasField("heard"):
                self._last_heard = message.heard
                if message.heard == self._upper:
                    self._heard.set()
            if message.HasField("lower"):
                self._lower = message.lower
                self._has = {held.origin: held for held in message.held}
                self._say_lower = True
                self._wake.set()
            if message.HasField("below"):
                if first:
                    self._begin_anew()
                    first = False
                self._take_below(message.below)
                if message.below.sequence:
                    self._unacknowledged.append(message.below.sequence)
                    self._wake.set()
            self._nudge()

    def _begin_anew(self) -> None:
        """The local primary says everything again, and whatever it does not say is gone."""
        self._before |= self._servers.keys() | self._say_servers.keys()
        self._servers.clear()
        self._say_servers.clear()  # or what is not said yet would count as gone
        self._whole = False
        self._say_whole = True
        self._unknown_since = None

    def _take_below(self, said: pb.Below) -> None:
        for server in said.servers:
            self._servers[server.path] = server
            self._say_servers[server.path] = None
        for path in said.gone:
            self._servers.pop(path, None)
            self._say_servers[path] = None
        self._whole = self._whole or said.whole
        if said.whole:  # above, that it was named earlier over the same link would speak for what went meanwhile
            self._say_servers.update(dict.fromkeys(self._before - self._servers.keys()))
            self._before.clear()

    async def _tell(self, call: _Call) -> None:
        """Says who stands above, and hands down their sets: what the local primary lacks."""
        told: upstream_pb2.Upper | None = None
        given = b""
        handed: dict[str, document_pb2.Held] = {}
        while True:
            self._wake.clear()
            while self._unacknowledged:
                await call.write(upstream_pb2.FromDaemon(ack=pb.Ack(sequence=self._unacknowledged.pop(0))))
            if told != self._upper:
                told = upstream_pb2.Upper()
                told.CopyFrom(self._upper)
                await call.write(upstream_pb2.FromDaemon(upper=told))
            # First the sets, then who stands above: so whoever signed one of them is told of before it.
            counting = await self._held.complete() if self._cross_certificate else []
            if self._cross_certificate and self._lower is not None:
                ancestry = self._ancestry(self._lower)
                if ancestry.SerializeToString() != given:
                    given = ancestry.SerializeToString()
                    await call.write(upstream_pb2.FromDaemon(ancestry=ancestry))
                await self._hand_down(call, counting, handed)
            await self._wake.wait()

    def _ancestry(self, lower: pb.LowerPrimary) -> document_pb2.Ancestry:
        """Who stands above the local primary: the step to the one above, then that one's own."""
        step = document_pb2.Ancestor(
            primary_name=self._upper.primary_name,
            authority_certificate=self._upper.authority_certificate,
            cross_certificate=self._cross_certificate,
            consent=lower.consent,
            consent_signature=lower.consent_signature,
        )
        return document_pb2.Ancestry(ancestors=[step, *self._above().ancestors])

    async def _hand_down(self, call: _Call, counting: Sequence[Kept], handed: dict[str, document_pb2.Held]) -> None:
        """`handed` are the sets that went over this stream last."""
        # Who does not stand above any more is forgotten there as well: should it come back, the local primary lacks its set.
        # What it says meanwhile that it holds comes in place of all this: a set on its way to it may be refused.
        known = self._has = {kept.held.origin: self._has[kept.held.origin] for kept in counting if kept.held.origin in self._has}
        for kept in counting:
            has = known.get(kept.held.origin, document_pb2.Held())
            if (has.epoch, has.number, has.content) == (kept.held.epoch, kept.held.number, kept.held.content):
                continue
            there = set(has.digests)
            if kept.held.origin in handed:  # what it says that it holds may be from before that
                there &= set(handed[kept.held.origin].digests)
            handed[kept.held.origin] = kept.held
            await call.write(upstream_pb2.FromDaemon(desired=kept.signed))
            for digest in kept.held.digests:
                if digest not in there:
                    body = await self._held.body(digest)
                    if body is None:  # other sets hold by now, and follow
                        return
                    await call.write(upstream_pb2.FromDaemon(bodies=[body]))
            known[kept.held.origin] = kept.held

    def left(self, state: document_pb2.AncestorState.ValueType) -> None:
        """The primary above stood there no more when this server was last told; `state` says what of it stays."""
        self._upper.bequest = state

    async def farewell(self, state: document_pb2.AncestorState.ValueType) -> None:
        """The primary above stands there no more; `state` says what of it stays. Waits until the local primary has written it down:
        nobody else could tell it later."""
        self._upper.bequest = state
        self._upper.connected = False
        if self._last_heard == self._upper:  # it was left so before
            return
        self._heard.clear()
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._heard.wait()
        if not self._heard.is_set():
            _LOG.warning("the primary on this host has yet to hear that the one above is gone", socket=self._socket)
            await self._heard.wait()
