"""`enlist-setup --unattended` as a program runs it: its arguments, and what it must print whatever came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.installer.person import tree
from tests.support.processes import PrimaryProcess, run

KEYS = ["changed", "state", "reason", "retry", "server_id"]


def places(place: Path) -> list[str]:
    return ["--config", str(place / "secondary.toml"), "--data", str(place / "data")]


def flags(primary: PrimaryProcess, place: Path, name: str = "gw1") -> list[str]:
    return [
        *("--primary", primary.address, "--primary-fingerprint", primary.fingerprint),
        *("--account", "acme.example", "--name", name, *places(place)),
    ]


def set_up(*arguments: str, expect: int = 0, **options: Any) -> dict[str, Any]:
    """Runs it; the JSON it printed, which has its keys whatever came of it."""
    done = run("enlist-setup", "--unattended", "--json", *arguments, expect=expect, **options)
    outcome: dict[str, Any] = json.loads(done.stdout)
    assert list(outcome) == KEYS
    assert outcome["reason"] in done.stderr
    return outcome


def refused(place: Path, *arguments: str, **options: Any) -> str:
    """The reason it was refused for; nothing may have been written."""
    before = tree(place.parent)
    outcome = set_up(*arguments, expect=1, **options)
    assert (outcome["changed"], outcome["state"], outcome["server_id"]) == (False, "new", "")
    assert tree(place.parent) == before
    assert not place.exists()
    return str(outcome["reason"])


def secret(tmp_path: Path, text: str) -> str:
    path = tmp_path / "secret"
    path.write_text(text + "\n")
    return str(path)
