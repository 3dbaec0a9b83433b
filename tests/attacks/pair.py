"""A primary and a real secondary with handlers, in the test's own process: what the one sends, the other does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enlist import documents
from enlist.documents import Item, SetVersion
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, policy_pb2, task_pb2
from enlist.v1.document_pb2 import SignedSet
from enlist_primary.links.registry import Link
from enlist_secondary.keeper import Keeper
from enlist_secondary.work import Work
from tests.attacks.world import Records, recorded
from tests.support.inprocess import ACCOUNT, Running, running_primary
from tests.support.secondaries import Secondary, set_up
from tests.support.waiting import eventually

PARENT = f"accounts/{ACCOUNT}"
SET_REFUSED, WORD_REFUSED = "a desired set was refused", "a word on the primaries above was refused"
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
    mark: int = 0

    @property
    def id(self) -> str:
        """The server's id."""
        return self.secondary.state.server_id

    @property
    def work(self) -> Work:
        """The secondary's engine."""
        assert self.keeper._work is not None
        return self.keeper._work

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

    def instead(self, encoded: bytes) -> SignedSet:
        """What is sent when the primary signs."""
        if self.lies:
            return self.lies.pop(0)
        self.signed.append(self.truly(encoded))
        return self.signed[-1]

    async def send(self, signed: SignedSet) -> None:
        """Puts this set into the open link, whatever the primary wants."""
        self.lies.append(signed)
        link = self.link
        assert link.deliver is not None
        link.deliver(link.wanted, SetVersion(1, 1))
        await eventually(lambda: not self.lies, what="the set on its way")

    def said(self, event: str) -> list[Any]:
        """The log's records of an event since this test began."""
        return [each for each in self.records.records[self.mark :] if each.getMessage() == event]

    async def refuses(self, event: str = SET_REFUSED) -> Any:
        """Waits until the secondary has refused a set, or a word on who stands above; the log's record of it."""
        return (await eventually(lambda: self.said(event), 5, what="the refusal"))[-1]


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
            pair = Pair(running, secondary, keeper, records, folder, signer.sign_set)
            patch.setattr(signer, "sign_set", pair.instead)
            keeping = asyncio.create_task(keeper.keep())
            try:
                await secondary.connects()
                await eventually(lambda: running.primary.context.hub.connected(ACCOUNT, pair.id), what="the link")
                yield pair
            finally:
                keeping.cancel()
                await asyncio.wait({keeping})


def bodies(*given: bytes) -> bytes:
    """Bodies as they stand behind a set in a message."""
    return hierarchy_pb2.FromPrimary(bodies=given).SerializeToString()
