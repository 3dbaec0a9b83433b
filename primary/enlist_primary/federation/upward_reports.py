"""What servers report of documents from above, as it goes upward.

It is in memory only: each server reports it again when its link opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enlist import documents, outputs
from enlist.ancestry import ORIGINS
from enlist.names import PRIMARY_ID_LENGTH
from enlist.v1 import document_pb2 as pb
from enlist_primary.model.reports import LAYERS, MESSAGE_LIMIT

SERVER_BYTES = 256 * 1024
"""What of one server's reports goes up together, at most."""

Key = tuple[str, str]
"""An account and a server in it: its id, or `via/path`."""


class UpwardReports:
    """The last report of each server on each document from above."""

    def __init__(self) -> None:
        self._reports: dict[Key, dict[tuple[str, str], pb.Report]] = {}

    def put(self, server: Key, reports: Iterable[pb.Report], items: frozenset[tuple[str, str]]) -> bool:
        """Keeps what is about `items`; whether any of it is."""
        found = {(each.kind, each.name): _bounded(each) for each in reports if (each.kind, each.name) in items}
        if found:
            self._reports.setdefault(server, {}).update(found)
        return bool(found)

    def prune(self, items: frozenset[tuple[str, str]]) -> list[Key]:
        """Drops what is about no item that is wanted any more; of which servers there was any."""
        pruned = []
        for server, reports in list(self._reports.items()):
            past = [key for key in reports if key not in items]
            for key in past:
                del reports[key]
            if past:
                pruned.append(server)
            if not reports:
                del self._reports[server]
        return pruned

    def forget(self, server: Key) -> None:
        """The server is gone."""
        self._reports.pop(server, None)

    def of(self, server: Key) -> list[pb.Report]:
        """What of a server's reports goes up together: the newest whole, older ones without output where that is too much."""
        left, found = SERVER_BYTES, []
        for report in sorted(self._reports.get(server, {}).values(), key=lambda each: each.time.seconds, reverse=True):
            if report.ByteSize() > left:
                short = pb.Report()
                short.CopyFrom(report)
                short.output = outputs.cut(report.output, 0)
                report = short
            if report.ByteSize() <= left:
                left -= report.ByteSize()
                found.append(report)
        return found

    def __len__(self) -> int:
        return len(self._reports)


def _bounded(report: pb.Report) -> pb.Report:
    """A report as it may go up: one server is bounded by what its own link carries, the way up is everybody's."""
    return pb.Report(
        kind=report.kind,
        name=report.name,
        state=report.state,
        task_state=report.task_state,
        message=report.message[:MESSAGE_LIMIT],
        observed_items=_origin_items(report.observed_items),
        applied_items=_origin_items(report.applied_items),
        time=report.time if report.HasField("time") else None,
        exit_code=report.exit_code,
        output=outputs.cut(report.output),
    )


def _origin_items(said: Sequence[pb.OriginItems]) -> list[pb.OriginItems]:
    return [
        pb.OriginItems(origin=each.origin[:PRIMARY_ID_LENGTH], items=map(_version, each.items[:LAYERS])) for each in said[:ORIGINS]
    ]


def _version(said: pb.ItemVersion) -> pb.ItemVersion:
    """Without what this version does not know. A digest that is too long stays so: it is for its origin to refuse."""
    return pb.ItemVersion(revision=said.revision, digest=said.digest[: documents.DIGEST_BYTES + 1])
