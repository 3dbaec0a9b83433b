"""Ports that tests hand out: a primary that restarts finds its port free, whatever else runs on the machine."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import LOWEST, SLICE, ephemeral, free_port, slices

ROOT = Path(__file__).resolve().parents[1]
HAND_OUT = """
import sys
from tests.support.ports import free_port
print(*(free_port() for _ in range(100)), flush=True)
sys.stdin.read()
"""


def test_no_port_is_one_that_an_outgoing_connection_may_take() -> None:
    assert {free_port() for _ in range(SLICE)}.isdisjoint(ephemeral())


def test_a_port_is_not_handed_out_again_before_all_others() -> None:
    handed = [free_port() for _ in range(SLICE // 2)]
    assert len(set(handed)) == len(handed)


def test_processes_that_run_side_by_side_share_no_port() -> None:
    command = [sys.executable, "-c", HAND_OUT]
    others = [subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) for _ in range(3)]
    lines = [each.stdout.readline() for each in others if each.stdout is not None]
    for each in others:
        each.communicate(timeout=20)
    handed = [free_port() for _ in range(100)]
    for line in lines:
        handed += map(int, line.split())
    assert len(set(handed)) == len(handed) == 400


def test_a_port_at_which_somebody_listens_is_passed_over() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert port not in {free_port() for _ in range(SLICE)}


def test_slices_lie_on_both_sides_of_the_range_of_the_system() -> None:
    found = list(slices(range(32768, 61000)))
    assert found[0].start == LOWEST
    assert all(each.stop <= 32768 or each.start >= 61000 for each in found)
    assert {each.start < 32768 for each in found} == {True, False}


def test_nobody_binds_any_port_to_reuse_its_number() -> None:
    """What binds port 0 keeps its socket, as `create_server` does: a bare `bind` is how a number outlives it."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for folder in ("tests", "scripts")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and _binds_any(node)
    ]
    assert found == []


def _binds_any(call: ast.Call) -> bool:
    match call:
        case ast.Call(func=ast.Attribute(attr="bind"), args=[ast.Tuple(elts=[_, ast.Constant(value=0), *_])]):
            return True
    return False
