"""An origin that signs desired sets, and the clock by which a server reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates, documents, layers, values
from enlist.documents import Item, Origin, SetVersion
from enlist.layers import Layer
from enlist.link.pace import PIECE
from enlist.link.receiver import Replies
from enlist.reasons import Refused
from enlist.v1 import document_pb2 as pb
from enlist.v1 import hierarchy_pb2
from enlist_secondary.documents import Documents
from tests.support.sets import signed_alone

ACCOUNT = "acme.example"
SERVER = "aaaaaaaaaa"
START = 1_800_000_000


@dataclass
class Times:
    """A clock that is set by hand, and the seconds that go by."""

    now: float = START
    elapsed: float = 100.0

    def clock(self) -> float:
        """What the clock shows."""
        return self.now

    def stopwatch(self) -> float:
        """What goes by, whatever the clock shows."""
        return self.elapsed

    def pass_by(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.elapsed += seconds


@dataclass(frozen=True)
class Wish:
    """Something an origin wants: an item, and its body."""

    item: Item
    body: bytes


def wish(kind: str, name: str, revision: int, body: bytes, confirm_seconds: int = 0) -> Wish:
    """Any wish."""
    return Wish(Item(kind, name, revision, documents.digest(body), confirm_seconds), body)


def policy(revision: int, settings: dict[str, Any], kind: str = "motd", confirm: int = 0, name: str = "/", **layer: Any) -> Wish:
    """A layer of a policy."""
    body = layers.encode(Layer(settings, **layer))
    return wish(documents.POLICY + kind, name, revision, body, confirm)


def window(revision: int, start: str, seconds: int = 3600, zone: str = "") -> Wish:
    """A maintenance window."""
    return wish(documents.WINDOW, "/", revision, values.dumps({"start": start, "seconds": seconds, "zone": zone}))


def run(
    id: str, revision: int, kind: str = "update", deadline: int = START + 600, below: bool = False, only: str = "", **args: Any
) -> Wish:
    """A run of a task."""
    whom = {**({"below": True} if below else {}), **({"only": only} if only else {})}
    body = values.dumps({"run": id, "kind": kind, "args": args, "deadline": deadline, **whom})
    return wish(documents.TASK + kind, id, revision, body)


def run_id(number: int) -> str:
    """The id of a run, by a number below 32^4."""
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "r" * 6 + "".join(letters[number >> shift & 31] for shift in (15, 10, 5, 0))


@dataclass
class Primary:
    """An origin. `sets` has every set it ever signed, by what was signed."""

    account: str = ACCOUNT
    target: str = SERVER
    key: ec.EllipticCurvePrivateKey = field(default_factory=certificates.new_key)
    epoch: int = 1
    number: int = 0

    @property
    def origin(self) -> Origin:
        """As the server knows it."""
        return Origin(certificates.spki(self.key.public_key()), self.account, self.target)

    @property
    def name(self) -> str:
        """Its fingerprint."""
        return self.origin.primary_id

    def sign(self, wishes: Sequence[Wish], version: SetVersion | None = None, target: str | None = None) -> pb.SignedSet:
        """A set of these wishes under the next version, or the given one."""
        if version is None:
            self.number += 1
            version = SetVersion(self.epoch, self.number)
        items = documents.encode_items([wish.item for wish in wishes])
        encoded = documents.encode(self.account, self.target if target is None else target, version, items)
        return signed_alone(partial(documents.sign, self.key), self.name, encoded)


class Line:
    """A link that has opened over the documents of a server: what a primary sends over it, in order.

    The link before it is over: what was sent and not heard is lost.
    """

    def __init__(self, held: Documents, hello: hierarchy_pb2.Hello | None = None) -> None:
        """`hello` is the one that was said already: the link before it was open until now."""
        self.hello = hierarchy_pb2.Hello()
        if hello is None:
            held.introduce(self.hello)
        else:
            self.hello.CopyFrom(hello)
        held.linked()
        self._held = held
        self._numbers = count(1)

    def bring(self, signed: pb.SignedSet | None = None, whole: Iterable[bytes] = ()) -> Refused | None:
        """One message with this set and these bodies; why the set was refused, if it was."""
        return self.take(self.message(signed, [piece for body in whole for piece in pieces(body)]))

    def message(self, signed: pb.SignedSet | None, carried: Iterable[hierarchy_pb2.BodyPiece]) -> hierarchy_pb2.FromPrimary:
        """The next message."""
        return hierarchy_pb2.FromPrimary(sequence=next(self._numbers), desired=signed, pieces=carried)

    def take(self, message: hierarchy_pb2.FromPrimary) -> Refused | None:
        """A message arrives."""
        refused, _ = self._held.take(message)
        return refused

    def answers(self) -> Replies:
        """What is told to the primary now."""
        return self._held.receiver.replies()


def pieces(body: bytes) -> list[hierarchy_pb2.BodyPiece]:
    """A body as it travels."""
    digest, size = documents.digest(body), len(body)
    return [
        hierarchy_pb2.BodyPiece(digest=digest, offset=offset, data=body[offset : offset + PIECE], size=size)
        for offset in range(0, max(size, 1), PIECE)
    ]


def bodies(wishes: Sequence[Wish]) -> list[bytes]:
    """The bodies of wishes."""
    return [wish.body for wish in wishes]


def said(report: pb.Report) -> dict[str, Any]:
    """A report in short, for comparing."""
    if report.name:
        state = pb.TaskState.Name(report.task_state).removeprefix("TASK_STATE_").lower()
        return {"run": report.name, "state": state, "message": report.message}
    state = pb.DocumentState.Name(report.state).removeprefix("DOCUMENT_STATE_").lower()
    meant, running = (_revisions(each) for each in (report.observed_items, report.applied_items))
    return {"state": state, "meant": meant, "running": running, "message": report.message}


def _revisions(items: Iterable[pb.OriginItems]) -> dict[str, tuple[int, ...]]:
    return {each.origin: tuple(item.revision for item in each.items) for each in items}


def shown(value: Any) -> str:
    """Settings in one way of writing."""
    return json.dumps(value, sort_keys=True)
