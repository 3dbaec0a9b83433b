"""Attacks row 33 for documents: JSON that is nested, huge or ambiguous is refused before anything is stored, and cheaply."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from enlist.documents import BODY_LIMIT
from enlist.reasons import Reason
from enlist.v1 import hierarchy_pb2, policy_pb2, task_pb2
from tests.attacks.world import World
from tests.support.inprocess import ACCOUNT, refused_by

PARENT = f"accounts/{ACCOUNT}"
CHEAP = 0.5
"""Seconds of this process's time, in which the primary runs too, that a refusal takes at most."""
FULL = BODY_LIMIT - 1024
"""Bytes that are few enough to be looked into, whatever they are for."""


def nested(depth: int, opens: bytes = b'{"a":', closes: bytes = b"}") -> bytes:
    """An object in itself; the innermost is a number."""
    return opens * depth + b"1" + closes * depth


BOMBS = {
    "objects nested one too deep": nested(33),
    "objects nested as deep as fits": nested(FULL // 6),
    "objects that never end": b'{"a":' * (FULL // 5),
    "arrays nested as deep as fits": b'{"a":' + b"[" * (FULL // 2 - 10) + b"]" * (FULL // 2 - 10) + b"}",
    "arrays that never end": b'{"a":' + b"[" * (FULL - 10),
    "a number of a million digits": b'{"a":' + b"9" * (FULL - 10) + b"}",
    "a number beyond 2^53": b'{"a": 9007199254740993}',
    "a number with a million digits behind the point": b'{"a":0.' + b"9" * (FULL - 30) + b"e999999999}",
    "a number that is infinite": b'{"a": 1e999}',
    "infinity": b'{"a": Infinity}',
    "no number": b'{"a": NaN}',
    "a name twice": b'{"a": 1, "a": 2}',
    "a name twice, written differently": b'{"a": 1, "\\u0061": 2}',
    "a name twice, deep inside": nested(30, b'{"a":').replace(b"1", b'{"b": 1, "b": 2}'),
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "bytes that are no text": b'{"a": "\xff\xfe"}',
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "two values": b'{"a": 1}{"a": 1}',
    "no object": b"[1]",
}
TOO_LARGE = {
    "a text of more than a mebibyte": json.dumps({"a": "x" * BODY_LIMIT}).encode(),
    "a hundred thousand names": json.dumps({f"name-{n:08}": n for n in range(100_000)}).encode()[: 2 * BODY_LIMIT],
    "hardly anything among a mebibyte of spaces": b'{"a": 1' + b" " * BODY_LIMIT + b"}",
}


def set_policy(world: World, text: bytes) -> Any:
    key = policy_pb2.PolicyKey(parent=PARENT, group="/", kind="bomb")
    layer = policy_pb2.Layer(settings=text)
    return world.running.admin.policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer))


def plan_policy(world: World, text: bytes) -> Any:
    key = policy_pb2.PolicyKey(parent=PARENT, group="/", kind="bomb")
    layer = policy_pb2.Layer(settings=text)
    return world.running.admin.policies.PlanPolicy(policy_pb2.PlanPolicyRequest(key=key, layer=layer)).read()


def run_task(world: World, text: bytes) -> Any:
    target = task_pb2.TaskTarget(group="/")
    request = task_pb2.RunTaskRequest(parent=PARENT, kind="bomb", args=text, target=target)
    return world.running.admin.tasks.RunTask(request)


CALLS = [set_policy, plan_policy, run_task]


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("call", CALLS)
async def test_a_bomb_is_refused_before_anything_is_stored(world: World, call: Callable[..., Any], bomb: str) -> None:
    """The sentence says where it stands; it never is as long as what was sent, and others are served meanwhile."""
    before, begun = await world.tables(), time.process_time()
    refused = await refused_by(call(world, BOMBS[bomb]))
    assert time.process_time() - begun < CHEAP
    assert refused.reason in {Reason.POLICY_INVALID, Reason.INVALID_ARGUMENT}
    assert 10 < len(refused.message) < 1500
    assert await world.tables() == before


@pytest.mark.parametrize("bomb", TOO_LARGE)
@pytest.mark.parametrize("call", CALLS)
async def test_what_is_larger_than_a_document_is_refused(world: World, call: Callable[..., Any], bomb: str) -> None:
    """By the message limit or by the document's own: never stored, never quoted."""
    before = await world.tables()
    refused = await refused_by(call(world, TOO_LARGE[bomb]))
    assert refused.reason in {Reason.DOCUMENT_TOO_LARGE, Reason.OVERLOADED}
    assert len(refused.message) < 1500
    assert await world.tables() == before


@pytest.mark.parametrize("pointers", [["/a" * 20_000], [f"/{n}" for n in range(50_000)], ["/" + "~1" * 100_000]])
async def test_locks_are_bounded_like_settings(world: World, pointers: list[str]) -> None:
    before = await world.tables()
    key = policy_pb2.PolicyKey(parent=PARENT, group="/", kind="bomb")
    layer = policy_pb2.Layer(settings=b'{"a": 1}', locks=pointers)
    begun = time.process_time()
    refused = await refused_by(world.running.admin.policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer)))
    assert time.process_time() - begun < CHEAP
    assert refused.reason in {Reason.POLICY_INVALID, Reason.DOCUMENT_TOO_LARGE}
    assert len(refused.message) < 1500
    assert await world.tables() == before


async def test_others_are_served_while_bombs_come_in(world: World) -> None:
    """A hundred at a time: the administrator's next question is answered in between."""
    throwing = [asyncio.create_task(refused_by(set_policy(world, BOMBS[bomb]))) for bomb in [*BOMBS] * 5]
    begun = time.monotonic()
    await world.running.admin.hierarchy.ListGroups(hierarchy_pb2.ListGroupsRequest(parent=PARENT))
    assert time.monotonic() - begun < 5
    await asyncio.gather(*throwing)
