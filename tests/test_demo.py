"""`scripts/demo`, as the README has it: without a terminal it ends by itself; on one it stays until Ctrl-C."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pexpect

ROOT = Path(__file__).parent.parent


def test_without_a_terminal_it_ends_by_itself_and_says_where_each_server_stands(tmp_path: Path) -> None:
    """From any folder."""
    done = subprocess.run(
        [ROOT / "scripts" / "demo"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "print-paris trusted" in lines
    assert "print-lyon pending" in lines
    assert "print-paris  [trusted]  connected" in done.stdout
    assert "Now: applied 1 of 1." in lines
    assert '  "paper": "A4"' in lines
    assert "1 succeeded" in done.stdout
    assert f"{os.uname().sysname} {os.uname().release}" in lines


def test_on_a_terminal_it_stays_until_ctrl_c_and_leaves_nothing_behind() -> None:
    child = pexpect.spawn(str(ROOT / "scripts" / "demo"), encoding="utf-8", timeout=180, dimensions=(50, 200))
    child.expect(r"All of it runs in (\S+) until you press Ctrl-C")
    assert isinstance(child.match, re.Match)
    folder = Path(child.match[1])
    child.expect_exact("server authorize print-lyon")
    child.expect_exact("""echo '{"paper": "A3"}' | """)
    child.expect_exact("task run print-paris")
    child.expect_exact("The logs are")
    assert folder.is_dir()
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert not folder.exists()
    assert not re.search(rb"enlist-(primary|secondary).*" + str(folder).encode(), _command_lines())


def _command_lines() -> bytes:
    """The command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:  # it ended meanwhile
            continue
    return b"\n".join(lines)
