"""The example program in `docs/`, as a user of the services runs it: with the package, a token, and the API port."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import primary_process

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "list_tree.py"


def example(address: str, fingerprint: str, token: str) -> subprocess.CompletedProcess[str]:
    """Runs the example from another folder than the repository."""
    return subprocess.run(
        [sys.executable, EXAMPLE, address, fingerprint],
        env={**os.environ, "ENLIST_TOKEN": token},
        cwd=EXAMPLE.anchor,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_example_lists_the_tree_with_a_token_and_refuses_another_primary(tmp_path: Path) -> None:
    with primary_process(tmp_path) as primary:
        primary.do("join", "acme.example", "--name", "printer-1", "--group", "Sites/Paris")
        listed = example(primary.address, primary.fingerprint, primary.owner_token)
        assert listed.returncode == 0, listed.stderr
        assert listed.stdout == "acme.example\n  /\n  Sites\n  Sites/Paris\n    printer-1  invited  -\n"
        stranger = example(primary.address, "0" * 64, primary.owner_token)
        assert stranger.returncode == 1
        assert "not the primary you mean" in stranger.stderr
        guessing = example(primary.address, primary.fingerprint, "enlu_aaaaaaaaaa_" + "a" * 32)
        assert guessing.returncode == 1
        assert guessing.stderr.startswith("NOT_LOGGED_ON: ")
