"""Levels: the primary above this one, and the servers below the primaries below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from enlist import names
from enlist.ancestry import ORIGINS, is_way
from enlist.layers import Layer
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape
from enlist.v1 import document_pb2, server_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.model.reports import Word
from enlist_primary.model.servers import State

SERVERS = 100_000
"""Servers below one middle server, at most: what it says of others is passed over."""
_TEXT = 300
_REASON = 40
_LATEST = 253402300799  # the last second of the year 9999

STATES = {server_pb2.ServerState.Value(f"SERVER_STATE_{state.name}"): state for state in State}


class UpperState(StrEnum):
    """Whether a primary still stands above this one, and what of it stays if it does not."""

    PRESENT = "present"
    KEPT = "kept"
    FROZEN = "frozen"
    GONE = "gone"


ANCESTOR_STATES = {
    UpperState.PRESENT: document_pb2.ANCESTOR_STATE_PRESENT,
    UpperState.KEPT: document_pb2.ANCESTOR_STATE_KEPT,
    UpperState.FROZEN: document_pb2.ANCESTOR_STATE_FROZEN,
}
"""As the consent says it; to one that is gone there is none."""


class Bequest(StrEnum):
    """What becomes, at the servers below a middle server that is removed, of what was set for them."""

    KEEP = "keep"
    FREEZE = "freeze"
    DELETE = "delete"


@dataclass(frozen=True)
class Upper:
    """The primary above: its authority (DER), this one's consent with its signature, and the whole ancestry as it travels.

    `ancestry` is empty while the primary above has not certified this one.
    """

    authority: bytes
    name: str
    state: UpperState
    consent: bytes
    signature: bytes
    ancestry: bytes = b""
    memory: Memory = field(default_factory=Memory)
    """The newest versions of what came from above."""


@dataclass(frozen=True)
class UpperLayer:
    """A layer of a policy from above: which primary and group set it, its revision there, and what it says here; or why nothing."""

    label: str
    revision: int
    said: Layer | None
    problem: str = ""

    @property
    def layer(self) -> Layer:
        """What it says here; refused with POLICY_INVALID if it cannot be read: then no server here can read it either."""
        if self.said is None:
            raise Refused(Reason.POLICY_INVALID, f"What {self.label} says of this kind cannot be read: {self.problem}")
        return self.said


class SetRefusal(NamedTuple):
    """A set that is refused: whose it is, by primary id, and why."""

    origin: str
    reason: str
    message: str

    @property
    def why(self) -> str:
        """For people."""
        return f"The desired set is refused ({self.reason}): {self.message}"


@dataclass(frozen=True)
class BelowServer:
    """A server below the middle server `via`, as that last said. `id` is how reports and results name it."""

    account: str
    via: str
    path: str
    name: str
    place: str
    state: State
    connected: bool
    connected_at: int | None
    unknown_since: int | None
    code: str
    kinds: tuple[str, ...]
    unheard: bool = False
    """Whether it is unknown only until it is said over a link that has replaced one."""
    refusals: tuple[SetRefusal, ...] = ()
    """The sets that it, or a primary on the way down to it, refuses; not kept over a restart: they are said again."""

    def refusal(self, origin: str) -> str:
        """Why it does not get what an origin wants there, for people; empty if it does."""
        return next((each.why for each in self.refusals if each.origin == origin), "")

    @property
    def id(self) -> str:
        """The ids on the way down from this primary, joined by slashes."""
        return f"{self.via}/{self.path}"


@dataclass(frozen=True)
class DescendantRecord:
    """What is written of a server below, all together: its row, None if it is gone, and what it reported."""

    account: str
    via: str
    path: str
    row: BelowServer | None
    reports: tuple[Word, ...] = ()


def read(said: pb.BelowServer, account: str, via: str, now: int) -> BelowServer | None:
    """What a middle server says of one below it, bounded and made printable; None for what makes no sense."""
    state = STATES.get(said.state)
    if state is None or not is_way(said.path):
        return None
    connected_at = _moment(said.connected_time.seconds, now) if said.HasField("connected_time") else None
    unknown_since = _moment(said.unknown_since.seconds, now) if said.HasField("unknown_since") else None
    name, place, code = (escape(text[:_TEXT]) for text in (said.display_name, said.place, said.comparison_code[:40]))
    kinds = tuple(sorted(filter(names.is_document_kind, said.kinds[:256])))
    refusals = read_refusals(said.set_refusals)
    return BelowServer(
        account, via, said.path, name, place, state, said.connected, connected_at, unknown_since, code, kinds, refusals=refusals
    )


def read_refusals(said: Iterable[pb.SetRefused]) -> tuple[SetRefusal, ...]:
    """The sets that are refused, bounded and made printable; a later refusal of the same origin replaces the one before."""
    found = {each.origin[: names.PRIMARY_ID_LENGTH]: SetRefusal(*map(escape, _cut(each))) for each in islice(said, ORIGINS)}
    return tuple(found.values())


def _cut(said: pb.SetRefused) -> tuple[str, str, str]:
    return said.origin[: names.PRIMARY_ID_LENGTH], said.reason[:_REASON], said.message[:_TEXT]


def called(servers: Iterable[BelowServer], name_or_id: str) -> list[BelowServer]:
    """Those with this name or this id, and those on the way to them; all of them for an empty one."""
    everyone = list(servers)
    if not name_or_id:
        return everyone
    found = [each for each in everyone if name_or_id in (each.name, each.path.rpartition("/")[2])]
    wanted = {(each.via, way) for each in found for way in _way(each.path)}
    return [each for each in everyone if (each.via, each.path) in wanted]


def _way(path: str) -> Iterator[str]:
    """The paths of all servers on the way down to a path, and itself."""
    ids = path.split("/")
    yield from ("/".join(ids[: depth + 1]) for depth in range(len(ids)))


def _moment(seconds: int, now: int) -> int:
    return max(0, min(seconds, now, _LATEST))
