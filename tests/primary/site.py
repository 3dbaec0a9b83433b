"""A real primary in the test's own process whose servers are links and words only: a test opens the ones, and speaks the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from enlist.documents import ItemVersion
from enlist.names import resource
from enlist.runtime import sockets
from enlist.v1 import account_pb2, hierarchy_pb2, journal_pb2, policy_pb2_grpc
from enlist.v1 import policy_pb2 as pb
from enlist_primary.changes.publisher import PresenceChange
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.links.registry import Link
from enlist_primary.model.reports import Word
from enlist_primary.store import desired
from enlist_primary.store import servers as rows
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary, serving

KIND = "chrony"


@dataclass
class Site:
    """A primary with servers by name, whose links a test opens and whose words it speaks."""

    running: Running
    stub: policy_pb2_grpc.PolicyServiceAsyncStub
    ids: dict[str, str] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)

    # --- Servers ------------------------------------------------------------------------------------------------------------

    async def group(self, path: str) -> str:
        request = hierarchy_pb2.CreateGroupRequest(parent=resource("accounts", ACCOUNT), path=path)
        return (await self.running.admin.hierarchy.CreateGroup(request)).path

    async def server(self, name: str, group: str) -> None:
        """A trusted server that is connected."""
        key = await self.running.api_key(kind=account_pb2.API_KEY_KIND_FULL, group=group)
        async with self.running.stranger() as stub:
            self.ids[name] = (await Asker(self.running, name).register(stub, key)).server_id
        self.connect(name)

    def connect(self, name: str) -> None:
        own = self.running.primary.context
        self.links[name] = own.hub.open(ACCOUNT, self.ids[name], own.now() + 10**6)
        own.observations.connected(ACCOUNT, self.ids[name], "127.0.0.1", "1", own.now())
        own.changes.publish(PresenceChange(ACCOUNT, [self.ids[name]]))

    def disconnect(self, name: str) -> None:
        own = self.running.primary.context
        own.hub.close(self.links[name])
        own.observations.disconnected(ACCOUNT, self.ids[name], own.now())
        own.changes.publish(PresenceChange(ACCOUNT, [self.ids[name]]))

    async def desired(self, name: str, kind: str = KIND) -> tuple[ItemVersion, ...]:
        """What is desired at the server now."""
        database = self.running.primary.context.database
        layout = await database.read(desired.layout, ACCOUNT)
        row = await database.read(rows.load, ACCOUNT, self.ids[name])
        return layout.desired(row.id, row.group_id).versions(f"policy/{kind}")

    async def say(
        self, name: str, state: str = "applied", message: str = "", observed: tuple[ItemVersion, ...] | None = None
    ) -> None:
        """The server says how what is desired there fares, or what it observed instead."""
        own = self.running.primary.context
        if observed is None:
            observed = await self.desired(name)
        applied = observed if state == "applied" else ()
        own.reports.put(ACCOUNT, Word(self.ids[name], f"policy/{KIND}", "", state, own.now(), message, observed, applied))

    # --- Policies -----------------------------------------------------------------------------------------------------------

    async def set(self, group: str, settings: Any, *locks: str, stages: pb.Stages | None = None, kind: str = KIND) -> pb.Policy:
        text = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
        layer = pb.Layer(settings=text, locks=locks)
        return await self.stub.SetPolicy(pb.SetPolicyRequest(key=key(group, kind), layer=layer, stages=stages))

    async def get(self, group: str) -> pb.Policy:
        return await self.stub.GetPolicy(pb.GetPolicyRequest(key=key(group)))

    async def head(self) -> int:
        request = journal_pb2.ListEntriesRequest(parent=resource("accounts", ACCOUNT), after=10**9)
        return (await self.running.admin.journal.ListEntries(request)).head


def key(group: str, kind: str = KIND) -> pb.PolicyKey:
    return pb.PolicyKey(parent=resource("accounts", ACCOUNT), group=group, kind=kind)


def counts(policy: pb.Policy) -> dict[str, int]:
    """The counts that are not 0."""
    return {name.name: value for name, value in policy.counts.ListFields() if isinstance(value, int)}


@asynccontextmanager
async def at_site(path: Path) -> AsyncIterator[Site]:
    """A new primary."""
    async with running_primary(path) as running, _administrator(running) as stub:
        yield Site(running, stub)


@asynccontextmanager
async def at_site_again(folder: DataFolder, config: Config, ids: dict[str, str]) -> AsyncIterator[Site]:
    """One that was there before, with the servers that it had."""
    async with serving(folder, config) as running, _administrator(running) as stub:
        yield Site(running, stub, ids)


@asynccontextmanager
async def _administrator(running: Running) -> AsyncIterator[policy_pb2_grpc.PolicyServiceAsyncStub]:
    with sockets.target(running.folder.admin_socket) as target:
        async with grpc.aio.insecure_channel(target) as channel:
            yield policy_pb2_grpc.PolicyServiceStub(channel)
