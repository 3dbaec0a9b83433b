"""What this server has to report of its documents: the last report on each thing, said until the primary has acknowledged it."""

from __future__ import annotations

from collections.abc import Callable

from enlist.runtime.link_outbox import LinkOutbox, OutboxCursor
from enlist.v1 import document_pb2, hierarchy_pb2

REPORTS_AT_ONCE = 500

Key = tuple[str, str]
ReportCursor = OutboxCursor[Key, document_pb2.Report]


class Outbox:
    """The last report by (kind, name)."""

    def __init__(self, changed: Callable[[], None], acknowledged: Callable[[document_pb2.Report], None] = lambda _: None) -> None:
        """`changed` hears that there is something to say, `acknowledged` of each report, as it was said, that the primary has."""
        self._links: LinkOutbox[Key, document_pb2.Report] = LinkOutbox(
            weight=lambda report: report.ByteSize(),
            acknowledged=lambda _key, report, _last: acknowledged(report),
            changed=changed,
        )

    def put(self, report: document_pb2.Report) -> None:
        """The last report on its kind and name; one like the one before is not said again."""
        self._links.put((report.kind, report.name), report)

    def forget(self, kind: str, name: str = "") -> None:
        """Nobody wants to know of this any more."""
        self._links.discard((kind, name))

    def last(self, kind: str, name: str = "") -> document_pb2.Report | None:
        """The last report on a kind and name."""
        return self._links.get((kind, name))

    def open(self, number: Callable[[], int] | None = None) -> ReportCursor:
        """A link has opened: it says everything; see `LinkOutbox.open`."""
        return self._links.open(number)


def message(cursor: ReportCursor, most: int) -> hierarchy_pb2.Reports | None:
    """What goes into the next message, `most` bytes unless one report alone is longer; None if there is nothing to report."""
    batch = cursor.take(REPORTS_AT_ONCE, most)
    if batch is None:
        return None
    return hierarchy_pb2.Reports(sequence=batch.sequence, reports=[report for _, report in batch.values])
