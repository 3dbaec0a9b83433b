"""What a server knows of the policy of each kind, and what is to be done about it next. Pure: no clock, no files, no handlers.

Of each kind there is one record: what was last wanted and how that went, and beside it what is in force. A policy that fails leaves
the last good one in force; one that is to be confirmed and is not, goes back to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import msgspec

from enlist import documents, layers, values
from enlist.layers import Layer
from enlist.reasons import Refused
from enlist.runtime import schedules
from enlist.runtime.schedules import Window
from enlist.v1 import document_pb2 as pb
from enlist_secondary.documents import Document, Versions, origin_items, versions

RECEIVED, APPLIED, FAILED = "received", "applied", "failed"
ROLLED_BACK, CHANGED_LOCALLY, UNSUPPORTED = "rolled_back", "changed_locally", "unsupported"
_STATES = {
    name: pb.DocumentState.Value(f"DOCUMENT_STATE_{name.upper()}")
    for name in (RECEIVED, APPLIED, FAILED, ROLLED_BACK, CHANGED_LOCALLY, UNSUPPORTED)
}


Part = tuple[str, int, str]
"""A layer: its origin, its revision, and its body's SHA-256 in hexadecimal."""


@dataclass(frozen=True)
class Wanted:
    """What the layers of one kind come to; `problem` says why they cannot be read."""

    kind: str
    versions: Versions
    content: str = ""
    """By what two of a kind are known to be the same: locks may cease to hold."""
    settings: dict[str, Any] = field(default_factory=dict)
    put_back: bool = False
    confirm_seconds: int = 0
    """Within which the unconfirmed layers must be confirmed; 0 if all are final."""
    unconfirmed: tuple[Part, ...] = ()
    """The layers that are not final."""
    final: frozenset[Part] = frozenset()
    """The layers that are."""
    problem: str = ""


@dataclass(frozen=True)
class Good:
    """Settings that were put in force, and the items they came of; None for the time before any."""

    settings: dict[str, Any] | None = None
    versions: Versions = field(default_factory=dict)


@dataclass(frozen=True)
class Provisional:
    """What is in force waits to be confirmed: `unconfirmed` layers within `seconds` from `since` (Unix seconds)."""

    before: Good
    """What to go back to otherwise: what was last in force for good."""
    since: int
    seconds: int
    unconfirmed: tuple[Part, ...]


@dataclass(frozen=True)
class Record:
    """What is known of one kind."""

    versions: Versions = field(default_factory=dict)
    """What was last wanted."""
    content: str = ""
    """The same: see `Wanted`."""
    state: str = RECEIVED
    message: str = ""
    at: int = 0
    """Since when the state is so, Unix seconds."""
    running: Good = field(default_factory=Good)
    uncertain: bool = False
    """A handler was begun and has not been seen to end well: what is in force may be half of something."""
    doubtful: bool = False
    """Somebody changed what it governs, or a handler failed: `running` counts as in force only once a handler has seen to it."""
    provisional: Provisional | None = None

    @property
    def remains(self) -> bool:
        """Whether it could not be ended though nobody wants it any more."""
        return self.state == FAILED and not self.versions

    @property
    def touched(self) -> bool:
        """Whether a handler has anything to take back."""
        return self.uncertain or self.running.settings is not None


class Step(Enum):
    """What is to be done about a kind."""

    NOTHING = auto()
    APPLY = auto()
    ADOPT = auto()
    """What is wanted is in force already, from other items."""
    WAIT = auto()
    """Something is to be done as soon as the maintenance window opens."""
    CONFIRM = auto()
    ROLL_BACK = auto()
    GO_BACK = auto()
    """What was in force is to be put in force again, for at first that failed."""
    END = auto()
    SAY_UNSUPPORTED = auto()
    SAY_UNREADABLE = auto()


def next_step(want: Wanted | None, record: Record, *, handled: bool, expired: bool, window_open: bool, again: bool) -> Step:
    """What is to be done. `want` is None if no layer speaks of the kind; `again` if what failed shall be tried once more.

    Going back, and what was begun, is never held up by a maintenance window.
    """
    if want is not None and record.provisional is not None and _confirmed(record.provisional, want):
        return Step.CONFIRM
    if record.provisional is not None and expired and handled:
        return Step.ROLL_BACK
    if want is None:
        waits = handled and record.touched and not record.uncertain and not window_open
        return Step.WAIT if waits else Step.END
    if not handled:
        return Step.NOTHING if _settled(want, record) and record.state == UNSUPPORTED else Step.SAY_UNSUPPORTED
    step = Step.NOTHING
    if again or record.state == UNSUPPORTED or not _settled(want, record):
        step = _new(want, record, window_open)
    return Step.GO_BACK if record.uncertain and step in (Step.NOTHING, Step.WAIT) else step


def _settled(want: Wanted, record: Record) -> bool:
    """Whether there is a last word on what is wanted."""
    final_after_all = record.state == ROLLED_BACK and not want.confirm_seconds
    return record.content == want.content and record.state != RECEIVED and not final_after_all


def about(want: Wanted, record: Record, at: int, state: str, message: str = "") -> Record:
    """The record with another word, on what is wanted now."""
    return replace(record, versions=want.versions, content=want.content, state=state, message=message, at=at)


def remnant(record: Record, at: int, message: str) -> Record:
    """The record of a kind that nobody wants any more and that could not be ended."""
    return replace(record, versions={}, content="", state=FAILED, message=message, at=at)


def _new(want: Wanted, record: Record, window_open: bool) -> Step:
    if want.problem:
        return Step.SAY_UNREADABLE
    running = record.running.settings
    certain = not record.uncertain and not record.doubtful
    if certain and running is not None and values.same(running, want.settings):
        return Step.ADOPT
    return Step.APPLY if window_open else Step.WAIT


def _confirmed(provisional: Provisional, want: Wanted) -> bool:
    """Whether every layer that was to be confirmed is wanted for good now."""
    return want.final.issuperset(provisional.unconfirmed)


def in_force(want: Wanted, record: Record, now: int, left: float) -> Record:
    """The record once the settings are in force. `left` are the seconds that are left to confirm what was in force before."""
    good, provisional = Good(want.settings, want.versions), _provisional(want, record, now, left)
    return Record(want.versions, want.content, APPLIED, "", now, good, provisional=provisional)


def _provisional(want: Wanted, record: Record, now: int, left: float) -> Provisional | None:
    if not want.confirm_seconds:
        return None
    waits = record.provisional
    if waits is None or _confirmed(waits, want):
        return Provisional(record.running, now, want.confirm_seconds, want.unconfirmed)
    # What to go back to is not another change that waits; and a layer that has waited a while does not get its time anew.
    carried = set(waits.unconfirmed) & set(want.unconfirmed)
    seconds = max(int(min(left, want.confirm_seconds)), 0) if carried else want.confirm_seconds
    return Provisional(waits.before, now, seconds, want.unconfirmed)


def rolled_back(record: Record, now: int) -> Record:
    """The record once what was not confirmed is no longer in force; a newer policy that waits or failed is still to be told of."""
    assert record.provisional is not None, "only what waits to be confirmed is rolled back"
    state, message = record.state, f"{record.message} What was in force was not confirmed in time.".strip()
    if state in (APPLIED, CHANGED_LOCALLY):
        state, message = ROLLED_BACK, "It was not confirmed in time."
    if state == RECEIVED:
        message = record.message
    return replace(record, state=state, message=message, at=now, running=record.provisional.before, provisional=None)


def wanted(found: Sequence[Document]) -> dict[str, Wanted]:
    """Folds the documents of policies, the upper before the lower, by kind."""
    kinds: dict[str, list[Document]] = {}
    for document in found:
        if document.item.kind.startswith(documents.POLICY):
            kinds.setdefault(document.item.kind.removeprefix(documents.POLICY), []).append(document)
    return {kind: _folded(kind, of_kind) for kind, of_kind in kinds.items()}


def _folded(kind: str, found: Sequence[Document]) -> Wanted:
    """A layer that cannot be read makes its kind unreadable, not the others: the other kinds' primary is not to blame."""
    settings, put_back, problem = dict[str, Any](), False, ""
    try:
        says = [_layer(document) for document in found]
        settings, put_back = layers.effective(says), layers.put_back(says)
    except Refused as refused:
        problem = refused.message
    by_origin = versions((document.origin, document.item) for document in found)
    content = values.dumps([[*by_origin.items()], settings, problem])
    parts = {_part(document): document.item.confirm_seconds for document in found}
    return Wanted(
        kind=kind,
        versions=by_origin,
        content=hashlib.sha256(content).hexdigest(),
        settings=settings,
        put_back=put_back,
        confirm_seconds=min(filter(None, parts.values()), default=0),
        unconfirmed=tuple(part for part, seconds in parts.items() if seconds),
        final=frozenset(part for part, seconds in parts.items() if not seconds),
        problem=problem,
    )


def _part(document: Document) -> Part:
    return document.origin, document.item.revision, document.item.digest.hex()


def _layer(document: Document) -> Layer:
    said = layers.decode(document.body)
    return Layer(said.settings, (), said.put_back) if document.unlocked else said


def window(found: Sequence[Document]) -> Window | None:
    """The maintenance window: the innermost one. Refused with SCHEDULE_INVALID, or ValueError, if it cannot be read."""
    bodies = [document.body for document in found if document.item.kind == documents.WINDOW]
    if not bodies:
        return None
    try:
        said = msgspec.json.decode(bodies[-1], type=Window)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    schedules.check_window(said)
    return said


def report(kind: str, record: Record) -> pb.Report:
    """A record as the primary hears of it."""
    said = pb.Report(kind=documents.POLICY + kind, state=_STATES[record.state], message=record.message)
    said.time.seconds = record.at
    said.observed_items.extend(origin_items(record.versions))
    said.applied_items.extend(origin_items(record.running.versions))
    return said
