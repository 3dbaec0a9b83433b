"""Attacks rows 15 and 36 for policies: another account's are not found, and what people type names no command and no path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import policy_pb2 as pb
from enlist.v1 import policy_pb2_grpc
from enlist_primary.model.users import Role
from tests.attacks.world import OTHER, World, server_name
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, refused_by

NOWHERE = "nowhere.example"
Metadata = tuple[tuple[str, str], ...]


@asynccontextmanager
async def reaching(world: World) -> AsyncIterator[policy_pb2_grpc.PolicyServiceAsyncStub]:
    """The service at the API port, for whoever has a token."""
    running = world.running
    async with dial(running.api, await running.pin(running.api)) as on:
        yield policy_pb2_grpc.PolicyServiceStub(on)


def key(account: str, kind: str = "chrony", group: str = "/") -> pb.PolicyKey:
    return pb.PolicyKey(parent=f"accounts/{account}", group=group, kind=kind)


def set_policy(account: str, kind: str = "chrony", group: str = "/", **layer: Any) -> pb.SetPolicyRequest:
    return pb.SetPolicyRequest(key=key(account, kind, group), layer=pb.Layer(**{"settings": b"{}", **layer}))


@asynccontextmanager
async def standing(world: World) -> AsyncIterator[policy_pb2_grpc.PolicyServiceAsyncStub]:
    """The victim's account has a policy meanwhile."""
    administrator = await world.user(Role.ADMINISTRATOR, ACCOUNT)
    async with reaching(world) as stub:
        await stub.SetPolicy(set_policy(ACCOUNT, settings=b'{"secret": "of acme"}'), metadata=administrator)
        yield stub
        await stub.RemovePolicy(pb.RemovePolicyRequest(key=key(ACCOUNT)), metadata=administrator)


def calls(stub: policy_pb2_grpc.PolicyServiceAsyncStub, account: str, metadata: Metadata) -> list[Any]:
    """Every RPC about one policy."""
    where = key(account)
    return [
        stub.SetPolicy(set_policy(account), metadata=metadata),
        stub.RemovePolicy(pb.RemovePolicyRequest(key=where), metadata=metadata),
        stub.RollBackPolicy(pb.RollBackPolicyRequest(key=where), metadata=metadata),
        stub.GetPolicy(pb.GetPolicyRequest(key=where), metadata=metadata),
        stub.ListPolicies(pb.ListPoliciesRequest(parent=f"accounts/{account}"), metadata=metadata),
        stub.ListPolicyRevisions(pb.ListPolicyRevisionsRequest(key=where), metadata=metadata),
        stub.ListPolicyReports(pb.ListPolicyReportsRequest(key=where), metadata=metadata),
        stub.WatchPolicy(pb.WatchPolicyRequest(key=where), metadata=metadata).read(),
        stub.PlanPolicy(pb.PlanPolicyRequest(key=where), metadata=metadata).read(),
    ]


def told(refused: Refused, account: str) -> tuple[Reason, str]:
    """A refusal without the account that was asked for."""
    return refused.reason, refused.message.replace(account, "...")


@pytest.mark.parametrize("role", Role)
async def test_another_account_s_policy_is_not_told_from_one_that_is_not(world: World, role: Role) -> None:
    outsider = await world.user(role, OTHER)
    async with standing(world) as stub:
        before = await world.tables()
        there = [told(await refused_by(call), ACCOUNT) for call in calls(stub, ACCOUNT, outsider)]
        nowhere = [told(await refused_by(call), NOWHERE) for call in calls(stub, NOWHERE, outsider)]
        assert there == nowhere
        assert {reason for reason, _ in there} <= {Reason.ACCOUNT_UNKNOWN, Reason.NOT_ALLOWED}
        listed = await stub.ListPolicies(pb.ListPoliciesRequest(parent="accounts/-"), metadata=outsider)
        assert list(listed.policies) == []
        explained = pb.ExplainPolicyRequest(name=server_name(world.victim_id), kind="chrony")
        assert (await refused_by(stub.ExplainPolicy(explained, metadata=outsider))).reason is Reason.NOT_FOUND
        borrowed = pb.ExplainPolicyRequest(name=server_name(world.victim_id, OTHER), kind="chrony")
        assert (await refused_by(stub.ExplainPolicy(borrowed, metadata=outsider))).reason is Reason.NOT_FOUND
        assert await world.tables() == before


async def test_a_revision_of_another_account_is_none_to_go_back_to(world: World) -> None:
    outsider = await world.user(Role.ADMINISTRATOR, OTHER)
    async with standing(world) as stub:
        revision = (await stub.GetPolicy(pb.GetPolicyRequest(key=key(ACCOUNT)), metadata=await world.user(Role.VIEWER))).revision
        request = pb.RollBackPolicyRequest(key=key(OTHER), revision=revision)
        assert (await refused_by(stub.RollBackPolicy(request, metadata=outsider))).reason is Reason.NOT_FOUND


INJECTED = ["; reboot", "$(reboot)", "chrony\nreboot", "--flag", "../chrony", "chrony`id`", "{{ 7*7 }}", "\u202e", "chrony\x00", ""]


@pytest.mark.parametrize("text", INJECTED)
async def test_kinds_and_pointers_and_paths_are_what_they_say_or_refused(world: World, text: str) -> None:
    """Attacks row 36: nothing here is ever a word for a shell, a template or a file system."""
    administrator = await world.user(Role.ADMINISTRATOR, ACCOUNT)
    before = await world.tables()
    async with reaching(world) as stub:
        requests = [
            (set_policy(ACCOUNT, kind=text), {Reason.INVALID_ARGUMENT}),
            (set_policy(ACCOUNT, group=f"{text}/x"), {Reason.INVALID_ARGUMENT, Reason.NOT_FOUND}),
            (set_policy(ACCOUNT, locks=[f"/{text}"]), {Reason.POLICY_INVALID}),
            (set_policy(ACCOUNT, settings=text.encode()), {Reason.POLICY_INVALID}),
        ]
        for request, reasons in requests:
            assert (await refused_by(stub.SetPolicy(request, metadata=administrator))).reason in reasons
    assert await world.tables() == before


async def test_settings_stand_in_no_journal_and_no_log(world: World) -> None:
    """Attacks row 44: a policy may hold a password; what was decided is journalled by its hash."""
    administrator = await world.user(Role.ADMINISTRATOR, ACCOUNT)
    begin = len(world.records.records)
    async with reaching(world) as stub:
        await stub.SetPolicy(set_policy(ACCOUNT, "vault", settings=b'{"password": "hunter2"}'), metadata=administrator)
        bad = set_policy(ACCOUNT, "vault", settings=b'{"password": "hunter2", "password": "hunter2"}')
        refused = await refused_by(stub.SetPolicy(bad, metadata=administrator))
        assert "hunter2" not in refused.message
        await stub.RemovePolicy(pb.RemovePolicyRequest(key=key(ACCOUNT, "vault")), metadata=administrator)
    assert "hunter2" not in repr(await world.entries())
    assert "hunter2" not in world.records.text(begin)
