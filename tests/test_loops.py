"""The rule of the house about loops, read from the source: what is done again after a pause is done by `Controller` or `retry`.

A loop that pauses by itself has no backoff, no deadline and nothing that isolates its errors. Each exception says why it is none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"protos": "enlist", "primary": "enlist_primary", "secondary": "enlist_secondary", "installer": "enlist_installer"}

ALLOWED = {
    "enlist.runtime.controller.Controller._rest": "it is the timer",
    "enlist.runtime.controller.retry": "it is the loop",
    "enlist.transport.race.race": "begins each attempt a moment after the one before, once; it repeats none",
    "enlist.runtime.files._take_turns": "a thread that waits for another process's lock, with a limit",
    "enlist.runtime.files._await_turn": "a thread that waits for another process's lock, with a limit",
    "enlist.runtime.files.lock": "waits for another process's look at the lock, with a limit",
    "enlist_primary.links.link._Body.run": "reads a stream to its end, and paces floods",
    "enlist_primary.links.fair_queue._Later.put": "one timer for all that waits for company: no link has one of its own",
    "enlist_primary.links.fair_queue._Later._on_time": "the same timer, while something waits",
    "enlist_primary.federation.subtree.SubtreeStream.messages": "writes a stream to its end, and gathers what is said together",
    "enlist_primary.rpc.policies.Policies.WatchPolicy": "writes a stream to its end, paced",
    "enlist_primary.rpc.tasks.Tasks.WatchTask": "writes a stream to its end, paced",
    "enlist_primary.cli.client._running": "a command that waits for another process, with a limit",
    "enlist_secondary.connection.link._write_on": "writes a stream to its end, and gathers what is said together",
    "enlist_secondary.connection.session.Session.on_ack": "one pause, before what the primary had no room for is said again",
    "enlist_secondary.keeper.Keeper._attempt": "one pause, before a primary that contradicts itself is asked again",
    "enlist_secondary.handlers.process._Child._gone": "waits for processes that nobody tells about, with a limit",
    "enlist_installer.waiting._asked": "a command that asks until a daemon does, and looks now and then whether one does",
    "enlist_installer.waiting._told": "a command that waits for another process",
    "enlist_installer.waiting.connected": "a command that waits for another process",
    "enlist_installer.waiting.ended": "a command that waits for another process, with a limit",
}


def pausing(tree: ast.AST, name: str) -> Iterator[str]:
    """The functions in which a loop pauses, or that set a timer, by their dotted names under `name`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from pausing(node, f"{name}.{node.name}")
        elif sets_a_timer(node) or (isinstance(node, ast.While | ast.For | ast.AsyncFor) and any(map(pauses, ast.walk(node)))):
            yield name
        else:
            yield from pausing(node, name)


def pauses(node: ast.AST) -> bool:
    """Whether this is a call that takes time, or that waits for something with a limit: such a wait is a pause that ends early."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("asyncio" | "time"), attr=call)) | ast.Call(func=ast.Name(call)):
            match call:
                case "sleep":
                    return not node.args or not is_constant(node.args[0], 0)
                case "timeout" | "timeout_at":
                    return limited(node, 0, "delay", "when")
                case "wait_for":
                    return limited(node, 1, "timeout")
                case "wait":
                    return limited(node, 2, "timeout")
    return sets_a_timer(node)


def limited(call: ast.Call, place: int, *keywords: str) -> bool:
    """Whether it has a limit, which stands at this place or under one of these names."""
    limits = [*call.args[place : place + 1], *(each.value for each in call.keywords if each.arg in keywords)]
    return any(not is_constant(limit, None) for limit in limits)


def is_constant(node: ast.AST, value: object) -> bool:
    """Whether it is this constant."""
    return isinstance(node, ast.Constant) and node.value == value


def sets_a_timer(node: ast.AST) -> bool:
    """Whether this is a call of `call_later` or `call_at`, with which something comes again without a loop."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("call_later", "call_at")


def found() -> set[str]:
    """The loops that pause, and the timers, of all packages."""
    names: set[str] = set()
    for root, package in PACKAGES.items():
        for file in (ROOT / root / package).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__")
            names |= set(pausing(ast.parse(file.read_bytes(), str(file)), module))
    return names


def test_no_module_has_a_loop_that_pauses() -> None:
    assert found() - ALLOWED.keys() == set()


def test_every_exception_is_still_needed() -> None:
    assert ALLOWED.keys() - found() == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def again():\n    while True:\n        await asyncio.sleep(1)", ["m.again"]),
        (
            "async def again():\n    while not done:\n        if x:\n            await asyncio.sleep(PACE)",
            ["m.again"],
        ),
        ("class A:\n    async def again(self):\n        for each in x:\n            await asyncio.sleep(1)", ["m.A.again"]),
        ("async def once():\n    await asyncio.sleep(1)", []),
        ("async def turn():\n    while True:\n        await asyncio.sleep(0)", []),
        (
            "async def wait():\n    while True:\n        async with asyncio.timeout(due):\n            await x",
            ["m.wait"],
        ),
        ("async def wait():\n    while True:\n        async with asyncio.timeout(None):\n            await x", []),
        ("async def wait():\n    while True:\n        async with timeout_at(due):\n            await x", ["m.wait"]),
        ("async def wait():\n    while True:\n        await asyncio.wait_for(woken.wait(), 5)", ["m.wait"]),
        ("async def wait():\n    while True:\n        await asyncio.wait_for(woken.wait(), timeout=None)", []),
        ("async def wait():\n    while True:\n        await asyncio.wait(tasks, timeout=SHARE)", ["m.wait"]),
        ("async def wait():\n    while True:\n        await asyncio.wait(tasks)", []),
        ("async def once():\n    async with asyncio.timeout(5):\n        await call()", []),
        ("class A:\n    def later(self):\n        self.timer = loop().call_later(1, self.again)", ["m.A.later"]),
        ("async def read():\n    while True:\n        await stream.read()", []),
    ],
)
def test_a_loop_that_pauses_is_found(source: str, expected: list[str]) -> None:
    assert list(pausing(ast.parse(source), "m")) == expected
