"""Decisions of all sorts, one after another, and what the primary answered to each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

import grpc
import grpc.aio

from enlist.channel import refusal
from enlist.v1 import (
    hierarchy_pb2,
    hierarchy_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
    trust_pb2,
    trust_pb2_grpc,
)
from scripts.soaking.tree import ACCOUNT, GROUPS, KINDS, TASK

PARENT = f"accounts/{ACCOUNT}"
LIMIT = 10.0
"""Seconds for which an answer is waited for."""
TASK_SECONDS = 45
"""The deadline of a run, so that all of them are over within the time to settle."""
# The decision may have been made: the answer is missing, or does not say.
_OPEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}


class _Answer(Protocol):
    """What a primary answers to a decision; a task has its own id."""

    revision: int


@dataclass(frozen=True)
class Decision:
    """One that was asked for. `number` is the journal's, 0 without an acknowledgement; `refused` is a refusal's reason code."""

    primary: str
    action: str
    subject: str
    token: str
    number: int = 0
    refused: str = ""
    settings: dict[str, str] | None = None

    @property
    def open(self) -> bool:
        """Whether the answer was lost, so that it may have been made or not."""
        return not self.number and not self.refused


class Decider:
    """Decides at one primary, about its servers, groups and tasks."""

    def __init__(self, primary: str, servers: list[str], channel: grpc.aio.Channel, random: Random, tokens: Iterator[str]) -> None:
        """`servers` are ids; a token marks one decision, in what it sets, for good."""
        self.made: list[Decision] = []
        self._primary = primary
        self._servers = servers
        self._random = random
        self._tokens = tokens
        self._policies = policy_pb2_grpc.PolicyServiceStub(channel)
        self._tasks = task_pb2_grpc.TaskServiceStub(channel)
        self._hierarchy = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
        self._trust = trust_pb2_grpc.TrustServiceStub(channel)
        self._labels: dict[str, str] = {}
        self._actions: dict[Callable[[], Awaitable[None]], int] = {
            self._set_policy: 5,
            self._run_task: 2,
            self._label: 2,
            self._move: 2,
            self._rename: 1,
            self._rest: 1,
        }

    async def decide(self, over: asyncio.Event, pause: float) -> None:
        """One decision after another, about `pause` seconds apart, until it is over."""
        while not over.is_set():
            (action,) = self._random.choices(list(self._actions), list(self._actions.values()))
            await action()
            await asyncio.sleep(self._random.uniform(0, 2 * pause))

    async def begin(self) -> None:
        """Sets every policy once, so that each server has each of them from the beginning."""
        for group in GROUPS:
            for kind in KINDS:
                await self._set(group, kind, [], everything=True)

    async def resume(self, server: str) -> None:
        """Trusts a suspended server again."""
        request = trust_pb2.ResumeServerRequest(name=_name(server))
        await self._ask("server.resume", f"servers/{server}", next(self._tokens), self._trust.ResumeServer(request, timeout=LIMIT))

    async def _set_policy(self) -> None:
        lock = self._primary == "top" and self._random.random() < 0.2
        everything = lock or self._random.random() < 0.5
        await self._set(self._random.choice(GROUPS), self._random.choice(KINDS), ["/shared"] if lock else [], everything)

    async def _set(self, group: str, kind: str, locks: list[str], everything: bool) -> None:
        """With `everything` it sets what the other primaries set too."""
        token = next(self._tokens)
        settings = {f"{self._primary} {group}": token, **({"shared": token} if everything else {})}
        layer = policy_pb2.Layer(settings=json.dumps(settings).encode(), locks=locks)
        key = policy_pb2.PolicyKey(parent=PARENT, group=group, kind=kind)
        call = self._policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer), timeout=LIMIT)
        await self._ask("policy.set", f"{kind} {group}", token, call, settings)

    async def _run_task(self) -> None:
        token = next(self._tokens)
        target = task_pb2.TaskTarget(group=self._random.choice(GROUPS))
        if self._random.random() < 0.3:
            target = task_pb2.TaskTarget(server_id=self._random.choice(self._servers))
        args = json.dumps({"token": token}).encode()
        request = task_pb2.RunTaskRequest(parent=PARENT, kind=TASK, args=args, target=target, deadline_seconds=TASK_SECONDS)
        await self._ask("task.run", "", token, self._tasks.RunTask(request, timeout=LIMIT))

    async def _label(self) -> None:
        server = self._random.choice(self._servers)
        token = next(self._tokens)
        before = self._labels.get(server, "none")
        request = hierarchy_pb2.LabelServerRequest(name=_name(server), add=[token], remove=[before])
        self._labels[server] = token
        await self._ask("server.label", f"servers/{server}", token, self._hierarchy.LabelServer(request, timeout=LIMIT))

    async def _move(self) -> None:
        server = self._random.choice(self._servers)
        request = hierarchy_pb2.MoveServerRequest(name=_name(server), group=self._random.choice(GROUPS))
        call = self._hierarchy.MoveServer(request, timeout=LIMIT)
        await self._ask("server.move", f"servers/{server}", next(self._tokens), call)

    async def _rename(self) -> None:
        server = self._random.choice(self._servers)
        token = next(self._tokens)
        request = hierarchy_pb2.RenameServerRequest(name=_name(server), display_name=token)
        await self._ask("server.rename", f"servers/{server}", token, self._hierarchy.RenameServer(request, timeout=LIMIT))

    async def _rest(self) -> None:
        """Suspends a server for a moment."""
        server = self._random.choice(self._servers)
        token = next(self._tokens)
        request = trust_pb2.SuspendServerRequest(name=_name(server), reason=token)
        await self._ask("server.suspend", f"servers/{server}", token, self._trust.SuspendServer(request, timeout=LIMIT))
        await asyncio.sleep(self._random.uniform(0, 3))
        await self.resume(server)

    async def _ask(
        self, action: str, subject: str, token: str, call: Awaitable[_Answer], settings: dict[str, str] | None = None
    ) -> None:
        """Waits for the answer, and keeps it."""
        number, refused = 0, ""
        try:
            answer = await call
            number = answer.revision
            subject = subject or f"tasks/{getattr(answer, 'id', '')}"
        except grpc.aio.AioRpcError as error:
            refused = "" if error.code() in _OPEN else str(refusal(error).reason)
        self.made.append(Decision(self._primary, action, subject, token, number, refused, settings))


def _name(server: str) -> str:
    return f"{PARENT}/servers/{server}"
