"""The work of an enrolment: its documents, what they make this server do, and what it says of that. It goes on without a link."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from enlist import documents
from enlist.documents import Origin
from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary import state
from enlist_secondary.ancestors import Ancestors
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.documents import Documents, meant, told
from enlist_secondary.handlers.configured import build_policies, build_tasks
from enlist_secondary.handlers.workers import to_the_end
from enlist_secondary.identity import Identity
from enlist_secondary.outbox import Outbox, Outlet
from enlist_secondary.policies import Policies
from enlist_secondary.tasks import Tasks
from enlist_secondary.upstream import Upstream

AGAIN_SECONDS = 10.0
"""Seconds from a fault, or from what the disk refused, to the next attempt."""

_LEFT = {"keep": document_pb2.ANCESTOR_STATE_KEPT, "freeze": document_pb2.ANCESTOR_STATE_FROZEN}
_KNOWN = (documents.POLICY, documents.TASK, documents.WINDOW)
_LOG = Log("enlist.secondary")


class Work:
    """What an enrolment makes this server do. `keep_up` goes on until cancelled; a link brings messages and takes what is said."""

    def __init__(self, config: SecondaryConfig, identity: Identity, now: Clock) -> None:
        """The identity must hold a certificate: it says for whom sets must be made out."""
        origin = Origin(identity.authority.public_key, config.account, identity.server_id)
        folder = config.folder
        of_policies, of_tasks = build_policies(config), build_tasks(config)
        self.outbox = Outbox()
        self._outlet = self.outbox.open()
        self._now = now
        self._ancestors = Ancestors(folder / "ancestry", identity.authority, origin)
        self._held = Documents(folder / "documents", [origin])
        self._policies = Policies(folder / "policies", self._held, of_policies, self.outbox, now)
        self._tasks = Tasks(folder / "tasks", self._held, of_tasks, self.outbox, now)
        kinds = {documents.POLICY + kind for kind in of_policies} | {documents.TASK + kind for kind in of_tasks}
        self._kinds = sorted(kinds)
        self.upstream = self._upstream(config, identity)
        self._strange: set[str] = set()
        self._came = asyncio.Event()
        self._ascended = False  # others stand above than the file says

    def _upstream(self, config: SecondaryConfig, identity: Identity) -> Upstream | None:
        """The primary on this host, if the owner joined the two."""
        if config.local_primary is None:
            return None
        socket, above = Path(config.local_primary.socket), lambda: self._ancestors.message
        known = state.load(config.folder)
        upstream = Upstream(
            socket, self._held, identity.authority, known.primary_name, above, self._now, lambda: self._outlet.nudge()
        )
        if known.state in ("removed", "departed", "revoked"):  # until the primary above says otherwise, what it said last holds
            upstream.left(_LEFT.get(known.bequest, document_pb2.ANCESTOR_STATE_UNSPECIFIED))
        return upstream

    def load(self) -> None:
        """Reads what is kept. Refused where a folder is not safe, or cannot be read."""
        self._ancestors.load()
        self._stand()
        self._held.load()
        self._policies.load()
        self._tasks.load()
        self._policies.say_all()

    # --- The link -------------------------------------------------------------------------------------------------------------

    def introduce(self, hello: pb.Hello) -> None:
        """Adds to the hello what is held, and what there are handlers for."""
        hello.held.extend(self._held.held())
        hello.kinds.extend(self._kinds)

    def welcomed(self, welcome: pb.Welcome) -> Outlet:
        """A link has opened: everything is said again, and the primary's clock counts for deadlines.

        What the link has to say comes out of what is returned, through `say`.
        """
        self._held.forget_incoming()  # not before: while no other link opens, the one before goes on
        self._tasks.ahead = self._now() - welcome.time.seconds if welcome.HasField("time") else 0.0
        self._outlet = self.outbox.open()
        if self.upstream is not None:
            self.upstream.linked(welcome.primary_name)
        return self._outlet

    def say(self, outlet: Outlet) -> list[pb.FromSecondary]:
        """What a link is to say now. Only the newest one speaks for the servers below."""
        said = outlet.take()
        if self.upstream is not None and outlet is self._outlet:
            said += self.upstream.take()
        return said

    def unlinked(self) -> None:
        """There is no link."""
        if self.upstream is not None:
            self.upstream.unlinked()

    async def take(self, message: pb.FromPrimary) -> None:
        """What came over the link. What is not to be trusted is said in the log, and is as if it had not come."""
        signed = message.desired if message.HasField("desired") else None
        try:
            if message.HasField("ancestry"):
                self._ascend(message.ancestry)
        except Refused as refused:
            _LOG.warning("a word on the primaries above was refused", reason=refused.reason, problem=refused.message)
        try:
            self._held.receive(signed, message.bodies)
        except Refused as refused:
            say: Callable[..., None] = _LOG.alarm if refused.reason is Reason.SET_CONFLICT else _LOG.warning
            say("a desired set was refused", reason=refused.reason, problem=refused.message)
        if message.HasField("lower_answer") and self.upstream is not None:
            self.upstream.answered(message.lower_answer)
        self._came.set()

    def _ascend(self, said: document_pb2.Ancestry) -> None:
        """Other primaries stand above: their sets count from now on, those of others no more."""
        if self._ancestors.take(said, self._held.stamps):
            self._ascended = True
            self._stand()

    def _stand(self) -> None:
        self._held.stand(self._ancestors.origins, self._ancestors.unlocked, self._ancestors.memory)

    async def farewell(self, bequest: str) -> None:
        """The primary above has ended this enrolment; `bequest` says what stays with the servers below."""
        if self.upstream is not None:
            await self.upstream.farewell(_LEFT.get(bequest, document_pb2.ANCESTOR_STATE_UNSPECIFIED))

    # --- The work -------------------------------------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Until cancelled. What meets a fault is begun anew, and holds up nothing else: a daemon goes on."""
        async with asyncio.TaskGroup() as group:
            for each in (self._save, self._policies.run, self._tasks.run):
                group.create_task(_on_and_on(each))
            if self.upstream is not None:
                group.create_task(_on_and_on(self.upstream.run))

    async def _save(self) -> None:
        """Lets what came count. What the disk refuses is tried again: some day there is room."""
        self._came.set()
        while True:
            await self._came.wait()
            self._came.clear()
            refused = await self._saved()
            if self.upstream is not None:
                self.upstream.changed()
            self._policies.look()
            self._tasks.look()
            self._say_what_is_strange()
            if refused:
                await asyncio.sleep(AGAIN_SECONDS)
                self._came.set()

    async def _saved(self) -> bool:
        """Whether something could not be written."""
        ascended, self._ascended = self._ascended, False
        try:
            if ascended:  # first: without it a restart would take back what the sets from further up put in force
                await to_the_end(self._ancestors.save)
                ascended = False
            await self._held.save()
        except Refused as refused:
            _LOG.warning("a desired set was not kept yet", reason=refused.reason, problem=refused.message)
            return True
        finally:
            self._ascended |= ascended
        return False

    def _say_what_is_strange(self) -> None:
        """Kinds of documents that this version does not know are not passed over in silence."""
        try:
            strange = [(origin, item) for origin, item in self._held.items("") if not item.kind.startswith(_KNOWN)]
        except Refused:  # a set is damaged, and comes again
            return
        kinds = {item.kind for _, item in strange}
        for kind in self._strange - kinds:
            self.outbox.forget(kind)
        for kind in kinds:
            revisions = meant((origin, item) for origin, item in strange if item.kind == kind)
            state = document_pb2.DOCUMENT_STATE_UNSUPPORTED
            self.outbox.put(document_pb2.Report(kind=kind, state=state, meant=told(revisions)))
        self._strange = kinds


async def _on_and_on(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            _LOG.fault("documents are not worked on", error)
        await asyncio.sleep(AGAIN_SECONDS)
