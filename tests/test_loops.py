"""The rule of the house about loops, read from the source: what is done again after a pause is done by `Controller` or `retry`.

A loop that sleeps by itself has no backoff, no deadline and nothing that isolates its errors. Each exception says why it is none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"protos": "enlist", "primary": "enlist_primary", "secondary": "enlist_secondary", "installer": "enlist_installer"}

ALLOWED = {
    "enlist.runtime.controller.retry": "it is the loop",
    "enlist_primary.links.link._Body.run": "reads a stream to its end, and paces floods",
    "enlist_primary.federation.subtree.SubtreeStream.messages": "writes a stream to its end, and gathers what is said together",
    "enlist_primary.rpc.policies.Policies.WatchPolicy": "writes a stream to its end, paced",
    "enlist_primary.rpc.tasks.Tasks.WatchTask": "writes a stream to its end, paced",
    "enlist_primary.cli.client._running": "a command that waits for another process, with a limit",
    "enlist_secondary.connection.link._write_on": "writes a stream to its end, and gathers what is said together",
    "enlist_secondary.keeper.Keeper._attempt": "one pause, before a primary that contradicts itself is asked again",
    "enlist_secondary.handlers.process._Child._gone": "waits for processes that nobody tells about, with a limit",
    "enlist_installer.waiting._told": "a command that waits for another process",
    "enlist_installer.waiting.connected": "a command that waits for another process",
    "enlist_installer.waiting.ended": "a command that waits for another process, with a limit",
}


def sleeping(tree: ast.AST, name: str) -> Iterator[str]:
    """The functions in which a loop calls `asyncio.sleep`, by their dotted names under `name`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from sleeping(node, f"{name}.{node.name}")
        elif isinstance(node, ast.While | ast.For | ast.AsyncFor) and any(map(sleeps, ast.walk(node))):
            yield name
        else:
            yield from sleeping(node, name)


def sleeps(node: ast.AST) -> bool:
    """Whether this is a call of `asyncio.sleep` that takes time."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("asyncio"), attr="sleep"), args=[ast.Constant(value=0)]):
            return False
        case ast.Call(func=ast.Attribute(value=ast.Name("asyncio"), attr="sleep") | ast.Name("sleep")):
            return True
    return False


def found() -> set[str]:
    """The sleeping loops of all packages."""
    names: set[str] = set()
    for root, package in PACKAGES.items():
        for file in (ROOT / root / package).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT / root).with_suffix("").parts).removesuffix(".__init__")
            names |= set(sleeping(ast.parse(file.read_bytes(), str(file)), module))
    return names


def test_no_module_has_a_loop_that_sleeps() -> None:
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
        ("async def read():\n    while True:\n        await stream.read()", []),
    ],
)
def test_a_loop_that_sleeps_is_found(source: str, expected: list[str]) -> None:
    assert list(sleeping(ast.parse(source), "m")) == expected
