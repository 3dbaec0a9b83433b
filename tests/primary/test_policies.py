"""PolicyService and the stages that go on by themselves, at a real primary whose servers are links and words only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enlist import documents
from enlist.documents import ItemVersion
from enlist.names import resource
from enlist.reasons import Reason
from enlist.v1 import document_pb2, hierarchy_pb2
from enlist.v1 import policy_pb2 as pb
from enlist_primary.rpc.policies import PACE
from tests.primary.site import KIND, Site, at_site, at_site_again, counts, key
from tests.support.inprocess import ACCOUNT, refused_by
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def one_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One primary for this file, with four servers."""
    async with at_site(tmp_path_factory.mktemp("policies")) as site:
        for name in ("s0", "s1", "s2", "s3"):
            await site.server(name, "Shared/Servers")
        yield site


@pytest.fixture
async def site(one_site: Site) -> AsyncIterator[Site]:
    """The same, with no policies left over from the test before."""
    for name in one_site.ids:
        if not one_site.running.primary.context.hub.connected(ACCOUNT, one_site.ids[name]):
            one_site.connect(name)
    yield one_site
    for each in (await one_site.stub.ListPolicies(pb.ListPoliciesRequest(parent=f"accounts/{ACCOUNT}"))).policies:
        await one_site.stub.RemovePolicy(pb.RemovePolicyRequest(key=key(each.group, each.kind)))


# --- Set and shown --------------------------------------------------------------------------------------------------------------


async def test_a_policy_is_set_and_shown_and_counted(site: Site) -> None:
    policy = await site.set("Shared", {"b": [1, 2], "a": {"c": None}}, "/b")
    assert (policy.account, policy.group, policy.kind, policy.revision) == (ACCOUNT, "Shared", KIND, await site.head())
    assert policy.layer == pb.Layer(settings=b'{"a":{"c":null},"b":[1,2]}', locks=["/b"])
    assert (policy.actor.startswith("local:"), policy.removed, policy.HasField("rollout")) == (True, False, False)
    assert counts(policy) == {"desired": 4, "pending": 4}
    assert await site.get("/Shared/") == policy
    await site.say("s0")
    await site.say("s1", "failed", "no such file")
    site.disconnect("s2")

    async def counted() -> bool:
        return counts(await site.get("Shared")) == {"desired": 4, "pending": 1, "applied": 1, "failed": 1, "unreachable": 1}

    await eventually(counted, what="all words to count")
    listed = (await site.stub.ListPolicies(pb.ListPoliciesRequest(parent="accounts/-"))).policies
    assert [(each.revision, counts(each), each.layer.settings) for each in listed] == [
        (policy.revision, counts(await site.get("Shared")), b"")
    ]
    assert listed[0].counts.unreachable_since.seconds > 0
    reports = (await site.stub.ListPolicyReports(pb.ListPolicyReportsRequest(key=key("Shared")))).reports
    assert [(each.server.display_name, each.group, document_pb2.DocumentState.Name(each.state)[15:]) for each in reports] == [
        ("s0", "Shared/Servers", "APPLIED"),
        ("s1", "Shared/Servers", "FAILED"),
        ("s2", "Shared/Servers", "UNREACHABLE"),
        ("s3", "Shared/Servers", "PENDING"),
    ]
    assert (reports[1].message, reports[1].revision, reports[1].HasField("time")) == ("no such file", policy.revision, True)


async def test_what_it_was_is_shown_newest_first(site: Site) -> None:
    first, second = await site.set("Shared", {"a": 1}), await site.set("Shared", {"a": "x" * 10_000}, "/a")
    await site.stub.RemovePolicy(pb.RemovePolicyRequest(key=key("Shared")))
    back = await site.stub.RollBackPolicy(pb.RollBackPolicyRequest(key=key("Shared"), revision=first.revision))
    assert back.layer == first.layer
    found = (await site.stub.ListPolicyRevisions(pb.ListPolicyRevisionsRequest(key=key("Shared")))).revisions
    shown = [(each.revision, each.removed, each.layer.settings, list(each.layer.locks)) for each in found[:4]]
    assert shown == [
        (back.revision, False, b'{"a":1}', []),
        (back.revision - 1, True, b"", []),
        (second.revision, False, b"", ["/a"]),  # too large for a list
        (first.revision, False, b'{"a":1}', []),
    ]
    assert not any(each.HasField("counts") for each in found)


async def test_a_server_s_layers_are_explained(site: Site) -> None:
    low, top = await site.set("Shared/Servers", {"a": 1}), await site.set("/", {"b": 2}, "/b")
    name = resource("accounts", ACCOUNT, "servers", site.ids["s0"])
    found = (await site.stub.ExplainPolicy(pb.ExplainPolicyRequest(name=name, kind=KIND))).layers
    assert list(found) == [
        pb.ExplainedLayer(layer=ACCOUNT, revision=top.revision, says=pb.Layer(settings=b'{"b":2}', locks=["/b"])),
        pb.ExplainedLayer(layer=f"{ACCOUNT}/Shared/Servers", revision=low.revision, says=pb.Layer(settings=b'{"a":1}')),
    ]


async def test_a_plan_names_the_servers_and_stores_nothing(site: Site) -> None:
    await site.set("Shared/Servers", {"a": 1})
    head = await site.head()
    layer = pb.Layer(settings=b'{"a": 2, "b": 3}')
    request = pb.PlanPolicyRequest(key=key("Shared"), layer=layer)
    [change] = [each async for each in site.stub.PlanPolicy(request)]
    assert (change.before, change.after) == (b'{"a":1}', b'{"a":1,"b":3}')
    assert sorted(server.display_name for server in change.servers) == ["s0", "s1", "s2", "s3"]
    [ended] = [each async for each in site.stub.PlanPolicy(pb.PlanPolicyRequest(key=key("Shared/Servers")))]
    assert (ended.before, ended.after) == (b'{"a":1}', b"")
    assert await site.head() == head


# --- Refused --------------------------------------------------------------------------------------------------------------------

DEEP = b'{"a":' * 33 + b"1" + b"}" * 33


@pytest.mark.parametrize(
    ("settings", "locks", "reason", "pointer"),
    [
        (b'{"a": {"b": 1, "b": 2}}', (), Reason.POLICY_INVALID, '"/a/b"'),
        (b'{"a": [NaN]}', (), Reason.POLICY_INVALID, '"/a'),
        (b'{"a": Infinity}', (), Reason.POLICY_INVALID, '"/a"'),
        (b'{"a": 9007199254740993}', (), Reason.POLICY_INVALID, '"/a"'),
        (DEEP, (), Reason.POLICY_INVALID, '"' + "/a" * 32),
        (b"[]", (), Reason.POLICY_INVALID, ""),
        (b"", (), Reason.POLICY_INVALID, ""),
        (b'{"a": 1}', ("a",), Reason.POLICY_INVALID, '"a"'),
        (b'{"a": 1}', ("/b",), Reason.POLICY_INVALID, '"/b"'),
        (b'{"a": [1]}', ("/a/0",), Reason.POLICY_INVALID, '"/a/0"'),
        (b'{"locked": 2}', (), Reason.SETTING_LOCKED, '"/locked"'),
        (b'{"a": "' + b"x" * documents.BODY_LIMIT + b'"}', (), Reason.DOCUMENT_TOO_LARGE, ""),
    ],
)
async def test_bad_settings_are_refused_with_their_pointer_and_nothing_is_stored(
    site: Site, settings: bytes, locks: tuple[str, ...], reason: Reason, pointer: str
) -> None:
    await site.set("/", {"locked": 1}, "/locked")
    head = await site.head()
    refused = await refused_by(site.set("Shared", settings, *locks))
    assert (refused.reason, pointer in refused.message) == (reason, True), refused.message

    async def plan() -> None:
        layer = pb.Layer(settings=settings, locks=locks)
        async for _ in site.stub.PlanPolicy(pb.PlanPolicyRequest(key=key("Shared"), layer=layer)):
            pass

    assert (await refused_by(plan())).message == refused.message
    assert await site.head() == head
    assert (await refused_by(site.get("Shared"))).reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    "stages",
    [pb.Stages(), pb.Stages(sizes=["1"]), pb.Stages(sizes=["100%"], stop_after=-1), pb.Stages(sizes=["100%"], confirm_seconds=-1)],
)
async def test_bad_stages_are_refused(site: Site, stages: pb.Stages) -> None:
    assert (await refused_by(site.set("Shared", {}, stages=stages))).reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (key("Nowhere"), Reason.NOT_FOUND),
        (key("Shared", "other"), Reason.NOT_FOUND),
        (key("Shared", "Not a kind"), Reason.INVALID_ARGUMENT),
        (pb.PolicyKey(parent="accounts/nobody.example", group="/", kind=KIND), Reason.ACCOUNT_UNKNOWN),
        (pb.PolicyKey(parent="nobody", group="/", kind=KIND), Reason.INVALID_ARGUMENT),
    ],
)
async def test_what_is_not_there_is_not_found_by_any_rpc(site: Site, where: pb.PolicyKey, reason: Reason) -> None:
    async def watched() -> None:
        async for _ in site.stub.WatchPolicy(pb.WatchPolicyRequest(key=where)):
            pass

    calls = (
        site.stub.GetPolicy(pb.GetPolicyRequest(key=where)),
        site.stub.RemovePolicy(pb.RemovePolicyRequest(key=where)),
        site.stub.RollBackPolicy(pb.RollBackPolicyRequest(key=where)),
        site.stub.ListPolicyRevisions(pb.ListPolicyRevisionsRequest(key=where)),
        site.stub.ListPolicyReports(pb.ListPolicyReportsRequest(key=where)),
        watched(),
    )
    assert [(await refused_by(call)).reason for call in calls] == [reason] * len(calls)


async def test_a_server_that_is_not_there_is_not_explained(site: Site) -> None:
    for name in ("accounts/acme.example/servers/nobodyhere", "accounts/nobody.example/servers/aaaaaaaaaa"):
        refused = await refused_by(site.stub.ExplainPolicy(pb.ExplainPolicyRequest(name=name, kind=KIND)))
        assert refused.reason is Reason.NOT_FOUND


# --- Watched --------------------------------------------------------------------------------------------------------------------


async def test_a_watch_tells_at_once_and_after_each_change_until_the_end(site: Site) -> None:
    await site.set("Shared", {"a": 1})
    call = site.stub.WatchPolicy(pb.WatchPolicyRequest(key=key("Shared")))
    seen = aiter(call)
    assert counts(await anext(seen)) == {"desired": 4, "pending": 4}
    await site.say("s0")
    assert counts(await anext(seen)) == {"desired": 4, "pending": 3, "applied": 1}
    site.disconnect("s0")
    assert counts(await anext(seen)) == {"desired": 4, "pending": 3, "unreachable": 1}
    again = await site.set("Shared", {"a": 2})
    assert (await anext(seen)).revision == again.revision
    await site.stub.RemovePolicy(pb.RemovePolicyRequest(key=key("Shared")))
    assert (await refused_by(anext(seen))).reason is Reason.NOT_FOUND


async def test_a_watch_gathers_what_comes_quickly(site: Site) -> None:
    await site.set("Shared", {"a": 1})
    call = site.stub.WatchPolicy(pb.WatchPolicyRequest(key=key("Shared")))
    seen = aiter(call)
    await anext(seen)
    begun, messages = time.monotonic(), 0
    while time.monotonic() - begun < 1.5:
        messages += 1
        await site.say("s0", "received" if messages % 2 else "applied")
        await asyncio.wait_for(anext(seen), 5)
    assert messages <= (time.monotonic() - begun) / PACE + 2
    call.cancel()


async def test_the_same_revision_with_another_body_is_not_applied(site: Site) -> None:
    """As after a restore: the primary gave the number again, to another body."""
    await site.set("Shared", {"a": 1})
    [version] = await site.desired("s0")
    await site.say("s0", observed=(ItemVersion(version.revision, "d" * 64),))
    await site.say("s1")

    async def counted() -> bool:
        return counts(await site.get("Shared")) == {"desired": 4, "applied": 1, "pending": 3}

    await eventually(counted, what="both words")


# --- In stages ------------------------------------------------------------------------------------------------------------------


async def holders(site: Site, policy: pb.Policy) -> set[str]:
    """The servers that shall have this revision now."""
    return {name for name in site.ids if policy.revision in {each.revision for each in await site.desired(name)}}


def rollout(policy: pb.Policy) -> tuple[str, int]:
    return pb.RolloutState.Name(policy.rollout.state).removeprefix("ROLLOUT_STATE_"), policy.rollout.stage


async def test_stages_go_on_by_themselves_as_servers_report(site: Site) -> None:
    await site.set("Shared", {"a": 1})
    stages = pb.Stages(sizes=["1", "50%", "100%"], stop_after=1, confirm_seconds=600)
    policy = await site.set("Shared", {"a": 2}, stages=stages)
    assert (policy.rollout.stages, rollout(policy)) == (stages, ("RUNNING", 1))
    for size in (1, 2, 4):
        has = await eventually(partial(_of_size, site, policy, size), what=f"{size} servers to have it")
        for name in has:
            await site.say(name)

    async def done() -> bool:
        return rollout(await site.get("Shared")) == ("DONE", 3)

    await eventually(done, what="the rollout to be done")
    assert counts(await site.get("Shared")) == {"desired": 4, "applied": 4}


async def _of_size(site: Site, policy: pb.Policy, size: int) -> set[str]:
    has = await holders(site, policy)
    assert len(has) <= size
    return has if len(has) == size else set()


async def test_a_failure_stops_them(site: Site) -> None:
    policy = await site.set("Shared", {"a": 2}, stages=pb.Stages(sizes=["1", "100%"]))
    [first] = await holders(site, policy)
    await site.say(first, "failed", "syntax error")

    async def stopped() -> bool:
        return rollout(await site.get("Shared")) == ("STOPPED", 1)

    await eventually(stopped, what="the rollout to stop")
    assert (await site.get("Shared")).rollout.message == "1 server failed in stage 1 of 2"
    assert await holders(site, policy) == {first}


async def test_time_alone_stops_them_where_a_server_says_nothing(site: Site) -> None:
    policy = await site.set("Shared", {"a": 2}, stages=pb.Stages(sizes=["1", "100%"], confirm_seconds=1))

    async def stopped() -> bool:
        return rollout(await site.get("Shared")) == ("STOPPED", 1)

    await eventually(stopped, what="the rollout to stop")
    assert len(await holders(site, policy)) == 1


async def test_a_restarted_primary_goes_on_where_it_was(tmp_path: Path) -> None:
    """Attacks on nothing: the links are gone for a moment, and that is neither success nor failure."""
    async with at_site(tmp_path) as site:
        for name in ("s0", "s1", "s2"):
            await site.server(name, "Shared")
        policy = await site.set("Shared", {"a": 1}, stages=pb.Stages(sizes=["1", "100%"]))
        [first] = await holders(site, policy)
        folder, config, ids = site.running.folder, site.running.primary.context.config, site.ids
    async with at_site_again(folder, config, ids) as site:
        for name in ids:
            site.connect(name)
        assert await holders(site, policy) == {first}
        assert rollout(await site.get("Shared")) == ("RUNNING", 1)
        await site.say(first)
        await eventually(lambda: _of_size(site, policy, 3), what="everybody to have it")


# --- Size -----------------------------------------------------------------------------------------------------------------------


def _many(tx: Any, account: str, group_ids: Mapping[str, int]) -> None:
    """Ten thousand trusted servers, by SQL: asking for each would take a minute."""
    sql = """
        INSERT INTO server (account, id, name, group_id, state, key, since, created_at) VALUES ($1, $2, $3, $4, 'trusted', $2, 1, 1)
    """
    for group_id, servers in group_ids.items():
        for number in range(servers):
            id = f"{group_id}{number}"
            tx.run(sql, account, id, f"server {number}", group_id)


async def test_ten_thousand_servers_are_planned_counted_and_listed(tmp_path: Path) -> None:
    """How quickly, `scripts/bench plan` measures."""
    async with at_site(tmp_path) as site:
        groups = [await site.group(f"Region {number % 10}/Site {number}") for number in range(100)]
        for number, group in enumerate(groups):  # before there are servers, or each answer would count them
            await site.set(group, {"site": number})
        listed = await site.running.admin.hierarchy.ListGroups(hierarchy_pb2.ListGroupsRequest(parent=f"accounts/{ACCOUNT}"))
        ids = {group.path: group.id for group in listed.groups}
        database = site.running.primary.context.database
        await database.write(ACCOUNT, _many, ACCOUNT, {ids[group]: 100 for group in groups})
        await site.set("/", {"a": 1})
        await site.set("Region 3", {"b": 1}, stages=pb.Stages(sizes=["1", "100%"]))
        request = pb.PlanPolicyRequest(key=key("/"), layer=pb.Layer(settings=b'{"a": 2}'))
        changes = [each async for each in site.stub.PlanPolicy(request)]
        assert sum(len(change.servers) for change in changes) == 10_000
        assert all(change.ByteSize() < 1024 * 1024 for change in changes)
        found = (await site.stub.ListPolicies(pb.ListPoliciesRequest(parent=f"accounts/{ACCOUNT}"))).policies
        assert sum(each.counts.desired for each in found) == 10_000 + 1_000 + 10_000
        assert {each.counts.unreachable == each.counts.desired for each in found} == {True}
        reports = (await site.stub.ListPolicyReports(pb.ListPolicyReportsRequest(key=key("/")))).reports
        assert len(reports) == 10_000
