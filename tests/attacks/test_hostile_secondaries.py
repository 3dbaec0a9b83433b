"""Attacks row 37: a secondary that is authorized, and hostile. It speaks for itself alone; parent and siblings are unharmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from enlist import outputs
from enlist.reasons import Reason
from enlist.v1 import document_pb2, hierarchy_pb2, task_pb2
from enlist.v1.document_pb2 import OriginItems
from enlist_primary.model import reports
from enlist_primary.rpc.listeners import MESSAGE_LIMIT
from tests.attacks.hostile import Yard, linked, made_up, yard
from tests.attacks.world import World
from tests.support.waiting import eventually

_numbers = count(1)
NOBODY = "a" * 10
SUCCEEDED = document_pb2.TASK_STATE_SUCCEEDED
APPLIED = document_pb2.DOCUMENT_STATE_APPLIED


@pytest.fixture
async def ground(world: World) -> AsyncIterator[Yard]:
    """A group of its own; afterwards its honest server has been heard by nobody but itself, and its link is open."""
    async with yard(world, f"Yard {next(_numbers)}") as made:
        yield made
        await made.sibling.say(made.sibling.policy(made.sibling.desired()))

        async def heard() -> bool:
            return (await made.counts()).applied == 1

        await eventually(heard, what="the honest server's word")
        assert made.sibling.ended is None


# --- What it was not asked about ------------------------------------------------------------------------------------------------


async def test_words_on_what_it_was_not_given_are_passed_over(ground: Yard) -> None:
    """Kinds, runs and forms: neither a row nor a journal entry comes of them."""
    hostile, before, head = ground.hostile, await ground.said(), await ground.world.head()
    for kind in ("policy/other", "policy/", "policy/../../x", "policy/chrony/", "POLICY/chrony", "window", "", "x" * 10_000, "\0"):
        await hostile.say(
            hostile.policy(made_up(ground.revision), kind=kind), hostile.policy(made_up(ground.revision), kind=kind, name="x")
        )
    for name in (NOBODY, "", "../run", "x" * 10_000, hostile.id):
        await hostile.say(hostile.run(name), hostile.run(name, kind="task/other"), hostile.run(name, kind="task/"))
    await hostile.say(
        hostile.policy(made_up(ground.revision), name=ground.run),
        hostile.policy(made_up(1), state=0),
        hostile.policy(made_up(1), state=99),
    )
    for found in (1, 7, -1):  # what the primary alone finds out, and what nobody knows
        await hostile.say(hostile.policy(made_up(ground.revision), state=found))
    await hostile.through()
    assert await ground.said() == before
    assert await ground.world.head() == head


async def test_a_run_of_another_server_is_not_its_to_speak_of(ground: Yard) -> None:
    """It knows the run's id, and says that it succeeded: the run goes on where it is."""
    hostile = ground.hostile
    before = await ground.of("task_result", ground.sibling.id)
    for state in (SUCCEEDED, document_pb2.TASK_STATE_FAILED, document_pb2.TASK_STATE_RUNNING):
        await hostile.say(hostile.run(ground.run, task_state=state, output=b"forged"))
    await hostile.through()
    assert await ground.of("task_result", ground.sibling.id) == before
    assert await ground.of("task_result", hostile.id) == []
    task = await ground.world.running.admin.tasks.GetTask(task_pb2.GetTaskRequest(name=ground.task))
    assert task.progress == task_pb2.TASK_PROGRESS_RUNNING


async def test_a_claim_to_have_in_force_what_it_has_not_makes_no_count_green(ground: Yard) -> None:
    """Items that are not those desired there: in another order, of another primary, another body, or what no item can be."""
    hostile, wanted = ground.hostile, ground.hostile.desired()
    digest, [revision] = wanted[0].digest, [each.revision for each in wanted]
    other = made_up(revision)
    for claim in (
        [],
        made_up(0, -1, 2**62, digest=digest),
        [*wanted, *wanted],
        [*made_up(1), *wanted],
        made_up(revision + 1),
        other,
    ):
        await hostile.say(hostile.policy(claim))
    for claim in (other, [], [*wanted, *wanted]):
        applied = [OriginItems(origin=hostile.origin, items=claim)]
        await hostile.say(hostile.policy(wanted, applied_items=applied))
        await hostile.say(hostile.policy(claim, applied_items=[OriginItems(origin=hostile.origin, items=wanted)]))
    stranger = [OriginItems(origin="f" * 64, items=wanted), OriginItems(origin=hostile.origin)]
    await hostile.say(hostile.policy([], observed_items=stranger))
    await ground.sibling.say(ground.sibling.policy(ground.sibling.desired()))

    async def settled() -> bool:
        return (await ground.counts()).applied == 1

    await eventually(settled, what="the honest word")
    counts = await ground.counts()
    assert (counts.desired, counts.applied, counts.pending) == (2, 1, 1)


# --- How much it says -----------------------------------------------------------------------------------------------------------


async def test_endless_items_are_cut(ground: Yard) -> None:
    hostile = ground.hostile
    await hostile.say(hostile.policy(made_up(*[2**62 - 1] * 10_000)))
    await hostile.say(hostile.policy(made_up(*[1] * 50_000, digest=b"d")))
    await hostile.through()
    (row,) = await ground.of("policy_report", hostile.id)
    assert row["observed"] == row["applied"] == ",".join([f"{2**62 - 1}:{(b'd' * 32).hex()}"] * reports.LAYERS)


@pytest.mark.parametrize("text", ["m" * 65_536, "\x1b[31m" * 13_000, "\u202e" * 20_000, "\U000e0001" * 15_000])
async def test_what_it_says_in_words_is_cut_and_made_printable(ground: Yard, text: str) -> None:
    """Row 41 besides: it ends up on an administrator's terminal."""
    hostile, run = ground.hostile, await run_at(ground)
    await hostile.say(hostile.policy(hostile.desired(), message=text), hostile.run(run, message=text, output=text.encode() * 3))
    await hostile.through()
    (policy,), (result,) = await ground.of("policy_report", hostile.id), await ground.of("task_result", hostile.id)
    for message in (policy["message"], result["message"]):
        assert message.isprintable()
        assert 0 < len(message) <= reports.MESSAGE_LIMIT
    assert 0 < len(result["output"]) <= outputs.LIMIT


async def run_at(ground: Yard) -> str:
    """A run that is the hostile server's own."""
    target = task_pb2.TaskTarget(server_id=ground.hostile.id)
    request = task_pb2.RunTaskRequest(parent="accounts/acme.example", kind="restart", target=target)
    run = (await ground.world.running.admin.tasks.RunTask(request)).run.id
    await eventually(lambda: run in {item.name for item in ground.hostile.wanted()}, what="the run's document")
    return run


async def test_it_takes_nothing_back_and_moves_no_time(ground: Yard) -> None:
    """A run that ended has ended; nothing came to be so in the year 9999."""
    hostile, run = ground.hostile, await run_at(ground)
    later = {"seconds": 253_402_300_799}
    await hostile.say(hostile.run(run, exit_code=3, task_state=document_pb2.TASK_STATE_FAILED, output=b"first", time=later))

    async def written() -> bool:
        return [row["state"] for row in await ground.of("task_result", hostile.id)] == ["failed"]

    await eventually(written, what="its first word")
    await hostile.say(hostile.run(run, output=b"second"), hostile.policy(hostile.desired(), time=later))
    await hostile.say(hostile.run(run, task_state=document_pb2.TASK_STATE_RUNNING))
    await hostile.through()
    (result,), (policy,) = await ground.of("task_result", hostile.id), await ground.of("policy_report", hostile.id)
    assert (result["state"], result["exit_code"], bytes(result["output"])) == ("failed", 3, b"first")
    assert max(result["at"], policy["at"]) <= time.time()


async def test_a_flood_of_words_holds_up_itself_alone_and_grows_nothing(ground: Yard) -> None:
    """A thousand messages of a thousand reports each: the honest server is heard meanwhile, and so is the administrator."""
    hostile, sibling = ground.hostile, ground.sibling
    word = hostile.policy(hostile.desired())
    made_up = [
        hostile.run(f"{'a' * 6}{n:04}".replace("0", "b").replace("1", "c").replace("8", "d").replace("9", "e")) for n in range(500)
    ]
    said = hierarchy_pb2.Reports(reports=[word] * 500 + made_up)
    rows = {table: len(found) for table, found in (await ground.said()).items()}

    async def flood() -> None:
        for _ in range(1000):
            await hostile.link.send(reports=said)

    flooding = asyncio.create_task(flood())
    await eventually(lambda: ground.of("policy_report", hostile.id), what="the flood")
    begun = time.monotonic()
    await sibling.say(sibling.policy(sibling.desired()))
    await eventually(lambda: ground.of("policy_report", sibling.id), 5, what="the honest word")
    assert time.monotonic() - begun < 3
    assert not flooding.done(), "or it was no flood"
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    now = {table: len(found) for table, found in (await ground.said()).items()}
    assert now == {**rows, "policy_report": rows["policy_report"] + 2}


async def test_a_message_over_the_limit_ends_its_link_and_nobody_else_s(ground: Yard) -> None:
    hostile = ground.hostile
    await hostile.say(hostile.policy(hostile.desired(), output=b"x" * MESSAGE_LIMIT))
    await eventually(lambda: hostile.ended is not None, what="the end of its link")
    async with linked(ground.world, hostile.asker, hostile.id) as again:  # it may come back, and behave
        await again.say(again.policy(made_up(ground.revision)))
        await eventually(lambda: ground.of("policy_report", hostile.id), what="its word")


async def test_a_hello_of_whatever_size_leaves_little_behind(ground: Yard) -> None:
    """Kinds, sets it holds, strange authorities, an address: bounded, and what is none of these is dropped."""
    hostile = ground.hostile
    held = [document_pb2.Held(origin=f"{n:064x}", number=-1, content=b"x", digests=[b"x"] * 100) for n in range(200)]
    kinds = ["policy/x; reboot", "task/$(id)", "policy/../x", "nonsense", *(f"policy/k{n}" for n in range(5000))]
    alarms = [hierarchy_pb2.IdentityAlarm(address="x" * 1000, fingerprint="\x1b" * 1000)] * 100
    hello: dict[str, Any] = {
        "held": held,
        "kinds": kinds,
        "identity_alarms": alarms,
        "server_address": "$(reboot)",
        "version": "9" * 10_000,
    }
    before = await ground.world.refusals("acme.example", Reason.IDENTITY_CHANGED)
    async with linked(ground.world, hostile.asker, hostile.id, **hello) as again:
        await eventually(lambda: again.desired(), what="its set")
        server = await ground.world.running.server(hostile.id)
    assert 0 < len(server.kinds) <= 256
    assert all(kind.startswith("policy/k") for kind in server.kinds)
    assert (server.server_address, len(server.version) <= 40) == ("", True)
    assert await ground.world.refusals("acme.example", Reason.IDENTITY_CHANGED) - before == 16
