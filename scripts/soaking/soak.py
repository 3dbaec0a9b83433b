"""One soak from beginning to end: the tree, the storm with its decisions, the time to settle, the verdict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import grpc.aio

from enlist.runtime import sockets
from scripts.soaking import verdict
from scripts.soaking.decisions import Decider, Decision
from scripts.soaking.journalled import Entry, journalled
from scripts.soaking.settling import Settling, settled
from scripts.soaking.storm import Storm
from scripts.soaking.tree import ACCOUNT, Tree

DECIDERS = 3
"""Decisions under way at once at each primary."""
SAY_EVERY = 10.0
# A primary that is killed is back within seconds: the channel looks for it all the time.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is done: all that is random follows from the seed. `pause` is in seconds, between two decisions of one decider."""

    seed: int
    seconds: float
    leaves: int
    direct: int
    settle: float
    pause: float


async def soak(folder: Path, stack: ExitStack, plan: Plan, say: Say) -> list[str]:
    """What did not hold."""
    say("enrolling")
    tree = await asyncio.to_thread(Tree, folder, stack, plan.leaves, plan.direct)
    async with AsyncExitStack() as channels:
        opened = {name: await _channel(tree, name, channels) for name in tree.primaries}
        return await Soak(tree, opened, plan, say).run()


async def _channel(tree: Tree, name: str, stack: AsyncExitStack) -> grpc.aio.Channel:
    target = stack.enter_context(sockets.target(tree.primaries[name].data / "run" / "admin.sock"))
    return await stack.enter_async_context(grpc.aio.insecure_channel(target, options=_OPTIONS))


class Soak:
    """The parts of it, over one tree."""

    def __init__(self, tree: Tree, channels: dict[str, grpc.aio.Channel], plan: Plan, say: Say) -> None:
        self._tree = tree
        self._plan = plan
        self._say = say
        self._tokens: Iterator[str] = (f"t{number}" for number in count(1))
        self._deciders = [self._decider(name, channel, number) for name, channel in channels.items() for number in range(DECIDERS)]
        self._settling = {name: Settling(name, channel) for name, channel in channels.items()}
        self._storm = Storm(tree.processes, Random(f"{plan.seed} kills"), say)

    def _decider(self, name: str, channel: grpc.aio.Channel, number: int) -> Decider:
        ids = [server.id for server in self._tree.under(name)]
        return Decider(name, ids, channel, Random(f"{self._plan.seed} {name} {number}"), self._tokens)

    async def run(self) -> list[str]:
        """From the first decision to the verdict."""
        heads = {name: _entries(self._tree, name)[-1]["number"] for name in self._tree.primaries}
        for decider in self._deciders[::DECIDERS]:
            await decider.begin()
        if waited := await settled(self._waited, self._plan.settle):
            return [f"before the storm: {each}" for each in waited]
        watching = asyncio.create_task(self._storm.watch())
        try:
            await self._rage()
            self._say("settling")
            await self._resume()
            waited = await settled(self._waited, self._plan.settle)
            await asyncio.sleep(2)  # one more reading of what the processes hold
        finally:
            watching.cancel()
            await asyncio.wait({watching})
        self._say("comparing")
        found = [*self._storm.violations, *(f"after {self._plan.settle:g} s: {each}" for each in waited)]
        found += await self._compared(heads)
        self._summary()
        return found

    async def _rage(self) -> None:
        """The storm, with decisions all the while."""
        over = asyncio.Event()
        deciding = [asyncio.create_task(decider.decide(over, self._plan.pause)) for decider in self._deciders]
        telling = asyncio.create_task(self._tell())
        try:
            await self._storm.rage(self._plan.seconds)
        finally:
            over.set()
            telling.cancel()
            await asyncio.wait({*deciding, telling})
        for task in deciding:
            task.result()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(SAY_EVERY)
            self._say(f"{self._storm.kills} kills, {_counted(self._made())}")

    async def _resume(self) -> None:
        """A decider's last answer may have been lost; so this is asked until nothing is suspended."""
        for decider, settling in zip(self._deciders[::DECIDERS], self._settling.values(), strict=True):
            await settling.resume_all(decider)

    async def _waited(self) -> list[str]:
        return [each for settling in self._settling.values() for each in await settling.waits_for()]

    async def _compared(self, heads: dict[str, int]) -> list[str]:
        tree = self._tree
        found = verdict.logs(tree.folder) + verdict.runs(tree.servers) + self._storm.exceeded(set(tree.primaries))
        ended = []
        for name in tree.primaries:
            results = await self._settling[name].results()
            ended += results
            found += verdict.results(name, results) + await self._decided(name, heads[name])
        for server in tree.servers:
            found += await asyncio.to_thread(verdict.outcomes, server, ended)
        return found

    async def _decided(self, name: str, head: int) -> list[str]:
        """One primary's journal beside what was acknowledged, and what it made of its servers."""
        primary = self._tree.primaries[name]
        entries = await asyncio.to_thread(_entries, self._tree, name)
        made = [decision for decision in self._made() if decision.primary == name]
        found = [f"{name}: {each}" for each in journalled(entries, head, made)]
        found += verdict.policies(name, await self._settling[name].reports(), entries, made)
        found += await asyncio.to_thread(verdict.servers, primary, self._tree.under(name), entries)
        verified = await asyncio.to_thread(primary.do, "journal", "verify", ACCOUNT)
        self._say(f"{name}: {verified.stdout.strip()}")
        return found

    def _made(self) -> list[Decision]:
        return [decision for decider in self._deciders for decision in decider.made]

    def _summary(self) -> None:
        self._say(f"{self._storm.kills} kills, {_counted(self._made())}; {sum(len(each.runs) for each in self._tree.servers)} runs")
        for name, held in self._storm.held.items():
            self._say(f"{name}: {held.shown()}")


def _entries(tree: Tree, name: str) -> list[Entry]:
    return list(tree.primaries[name].json("journal", "show", ACCOUNT))


def _counted(made: list[Decision]) -> str:
    refused = Counter(decision.refused for decision in made if decision.refused)
    acknowledged, lost = sum(bool(each.number) for each in made), sum(each.open for each in made)
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(refused.items()))
    return f"{acknowledged} decisions acknowledged, {lost} without an answer, {sum(refused.values())} refused ({reasons})"
