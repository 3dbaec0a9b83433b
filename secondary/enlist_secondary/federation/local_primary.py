"""The primary on this host and what is below it, as it said last; and what of that is yet to be said up the link.

The primary above gets the values of a `LinkOutbox`: each server below by its path, kept until it is acknowledged. A server that is
gone is a value like any other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from enlist import documents
from enlist.ancestry import ORIGINS
from enlist.runtime.link_outbox import LinkOutbox, OutboxCursor
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb

SERVERS_AT_ONCE = 300
"""Servers in one message up the link, at most."""
KNOWN_SETTLED = 10_000

Below = pb.BelowServer | None
"""What is said of a path: None for a server that is gone."""


class LocalPrimary:
    """What the local primary said. `changed` is called when there is something to say up the link."""

    def __init__(self, parent: str, changed: Callable[[], None], settled: Callable[[str, str], None]) -> None:
        """`parent` is the primary id of the one above; `settled` hears of a path and a run of which that one has the outcome."""
        self._parent = parent
        self._changed = changed
        self._settled = settled
        self.child: pb.LowerPrimary | None = None
        self.certified = False
        """Whether the primary above has certified it over this link: only then it is told what is below."""
        self.certificates = 0
        """How often it was certified: each time the primary above may have forgotten what is below."""
        self.unknown_since: int | None = None
        self.whole = False
        self._servers: LinkOutbox[str, Below] = LinkOutbox(weight=_weight, acknowledged=self._acknowledged, changed=changed)
        self._before: set[str] = set()  # servers that it named before it began anew, until it has named all
        self._there: set[str] = set()
        self.set_refusals: dict[str, pb.SetRefused] = {}
        self._known_settled: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Outcomes that have arrived, lately: a server that reports one again is told again."""

    # --- What it says -----------------------------------------------------------------------------------------------------------

    def begin_anew(self) -> None:
        """The local primary says everything again; a server that it does not name is gone. Until then it stays unknown."""
        self._before |= self._there
        self.whole = False
        self._changed()

    def on_below(self, said: pb.Below) -> None:
        """Takes what it says of the servers below it."""
        for server in said.servers:
            self._there.add(server.path)
            self._before.discard(server.path)
            self._servers.put(server.path, server)
            for report in server.reports:
                if (server.path, report.name) in self._known_settled:
                    self._settled(server.path, report.name)
        self._gone(said.gone)
        if said.whole:
            self._gone(self._before)
            self._before = set()
            self.whole = True
            self.unknown_since = None
        self._changed()

    def remember_settled(self, path: str, run: str) -> None:
        """The outcome of a run has arrived at the primary that ordered it."""
        if path not in self._there:
            return
        self._known_settled[path, run] = None
        if len(self._known_settled) > KNOWN_SETTLED:
            self._known_settled.popitem(last=False)

    def _gone(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._there.discard(path)
            self._servers.put(path, None)

    def lost(self, now: int) -> None:
        """It does not answer any more: from now on nothing is known of the servers below it."""
        if self.unknown_since is None:
            self.unknown_since = now
            self._changed()

    def on_set_refused(self, refused: pb.SetRefused) -> None:
        """It refuses a set from above: no server below it gets that."""
        told = pb.SetRefused()
        told.CopyFrom(refused)
        told.below = True
        self.set_refusals[refused.origin] = told
        if len(self.set_refusals) > ORIGINS:
            del self.set_refusals[next(iter(self.set_refusals))]
        self._changed()

    def on_set_held(self, origin: str) -> None:
        """It holds a set of this origin: what it refused before is past. That is said as a refusal without a reason."""
        if origin in self.set_refusals:
            self.set_refusals[origin] = pb.SetRefused(origin=origin, below=True)
            self._changed()

    def answered(self, certified: bool) -> None:
        """The primary above has decided whether it may be below."""
        self.certified = certified
        self.certificates += certified
        self._changed()

    # --- What is said up the link -----------------------------------------------------------------------------------------------

    def open(self, number: Callable[[], int]) -> UpwardCursor:
        """A link to the primary above has opened: it is told everything, once it has certified the local primary."""
        self.certified = False
        return UpwardCursor(self, number)

    def open_servers(self, number: Callable[[], int]) -> OutboxCursor[str, Below]:
        """What one link says of the servers below, from the beginning."""
        return self._servers.open(number)

    def _acknowledged(self, path: str, server: Below, last: bool) -> None:
        if server is None:
            if last and self._servers.get(path) is None:
                self._servers.discard(path)
            return
        for report in server.reports:
            if _outcome_for(report, self._parent):
                self._settled(path, report.name)


class UpwardCursor:
    """What one link has still to say of the local primary."""

    def __init__(self, local: LocalPrimary, number: Callable[[], int]) -> None:
        self._local = local
        self._number = number
        self.servers: OutboxCursor[str, Below] = local.open_servers(number)
        self._said_child: pb.LowerPrimary | None = None
        self._said_unknown: int | None = None
        self._said_whole = False
        self._whole_sequence = 0
        """The number of the message that said so."""
        self._certificates: int | None = None
        self._said_refusals: dict[str, pb.SetRefused] = {}

    def say(self, most: int) -> Iterator[pb.FromSecondary]:
        """The messages that are due, of `most` bytes each unless one server alone takes more."""
        local = self._local
        if local.child is not None and local.child != self._said_child:
            self._said_child = local.child
            yield pb.FromSecondary(lower=local.child)
        if not local.certified:
            return
        if self._certificates != local.certificates:
            self._begin_anew(local.certificates)
        yield from self._below(most)
        yield from self._refusals()

    def _begin_anew(self, certificates: int) -> None:
        """What was said before was of no interest there, or was forgotten with the certificate before."""
        self._certificates = certificates
        self._said_whole = False
        self._said_unknown = None
        self._said_refusals = {}
        self.servers = self._local.open_servers(self._number)

    def _below(self, most: int) -> Iterator[pb.FromSecondary]:
        local, said = self._local, False
        while (batch := self.servers.take(SERVERS_AT_ONCE, most)) is not None:
            message = self._message(batch.sequence)
            message.below.servers.extend(server for _, server in batch.values if server is not None)
            message.below.gone.extend(path for path, server in batch.values if server is None)
            said = True
            yield message
        if local.whole and not self._said_whole and not self.servers.waiting:
            self._said_whole = said = True
            self._whole_sequence = self._number()
            message = self._message(self._whole_sequence)
            message.below.whole = True
            yield message
        if not said and self._said_unknown != local.unknown_since:
            yield self._message(self._number())

    @property
    def full(self) -> bool:
        """Whether as many messages on the servers are on their way as may be."""
        return self.servers.full

    def ack(self, sequence: int) -> None:
        """The primary above has that message for good."""
        self.servers.ack(sequence)

    def nack(self, sequence: int) -> None:
        """There was no room for that message: it is said again."""
        self.servers.nack(sequence)
        if sequence == self._whole_sequence:
            self._said_whole = False

    def _message(self, sequence: int) -> pb.FromSecondary:
        self._said_unknown = self._local.unknown_since
        message = pb.FromSecondary(below=pb.Below(sequence=sequence))
        if self._said_unknown is not None:
            message.below.unknown_since.seconds = self._said_unknown
        return message

    def _refusals(self) -> Iterator[pb.FromSecondary]:
        new = [each for origin, each in self._local.set_refusals.items() if self._said_refusals.get(origin) != each]
        if new:
            self._said_refusals = dict(self._local.set_refusals)
            yield pb.FromSecondary(set_refusals=new)


def _weight(server: Below) -> int:
    return 64 if server is None else server.ByteSize()


def _outcome_for(report: document_pb2.Report, origin: str) -> bool:
    """Whether this is the outcome of a run that this origin ordered."""
    return documents.is_outcome(report) and any(each.origin == origin for each in report.observed_items)
