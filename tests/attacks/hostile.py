"""A secondary that was authorized and says whatever it likes, beside an honest one in the same group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from enlist import certificates
from enlist.documents import Item
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, policy_pb2, server_pb2, task_pb2, trust_pb2
from enlist.v1.document_pb2 import ItemVersion, OriginItems
from enlist_primary.authority.signer import Signer
from enlist_primary.store.database import Row, Transaction
from tests.attacks.world import World, server_name
from tests.support import links
from tests.support.inprocess import ACCOUNT, Asker
from tests.support.links import LinkClient
from tests.support.waiting import eventually

KINDS = ("policy/chrony", "task/restart")
PARENT = f"accounts/{ACCOUNT}"
SAID = ("policy_report", "task_result", "below_server")
"""The tables that hold what servers said."""


@dataclass
class Speaker:
    """A server whose daemon is this test: it says what the test says, and keeps what it gets."""

    world: World
    id: str
    asker: Asker
    link: LinkClient

    @property
    def ended(self) -> grpc.aio.AioRpcError | None:
        """What the primary ended its link with."""
        return self.link.ended

    @property
    def origin(self) -> str:
        """The primary, as reports name it."""
        return self.world.running.authority.fingerprint

    def answers(self) -> list[Any]:
        """What it was told of the primary on its host."""
        return [message.lower_answer for message in self.link.got if message.HasField("lower_answer")]

    def wanted(self) -> tuple[Item, ...]:
        """The items of the newest set it got."""
        return self.link.items

    def desired(self, kind: str = "policy/chrony") -> list[ItemVersion]:
        """What it is to have in force."""
        return [ItemVersion(revision=item.revision, digest=item.digest) for item in self.wanted() if item.kind == kind]

    def policy(self, items: list[ItemVersion], **fields: Any) -> document_pb2.Report:
        """A word on the policy it was given: applied, unless said otherwise."""
        of_origin = [OriginItems(origin=self.origin, items=items)]
        applied = document_pb2.DOCUMENT_STATE_APPLIED
        said = {"kind": "policy/chrony", "state": applied, "observed_items": of_origin, "applied_items": of_origin, **fields}
        return document_pb2.Report(**said)

    def run(self, name: str, **fields: Any) -> document_pb2.Report:
        """A word on a run: succeeded, unless said otherwise."""
        said = {"kind": "task/restart", "name": name, "task_state": document_pb2.TASK_STATE_SUCCEEDED, **fields}
        return document_pb2.Report(**said)

    async def say(self, *reports: document_pb2.Report) -> None:
        """Reports, in one message."""
        await self.link.report(*reports)

    async def say_below(self, *servers: hierarchy_pb2.BelowServer, **fields: Any) -> None:
        """What stands below it, so it says."""
        await self.link.report_below(servers, **fields)

    async def say_lower(self, signer: Signer, number: int = 1, **fields: Any) -> None:
        """That the primary of this authority stands on its host, and consents to stand below."""
        present = document_pb2.ANCESTOR_STATE_PRESENT
        parent = self.world.running.authority.primary_id
        said = {"parent_primary_id": parent, "epoch": 1, "number": number, "state": present, **fields}
        consent = document_pb2.Consent(**said).SerializeToString()
        lower = hierarchy_pb2.LowerPrimary(
            primary_name="lower",
            authority_certificate=certificates.der(signer.authority.certificate),
            consent=consent,
            consent_signature=signer.sign_consent(consent),
        )
        await self.link.send(lower=lower)

    async def through(self) -> None:
        """Until all that it said was heard and written down; it says nothing more after this."""
        await self.link.stream.done_writing()
        await eventually(lambda: self.link.stream.done(), what="the end of the link")
        own = self.world.running.primary.context
        await own.reports.flush()
        await own.below.flush()
        await own.database.write(ACCOUNT, lambda tx: None)  # stands in line behind what was on its way already


@dataclass
class Yard:
    """A group with a policy and a task, a hostile server in it, and an honest one."""

    world: World
    group: str
    revision: int
    run: str
    task: str
    hostile: Speaker
    sibling: Speaker

    async def said(self) -> dict[str, list[Row]]:
        """All that servers said, ever."""
        return await self.world.running.primary.context.database.read(_said)

    async def of(self, table: str, id: str) -> list[Row]:
        """What is written down of one server."""
        return [row for row in (await self.said())[table] if row["server_id"] == id]

    async def counts(self) -> policy_pb2.PolicyCounts:
        """How the policy fares."""
        key = policy_pb2.PolicyKey(parent=PARENT, group=self.group, kind="chrony")
        return (await self.world.running.admin.policies.GetPolicy(policy_pb2.GetPolicyRequest(key=key))).counts

    async def allow(self, speaker: Speaker, may: bool = True) -> None:
        """Whether a primary may stand below a server; if not any more, nothing stays there."""
        request = trust_pb2.AuthorizeServerRequest(name=server_name(speaker.id), may_have_secondaries=may)
        request.bequest = trust_pb2.BEQUEST_UNSPECIFIED if may else trust_pb2.BEQUEST_DELETE
        await self.world.running.admin.trust.AuthorizeServer(request)


def made_up(*revisions: int, digest: bytes = b"d" * 32) -> list[ItemVersion]:
    """Items that no primary ever made."""
    return [ItemVersion(revision=revision, digest=digest) for revision in revisions]


def _said(tx: Transaction) -> dict[str, list[Row]]:
    return {table: tx.rows(f"SELECT * FROM {table}") for table in SAID}


@asynccontextmanager
async def speaking(world: World, name: str, group: str) -> AsyncIterator[Speaker]:
    """A trusted server in a group, with an open link."""
    asker = world.asker(name)
    key = await world.api_key(kind=account_pb2.API_KEY_KIND_FULL, group=group)
    async with world.running.stranger() as stub:
        id = (await asker.register(stub, key)).server_id
    async with linked(world, asker, id) as speaker:
        yield speaker


@asynccontextmanager
async def linked(world: World, asker: Asker, id: str, **hello: Any) -> AsyncIterator[Speaker]:
    """A link of a server that is trusted."""
    async with links.linked(asker, listening=True, **{"kinds": KINDS, **hello}) as link:
        yield Speaker(world, id, asker, link)


@asynccontextmanager
async def yard(world: World, group: str) -> AsyncIterator[Yard]:
    """The group, with both links open and both sets delivered."""
    admin = world.running.admin
    await admin.hierarchy.CreateGroup(hierarchy_pb2.CreateGroupRequest(parent=PARENT, path=group))
    key = policy_pb2.PolicyKey(parent=PARENT, group=group, kind="chrony")
    layer = policy_pb2.Layer(settings=b'{"pool": "ntp.acme.example"}')
    policy = await admin.policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer))
    async with speaking(world, "hostile", group) as hostile, speaking(world, "sibling", group) as sibling:
        target = task_pb2.TaskTarget(server_id=sibling.id)
        task = await admin.tasks.RunTask(task_pb2.RunTaskRequest(parent=PARENT, kind="restart", target=target))
        await eventually(lambda: hostile.desired() and len(sibling.wanted()) == 2, what="both sets")
        found = Yard(world, group, policy.revision, task.run.id, task.name, hostile, sibling)

        async def sent() -> bool:
            return [row["state"] for row in await found.of("task_result", sibling.id)] == ["sent"]

        await eventually(sent, what="the run to be noted as sent")
        yield found
    await admin.tasks.CancelTask(task_pb2.CancelTaskRequest(name=task.name))
    await admin.policies.RemovePolicy(policy_pb2.RemovePolicyRequest(key=key))


def below(path: str, **fields: Any) -> hierarchy_pb2.BelowServer:
    """A server below, so it is said."""
    said = {"path": path, "display_name": "x", "state": server_pb2.SERVER_STATE_TRUSTED, "connected": True, **fields}
    return hierarchy_pb2.BelowServer(**said)
