"""A set that a server refuses, or a primary on the way down to it, is shown wherever a failure would be, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, policy_pb2, server_pb2, task_pb2
from enlist_primary.model.reports import Asked
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc.context import Context
from tests.support.inprocess import ACCOUNT, Asker, Running
from tests.support.links import LinkClient, linked
from tests.support.waiting import eventually

WHY = "The desired set is refused (SET_STALE): It is older than one before."
PARENT = f"accounts/{ACCOUNT}"
KEY = policy_pb2.PolicyKey(parent=PARENT, group="/", kind="web")
PATH = "b" * 10


async def trusted(running: Running) -> tuple[Asker, str]:
    """A server that is trusted, and its id."""
    asker = Asker(running)
    async with running.stranger() as stub:
        return asker, (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id


async def set_policy(running: Running, number: int) -> None:
    layer = policy_pb2.Layer(settings=b'{"number": %d}' % number)
    await running.admin.policies.SetPolicy(policy_pb2.SetPolicyRequest(key=KEY, layer=layer))


async def shown(running: Running) -> dict[str, tuple[str, str]]:
    """How the policy is at each server: its state, and why."""
    request = policy_pb2.ListPolicyReportsRequest(key=KEY)
    reports = (await running.admin.policies.ListPolicyReports(request)).reports
    state = document_pb2.DocumentState.Name
    return {each.server.id: (state(each.state).removeprefix("DOCUMENT_STATE_"), each.message) for each in reports}


async def result(running: Running, task: task_pb2.Task) -> tuple[str, str]:
    """How the task's run is at its one server, and why."""
    (found,) = (await running.admin.tasks.ListTaskResults(task_pb2.ListTaskResultsRequest(name=task.name))).results
    return document_pb2.TaskState.Name(found.state).removeprefix("TASK_STATE_"), found.message


def refused(origin: str, **fields: Any) -> hierarchy_pb2.SetRefused:
    return hierarchy_pb2.SetRefused(origin=origin, reason="SET_STALE", message="It is older than one before.", **fields)


async def refuse(link: LinkClient, items: int) -> None:
    """The server refuses the newest set, of so many items, that it got."""
    await eventually(lambda: len(link.items) == items, what="the set")
    held, sequence = link.held[-1], max(each.sequence for each in link.got if each.HasField("desired"))
    version = {"epoch": held.version.epoch, "number": held.version.number}
    await link.send(set_refusals=[refused(held.origin, sequence=sequence, **version)])


async def test_set_that_a_server_refuses_is_shown_at_its_policies_its_runs_and_itself(running: Running) -> None:
    asker, id = await trusted(running)
    async with linked(asker, listening=True, kinds=["policy/web", "task/restart"]) as link:
        link.answers = False
        await set_policy(running, 1)
        await refuse(link, items=1)
        await _until(lambda: shown(running), {id: ("FAILED", WHY)})
        assert (await running.server(id)).set_refusal == WHY
        target = task_pb2.TaskTarget(server_id=id)
        task = await running.admin.tasks.RunTask(task_pb2.RunTaskRequest(parent=PARENT, kind="restart", target=target))
        await refuse(link, items=2)
        await _until(lambda: result(running, task), ("QUEUED", WHY))
        link.answers = True
        await set_policy(running, 2)
        await _until(lambda: result(running, task), ("SENT", ""))
        assert await shown(running) == {id: ("PENDING", "")}
        assert (await running.server(id)).set_refusal == ""


async def test_set_that_ends_the_last_policy_is_shown_when_it_is_refused(running: Running) -> None:
    """No policy is left at which it could be shown."""
    asker, id = await trusted(running)
    async with linked(asker, listening=True) as link:
        await set_policy(running, 1)
        await eventually(lambda: len(link.items) == 1, what="the set")
        link.answers = False
        await running.admin.policies.RemovePolicy(policy_pb2.RemovePolicyRequest(key=KEY))
        await refuse(link, items=0)
        await _until(lambda: _refusal(running, id), WHY)
    await _until(lambda: _refusal(running, id), "")  # a server without a link refuses nothing


@pytest.mark.parametrize("who", ["the server", "the primary on the way", "the server on the way"])
async def test_set_that_is_refused_below_is_shown_there(running: Running, own: Context, who: str) -> None:
    _, middle = await trusted(running)
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, middle, True, None, PRIMARY_ITSELF, own.now())
    link = own.hub.open(ACCOUNT, middle, own.now() + 3600)
    link.refusal = WHY if who == "the server on the way" else ""
    await set_policy(running, 1)
    why = refused(own.signer.authority.primary_id, below=True)
    its = [why] if who == "the server" else []
    server = hierarchy_pb2.BelowServer(
        path=PATH, display_name="k1", state=server_pb2.SERVER_STATE_TRUSTED, connected=True, set_refusals=its
    )
    own.below.on_message(ACCOUNT, middle, Asked(frozenset()), hierarchy_pb2.Below(servers=[server], whole=True), own.now())
    await own.below.flush()
    if who == "the primary on the way":
        own.below.on_refusals(ACCOUNT, middle, [why])
    await _until(
        lambda: shown(running), {middle: ("FAILED", WHY) if link.refusal else ("PENDING", ""), f"{middle}/{PATH}": ("FAILED", WHY)}
    )
    pages = running.admin.hierarchy.ListBelow(hierarchy_pb2.ListBelowRequest(parent=PARENT))
    assert [each.set_refusal async for page in pages for each in page.servers] == [WHY]


async def _until(found: Any, expected: object) -> None:
    async def equal() -> bool:
        return bool(await found() == expected)

    await eventually(equal, what=f"{expected}")


async def _refusal(running: Running, id: str) -> str:
    return (await running.server(id)).set_refusal
