"""One primary for the tests that only ask it things; a test that changes it makes one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import PrimaryProcess


@contextmanager
def serving(folder: Path, settings: str) -> Iterator[PrimaryProcess]:
    """A primary with the account `acme.example` and more settings in its configuration."""
    primary = PrimaryProcess(folder)
    with (primary.data / "primary.toml").open("a") as config:
        config.write(f"\n{settings}\n")
    try:
        primary.start()
        primary.do("account", "add", "acme.example", "--contact", "ops@acme.example")
        yield primary
    finally:
        primary.close()


PATIENT = "[limits]\nattempts_per_minute = 100000"


@pytest.fixture(scope="session")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrimaryProcess]:
    """A primary with the accounts `acme.example` and `strict.example` (which wants an API key); no number of attempts annoys it."""
    with serving(tmp_path_factory.mktemp("installer-primary"), PATIENT) as running:
        running.do("account", "add", "strict.example")
        running.do("account", "set", "strict.example", "--default-api-key", "off")
        yield running


@pytest.fixture(scope="session")
def other_primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrimaryProcess]:
    """A different primary, with an account of the same name."""
    with serving(tmp_path_factory.mktemp("installer-other-primary"), PATIENT) as running:
        yield running


@pytest.fixture
def impatient_primary(tmp_path: Path) -> Iterator[PrimaryProcess]:
    """A primary that one refused attempt annoys, and that lets one server wait for a decision."""
    with serving(tmp_path, "[limits]\nattempts_per_minute = 1\npending_per_account = 1") as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where configuration and data of a server go; not there yet."""
    return tmp_path / "server"
