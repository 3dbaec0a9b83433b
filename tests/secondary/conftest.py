"""A machine for the tests of what a server does with its documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.secondary.disks import Disk
from tests.secondary.engine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Nothing is set on it, and it has never run."""
    return Machine(tmp_path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Every operation on files goes through it."""
    return Disk(monkeypatch)
