"""What a server says over its link, on its way to where it is kept; and when that is there for good."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

from enlist import documents
from enlist.runtime.write_behind import Countdown
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.child_primary import Lower
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.subtree import Subtree
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.links.publisher import Desires
from enlist_primary.links.registry import Key, Link
from enlist_primary.model import reports
from enlist_primary.model.reports import Asked, Word

Acknowledge = Callable[[int, bool], None]
"""Tells the server that the message with this number is taken for good; or, if True, that there was no room for it."""


ARRIVED = 100_000
"""Servers whose arrived runs are remembered, at most."""


class Inbox:
    """Takes what servers say. `clock` is Unix seconds."""

    def __init__(
        self,
        status_reports: StatusReports,
        descendants: Descendants,
        subtree: Subtree,
        ancestors: Upper,
        publisher: Desires,
        clock: Callable[[], float],
    ) -> None:
        self._status_reports = status_reports
        self._descendants = descendants
        self._subtree = subtree
        self._ancestors = ancestors
        self._publisher = publisher
        self._clock = clock
        self._arrived: OrderedDict[Key, frozenset[tuple[str, str]]] = OrderedDict()
        """The runs under way that were noted as arrived at a server, by kind and id: a link that opens need not note them again."""

    def opened(self, account: str, id: str, lost: int | None) -> None:
        """The server's link has opened: it will say everything again. `lost` as for `Descendants.opened`."""
        self._descendants.opened(account, id, lost, int(self._clock()))

    def on_message(self, link: Link, message: pb.FromSecondary, child: Lower, acknowledge: Acknowledge) -> None:
        """What a newer secondary says besides is passed over, and so are reports on what it was not asked about."""
        asked = Asked(link.wanted.subjects, self._publisher.ended(link.key[0]))
        if message.HasField("reports"):
            self._on_reports(link, message.reports, asked, acknowledge)
        if message.HasField("below"):
            self._on_below(link, message.below, asked, child, acknowledge)
        if message.set_refusals:
            self._on_refusals(link, message.set_refusals, child)
        if message.HasField("lower"):
            child.take(message.lower)

    def _on_reports(self, link: Link, said: pb.Reports, asked: Asked, acknowledge: Acknowledge) -> None:
        """Acknowledged once all that it reports is committed; what goes further up is in memory then, if there was room."""
        (account, id), now = link.key, int(self._clock())
        named = said.reports[: documents.ITEM_LIMIT]
        above = self._ancestors.snapshot
        link.remnants = reports.remnants(link.remnants, named, id, (asked.subjects, above.items), now)
        self._subtree.heard(account, id, named, above.concerns)
        landed = Countdown(lambda: acknowledge(said.sequence, False))
        if not self._put(account, reports.heard(named, id, asked, self._ancestors.own_id, now), landed):
            acknowledge(said.sequence, True)
        else:
            landed()

    def _put(self, account: str, words: Iterable[Word], landed: Countdown) -> bool:
        """Whether there was room for all of them."""
        for word in words:
            landed.expect()
            if not self._status_reports.put(account, word, landed):
                return False
        return True

    def _on_below(self, link: Link, said: pb.Below, asked: Asked, child: Lower, acknowledge: Acknowledge) -> None:
        """What is said of servers below counts while the primary there may be below this one."""
        account, id = link.key
        if not child.certified:
            return
        accepted, changed = self._descendants.on_message(
            account, id, asked, said, int(self._clock()), lambda: acknowledge(said.sequence, False)
        )
        if not accepted:
            acknowledge(said.sequence, True)
        concerns, taken = self._ancestors.snapshot.concerns, frozenset(changed)
        for server in said.servers:
            if server.path in taken:
                self._subtree.heard(account, f"{id}/{server.path}", server.reports, concerns)

    def _on_refusals(self, link: Link, refusals: Iterable[pb.SetRefused], child: Lower) -> None:
        """Sets that are refused here concern the server's link; those refused by the primary on its host, all servers below it."""
        account, id = link.key
        below = [each for each in refusals if each.below]
        if below and child.certified:
            self._descendants.on_refusals(account, id, below)

    def on_set_held(self, link: Link, digests: Collection[bytes], now: int) -> None:
        """The server holds a set of these bodies: of the runs that are wanted there now, those among them have arrived.

        What there was no room for is noted with the next set.
        """
        account, id = link.key
        runs = documents.runs(item for item in link.wanted.items if item.digest in digests)
        known = self._arrived.pop(link.key, frozenset()) & runs
        new = [run for run in runs - known if self._status_reports.put(account, Word(id, *run, "sent", now))]
        if known or new:
            self._arrived[link.key] = known.union(new)
            if len(self._arrived) > ARRIVED:
                self._arrived.popitem(last=False)
