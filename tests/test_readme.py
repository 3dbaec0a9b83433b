"""The README's walk-through, run as it stands in a real shell on a real terminal, the wizard answered as its table says.

Only the folder `walk` is another one. As root it has a network namespace of its own, so the default ports are free.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROMPT = "=enlist-shell=> "


def commands(section: str) -> list[str]:
    """The lines of the `sh` blocks below a heading, in order."""
    _, _, text = README.partition(f"\n## {section}")
    text, _, _ = text.partition("\n## ")
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    isolated = os.geteuid() == 0 and shutil.which("ip") and shutil.which("unshare")
    argv = ["unshare", "--net", "bash"] if isolated else ["bash"]
    environment = {**os.environ, "PS1": PROMPT, "TERM": "xterm", "HOME": str(tmp_path)}
    child = pexpect.spawn(
        argv[0], [*argv[1:], "--norc", "-i"], cwd=ROOT, env=environment, encoding="utf-8", timeout=60, dimensions=(50, 200)
    )
    child.expect_exact(PROMPT)
    if isolated:
        run(child, "ip link set lo up")
    yield child
    child.sendline("jobs -p | xargs -r kill; wait; exit")
    child.expect(pexpect.EOF)
    child.close()


def run(child: pexpect.spawn[str], command: str) -> str:
    """Runs a command line to the next prompt; what it printed. It must succeed."""
    child.sendline(command)
    child.expect_exact(PROMPT)
    printed = str(child.before)
    child.sendline("echo status=$?")
    child.expect(r"status=(\d+)\r")
    assert isinstance(child.match, re.Match)
    assert child.match[1] == "0", printed
    child.expect_exact(PROMPT)
    return printed


def answer_wizard(child: pexpect.spawn[str], command: str) -> None:
    """The wizard, answered as the README's table says."""
    child.sendline(command)
    answers = [
        ("Join line", ""),
        ("Primary server address", "127.0.0.1"),
        ("Is it the same there", "y"),
        ("Account domain name", "acme.example"),
        ("API key", ""),
        ("Display name", None),
        ("Address where clients find this server", ""),
        ("Write this and register", "y"),
    ]
    for question, answer in answers:
        assert f"| {question}" in README, question
        child.expect_exact(question)
        if answer is None:
            child.sendcontrol("u")  # the suggestion goes
            answer = "printer-1"
        child.sendline(answer)
    child.expect_exact("Comparison code")
    child.expect_exact("Ctrl-C")
    child.sendintr()
    child.expect_exact(PROMPT)


def test_the_walk_through_works_as_it_stands(shell: pexpect.spawn[str], tmp_path: Path) -> None:
    printed = {}
    for line in commands("Do it yourself"):
        command = line.replace("walk", str(tmp_path / "walk"))
        if command.startswith("enlist-setup") and "--unattended" not in command:
            answer_wizard(shell, command)
        elif "server authorize" in command:
            run(shell, command)
            until_connected(shell, "printer-1")
        elif "printer-2/secondary.toml run" in command:
            run(shell, command)
            until_connected(shell, "printer-2")
        elif command.startswith("wait"):
            shell.sendline(command)
            shell.expect_exact(PROMPT)
        else:
            printed[line] = run(shell, command)
    tree = printed["enlist-primary --data walk/primary tree"]
    assert re.search(r"Paris\s.*printer-2  \[trusted\]  connected", tree, re.DOTALL), tree
    assert "printer-1  [trusted]  connected" in tree
    journal = printed["enlist-primary --data walk/primary journal show acme.example"]
    assert "server.authorize" in journal
    assert "evidence: invited" in journal
    assert not (tmp_path / "walk").exists()


def until_connected(child: pexpect.spawn[str], name: str) -> None:
    """Waits, with a deadline, until the tree shows the server connected."""
    tree = next(line for line in commands("Do it yourself") if line.endswith(" tree"))
    folder = child.env["HOME"] if child.env else ""
    command = tree.replace("walk", f"{folder}/walk")
    run(child, f"for i in $(seq 100); do {command} | grep -q '{name}  .trusted.  connected' && break; sleep 0.1; done")
    assert f"{name}  [trusted]  connected" in run(child, command)


def test_both_commands_and_every_file_the_readme_names_are_there() -> None:
    for path in re.findall(r"`((?:docs|scripts|tests)/[\w./-]+|[A-Z]+\.md)`", README):
        assert (ROOT / path).exists(), path
    for script in ("scripts/demo", "scripts/test"):
        assert os.access(ROOT / script, os.X_OK)
