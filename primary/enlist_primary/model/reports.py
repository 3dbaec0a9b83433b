"""A server's word on its documents, as the primary takes it: bounded, printable, and only on what it was asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from enlist import documents, names, outputs
from enlist.documents import ItemVersion
from enlist.runtime.terminal import escape
from enlist.v1 import document_pb2 as pb

MESSAGE_LIMIT = 1000
REMNANTS = 64
"""Policies that reach a server no more of which it may say that it could not end them."""
LAYERS = 64
"""Layers of one policy that an origin may have at a server, at most: more than a tree is deep."""
_LATEST = 253402300799  # the last second of the year 9999

POLICY_STATES = MappingProxyType(
    {
        pb.DOCUMENT_STATE_RECEIVED: "received",
        pb.DOCUMENT_STATE_APPLIED: "applied",
        pb.DOCUMENT_STATE_FAILED: "failed",
        pb.DOCUMENT_STATE_ROLLED_BACK: "rolled_back",
        pb.DOCUMENT_STATE_CHANGED_LOCALLY: "changed_locally",
        pb.DOCUMENT_STATE_UNSUPPORTED: "unsupported",
    }
)
"""What a server may say of a policy; `pending` and `unreachable` are for the primary to find."""

TASK_STATES = MappingProxyType(
    {
        pb.TASK_STATE_SENT: "sent",
        pb.TASK_STATE_RUNNING: "running",
        pb.TASK_STATE_SUCCEEDED: "succeeded",
        pb.TASK_STATE_FAILED: "failed",
        pb.TASK_STATE_TIMED_OUT: "timed_out",
        pb.TASK_STATE_INTERRUPTED: "interrupted",
        pb.TASK_STATE_UNSUPPORTED: "unsupported",
    }
)
"""What a server may say of a run."""
_UNDER_WAY = frozenset(word for state, word in TASK_STATES.items() if state in documents.UNDER_WAY)


class Word(NamedTuple):
    """What one server last said of one policy kind (`name` empty) or one run.

    `kind` is `policy/{kind}` or `task/{kind}`; `at` is Unix seconds. `observed` and `applied` are items of this primary alone.
    """

    server_id: str
    kind: str
    name: str
    state: str
    at: int
    message: str = ""
    observed: tuple[ItemVersion, ...] = ()
    applied: tuple[ItemVersion, ...] = ()
    exit_code: int | None = None
    output: bytes = b""

    @property
    def of_task(self) -> bool:
        """Whether it is about a run."""
        return self.kind.startswith(documents.TASK)

    @property
    def of_end(self) -> bool:
        """Whether it says how a run ended."""
        return self.of_task and self.state not in _UNDER_WAY


@dataclass(frozen=True)
class Asked:
    """What a server was asked about: the items of its set (`documents.about`), and runs that are over: a late word counts."""

    subjects: frozenset[tuple[str, str]]
    ended: frozenset[str] = frozenset()

    def about(self, kind: str, name: str) -> bool:
        """Whether a report on this is about that."""
        if (kind, name) in self.subjects:
            return True
        return name in self.ended and kind.startswith(documents.TASK) and names.is_document_kind(kind)


def heard(said: Iterable[pb.Report], server_id: str, asked: Asked, origin: str, now: int) -> list[Word]:
    """The words of one server in one message on what it was asked about, the last on each thing. Nothing else is read closer."""
    last = {(report.kind, report.name): report for report in said if asked.about(report.kind, report.name)}
    return [word for report in last.values() if (word := read(report, server_id, origin, now)) is not None]


def remnants(
    before: Mapping[str, Word], said: Iterable[pb.Report], server_id: str, wanted: Sequence[frozenset[tuple[str, str]]], now: int
) -> Mapping[str, Word]:
    """What a server could not end of policies that reach it no more, by kind. `wanted` is what does, here and from above.

    It says so of few kinds, and only of what failed and what nobody means any more; any other word on the kind takes that back.
    """
    found = {kind: word for kind, word in before.items() if not _is_wanted(kind, "", wanted)}
    for report in said:
        kind = report.kind
        if not kind.startswith(documents.POLICY) or _is_wanted(kind, report.name, wanted):
            continue
        found.pop(kind, None)
        over = report.state != pb.DOCUMENT_STATE_FAILED or report.observed_items or not names.is_document_kind(kind)
        word = None if over or len(found) >= REMNANTS else read(report, server_id, "", now)
        if word is not None:
            found[kind] = word
    return found


def _is_wanted(kind: str, name: str, wanted: Iterable[frozenset[tuple[str, str]]]) -> bool:
    return any((kind, name) in each for each in wanted)


def read(report: pb.Report, server_id: str, origin: str, now: int) -> Word | None:
    """A report as this primary takes it; None for one that makes no sense. `origin` is this primary's id.

    A server's clock may be wrong: nothing came to be so later than now.
    """
    of_task = report.kind.startswith(documents.TASK)
    state = TASK_STATES.get(report.task_state) if of_task else POLICY_STATES.get(report.state)
    if state is None or of_task is not bool(report.name) or not report.kind.startswith((documents.TASK, documents.POLICY)):
        return None
    observed = _of_origin(report.observed_items, origin)
    applied = _of_origin(report.applied_items, origin)
    if observed is None or applied is None:
        return None
    return Word(
        server_id=server_id,
        kind=report.kind,
        name=report.name,
        state=state,
        at=max(0, min(report.time.seconds, now, _LATEST)) or now,
        message=escape(report.message[:MESSAGE_LIMIT])[:MESSAGE_LIMIT],  # escaped it may be ten times as long
        observed=observed,
        applied=applied,
        exit_code=None if report.exit_code < 0 or not of_task else report.exit_code,
        output=outputs.cut(report.output) if of_task else b"",
    )


def _of_origin(said: Sequence[pb.OriginItems], origin: str) -> tuple[ItemVersion, ...] | None:
    """The items of one origin, at most `LAYERS`; None if one of them is what no item can be."""
    for each in said:
        if each.origin == origin:
            return documents.decode_versions(each.items[:LAYERS])
    return ()
