"""Attacks row 15: another account's objects - got, listed, decided about, waited for - are not found; no answer is an oracle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from enlist.channel import refusal
from enlist.reasons import Reason, Refused
from enlist.v1 import (
    account_pb2,
    hierarchy_pb2,
    journal_pb2,
    policy_pb2,
    registration_pb2,
    server_pb2,
    task_pb2,
    trust_pb2,
)
from enlist_primary.model.users import Role
from tests.attacks.world import OTHER, World, server_name
from tests.support.inprocess import ACCOUNT, Stubs, refused_by

NOWHERE, NOBODY = "nowhere.example", "aaaaaaaaaa"


@dataclass
class Outsider:
    """An administrator of `other.example`, who goes for `acme.example`."""

    stub: Stubs
    metadata: tuple[tuple[str, str], ...]

    async def tries(self, call: Callable[..., Awaitable[Any]], request: Any) -> Refused:
        """The refusal of a call."""
        return await refused_by(call(request, metadata=self.metadata))


@pytest.fixture(params=[Role.VIEWER, Role.ADMINISTRATOR])
async def outsider(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Outsider]:
    """One of each role."""
    async with world.running.stranger() as stub:
        yield Outsider(stub, await world.user(request.param, OTHER))


def about_servers(stub: Stubs) -> list[tuple[Callable[..., Any], Callable[[str], Any]]]:
    """Every RPC about one server: the call, and its request for a resource name."""
    decisions = ("Authorize", "Deny", "Suspend", "Resume", "Revoke", "Remove", "Withdraw")
    made = [(getattr(stub.trust, f"{d}Server"), getattr(trust_pb2, f"{d}ServerRequest")) for d in decisions]
    moving = (stub.hierarchy.MoveServer, lambda name: hierarchy_pb2.MoveServerRequest(name=name, group="/"))
    labelling = (stub.hierarchy.LabelServer, lambda name: hierarchy_pb2.LabelServerRequest(name=name, add=["mine"]))
    renaming = (stub.hierarchy.RenameServer, lambda name: hierarchy_pb2.RenameServerRequest(name=name, display_name="mine"))
    getting = (stub.hierarchy.GetServer, lambda name: hierarchy_pb2.GetServerRequest(name=name))
    return [*((call, lambda name, kind=kind: kind(name=name)) for call, kind in made), renaming, moving, labelling, getting]


def first_of(stream: Callable[..., Any]) -> Callable[..., Any]:
    """A call that streams its answers, as one that gives the first."""
    return lambda *arguments, **more: stream(*arguments, **more).read()


def about_accounts(stub: Stubs) -> list[tuple[Callable[..., Any], Callable[[str], Any]]]:
    """Every RPC about an account as a whole: the call, and its request for a domain."""
    restricted = account_pb2.API_KEY_KIND_RESTRICTED
    return [
        (stub.hierarchy.ListServers, lambda d: hierarchy_pb2.ListServersRequest(parent=f"accounts/{d}")),
        (stub.hierarchy.ListGroups, lambda d: hierarchy_pb2.ListGroupsRequest(parent=f"accounts/{d}")),
        (
            lambda *a, **k: stub.hierarchy.ListBelow(*a, **k).read(),
            lambda d: hierarchy_pb2.ListBelowRequest(parent=f"accounts/{d}"),
        ),
        (stub.hierarchy.CreateGroup, lambda d: hierarchy_pb2.CreateGroupRequest(parent=f"accounts/{d}", path="Mine")),
        (stub.hierarchy.RemoveGroup, lambda d: hierarchy_pb2.RemoveGroupRequest(parent=f"accounts/{d}", path="Mine")),
        (stub.hierarchy.MoveGroup, lambda d: hierarchy_pb2.MoveGroupRequest(parent=f"accounts/{d}", path="A", new_path="B")),
        (stub.hierarchy.UpdateGroup, lambda d: hierarchy_pb2.UpdateGroupRequest(parent=f"accounts/{d}", path="/")),
        (stub.accounts.GetAccount, lambda d: account_pb2.GetAccountRequest(name=f"accounts/{d}")),
        (stub.accounts.UpdateAccount, lambda d: account_pb2.UpdateAccountRequest(name=f"accounts/{d}", contact="mine")),
        (stub.accounts.CreateApiKey, lambda d: account_pb2.CreateApiKeyRequest(parent=f"accounts/{d}", kind=restricted)),
        (stub.accounts.ListApiKeys, lambda d: account_pb2.ListApiKeysRequest(parent=f"accounts/{d}")),
        (
            stub.trust.InviteServers,
            lambda d: trust_pb2.InviteServersRequest(parent=f"accounts/{d}", invitees=[trust_pb2.Invitee()]),
        ),
        (stub.journal.ListEntries, lambda d: journal_pb2.ListEntriesRequest(parent=f"accounts/{d}")),
        (stub.journal.VerifyJournal, lambda d: journal_pb2.VerifyJournalRequest(parent=f"accounts/{d}")),
    ]


def told(refused: Refused, *names: str) -> tuple[Reason, str]:
    """A refusal without the names that were asked for."""
    message = refused.message
    for name in names:
        message = message.replace(name, "...")
    return refused.reason, message


async def test_another_account_s_server_is_not_found_and_not_told_from_one_that_is_not(world: World, outsider: Outsider) -> None:
    before = await world.tables()
    for call, request in about_servers(outsider.stub):
        there = await outsider.tries(call, request(server_name(world.victim_id)))
        missing = await outsider.tries(call, request(server_name(NOBODY)))
        nowhere = await outsider.tries(call, request(server_name(NOBODY, NOWHERE)))
        assert there.reason in (Reason.NOT_FOUND, Reason.NOT_ALLOWED)
        assert told(there, world.victim_id) == told(missing, NOBODY) == told(nowhere, NOBODY)
    assert await world.tables() == before


async def test_a_server_s_id_under_one_s_own_account_is_not_found(world: World, outsider: Outsider) -> None:
    """Every load takes (account, id): the id alone opens nothing."""
    before = await world.tables()
    for call, request in about_servers(outsider.stub):
        there = await outsider.tries(call, request(server_name(world.victim_id, OTHER)))
        missing = await outsider.tries(call, request(server_name(NOBODY, OTHER)))
        assert there.reason in (Reason.NOT_FOUND, Reason.NOT_ALLOWED)
        assert told(there, world.victim_id) == told(missing, NOBODY)
    assert await world.tables() == before


async def test_another_account_is_not_told_from_one_that_is_not_there(world: World, outsider: Outsider) -> None:
    before = await world.tables()
    for call, request in about_accounts(outsider.stub):
        there = await outsider.tries(call, request(ACCOUNT))
        nowhere = await outsider.tries(call, request(NOWHERE))
        assert there.reason in (Reason.ACCOUNT_UNKNOWN, Reason.NOT_ALLOWED)
        assert told(there, ACCOUNT) == told(nowhere, NOWHERE)
        assert (await outsider.tries(call, request("."))).reason in (Reason.ACCOUNT_UNKNOWN, Reason.NOT_ALLOWED)
    assert await world.tables() == before


async def test_a_group_of_another_account_is_no_place_for_one_s_own(world: World) -> None:
    """Paths are looked up in one's own tree: that there is such a group elsewhere is not told."""
    parent, path = f"accounts/{OTHER}", "Elsewhere"
    await world.running.admin.hierarchy.CreateGroup(
        hierarchy_pb2.CreateGroupRequest(parent=f"accounts/{ACCOUNT}", path=f"{path}/Below")
    )
    _, own = await world.trusted("own", OTHER)
    metadata = await world.user(Role.ADMINISTRATOR, OTHER)
    layer, nothing = policy_pb2.Layer(settings=b"{}"), policy_pb2.Layer()
    async with world.running.stranger() as stub:
        outsider, before = Outsider(stub, metadata), await world.tables()
        told_apart = []
        for group in (path, f"{path}/Below", "Nowhere", "Nowhere/Below"):
            key = policy_pb2.PolicyKey(parent=parent, group=group, kind="chrony")
            target = task_pb2.TaskTarget(group=group)
            tries: list[tuple[Callable[..., Any], Any]] = [
                (stub.hierarchy.MoveServer, hierarchy_pb2.MoveServerRequest(name=server_name(own, OTHER), group=group)),
                (stub.hierarchy.RemoveGroup, hierarchy_pb2.RemoveGroupRequest(parent=parent, path=group)),
                (stub.hierarchy.UpdateGroup, hierarchy_pb2.UpdateGroupRequest(parent=parent, path=group)),
                (stub.hierarchy.MoveGroup, hierarchy_pb2.MoveGroupRequest(parent=parent, path=group, new_path="Mine")),
                (stub.trust.AuthorizeServer, trust_pb2.AuthorizeServerRequest(name=server_name(own, OTHER), group=group)),
                (stub.policies.SetPolicy, policy_pb2.SetPolicyRequest(key=key, layer=layer)),
                (first_of(stub.policies.PlanPolicy), policy_pb2.PlanPolicyRequest(key=key, layer=nothing)),
                (first_of(stub.policies.WatchPolicy), policy_pb2.WatchPolicyRequest(key=key)),
                (stub.policies.ListPolicyReports, policy_pb2.ListPolicyReportsRequest(key=key)),
                (stub.tasks.RunTask, task_pb2.RunTaskRequest(parent=parent, kind="restart", target=target)),
            ]
            refused = [await outsider.tries(call, request) for call, request in tries]
            assert {each.reason for each in refused} <= {Reason.NOT_FOUND, Reason.POLICY_INVALID}
            told_apart.append([told(each, group) for each in refused])
        assert told_apart[0] == told_apart[2]
        assert told_apart[1] == told_apart[3]
        assert await world.tables() == before


async def test_another_account_s_api_key_cannot_be_revoked_nor_found(world: World) -> None:
    id = (await world.api_key()).split("_")[1]
    before = await world.tables()
    async with world.running.stranger() as stub:
        outsider = Outsider(stub, await world.user(Role.ADMINISTRATOR, OTHER))
        before = await world.tables()
        refused = []
        for name in (f"accounts/{ACCOUNT}/apiKeys/{id}", f"accounts/{OTHER}/apiKeys/{id}", f"accounts/{ACCOUNT}/apiKeys/{NOBODY}"):
            refused.append(await outsider.tries(stub.accounts.RevokeApiKey, account_pb2.RevokeApiKeyRequest(name=name)))
    assert {each.reason for each in refused} <= {Reason.NOT_FOUND, Reason.ACCOUNT_UNKNOWN}
    assert told(refused[0], id) == told(refused[2], NOBODY)
    assert await world.tables() == before


async def test_whoever_lists_everything_sees_only_its_own_account(world: World, outsider: Outsider) -> None:
    _, own = await world.trusted("own", OTHER)
    for token in ("", f"{ACCOUNT}/", f"{ACCOUNT}/{world.victim_id}", f"{ACCOUNT}/{NOBODY}", "./", "%/%", "/"):
        request = hierarchy_pb2.ListServersRequest(parent="accounts/-", page_token=token, page_size=2)
        listed: list[server_pb2.Server] = []
        while True:
            page = await outsider.stub.hierarchy.ListServers(request, metadata=outsider.metadata)
            listed += page.servers
            if not page.next_page_token:
                break
            assert page.next_page_token.startswith(f"{OTHER}/")
            request.page_token = page.next_page_token
        assert {server.account for server in listed} == {OTHER}, token
        assert own in {server.id for server in listed}
    accounts = await outsider.stub.accounts.ListAccounts(account_pb2.ListAccountsRequest(), metadata=outsider.metadata)
    assert [account.domain for account in accounts.accounts] == [OTHER]


async def test_the_status_counts_only_what_the_caller_may_see(world: World, outsider: Outsider) -> None:
    """Neither servers, nor links, nor refused attempts of others: each would tell when they come and go."""
    await world.refusals(ACCOUNT, Reason.API_KEY_INVALID)
    async with world.running.stranger() as stub:
        await refused_by(world.asker().register(stub, "enl_aaaaaaaaaa_" + "a" * 32))
    assert await world.refusals(ACCOUNT, Reason.API_KEY_INVALID) > 0
    status = await outsider.stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=outsider.metadata)
    everything = await world.running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())
    assert (status.connected, everything.connected > 0) == (0, True)
    assert {each.account for each in status.refusals} <= {OTHER}
    mine = len(await world.servers(OTHER))
    assert sum(each.count for each in status.servers) == mine < sum(each.count for each in everything.servers)


async def test_nobody_makes_an_account_or_a_vendor_s_api_key_but_whoever_stands_over_all(world: World) -> None:
    before = await world.tables()
    async with world.running.stranger() as stub:
        outsider = Outsider(stub, await world.user(Role.ADMINISTRATOR, OTHER))
        before = await world.tables()
        there = await outsider.tries(stub.accounts.CreateAccount, account_pb2.CreateAccountRequest(domain=ACCOUNT))
        nowhere = await outsider.tries(stub.accounts.CreateAccount, account_pb2.CreateAccountRequest(domain=NOWHERE))
        assert (there.reason, there.message) == (nowhere.reason, nowhere.message)
        assert there.reason is Reason.NOT_ALLOWED
        vendors = account_pb2.CreateApiKeyRequest(parent="accounts/.", kind=account_pb2.API_KEY_KIND_FULL)
        assert (await outsider.tries(stub.accounts.CreateApiKey, vendors)).reason is Reason.ACCOUNT_UNKNOWN
    assert await world.tables() == before


async def test_one_account_s_api_key_is_worth_nothing_in_another(world: World) -> None:
    api_key, before = await world.full_api_key(OTHER), await world.tables()
    forged = f"{api_key.rpartition('_')[0]}_{'a' * 32}"
    async with world.running.stranger() as stub:
        real = await refused_by(world.asker().register(stub, api_key))
        wrong = await refused_by(world.asker().register(stub, forged))
    assert (real.reason, real.message) == (wrong.reason, wrong.message)
    assert real.reason is Reason.API_KEY_INVALID
    assert await world.tables() == before


async def test_waiting_for_another_s_decision_is_refused_whether_or_not_there_is_one(world: World) -> None:
    """`watch`: only who holds a key hears about it."""
    attacker, stranger = world.asker("attacker"), world.asker("never registered")
    async with world.running.stranger() as stub:
        told_apart = []
        for key in (world.victim.public_key, stranger.public_key):
            claim = registration_pb2.Claim(account_domain=ACCOUNT, public_key=key).SerializeToString()
            proof = await attacker.proof(stub, "AwaitAuthorization", claim)
            request = registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)
            with pytest.raises(Exception, match="not signed") as raised:
                await stub.registration.AwaitAuthorization(request).read()
            told_apart.append(refusal(raised.value))  # type: ignore[arg-type]  # an RPC's failure, or the test fails in there
    assert len({(each.reason, each.message) for each in told_apart}) == 1
