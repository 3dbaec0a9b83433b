"""What servers report of documents from above, as it goes upward.

It is in memory only: each server reports it again when its link opens, and how a run ended until it hears that this arrived.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from enlist import documents, outputs
from enlist.ancestry import ORIGINS
from enlist.names import PRIMARY_ID_LENGTH
from enlist.v1 import document_pb2 as pb
from enlist_primary.model.reports import LAYERS, MESSAGE_LIMIT

SERVER_BYTES = 256 * 1024
"""What of one server's reports goes up together, at most."""
OUTCOMES = 256
"""Outcomes of one server that are kept until they have arrived, at most, which is more than an account has under way at once. The
oldest ones it says again over its next link."""

VIA_BYTES = 64 * 1024 * 1024
BYTES = 8 * VIA_BYTES
"""What outcomes may take of a server of this primary with all below it, and of all of them.

Further ones are not kept: their servers say them again over their next links.
"""

Key = tuple[str, str]
"""An account and a server in it: its id, or `via/path`."""
Concerns = Callable[[pb.Report], bool]
"""Whether primaries above want to hear of a report."""


@dataclass
class _Kept:
    """The last report of a server on each document, by kind and name."""

    account: str
    reports: dict[tuple[str, str], pb.Report] = field(default_factory=dict)
    bytes: int = 0
    outcome_bytes: int = 0
    """Of these, what outcomes take."""

    def growth(self, outcome: pb.Report) -> int:
        """By how many bytes of outcomes there would be more with this one."""
        before = self.reports.get((outcome.kind, outcome.name))
        return outcome.ByteSize() - (before.ByteSize() if before is not None and documents.is_outcome(before) else 0)

    def put(self, report: pb.Report) -> None:
        self.drop((report.kind, report.name))  # the order is that of arrival
        self.reports[report.kind, report.name] = report
        self._count(report, 1)

    def drop(self, key: tuple[str, str]) -> None:
        before = self.reports.pop(key, None)
        if before is not None:
            self._count(before, -1)

    def _count(self, report: pb.Report, sign: int) -> None:
        self.bytes += sign * report.ByteSize()
        if documents.is_outcome(report):
            self.outcome_bytes += sign * report.ByteSize()

    def bound(self) -> None:
        """Drops the oldest outcomes beyond `OUTCOMES`."""
        outcomes = [key for key, report in self.reports.items() if documents.is_outcome(report)]
        for key in outcomes[:-OUTCOMES]:
            self.drop(key)


class UpwardReports:
    """The last report of each server on each document from above; how a run ended, until that has arrived where it was ordered."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        """By server: ids are random, and not given twice."""
        self._bytes: defaultdict[str, int] = defaultdict(int)
        """What outcomes take of a server of this primary and those below it."""
        self._total = 0

    def put(self, server: Key, reports: Iterable[pb.Report], concerns: Concerns) -> bool:
        """Keeps what concerns those above, as far as there is room for outcomes; whether any of it does."""
        found = [_bounded(each) for each in reports if concerns(each)]
        if not found:
            return False
        account, id = server
        via = id.partition("/")[0]
        kept = self._kept.setdefault(id, _Kept(account))
        for each in found:
            before = kept.outcome_bytes
            if not documents.is_outcome(each) or self._has_room(via, kept.growth(each)):
                kept.put(each)
                self._count(via, kept.outcome_bytes - before)
        before = kept.outcome_bytes
        kept.bound()
        self._count(via, kept.outcome_bytes - before)
        self._forget_empty(id, kept)
        return True

    def _has_room(self, via: str, more: int) -> bool:
        return more <= 0 or (self._bytes.get(via, 0) + more <= VIA_BYTES and self._total + more <= BYTES)

    def _count(self, via: str, more: int) -> None:
        self._total += more
        self._bytes[via] += more
        if not self._bytes[via]:
            del self._bytes[via]

    def settled(self, id: str, run: str) -> bool:
        """How that run ended at a server has arrived; whether it is of what was kept."""
        kept = self._kept.get(id)
        past = [key for key, report in kept.reports.items() if key[1] == run and documents.is_outcome(report)] if kept else []
        if kept is not None and past:
            self._drop(id, kept, past)
        return bool(past)

    def held_back(self, id: str) -> Key | None:
        """The server, if not all of its reports go up together."""
        kept = self._kept.get(id)
        return (kept.account, id) if kept is not None and kept.bytes > SERVER_BYTES else None

    def _drop(self, id: str, kept: _Kept, keys: Iterable[tuple[str, str]]) -> None:
        before = kept.outcome_bytes
        for key in keys:
            kept.drop(key)
        self._count(id.partition("/")[0], kept.outcome_bytes - before)
        self._forget_empty(id, kept)

    def _forget_empty(self, id: str, kept: _Kept) -> None:
        if not kept.reports:
            self._kept.pop(id, None)

    def prune(self, concerns: Concerns) -> list[Key]:
        """Drops the reports that do not concern the primaries above now; returns the servers that had some."""
        pruned = []
        for id, kept in list(self._kept.items()):
            past = [key for key, report in kept.reports.items() if not concerns(report)]
            if past:
                self._drop(id, kept, past)
                pruned.append((kept.account, id))
        return pruned

    def forget(self, server: Key) -> None:
        """The server is gone."""
        kept = self._kept.get(server[1])
        if kept is not None:
            self._drop(server[1], kept, list(kept.reports))

    def of(self, server: Key) -> list[pb.Report]:
        """What of a server's reports goes up together: of outcomes the newest, others once those have arrived."""
        kept = self._kept.get(server[1])
        left, found = SERVER_BYTES, []
        for report in sorted(kept.reports.values(), key=_urgency, reverse=True) if kept is not None else ():
            if report.ByteSize() <= left:
                left -= report.ByteSize()
                found.append(report)
        return found

    def __len__(self) -> int:
        return len(self._kept)


def _urgency(report: pb.Report) -> tuple[bool, int]:
    """Documents first, which nobody says arrived; then by time."""
    return not documents.is_outcome(report), report.time.seconds


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
        output=outputs.cut(report.output) if documents.is_outcome(report) else b"",
    )


def _origin_items(said: Sequence[pb.OriginItems]) -> list[pb.OriginItems]:
    return [
        pb.OriginItems(origin=each.origin[:PRIMARY_ID_LENGTH], items=map(_version, each.items[:LAYERS])) for each in said[:ORIGINS]
    ]


def _version(said: pb.ItemVersion) -> pb.ItemVersion:
    """Without what this version does not know. A digest that is too long stays so: it is for its origin to refuse."""
    return pb.ItemVersion(revision=said.revision, digest=said.digest[: documents.DIGEST_BYTES + 1])
