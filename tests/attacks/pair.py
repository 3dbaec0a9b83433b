"""A primary and a real secondary with handlers, in the test's own process: what the one sends, the other does."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.message import DecodeError

from enlist import documents
from enlist.documents import Item, SetVersion
from enlist.link.ends import PrimaryEnd
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, document_pb2, policy_pb2, task_pb2
from enlist.v1.document_pb2 import DesiredSet, SignedSet
from enlist.v1.hierarchy_pb2 import BodyPiece, FromPrimary, FromSecondary, Hello, SetAck, SetRefused
from enlist_primary.links import link as link_module
from enlist_primary.links.publisher import Piece
from enlist_primary.links.registry import Link
from enlist_primary.model.desired import Desired
from enlist_secondary.keeper import Keeper
from tests.attacks.world import Records, recorded
from tests.support.inprocess import ACCOUNT, Running, running_primary
from tests.support.secondaries import Secondary, set_up
from tests.support.sets import signed_by
from tests.support.waiting import eventually

PARENT = f"accounts/{ACCOUNT}"
SET_REFUSED, WORD_REFUSED = "a desired set was refused", "ancestry refused"
PIECE_REFUSED = "a piece of a body was not taken"
TELL = """
import json, sys
given = json.load(sys.stdin)
with open(sys.argv[1], "a") as told:
    print(json.dumps([sys.argv[1:], given]), file=told)
print(given.get("say", ""))
sys.exit(given.get("exit", 0))
"""
"""A program that notes its arguments and what it was given, each time it is run; it says and ends as it is told."""


@dataclass
class Pair:
    """The two, what was logged, and where handlers leave their traces."""

    running: Running
    secondary: Secondary
    keeper: Keeper
    records: Records
    folder: Path
    truly: Callable[[bytes], SignedSet]
    """How the primary signs, when nobody meddles."""
    lies: list[SignedSet] = field(default_factory=list)
    """What is sent instead of the sets that are signed next."""
    signed: list[SignedSet] = field(default_factory=list)
    """What the primary signed for this server and sent."""
    answered: set[tuple[str, int, int]] = field(default_factory=set)
    """What the secondary has answered, or said in a hello that it holds."""
    lied: list[tuple[tuple[str, int, int], SetVersion]] = field(default_factory=list)
    """What the lies that were sent say they are, and which sets the primary takes them for."""
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    """Bodies that are sent although the primary has none like them, by digest."""
    besides: list[FromPrimary] = field(default_factory=list)
    """Messages that are sent besides the primary's own."""
    hellos: list[Hello] = field(default_factory=list)
    """What the secondary said of itself each time the link opened."""
    opened: Link | None = None
    """The link that a test begins with, or that it opened anew."""
    mark: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def id(self) -> str:
        """The server's id."""
        return self.secondary.state.server_id

    @property
    def link(self) -> Link:
        """The primary's end of the link."""
        found = self.running.primary.context.hub.find(ACCOUNT, self.id)
        assert found is not None
        return found

    # --- What the primary wants ---------------------------------------------------------------------------------------------

    async def set(self, settings: Any, kind: str = "motd", group: str = "/") -> policy_pb2.Policy:
        """Sets a policy."""
        key = policy_pb2.PolicyKey(parent=PARENT, group=group, kind=kind)
        text = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
        request = policy_pb2.SetPolicyRequest(key=key, layer=policy_pb2.Layer(settings=text))
        return await self.running.admin.policies.SetPolicy(request)

    async def run(self, args: Any, kind: str = "note", **target: str) -> task_pb2.Task:
        """Runs a task."""
        asked = task_pb2.TaskTarget(**(target or {"group": "/"}))
        request = task_pb2.RunTaskRequest(parent=PARENT, kind=kind, args=json.dumps(args).encode(), target=asked)
        return await self.running.admin.tasks.RunTask(request)

    async def results(self, task: task_pb2.Task) -> list[task_pb2.TaskResult]:
        """How a run fares."""
        return list((await self.running.admin.tasks.ListTaskResults(task_pb2.ListTaskResultsRequest(name=task.name))).results)

    async def over(self, task: task_pb2.Task) -> task_pb2.TaskResult:
        """Waits until a run has ended here."""

        async def ended() -> bool:
            (result,) = await self.results(task)
            return result.state > document_pb2.TASK_STATE_RUNNING

        await eventually(ended, what="the end of the run")
        return (await self.results(task))[0]

    # --- What the secondary does --------------------------------------------------------------------------------------------

    def told(self, kind: str = "motd") -> list[list[Any]]:
        """Each time the program of a kind was run: its arguments, and what it was given."""
        path = self.folder / kind
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def in_force(self) -> Any:
        """The settings that are in force; None if there never were any."""
        told = self.told()
        return told[-1][1] if told else None

    async def comes_into_force(self, settings: Any) -> None:
        """Waits for it."""
        await eventually(lambda: self.in_force() == settings, what=f"{settings} in force")

    def kept(self) -> bytes:
        """The primary's own set on the secondary's disk."""
        return (self.secondary.config.folder / "documents" / f"{self.running.authority.fingerprint}.set").read_bytes()

    # --- What goes wrong between the two ----------------------------------------------------------------------------------------

    def sign(self, items: list[Item], number: int, epoch: int = 1, account: str = ACCOUNT, target: str | None = None) -> SignedSet:
        """A set under the primary's real signature."""
        encoded = documents.encode(
            account, self.id if target is None else target, SetVersion(epoch, number), documents.encode_items(items)
        )
        return self.truly(encoded)

    def instead(self, account: str, encode: Callable[[], bytes], size: int) -> Callable[[], SignedSet]:
        """What is sent when the primary signs."""
        return partial(self._instead, encode)

    def _instead(self, encode: Callable[[], bytes]) -> SignedSet:
        if self.lies:
            return self.lies.pop(0)
        self.signed.append(self.truly(encode()))
        return self.signed[-1]

    async def send(self, signed: SignedSet, *bodies: bytes) -> None:
        """Puts this set into the open link, and what it names, whatever the primary wants."""
        # An answer that is still on its way could be one to a lie of the same version.
        await eventually(lambda: not self.signed or _key(self.signed[-1]) in self.answered, what="the answer to the newest set")
        link, number = self.link, next(self.numbers)
        own = {documents.digest(body): body for body in bodies}
        self.bodies |= own
        meant = Desired(tuple(Item("lie", str(number), 1, digest) for digest in {*link.wanted.digests, *own}))
        self.lies.append(signed)
        self.lied.append((_key(signed), SetVersion(0, number)))
        assert link.deliver is not None
        link.deliver(meant, SetVersion(0, number))
        await eventually(lambda: not self.lies, what="the set on its way")

    async def open_anew(self) -> None:
        """Ends the link, and waits for the next one."""
        hub, before = self.running.primary.context.hub, self.link
        before.end(Refused(Reason.INTERNAL, "The test ends this link."))

        def opened() -> bool:
            link = hub.find(ACCOUNT, self.id)
            return link is not None and link is not before and link.attached

        await eventually(opened, what="the next link")
        self.opened = self.link

    async def say(self, message: FromPrimary) -> None:
        """Puts a message without a set into the open link."""
        self.besides.append(message)
        assert self.link.on_ancestors is not None
        self.link.on_ancestors()
        await eventually(lambda: not self.besides, what="the message on its way")

    def meant(self, answer: SetAck | SetRefused) -> None:
        """The answer to a lie becomes one to the set that the primary takes it for: it knows of no lie."""
        key = answer.origin, answer.epoch, answer.number
        self.answered.add(key)
        for lie in self.lied:
            if lie[0] == key:
                self.lied.remove(lie)
                answer.origin = self.running.authority.primary_id
                answer.epoch, answer.number = lie[1]
                return

    def said(self, event: str) -> list[Any]:
        """The log's records of an event since this test began."""
        return [each for each in self.logged() if each.getMessage() == event]

    def logged(self) -> list[Any]:
        """All records since this test began."""
        return self.records.records[self.mark :]

    async def refuses(self, event: str = SET_REFUSED) -> Any:
        """Waits until the secondary has refused a set, or a word on who stands above; the log's record of it."""
        return (await eventually(lambda: self.said(event), 5, what="the refusal"))[-1]


class Meddler(PrimaryEnd):
    """The primary's end of the link, with somebody in between who says what the test says."""

    def __init__(self, pair: Pair, challenge: bytes, server_key: bytes, authority_key: bytes) -> None:
        super().__init__(challenge, server_key, authority_key)
        self._pair = pair

    def on_hello(self, message: FromSecondary) -> Hello:
        """Notes what the secondary says of itself."""
        hello = super().on_hello(message)
        self._pair.hellos.append(hello)
        self._pair.answered.update((each.origin, each.epoch, each.number) for each in hello.held)
        return hello

    def on_message(self, message: FromSecondary, now: float) -> None:
        """Takes the answers to lies for what the primary meant."""
        for ack in message.set_acks:
            self._pair.meant(ack)
        for refused in message.set_refusals:
            self._pair.meant(refused)
        super().on_message(message, now)

    @property
    def answers_ready(self) -> bool:
        """Whether there is something to say, of its own or not."""
        return bool(self._pair.besides) or super().answers_ready

    def answers(self) -> FromPrimary:
        """What is said besides comes first."""
        return self._pair.besides.pop(0) if self._pair.besides else super().answers()


@asynccontextmanager
async def paired(folder: Path, patch: pytest.MonkeyPatch, **config: Any) -> AsyncIterator[Pair]:
    """The two, with the link open. A policy `motd` and a task `note` are written down in files of their names."""
    with recorded() as records:
        async with running_primary(folder, **config) as running:
            api_key = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
            written = set_up(folder / "secondary", running, api_key)
            command = [sys.executable, "-I", "-S", "-c", TELL]
            handlers = {
                "policy": {"motd": {"type": "exec", "command": [*command, str(folder / "motd"), "--fixed"]}},
                "task": {"note": {"type": "exec", "command": [*command, str(folder / "note"), "--fixed"]}},
            }
            secondary = Secondary(written.path, msgspec.structs.replace(written.config, handlers=handlers))
            keeper = Keeper(secondary.config, Dialer())
            signer = running.primary.context.signer
            pair = Pair(running, secondary, keeper, records, folder, partial(signed_by, signer))
            patch.setattr(signer.sets, "add", pair.instead)
            patch.setattr(link_module, "PrimaryEnd", partial(Meddler, pair))
            patch.setattr(running.primary.context.desires, "piece", partial(_piece, pair, running.primary.context.desires.piece))
            keeping = asyncio.create_task(keeper.keep())
            try:
                await secondary.connects()
                await eventually(lambda: running.primary.context.hub.connected(ACCOUNT, pair.id), what="the link")
                yield pair
            finally:
                keeping.cancel()
                await asyncio.wait({keeping})


def piece(body: bytes, digest: bytes | None = None) -> Piece:
    """A whole body that fits into one piece, under its digest or another one."""
    digest = documents.digest(body) if digest is None else digest
    message = FromPrimary(pieces=[BodyPiece(digest=digest, data=body, size=len(body))])
    return Piece(message.SerializeToString(), len(body), len(body))


_Found = Callable[[str, bytes, int, bytes | None], Awaitable[Piece | None]]


async def _piece(pair: Pair, found: _Found, account: str, digest: bytes, offset: int, large: bytes | None = None) -> Piece | None:
    if digest in pair.bodies:
        return piece(pair.bodies[digest])
    return await found(account, digest, offset, large)


def _key(signed: SignedSet) -> tuple[str, int, int]:
    """How a server names a set in its answer: by what that says, true or not."""
    try:
        said = DesiredSet.FromString(signed.desired_set)
    except DecodeError:
        said = DesiredSet()
    return signed.origin, said.epoch, said.number
