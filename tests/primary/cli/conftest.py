"""Runs a command against a primary that is only answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from enlist_primary.cli import client, main
from tests.primary.cli.fake import FakePrimary


@dataclass
class Ran:
    """What came of a command."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `enlist-primary` in this process; with a fake primary, or in an empty data folder."""

    def run(*argv: str, primary: FakePrimary | None = None) -> Ran:
        if primary is not None:
            monkeypatch.setattr(client, "call", primary.call)
        capsys.readouterr()
        try:
            status = main.main(["--data", str(tmp_path / "data"), *argv])
        except SystemExit as end:  # argparse's way out
            status = end.code if isinstance(end.code, int) else -1
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run
