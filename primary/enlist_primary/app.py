"""A primary that serves: built, started, kept, stopped."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from enlist import certificates, names
from enlist.reasons import Refused
from enlist.runtime import config as toml
from enlist.runtime import files, sockets
from enlist.runtime.logs import Log
from enlist.v1 import (
    account_pb2_grpc,
    hierarchy_pb2_grpc,
    journal_pb2_grpc,
    policy_pb2_grpc,
    registration_pb2_grpc,
    task_pb2_grpc,
    trust_pb2_grpc,
    upstream_pb2_grpc,
)
from enlist_primary.authority.signer import Signer
from enlist_primary.changes.directory import Directory
from enlist_primary.changes.publisher import AncestorChange, ChangePublisher, Changes, PresenceChange
from enlist_primary.changes.tail import Tail
from enlist_primary.config import Config
from enlist_primary.controllers.housekeeping import SWEEP_SECONDS, Housekeeping
from enlist_primary.controllers.rollouts import Rollouts
from enlist_primary.controllers.tasks import Scheduler
from enlist_primary.datafolder import DataFolder
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.child_primary import Children
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.federation.subtree import Subtree
from enlist_primary.ingest.observations import Observations
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.links.inbox import Inbox
from enlist_primary.links.link import Links
from enlist_primary.links.publisher import Desires
from enlist_primary.links.registry import Hub, shutting_down
from enlist_primary.links.waiters import WaitingRoom
from enlist_primary.rpc import listeners
from enlist_primary.rpc.access import Access
from enlist_primary.rpc.accounts import Accounts
from enlist_primary.rpc.attempts import Attempts
from enlist_primary.rpc.context import Context, Ports, Served
from enlist_primary.rpc.health import Health
from enlist_primary.rpc.hierarchy import Hierarchy
from enlist_primary.rpc.journal import Journal
from enlist_primary.rpc.listeners import Credential
from enlist_primary.rpc.policies import Policies
from enlist_primary.rpc.registration import Registration
from enlist_primary.rpc.tasks import Tasks
from enlist_primary.rpc.trust import Trust
from enlist_primary.rpc.upstream import Upstream
from enlist_primary.store.database import Database

EVERY_ADDRESS = ("::", "0.0.0.0")  # noqa: S104  # what a configuration says, compared here, bound only if it says so
GRACE_SECONDS = 3.0
"""Seconds that running RPCs get to end after the links were told."""

HEALTH_TIMEOUT = 1.0
"""Seconds within which those who watch the health are told that the primary stops."""

log = Log("primary")


class Primary:
    """One primary process: the context its servicers share, its listeners and its few tasks."""

    def __init__(
        self, folder: DataFolder, config: Config, signer: Signer, database: Database, clock: Callable[[], float] = time.time
    ) -> None:
        self.broken = asyncio.Event()
        self._folder = folder
        self._handed_down = 0
        self._directory = Directory(database)
        changes = ChangePublisher()
        attempts = Attempts(config.limits.attempts_per_minute, time.monotonic)
        observations = Observations(database, clock=clock)
        hub = Hub()
        reports = StatusReports(database, clock)
        below = Descendants(database, signer.authority.primary_id, changes.publish, clock)
        reach = Reachability(hub, observations, below, int(clock()), signer.authority.primary_id)
        self._access = Access(self._directory, database, attempts, observations, clock)
        self.context = Context(
            config=config,
            addresses=_addresses(config),
            certificate_lifetime=toml.duration(config.certificates.lifetime),
            signer=signer,
            database=database,
            changes=changes,
            hub=hub,
            waiting=WaitingRoom(),
            observations=observations,
            desires=Desires(database, hub),
            reports=reports,
            upper=Upper(database, signer, changes.publish, clock),
            below=below,
            reach=reach,
            subtree=Subtree(database, hub, observations, below, reach, signer.authority),
            attempts=attempts,
            ports=Ports(),
            served=Served(),
            started=int(clock()),
            clock=clock,
        )
        self._links = self._make_links()
        self._tail = Tail(database, self._directory, changes.publish)
        self._rollouts = Rollouts(database, reach.view, clock)
        self._scheduler = Scheduler(database, reach.view, self.context.new_id, clock)
        self._housekeeping = Housekeeping(database, hub, self._renew_when_due, clock)
        self._subscribe()
        root = certificates.pem(signer.authority.certificate)
        self._ssl = Credential(*self._own_certificate(), root)
        self._api = Credential(*self._api_certificate(), None)
        self._note_served()

    def _make_links(self) -> Links:
        own = self.context
        return Links(
            primary_name=own.config.name,
            signer=own.signer,
            registry=own.hub,
            publisher=own.desires,
            ancestors=own.upper,
            children=Children(own.signer, own.database, own.upper, own.below, own.clock),
            inbox=Inbox(own.reports, own.below, own.subtree, own.upper, own.desires, own.clock),
            observations=own.observations,
            changes=own.changes,
            clock=own.clock,
            random_bytes=own.random_bytes,
        )

    def _subscribe(self) -> None:
        """Who reacts to what, in this order: links end before anything else is done about a server."""
        own = self.context
        own.changes.subscribe(Changes, self._judge)
        own.changes.subscribe(Changes, own.waiting.on_changes)
        own.changes.subscribe(Changes, own.desires.bring)
        own.changes.subscribe(Changes, own.upper.on_changes)
        own.changes.subscribe(Changes, own.below.on_changes)
        own.changes.subscribe(Changes, own.subtree.on_changes)
        own.changes.subscribe(Changes, self._rollouts.on_changes)
        own.changes.subscribe(Changes, self._scheduler.on_changes)
        own.changes.subscribe(PresenceChange, own.reach.on_presence)
        own.changes.subscribe(PresenceChange, own.subtree.on_presence)
        own.changes.subscribe(PresenceChange, self._rollouts.on_presence)
        own.changes.subscribe(AncestorChange, self._hand_down)

    # --- Certificates -----------------------------------------------------------------------------------------------------------

    def _own_certificate(self) -> tuple[bytes, bytes]:
        own = self.context
        return listeners.own_certificate(own.signer, own.addresses, own.certificate_lifetime, own.now())

    def _api_certificate(self) -> tuple[bytes, bytes]:
        chosen = self.context.config.certificates
        if not chosen.api_certificate:
            return self._own_certificate()
        base = self._folder.path
        return listeners.company_certificate(base / chosen.api_certificate, base / chosen.api_key_file)

    def _note_served(self) -> None:
        served = self.context.served
        served.statement = self.context.signer.statement(certificates.der(self._api.leaf))
        served.ssl_certificate_ends = certificates.ends_at(self._ssl.leaf)

    def renew_certificates(self) -> None:
        """Makes the primary's own certificates anew and reads the company's again; open connections stay.

        A company certificate that is not good is refused, and the one before stays; the primary's own is renewed all the same.
        """
        try:
            self._ssl.publish(*self._own_certificate())
            self._api.publish(*self._api_certificate())
        finally:
            self._note_served()
        log.info("server certificates renewed", ends=self.context.served.ssl_certificate_ends)

    def reload(self) -> None:
        """The same for whoever cannot do anything about a refusal but say so."""
        try:
            self.renew_certificates()
        except Refused as refused:
            log.warning("the certificates stay as they are", reason=refused.reason, message=refused.message)

    # --- Start and stop ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serves while the context lasts; on the way out links are told, then RPCs get a few seconds, then all is written."""
        await self._tail.start()
        await self._directory.load()
        await self.context.observations.load(self.context.started)
        await self.context.upper.load()
        await self.context.below.load()
        await self._rollouts.load()
        await self._scheduler.load()
        async with AsyncExitStack() as stack:
            server, health = self._server()
            await self._listen(server, stack)
            await server.start()
            stack.push_async_callback(self._stop, server, health)
            for task in self._tasks():
                self._keep(stack, task)
            yield

    def _tasks(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What a primary does besides answering."""
        own = self.context
        yield from (self._tail.run(), self._directory.run(), self._housekeeping.run())
        yield from (own.observations.run(), own.reports.run(), own.upper.run(), own.below.run(), own.desires.run())
        yield from (self._rollouts.run(), self._scheduler.run(), self._links.children.run())

    def _server(self) -> tuple[grpc.aio.Server, Health]:
        server = grpc.aio.server(interceptors=[self._access], options=list(listeners.SERVER_OPTIONS.items()))
        registration_pb2_grpc.add_RegistrationServiceServicer_to_server(Registration(self.context), server)
        trust_pb2_grpc.add_TrustServiceServicer_to_server(Trust(self.context), server)
        hierarchy_pb2_grpc.add_HierarchyServiceServicer_to_server(Hierarchy(self.context, self._links), server)
        account_pb2_grpc.add_AccountServiceServicer_to_server(Accounts(self.context), server)
        journal_pb2_grpc.add_JournalServiceServicer_to_server(Journal(self.context), server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(Policies(self.context), server)
        task_pb2_grpc.add_TaskServiceServicer_to_server(Tasks(self.context), server)
        upstream_pb2_grpc.add_UpstreamServiceServicer_to_server(Upstream(self.context), server)
        health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if self.context.config.reflection:
            _add_reflection(server)
        return server, health

    async def _listen(self, server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        config, ports = self.context.config, self.context.ports
        host = names.host(config.listen)
        ports.ssl = await listeners.bind(server, host, config.ssl_port, "SSL port", self._ssl.credentials)
        ports.api = await listeners.bind(server, host, config.api_port, "API port", self._api.credentials)
        files.make_folder(self._folder.sockets)
        files.remove(self._folder.admin_socket)  # left by a process that was killed; the folder's lock is ours
        server.add_insecure_port(stack.enter_context(sockets.target(self._folder.admin_socket)))
        stack.callback(files.remove, self._folder.admin_socket)
        files.remove(self._folder.upstream_socket)
        target = stack.enter_context(sockets.target(self._folder.upstream_socket))
        server.add_secure_port(target, grpc.local_server_credentials(grpc.LocalConnectionType.UDS))  # how callers are told apart
        stack.callback(files.remove, self._folder.upstream_socket)

    def _keep(self, stack: AsyncExitStack, task: Coroutine[Any, Any, None]) -> None:
        """Runs a task until the primary stops; one that fails is logged, and ends the primary."""
        running = asyncio.create_task(task)
        running.add_done_callback(self._task_ended)
        stack.push_async_callback(_cancel, running)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.fault("a task of the primary failed", error)
            self.broken.set()

    async def _stop(self, server: grpc.aio.Server, health: Health) -> None:
        self.context.hub.end_all(shutting_down())
        self.context.waiting.close()
        with suppress(TimeoutError):  # it waits for each who watches, and one of them may never read
            async with asyncio.timeout(HEALTH_TIMEOUT):
                await health.enter_graceful_shutdown()
        await server.stop(GRACE_SECONDS)
        own = self.context  # each has a deadline: what the disk does not take by then is lost, or is said again
        await asyncio.gather(own.below.flush(), own.reports.flush(), own.observations.flush())

    # --- Tasks ------------------------------------------------------------------------------------------------------------------

    def _judge(self, changes: Changes) -> None:
        """Ends links of servers that are no longer trusted; for others, a decision about a primary below may have changed."""
        for record in changes.records:
            self.context.hub.judge(record)
        for link in filter(None, (self.context.hub.find(changes.account, id) for id in changes.ids)):
            if link.reevaluate is not None:
                link.reevaluate()

    def _hand_down(self, change: AncestorChange) -> None:
        """Tells every link when what comes from above this primary changed."""
        if change.version != self._handed_down:
            self._handed_down = change.version
            self.context.subtree.prune(self.context.upper.snapshot.concerns)
            self.context.hub.on_ancestry_changed()

    def _renew_when_due(self) -> float:
        """Renews the primary's own certificates at half-life; a machine that slept through it does so when it wakes."""
        own, half = self.context, self.context.certificate_lifetime / 2
        if own.clock() >= own.served.ssl_certificate_ends - half:
            self.reload()
        return min(SWEEP_SECONDS, half)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _add_reflection(server: grpc.aio.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    services = ("Registration", "Trust", "Hierarchy", "Account", "Journal", "Policy", "Task")
    names = [f"enlist.v1.{name}Service" for name in services]
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)


def _addresses(config: Config) -> tuple[str, ...]:
    """What the primary goes by: what it advertises, else where it listens, else this machine's name."""
    if config.advertise:
        return tuple(map(names.host, config.advertise))
    return (socket.gethostname(),) if config.listen in EVERY_ADDRESS else (names.host(config.listen),)
