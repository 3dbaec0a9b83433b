"""Attacks row 1: every RPC of every registered service, called by every kind of caller, is served or refused as its comment says.

What is expected comes from the contract's own text ("May be called by: ..."), not from `rpc.access.TABLE`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import enlist.v1
from enlist import certificates, channel, names
from enlist.channel import PROTOCOL
from enlist.reasons import Reason, Refused
from enlist.runtime import sockets
from enlist.v1 import (
    account_pb2,
    hierarchy_pb2,
    hierarchy_pb2_grpc,
    journal_pb2,
    policy_pb2,
    policy_pb2_grpc,
    registration_pb2,
    task_pb2,
    task_pb2_grpc,
    trust_pb2,
    upstream_pb2,
)
from enlist_primary.model.users import Role
from enlist_primary.rpc import access
from tests.attacks.world import OTHER, World, bearer, server_name
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, Asker, refused_by
from tests.support.pretender import new_signer

SAME_HOST = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)

HEALTH = {f"/grpc.health.v1.Health/{rpc}": frozenset({"anyone"}) for rpc in ("Check", "Watch", "List")}
REFLECTION = {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": frozenset({"anyone"})}

STATES = ("pending", "denied", "suspended", "revoked", "removed", "departed", "withdrawn")
CALLERS = (
    *("anyone", "forged token", *STATES, "trusted", "trusted elsewhere"),
    *("viewer", "viewer of all", "administrator", "administrator of all", "viewer elsewhere", "administrator elsewhere"),
    *("local", "upstream"),
)


# --- What the contract says ----------------------------------------------------------------------------------------------------


def sentences() -> dict[str, frozenset[str]]:
    """Every RPC of `enlist.v1` with the callers its comment names."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted(Path(enlist.v1.__path__[0]).glob("*.proto")):
        service, comment = "", ""
        for line in path.read_text().splitlines():
            text = line.strip()
            if begins := re.match(r"service (\w+) ", text):
                service = begins[1]
            if rpc := re.match(r"rpc (\w+)\(", text):
                said = re.search(r"May be called by: ([a-z, ]+)\.$", comment.strip())
                assert said, f"the comment of {service}.{rpc[1]} does not end with who may call it"
                found[f"/enlist.v1.{service}/{rpc[1]}"] = frozenset(said[1].split(", "))
            comment = f"{comment} {text.removeprefix('//').strip()}" if text.startswith("//") else ""
    return found


EXPECTED = {**sentences(), **HEALTH, **REFLECTION}


class Registrar:
    """Takes the place of a gRPC server and keeps what is registered with it."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The older way; the generated code goes both."""
        for handler in handlers:
            name = handler.service_name()
            self.add_registered_method_handlers(name, {m.rpartition("/")[2]: h for m, h in handler._method_handlers.items()})

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """The newer way."""
        self.handlers.update({f"/{service}/{method}": handler for method, handler in handlers.items()})


@pytest.fixture(scope="module")
def registered(shared_world: World) -> dict[str, Any]:
    """Every method that the primary registers, with its handler."""
    registrar = Registrar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpc.aio, "server", lambda **_: registrar)
        shared_world.running.primary._server()
    return registrar.handlers


def test_every_registered_rpc_is_in_the_contract_and_every_rpc_of_the_contract_is_registered(registered: dict[str, Any]) -> None:
    assert registered.keys() == EXPECTED.keys()


def test_the_table_says_what_the_comments_say() -> None:
    """Whoever is somebody may do what anyone may; but the one on this host that is let in for its own few RPCs is not anyone."""
    anyone = frozenset(kind.value for kind in access.Kind) - {"upstream"}
    said = {method: anyone if callers == {"anyone"} else callers for method, callers in EXPECTED.items()}
    assert {method: frozenset(kind.value for kind in callers) for method, callers in access.TABLE.items()} == said


def test_every_kind_of_caller_in_a_comment_is_one_of_the_kinds() -> None:
    assert {word for callers in EXPECTED.values() for word in callers} <= {kind.value for kind in access.Kind}


# --- Who calls -----------------------------------------------------------------------------------------------------------------


@dataclass
class Attacker:
    """A caller: a channel, the metadata of its calls, the contract's word for it, and its state if it is a server."""

    on: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...] = ()
    word: str = "anyone"
    state: str = ""
    elsewhere: bool = False


PLACE = policy_pb2.PolicyKey(parent=f"accounts/{ACCOUNT}", group="Empty", kind="chrony")
STRANGER = certificates.der(new_signer().authority.certificate)


@dataclass
class Ground:
    """What the attackers go for in `acme.example`, besides the victim."""

    waiting: str
    resting: str
    api_key: str
    task: str


@pytest.fixture(scope="module")
async def ground(shared_world: World) -> AsyncIterator[Ground]:
    """A pending server, a suspended one, an API key, an empty group with a policy, and a task that is planned."""
    _, waiting = await shared_world.pending("waiting")
    _, resting = await shared_world.trusted("resting")
    await shared_world.decide("Suspend", resting)
    _, busy = await shared_world.trusted("busy")
    group = hierarchy_pb2.CreateGroupRequest(parent=f"accounts/{ACCOUNT}", path="Empty")
    await shared_world.running.admin.hierarchy.CreateGroup(group)
    with sockets.target(shared_world.running.folder.admin_socket) as socket:
        async with grpc.aio.insecure_channel(socket) as on:
            policies: Any = policy_pb2_grpc.PolicyServiceStub(on)
            tasks: Any = task_pb2_grpc.TaskServiceStub(on)
            await policies.SetPolicy(policy_pb2.SetPolicyRequest(key=PLACE, layer=policy_pb2.Layer(settings=b'{"of": "acme"}')))
            target = task_pb2.TaskTarget(server_id=busy)
            planned = task_pb2.RunTaskRequest(parent=PLACE.parent, kind="restart", target=target, schedule="0 0 1 1 *")
            task = await tasks.RunTask(planned)
            yield Ground(waiting, resting, (await shared_world.api_key()).split("_")[1], task.name)
            await tasks.CancelTask(task_pb2.CancelTaskRequest(name=task.name))
            await policies.RemovePolicy(policy_pb2.RemovePolicyRequest(key=PLACE))


async def in_state(world: World, state: str) -> Asker:
    """A server that holds a certificate of better days and stands in this state now."""
    asker, id = await world.trusted(state)
    if decision := {"suspended": "Suspend", "revoked": "Revoke"}.get(state):
        await world.decide(decision, id)
        return asker
    await world.decide("Remove", id)
    async with world.running.stranger() as stub:
        if state != "removed":
            await asker.register(stub)  # without an API key: pending
        if state == "denied":
            await world.decide("Deny", id)
        if state == "departed":
            await world.running.authorize(id)
        if state in ("withdrawn", "departed"):
            claim, proof = await asker.claim(stub, "Leave")
            await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
    return asker


@pytest.fixture(scope="module")
async def attackers(shared_world: World, ground: Ground) -> AsyncIterator[dict[str, Attacker]]:
    """One of every kind."""
    world, running = shared_world, shared_world.running
    async with AsyncExitStack() as stack:
        pins = {port: await running.pin(port) for port in (running.api, running.ssl)}

        async def at_ssl_port(asker: Asker) -> grpc.aio.Channel:
            return await stack.enter_async_context(dial(running.ssl, pins[running.ssl], asker.identity()))

        api = await stack.enter_async_context(dial(running.api, pins[running.api]))
        socket = stack.enter_context(sockets.target(running.folder.admin_socket))
        local = await stack.enter_async_context(grpc.aio.insecure_channel(socket))
        socket = stack.enter_context(sockets.target(running.folder.upstream_socket))
        upstream = await stack.enter_async_context(grpc.aio.secure_channel(socket, SAME_HOST))
        id, _ = running.owner_token.rsplit("_", 1)
        viewer, administrator = Role.VIEWER, Role.ADMINISTRATOR
        yield {
            "anyone": Attacker(api),
            "forged token": Attacker(api, bearer(f"{id}_{'a' * 32}")),
            **{state: Attacker(await at_ssl_port(await in_state(world, state)), state=state) for state in STATES},
            "trusted": Attacker(await at_ssl_port((await world.trusted("honest"))[0]), word="trusted"),
            "trusted elsewhere": Attacker(
                await at_ssl_port((await world.trusted("foreign", OTHER))[0]), word="trusted", elsewhere=True
            ),
            "viewer": Attacker(api, await world.user(viewer, ACCOUNT), "viewer"),
            "viewer of all": Attacker(api, await world.user(viewer), "viewer"),
            "administrator": Attacker(api, await world.user(administrator, ACCOUNT), "administrator"),
            "administrator of all": Attacker(api, bearer(running.owner_token), "administrator"),
            "viewer elsewhere": Attacker(api, await world.user(viewer, OTHER), "viewer", elsewhere=True),
            "administrator elsewhere": Attacker(api, await world.user(administrator, OTHER), "administrator", elsewhere=True),
            "local": Attacker(local, word="local"),
            "upstream": Attacker(upstream, word="upstream"),
        }


# --- What they try -------------------------------------------------------------------------------------------------------------


def harm(method: str, world: World, ground: Ground) -> Message:
    """A request that would do, or tell, something in `acme.example` if it were let through."""
    rpc, account, victim = method.rpartition("/")[2], f"accounts/{ACCOUNT}", server_name(world.victim_id)
    waiting, resting = server_name(ground.waiting), server_name(ground.resting)
    requests: dict[str, Message] = {
        "InviteServers": trust_pb2.InviteServersRequest(parent=account, invitees=[trust_pb2.Invitee(display_name="planted")]),
        "AuthorizeServer": trust_pb2.AuthorizeServerRequest(name=waiting, group="/"),
        "DenyServer": trust_pb2.DenyServerRequest(name=waiting),
        "SuspendServer": trust_pb2.SuspendServerRequest(name=victim),
        "ResumeServer": trust_pb2.ResumeServerRequest(name=resting),
        "RevokeServer": trust_pb2.RevokeServerRequest(name=victim),
        "RemoveServer": trust_pb2.RemoveServerRequest(name=victim),
        "WithdrawServer": trust_pb2.WithdrawServerRequest(name=waiting),
        "RenewCertificate": trust_pb2.RenewCertificateRequest(),
        "Connect": hierarchy_pb2.FromSecondary(hello=hierarchy_pb2.SignedHello()),
        "GetStatus": hierarchy_pb2.GetStatusRequest(),
        "CreateGroup": hierarchy_pb2.CreateGroupRequest(parent=account, path="Planted"),
        "RemoveGroup": hierarchy_pb2.RemoveGroupRequest(parent=account, path="Empty"),
        "MoveGroup": hierarchy_pb2.MoveGroupRequest(parent=account, path="Empty", new_path="Planted"),
        "UpdateGroup": hierarchy_pb2.UpdateGroupRequest(
            parent=account, path="/", window=hierarchy_pb2.MaintenanceWindow(start="0 2 * * *", duration_seconds=60)
        ),
        "ListGroups": hierarchy_pb2.ListGroupsRequest(parent=account),
        "ListServers": hierarchy_pb2.ListServersRequest(parent=account),
        "ListBelow": hierarchy_pb2.ListBelowRequest(parent=account),
        "GetServer": hierarchy_pb2.GetServerRequest(name=victim),
        "RenameServer": hierarchy_pb2.RenameServerRequest(name=victim, display_name="planted"),
        "MoveServer": hierarchy_pb2.MoveServerRequest(name=victim, group="Empty"),
        "LabelServer": hierarchy_pb2.LabelServerRequest(name=victim, add=["planted"]),
        "ListOrigins": hierarchy_pb2.ListOriginsRequest(),
        "ClearOrigin": hierarchy_pb2.ClearOriginRequest(all=True),
        "CreateAccount": account_pb2.CreateAccountRequest(domain="planted.example"),
        "GetAccount": account_pb2.GetAccountRequest(name=account),
        "ListAccounts": account_pb2.ListAccountsRequest(),
        "UpdateAccount": account_pb2.UpdateAccountRequest(name=account, contact="planted", landing_group="Empty"),
        "CreateApiKey": account_pb2.CreateApiKeyRequest(parent=account, kind=account_pb2.API_KEY_KIND_FULL),
        "ListApiKeys": account_pb2.ListApiKeysRequest(parent=account),
        "RevokeApiKey": account_pb2.RevokeApiKeyRequest(name=names.resource(account, "apiKeys", ground.api_key)),
        "SetPolicy": policy_pb2.SetPolicyRequest(key=PLACE, layer=policy_pb2.Layer(settings=b'{"planted": 1}')),
        "PlanPolicy": policy_pb2.PlanPolicyRequest(key=PLACE, layer=policy_pb2.Layer(settings=b'{"planted": 1}')),
        "RemovePolicy": policy_pb2.RemovePolicyRequest(key=PLACE),
        "RollBackPolicy": policy_pb2.RollBackPolicyRequest(key=PLACE),
        "GetPolicy": policy_pb2.GetPolicyRequest(key=PLACE),
        "ListPolicies": policy_pb2.ListPoliciesRequest(parent=account),
        "ListPolicyRevisions": policy_pb2.ListPolicyRevisionsRequest(key=PLACE),
        "ListPolicyReports": policy_pb2.ListPolicyReportsRequest(key=PLACE),
        "WatchPolicy": policy_pb2.WatchPolicyRequest(key=PLACE),
        "ExplainPolicy": policy_pb2.ExplainPolicyRequest(name=victim, kind="chrony"),
        "RunTask": task_pb2.RunTaskRequest(parent=account, kind="planted", target=task_pb2.TaskTarget(group="/")),
        "GetTask": task_pb2.GetTaskRequest(name=ground.task),
        "ListTasks": task_pb2.ListTasksRequest(parent=account),
        "CancelTask": task_pb2.CancelTaskRequest(name=ground.task),
        "ListTaskResults": task_pb2.ListTaskResultsRequest(name=ground.task),
        "WatchTask": task_pb2.WatchTaskRequest(name=ground.task),
        "Attach": upstream_pb2.FromDaemon(upper=upstream_pb2.Upper(primary_name="planted", authority_certificate=STRANGER)),
        "ListEntries": journal_pb2.ListEntriesRequest(parent=account),
        "VerifyJournal": journal_pb2.VerifyJournalRequest(parent=account),
        "DescribePrimary": registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL),
        "Validate": registration_pb2.ValidateRequest(account_domain=ACCOUNT),
        "Register": registration_pb2.RegisterRequest(registration=b"planted"),
        "AwaitAuthorization": registration_pb2.AwaitAuthorizationRequest(claim=b"planted"),
        "Leave": registration_pb2.LeaveRequest(claim=b"planted"),
        "Check": health_pb2.HealthCheckRequest(),
        "Watch": health_pb2.HealthCheckRequest(),
        "List": health_pb2.HealthListRequest(),  # type: ignore[attr-defined]  # newer than the stubs
        "ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(list_services=""),
    }
    return requests[rpc]


HARMLESS = {"RenewCertificate", "Connect", "Check", "ServerReflectionInfo"}
"""RPCs whose real request changes nothing, besides those that only read."""


def called_as_meant(method: str, world: World, ground: Ground) -> Message:
    """For a caller that is to be let in: the real request where it changes nothing, else an empty one, refused for what it says."""
    request, rpc = harm(method, world, ground), method.rpartition("/")[2]
    reads = rpc.startswith(("Get", "List", "Watch", "Explain", "Plan", "Verify", "Describe", "Validate"))
    return request if reads or rpc in HARMLESS else type(request)()


async def answer(attacker: Attacker, method: str, handler: Any, request: Message) -> Reason | None:
    """What the call was refused for, or None if it was answered."""
    arguments = {"request_serializer": type(request).SerializeToString, "response_deserializer": Empty.FromString}
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    start = getattr(attacker.on, kind)(method, **arguments)
    try:
        if kind == "unary_unary":
            await start(request, metadata=attacker.metadata, timeout=10)
        elif kind == "unary_stream":
            stream = start(request, metadata=attacker.metadata, timeout=10)
            await stream.read()  # a list may be empty: it ends then, and well
            stream.cancel()
        else:
            stream = start(metadata=attacker.metadata, timeout=10)
            await stream.write(request)
            assert await stream.read() is not grpc.aio.EOF
            stream.cancel()
    except grpc.aio.AioRpcError as error:
        refused: Refused = channel.refusal(error)
        return refused.reason
    return None


STRANGE = frozenset({Reason.NOT_LOGGED_ON, Reason.NOT_ALLOWED, *(r for r in Reason if r.startswith("SERVER_"))})
"""What somebody is refused for who may not call at all."""


OVER_ALL = {f"/enlist.v1.{rpc}" for rpc in ("AccountService/CreateAccount", "HierarchyService/ClearOrigin")}
"""Only for administrators of the primary itself: an account's own has no say over others."""
SEEN_BY_ALL = "/enlist.v1.HierarchyService/ListOrigins"
"""Only for users of the primary itself."""
READ_BY_ALL = {f"/enlist.v1.{rpc}" for rpc in ("HierarchyService/GetStatus", "AccountService/ListAccounts")}
WITHOUT_ACCOUNT = {*OVER_ALL, SEEN_BY_ALL, *READ_BY_ALL}


def expected(attacker: Attacker, name: str, method: str) -> set[Reason]:
    """What this caller is refused for when it wants `harm`; nothing if it is to be let in."""
    callers = EXPECTED[method]
    if name == "forged token":
        return {Reason.NOT_LOGGED_ON}
    if "anyone" in callers and name != "upstream":
        return set()
    if attacker.word not in callers:
        if attacker.state and "trusted" in callers:
            return {Reason[f"SERVER_{attacker.state.upper()}"]}
        return {Reason.NOT_LOGGED_ON if name == "anyone" else Reason.NOT_ALLOWED}
    if method in OVER_ALL and name not in ("administrator of all", "local"):
        return {Reason.NOT_ALLOWED}
    if method == SEEN_BY_ALL and name not in ("viewer of all", "administrator of all", "local"):
        return {Reason.NOT_ALLOWED}
    if attacker.elsewhere and attacker.word != "trusted" and method not in WITHOUT_ACCOUNT:
        return {Reason.NOT_FOUND, Reason.ACCOUNT_UNKNOWN}
    return set()


@pytest.mark.parametrize("name", CALLERS)
async def test_every_rpc_serves_and_refuses_this_caller_as_its_comment_says(
    world: World, ground: Ground, registered: dict[str, Any], attackers: dict[str, Attacker], name: str
) -> None:
    attacker, before = attackers[name], await world.tables()
    for method, handler in registered.items():
        if reasons := expected(attacker, name, method):
            assert await answer(attacker, method, handler, harm(method, world, ground)) in reasons, method
        else:
            assert await answer(attacker, method, handler, called_as_meant(method, world, ground)) not in STRANGE, method
    assert await world.tables() == before


async def test_at_the_socket_of_the_secondary_nobody_passes_for_the_administrator(world: World) -> None:
    """gRPC does not name the socket that was dialled: whatever the caller does at its end, who it is depends on the listener."""
    folder, request = world.running.folder, hierarchy_pb2.GetStatusRequest()
    for credentials in (None, SAME_HOST):
        for path, reason in ((folder.upstream_socket, Reason.NOT_ALLOWED), (folder.admin_socket, None)):
            with sockets.target(path) as target:
                dialled = grpc.aio.secure_channel(target, credentials) if credentials else grpc.aio.insecure_channel(target)
                async with dialled as on:
                    stub: Any = hierarchy_pb2_grpc.HierarchyServiceStub(on)
                    call = stub.GetStatus(request, metadata=(("enlist-local-user", "root"),), timeout=10)
                    if reason is None:
                        assert (await call).primary_name
                    else:
                        assert (await refused_by(call)).reason is reason


async def test_every_kind_of_caller_is_among_the_attackers(attackers: dict[str, Attacker]) -> None:
    assert attackers.keys() == set(CALLERS)
    assert {kind.value for kind in access.Kind} - {"untrusted"} <= {attacker.word for attacker in attackers.values()}


async def test_a_forged_token_is_counted_against_the_primary_and_never_journalled(
    world: World, attackers: dict[str, Attacker]
) -> None:
    heads = [await world.head("."), await world.head()]
    before = await world.refusals(".", Reason.NOT_LOGGED_ON)
    request = account_pb2.ListAccountsRequest()
    call: Any = attackers["forged token"].on.unary_unary(
        "/enlist.v1.AccountService/ListAccounts", account_pb2.ListAccountsRequest.SerializeToString
    )
    await refused_by(call(request, metadata=attackers["forged token"].metadata))
    assert await world.refusals(".", Reason.NOT_LOGGED_ON) == before + 1
    assert [await world.head("."), await world.head()] == heads


# --- A new RPC -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["/enlist.v1.TrustService/BrandNew", "/enlist.v2.BrandNewService/Do"])
async def test_a_new_rpc_that_nobody_put_into_the_table_is_refused_to_everyone(world: World, tmp_path: Path, method: str) -> None:
    ran: list[object] = []

    async def do(request: bytes, context: Any) -> bytes:
        ran.append(request)
        return b"done"

    service, rpc = method[1:].split("/")
    server = grpc.aio.server(interceptors=[world.running.primary._access])
    server.add_registered_method_handlers(service, {rpc: grpc.unary_unary_rpc_method_handler(do)})
    port = server.add_insecure_port("127.0.0.1:0")
    socket = f"unix:{tmp_path}/s"
    server.add_insecure_port(socket)
    await server.start()
    owner = bearer(world.running.owner_token)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as on, grpc.aio.insecure_channel(socket) as local:
            for caller, metadata, reason in (
                (on, (), Reason.NOT_LOGGED_ON),
                (on, await world.user(Role.VIEWER), Reason.NOT_ALLOWED),
                (on, owner, Reason.NOT_ALLOWED),
                (local, (), Reason.NOT_ALLOWED),
            ):
                call: Any = caller.unary_unary(method)
                assert (await refused_by(call(b"x", metadata=metadata))).reason is reason
    finally:
        await server.stop(None)
    assert not ran
