"""The policy that the tests of policies set: settings, a window that is closed, and what is said of it."""

from __future__ import annotations

from typing import Any

from tests.secondary.engine import Machine, Server, soon
from tests.secondary.origins import policy

A, B, C = {"text": "a"}, {"text": "b"}, {"text": "c"}
CLOSED = "0 3 * * *"
"""START is 08:00 UTC: a window that opens at 3 is closed for 19 hours."""
OPENS_IN = 19 * 3600


def meant(machine: Machine, *revisions: int) -> dict[str, tuple[int, ...]]:
    """Which revisions a report means."""
    return {machine.primary.name: revisions} if revisions else {}


def word(machine: Machine, state: str, of: tuple[int, ...], running: tuple[int, ...], message: str = "") -> dict[str, Any]:
    """What is said of a policy whose revisions `of` are meant and `running` in force."""
    return {"state": state, "meant": meant(machine, *of), "running": meant(machine, *running), "message": message}


async def provisional(server: Server, machine: Machine) -> None:
    """A is in force for good, B waits to be confirmed for 60 s."""
    await server.send(machine.primary, policy(5, A))
    await server.until("applied")
    await server.send(machine.primary, policy(6, B, confirm=60))
    await soon(lambda: (server.word() or {})["running"] == meant(machine, 6))
    await server.done()
