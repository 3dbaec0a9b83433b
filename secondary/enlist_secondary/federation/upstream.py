"""Joins the primary on this host to the one above it: what comes down the link is handed on, reports on descendants go up.

The local primary is reached through its `upstream.sock`. Everything it is given is signed by those whom it comes from; it verifies
that itself, and so does every server below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from enlist.certificates import Authority
from enlist.channel import OPTIONS, refusal
from enlist.link.receiver import MESSAGE_LIMIT
from enlist.link.sender import REASON_LIMIT
from enlist.reasons import Reason, Refused
from enlist.runtime import sockets
from enlist.runtime.controller import Again, Backoff, Controller, each
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2, upstream_pb2, upstream_pb2_grpc
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary.checks import Clock
from enlist_secondary.documents import Documents
from enlist_secondary.federation.handing_down import HandingDown
from enlist_secondary.federation.local_primary import LocalPrimary

CONNECT_SECONDS = 10.0
FAREWELL_SECONDS = 10.0
"""Seconds for which a final no waits for the local primary to hear of it; the next start tells it otherwise."""
NAME_LIMIT = 300
"""Characters of the name of the primary above that are passed on, at most."""
SETTLED = 10_000
"""Outcomes of runs that wait to be told to the local primary, at most: each is told again when it is reported again."""
_ATTACH = "attach"
_BACKOFF = Backoff(first=1.0, longest=2.0)

_LOG = Log("enlist.secondary")

_Call = grpc.aio.StreamStreamCall[upstream_pb2.FromDaemon, upstream_pb2.ToDaemon]


class Upstream:
    """The local primary, while it answers, and what it is told."""

    def __init__(
        self,
        socket: Path,
        held: Documents,
        authority: Authority,
        name: str,
        above: Callable[[], document_pb2.Ancestry],
        now: Clock,
        changed: Callable[[], None],
    ) -> None:
        """`authority` and `name` are the primary's above, `above` says who stands above that.

        `changed` is called when there is something to say up the link.
        """
        self._socket = socket
        self._held = held
        self._above = above
        self._now = now
        self._changed = changed
        self.local = LocalPrimary(authority.primary_id, changed, self.settled)
        self.local.unknown_since = int(now())
        self._upper = upstream_pb2.Upper(authority_certificate=authority.certificate_der, primary_name=name)
        self._upper.bequest = document_pb2.ANCESTOR_STATE_PRESENT
        self._cross_certificate = b""
        self._settled: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self._last_heard: upstream_pb2.Upper | None = None

    # --- The link ---------------------------------------------------------------------------------------------------------------

    def linked(self, primary_name: str) -> None:
        """The link to the primary above has opened."""
        self._upper.primary_name = primary_name[:NAME_LIMIT]
        self._note(connected=True)

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
        self._upper.refusal = answer.message[:MESSAGE_LIMIT]
        self._upper.bequest = document_pb2.ANCESTOR_STATE_PRESENT if answer.cross_certificate else answer.left
        if answer.message:
            reason, problem = answer.reason[:REASON_LIMIT], answer.message[:MESSAGE_LIMIT]
            _LOG.warning("the parent refused the primary on this host", reason=reason, problem=problem)
        self._wake.set()
        self.local.answered(bool(answer.cross_certificate))

    def changed(self) -> None:
        """Other sets hold, or others stand above."""
        self._wake.set()

    def settled(self, path: str, run: str) -> None:
        """The outcome of a run at a server below has arrived at the primary that ordered it."""
        self.local.remember_settled(path, run)
        if len(self._settled) < SETTLED:
            self._settled[path, run] = None
            self._wake.set()

    # --- The local primary --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stays attached to the local primary, until cancelled."""
        controller = Controller[str](_ATTACH, each(self._reconcile), backoff=_BACKOFF, on_failure=self._log_failure)
        controller.mark(_ATTACH)
        await controller.run()

    async def _reconcile(self, _: str) -> Again:
        try:
            await self._attach()
        finally:
            self.local.lost(int(self._now()))
        raise Refused(Reason.UNREACHABLE, "The primary on this host ended the conversation.")

    def _log_failure(self, _: str, error: Exception) -> None:
        if isinstance(error, Refused | OSError | TimeoutError):
            reason = error.reason if isinstance(error, Refused) else Reason.UNREACHABLE
            problem = str(error) or "no answer"
            _LOG.warning("the primary on this host cannot be reached", socket=self._socket, reason=reason, problem=problem)
        else:
            _LOG.fault("ancestry not sent to the primary on this host", error)

    async def _attach(self) -> None:
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        with sockets.target(self._socket) as target:
            async with grpc.aio.secure_channel(target, credentials, options=list(OPTIONS.items())) as channel:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await channel.channel_ready()
                call: _Call = upstream_pb2_grpc.UpstreamServiceStub(channel).Attach()
                await self.converse(call)

    async def converse(self, call: _Call) -> None:
        """Hears and tells the local primary over one stream, until that ends. Refused as the stream was."""
        handing = HandingDown(self._held, self._wake.set)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._hear(call, handing)),
            asyncio.create_task(self._tell(call, handing)),
        ]
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

    # --- What it says ---------------------------------------------------------------------------------------------------------

    async def _hear(self, call: _Call, handing: HandingDown) -> None:
        first = True
        while isinstance(message := await call.read(), upstream_pb2.ToDaemon):
            if message.HasField("heard"):
                self._last_heard = message.heard
                if message.heard == self._upper:
                    self._heard.set()
            if message.HasField("lower"):
                self.local.child = message.lower
                handing.begin(message.held)
            if message.HasField("below"):
                if first:
                    self.local.begin_anew()
                    first = False
                self.local.on_below(message.below)
                if message.below.sequence:
                    handing.acknowledge(message.below.sequence)
            handing.on_message(message)
            for refused in message.set_refusals:
                self.local.on_set_refused(refused)
            for held in message.set_acks:
                self.local.on_set_held(held.origin)
            self._wake.set()
            self._changed()

    # --- What it is told ------------------------------------------------------------------------------------------------------

    async def _tell(self, call: _Call, handing: HandingDown) -> None:
        """Says who stands above, and hands down their sets: what the local primary lacks."""
        told: upstream_pb2.Upper | None = None
        given = b""
        while True:
            self._wake.clear()
            if told != self._upper:
                told = upstream_pb2.Upper()
                told.CopyFrom(self._upper)
                await call.write(upstream_pb2.FromDaemon(upper=told))
            await self._tell_acks(call, handing)
            # A consent may follow what was told: who is above is told once that is known.
            if self._cross_certificate and self.local.child is not None and self._last_heard == told:
                counting = await self._held.complete()  # first the sets, then who stands above: who signed one is told before it
                if not self._cross_certificate or told != self._upper:
                    continue  # that changed while the sets were read
                ancestry = self._ancestry(self.local.child)
                if ancestry.SerializeToString() != given:
                    given = ancestry.SerializeToString()
                    await call.write(upstream_pb2.FromDaemon(ancestry=ancestry))
                handing.offer(counting)
                async for message in handing.messages():
                    await call.write(message)
            await self._wake.wait()

    async def _tell_acks(self, call: _Call, handing: HandingDown) -> None:
        settled = list(self._settled)
        message = upstream_pb2.FromDaemon(acks=handing.take_acks(), settled=[pb.Settled(path=p, run=r) for p, r in settled])
        if message.ByteSize():
            await call.write(message)
        for key in settled:
            self._settled.pop(key, None)

    def _ancestry(self, child: pb.LowerPrimary) -> document_pb2.Ancestry:
        """Who stands above the local primary: the step to the one above, then that one's own."""
        step = document_pb2.Ancestor(
            primary_name=self._upper.primary_name,
            authority_certificate=self._upper.authority_certificate,
            cross_certificate=self._cross_certificate,
            consent=child.consent,
            consent_signature=child.consent_signature,
        )
        return document_pb2.Ancestry(ancestors=[step, *self._above().ancestors])

    # --- The end --------------------------------------------------------------------------------------------------------------

    def left(self, state: document_pb2.AncestorState.ValueType) -> None:
        """The primary above stood there no more when this server was last told; `state` says what of it stays."""
        self._upper.bequest = state

    async def farewell(self, state: document_pb2.AncestorState.ValueType) -> None:
        """The primary above is not there any more; `state` says what of it stays.

        Waits, for a bounded time, until the local primary has written that down. Else the next start of this daemon tells it, for
        its state is kept.
        """
        self._upper.bequest = state
        self._upper.connected = False
        if self._last_heard == self._upper:  # it was left so before
            return
        self._heard.clear()
        self._wake.set()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            _LOG.warning("detach not acknowledged by the primary on this host; the next start repeats it", socket=self._socket)
