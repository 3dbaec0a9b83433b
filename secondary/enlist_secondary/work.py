"""The work of an enrolment: its documents, what they make this server do, and what it says of that. It goes on without a link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from enlist import ancestry, documents, names
from enlist.link.ends import SecondaryEnd
from enlist.origins import ALARMS
from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Again, Backoff, Controller, each, run_all
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary import ancestors, state
from enlist_secondary.checks import Clock
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.connection.session import Session
from enlist_secondary.documents import Documents, origin_items, versions
from enlist_secondary.federation.upstream import Upstream
from enlist_secondary.handlers.configured import build_policies, build_tasks
from enlist_secondary.identity import Identity
from enlist_secondary.outbox import Outbox
from enlist_secondary.policies import Policies
from enlist_secondary.retrying import AGAIN_SECONDS
from enlist_secondary.tasks import Tasks

_KNOWN = (documents.POLICY, documents.TASK, documents.WINDOW)
_CAME = "documents"
_LOG = Log("enlist.secondary")


class Work:
    """What an enrolment makes this server do. `keep_up` goes on until cancelled; links bring messages and take what is said."""

    def __init__(self, config: SecondaryConfig, identity: Identity, now: Clock) -> None:
        """The identity must hold a certificate: it says for whom sets must be made out."""
        folder = config.folder
        of_policies, of_tasks = build_policies(config), build_tasks(config)
        self.outbox = Outbox(self._notify, self._acknowledged)
        self._session: Session | None = None
        self._now = now
        self._ancestors = ancestors.of(folder, identity, config.account)
        self._held = Documents(folder / "documents", [self._ancestors.origin])
        self._policies = Policies(folder / "policies", self._held, of_policies, self.outbox, now)
        self._tasks = Tasks(folder / "tasks", self._held, of_tasks, self.outbox, now)
        kinds = {documents.POLICY + kind for kind in of_policies} | {documents.TASK + kind for kind in of_tasks}
        self._kinds = sorted(kinds)
        self.upstream = self._upstream(config, identity)
        self._strange: set[str] = set()
        again = Backoff(AGAIN_SECONDS, AGAIN_SECONDS)
        self._saving = Controller[str](_CAME, each(self._save), backoff=again, on_failure=_log_fault)
        self._ancestry_wanted = self._ancestry_saved = 0
        """How often other primaries came to stand above, and how often that was when the file was last written."""

    def _upstream(self, config: SecondaryConfig, identity: Identity) -> Upstream | None:
        """The primary on this host, if the owner joined the two."""
        if config.local_primary is None:
            return None
        socket, above = Path(config.local_primary.socket), lambda: self._ancestors.ascent.message
        known = state.load(config.folder)
        upstream = Upstream(socket, self._held, identity.authority, known.primary_name, above, self._now, self._notify)
        if known.state in ("removed", "departed", "revoked"):  # until the primary above says otherwise, what it said last holds
            upstream.left(ancestry.left_state(known.bequest))
        return upstream

    def load(self) -> None:
        """Reads what is kept. Refused where a folder is not safe, or cannot be read."""
        self._ancestors.load()
        self._stand()
        self._held.load()
        self._policies.load()
        self._tasks.load()
        self._policies.say_all()
        self._tasks.say_all()

    # --- The link -------------------------------------------------------------------------------------------------------------

    def introduce(self, hello: pb.Hello) -> None:
        """Adds to the hello what is held, and what there are handlers for. While no other link opens, the one before goes on."""
        self._held.introduce(hello)
        hello.kinds.extend(self._kinds)

    def linked(self, welcome: pb.Welcome, end: SecondaryEnd) -> Session:
        """A link has opened: everything is said again, and the primary's clock counts for deadlines."""
        self._held.linked()
        self._tasks.ahead = self._now() - welcome.time.seconds if welcome.HasField("time") else 0.0
        if self._session is not None:
            self._session.close()
        local = self.upstream.local if self.upstream is not None else None
        self._session = Session(end, self.outbox, self._held.receiver, local)
        if self.upstream is not None:
            self.upstream.linked(welcome.primary_name)
        return self._session

    def unlinked(self) -> None:
        """There is no link."""
        if self.upstream is not None:
            self.upstream.unlinked()

    def _notify(self) -> None:
        """There is something to say over the link."""
        if self._session is not None:
            self._session.news.set()

    def on_message(self, message: pb.FromPrimary, session: Session) -> None:
        """What came over a link. What is not to be trusted is refused, with a line in the log, and is as if it had not come.

        Refused with LINK_VIOLATION, which ends the link.
        """
        if session is not self._session:  # the link after it is open by now
            return
        for ack in message.acks:
            session.on_ack(ack)
        self._on_settled(message.settled)
        if message.HasField("ancestry"):
            self._on_ancestry(message.ancestry)
        self._on_documents(message)
        if message.HasField("lower_answer") and self.upstream is not None:
            self.upstream.answered(message.lower_answer)

    def _on_ancestry(self, said: document_pb2.Ancestry) -> None:
        try:
            self._ascend(said)
        except Refused as refused:
            lasts: Callable[..., None] = _LOG.alarm if refused.reason in ALARMS else _LOG.warning
            lasts("ancestry refused", reason=refused.reason, problem=refused.message)
        self._saving.mark(_CAME)

    def _on_documents(self, message: pb.FromPrimary) -> None:
        refused, problem = self._held.take(message)
        if problem:
            _LOG.warning("a piece of a body was not taken", reason=Reason.LINK_VIOLATION, problem=problem)
        if refused is not None:
            say: Callable[..., None] = _LOG.alarm if refused.reason is Reason.SET_CONFLICT else _LOG.warning
            say("a desired set was refused", reason=refused.reason, problem=refused.message)
        if message.sequence:
            self._saving.mark(_CAME)
            self._notify()

    def _acknowledged(self, report: document_pb2.Report) -> None:
        """The primary has written a report down. It ordered its own runs; of those from further up it will hear itself."""
        if any(each.origin == self._held.own for each in report.observed_items):
            self._tasks.settle(report)

    def _on_settled(self, said: Iterable[pb.Settled]) -> None:
        strange = 0
        for settled in said:
            if not names.is_id(settled.run) or (settled.path and not ancestry.is_way(settled.path)):
                strange += 1
            elif not settled.path:
                self._tasks.settle_run(settled.run)
            elif self.upstream is not None:
                self.upstream.settled(settled.path, settled.run)
        if strange:
            _LOG.warning("words on outcomes were not taken", reason=Reason.LINK_VIOLATION, count=strange)

    def _ascend(self, said: document_pb2.Ancestry) -> None:
        """Other primaries stand above: their sets count from now on, those of others no more."""
        if self._ancestors.take(said, self._held.versions):
            self._ancestry_wanted += 1
            self._stand()

    def _stand(self) -> None:
        self._held.stand(self._ancestors.origins, self._ancestors.unlocked, self._ancestors.ascent.memory)

    async def farewell(self, bequest: str) -> None:
        """The primary above has ended this enrolment; `bequest` says what stays with the servers below."""
        if self.upstream is not None:
            await self.upstream.farewell(ancestry.left_state(bequest))

    # --- The work -------------------------------------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Until cancelled. What meets a fault is begun anew, and holds up nothing else: a daemon goes on."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {"policies": self._policies.run, "tasks": self._tasks.run}
        if self.upstream is not None:
            parts["upstream"] = self.upstream.run

        async def run(part: str) -> Again:
            await parts[part]()
            return AGAIN_SECONDS

        again = Backoff(AGAIN_SECONDS, AGAIN_SECONDS)
        # No deadline: they run until cancelled.
        running = Controller[str]("work", each(run), at_once=len(parts), backoff=again, on_failure=_log_fault)
        for part in parts:
            running.mark(part)
        self._saving.mark(_CAME)
        await run_all([running, self._saving])

    async def _save(self, _: str) -> Again:
        """Lets what came count. What the disk refuses is tried again: some day there is room."""
        refused = await self._saved()
        self._notify()
        if self.upstream is not None:
            self.upstream.changed()
        self._policies.look()
        self._tasks.look()
        self._say_what_is_strange()
        return AGAIN_SECONDS if refused else None

    async def _saved(self) -> bool:
        """Whether something could not be written."""
        wanted = self._ancestry_wanted
        try:
            if wanted != self._ancestry_saved:  # first: a restart would take back what the sets from further up put in force
                await to_the_end(self._ancestors.save, self._ancestors.ascent)
                self._ancestry_saved = wanted
            await self._held.save()
        except Refused as refused:
            _LOG.warning("a desired set was not kept yet", reason=refused.reason, problem=refused.message)
            return True
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
            observed = versions((origin, item) for origin, item in strange if item.kind == kind)
            state = document_pb2.DOCUMENT_STATE_UNSUPPORTED
            self.outbox.put(document_pb2.Report(kind=kind, state=state, observed_items=origin_items(observed)))
        self._strange = kinds


def _log_fault(part: str, error: Exception) -> None:
    _LOG.fault("documents are not worked on", error, part=part)
