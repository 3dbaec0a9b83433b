"""The README's walk-through, run as it stands in a real shell on a real terminal, the wizard answered as its table says.

Only the folder `walk` is another one. As root it has a network namespace of its own, so the default ports are free. The part about
policies needs chrony; without it the rest is walked.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.means import need

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROMPT = "=enlist-shell=> "
CHRONYD = Path("/usr/sbin/chronyd")
ENROLLING, POLICIES, END = "Do it yourself", "Say what servers shall be", "Put it away"
PRIMARY = "enlist-primary --data walk/primary"


def section(heading: str) -> str:
    """What stands below a heading."""
    _, found, text = README.partition(f"\n## {heading}")
    assert found, heading
    return text.partition("\n## ")[0]


def commands(heading: str) -> list[str]:
    """The commands in the `sh` blocks below a heading, in order. A loop is one, and so is what reads a here-document."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", section(heading), re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            last = "done" if line.startswith("for ") else "END"
            command = line
            while "<<" in line and not command.endswith(f"\n{last}"):
                command += f"\n{next(lines)}"
            found.append(command)
    return found


def shown_after(command: str) -> list[str]:
    """The lines that the README shows as what comes of a command: the block without a language below it."""
    text = section(POLICIES)
    block = re.search(r"\n```\n(.*?)```", text[text.index(command) :].partition("```")[2], re.DOTALL)
    assert block, command
    return block[1].splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    isolated = os.geteuid() == 0 and shutil.which("ip") and shutil.which("unshare")
    argv = ["unshare", "--net", "bash"] if isolated else ["bash"]
    inputrc = tmp_path / "inputrc"
    inputrc.write_text("set enable-bracketed-paste off\n")  # or what is printed has its signs in between
    environment = {**os.environ, "PS1": PROMPT, "TERM": "xterm", "HOME": str(tmp_path), "INPUTRC": str(inputrc)}
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


def run(child: pexpect.spawn[str], command: str, status: int = 0) -> str:
    """Runs a command to the next prompt; what it printed. It must end with this status."""
    child.sendline(command)
    child.expect_exact(PROMPT)
    printed = str(child.before)
    child.sendline("echo status=$?")
    child.expect(r"status=(\d+)\r")
    assert isinstance(child.match, re.Match)
    assert child.match[1] == str(status), printed
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


def there(line: str, folder: Path) -> str:
    """A command of the README with another folder for `walk`."""
    return re.sub(r"(\$PWD/)?\bwalk\b", str(folder / "walk"), line)


@pytest.fixture
def walked(shell: pexpect.spawn[str], tmp_path: Path) -> dict[str, str]:
    """What each command printed, by the line in the README; all of them have been run."""
    printed = {}
    for heading in (ENROLLING, POLICIES, END) if CHRONYD.exists() else (ENROLLING, END):
        for line in commands(heading):
            printed[line] = step(shell, line, tmp_path)
    return printed


def step(shell: pexpect.spawn[str], line: str, folder: Path) -> str:
    """Runs one command; then waits, with a deadline, for what a person would see happen before going on."""
    command = there(line, folder)
    if line.startswith("enlist-setup") and "--unattended" not in line:
        answer_wizard(shell, command)
        return ""
    if line.startswith("wait"):
        shell.sendline(command)
        shell.expect_exact(PROMPT)
        return ""
    printed = run(shell, command, status=1 if "mistake.json --watch" in line else 0)
    if "server authorize" in line:
        until(shell, there(f"{PRIMARY} tree", folder), "printer-1  [trusted]  connected")
    elif "printer-2/secondary.toml run" in line:
        until(shell, there(f"{PRIMARY} tree", folder), "printer-2  [trusted]  connected")
    elif line.startswith("cat walk/printer-1"):
        assert (folder / "walk" / "printer-1" / "reloaded").exists()
    elif "policy show" in line:
        assert "makestep 0.1 3\n" in (folder / "walk" / "printer-2" / "chrony.conf").read_text(), "the last good file stays"
    elif line.startswith("for printer"):
        for printer in ("printer-1", "printer-2"):
            until(shell, there(f"{PRIMARY} server show {printer}", folder), "policy/chrony, task/disk-space")
    return printed


def until(child: pexpect.spawn[str], command: str, text: str) -> None:
    """Waits, with a deadline, until a command prints a text."""
    run(child, f"for i in $(seq 60); do {command} | grep -qF '{text}' && break; sleep 0.1; done")
    assert text in run(child, command)


def test_the_walk_through_works_as_it_stands(walked: dict[str, str], tmp_path: Path) -> None:
    tree = walked[f"{PRIMARY} tree"]
    assert re.search(r"Paris\s.*printer-2  \[trusted\]  connected", tree, re.DOTALL), tree
    assert "printer-1  [trusted]  connected" in tree
    journal = walked[f"{PRIMARY} journal show acme.example"]
    assert "server.authorize" in journal
    assert "evidence: invited" in journal
    assert not (tmp_path / "walk").exists()
    if CHRONYD.exists():
        check_policies(walked)


def check_policies(walked: dict[str, str]) -> None:
    """Issue 3: "The README's example is real: a policy that writes a chrony ... configuration, checks it with that program,
    reloads, and rolls back when the check fails." """
    of_sites, of_paris = (f"acme.example/{group} --kind chrony" for group in ("Sites", "Sites/Paris"))
    assert "2 servers: printer-1, printer-2" in walked[f"{PRIMARY} policy plan {of_sites} --file walk/settings.json"]
    assert "Now: applied 2 of 2." in walked[f"{PRIMARY} policy set {of_sites} --file walk/settings.json --lock /servers --watch"]
    written = walked["cat walk/printer-1/chrony.conf"]
    assert "server ntp2.example iburst" in written
    assert "makestep 1.5 3" in written
    explain = f"{PRIMARY} policy explain printer-2 --kind chrony"
    assert set(shown_after(explain)) <= set(walked[explain].splitlines()), walked[explain]
    refused = walked[f"{PRIMARY} policy set {of_paris} --file walk/mistake.json --watch"]
    assert "printer-2: failed: " in refused
    assert "Could not parse makestep directive at line 6" in re.sub(r"\s+", " ", refused)
    show = f"{PRIMARY} policy show {of_paris}"
    state = re.search(r"printer-2 .* failed +\d+ \(running \d+\)", "\n".join(shown_after(show)))
    assert state
    assert state[0] in walked[show]
    assert "Now: applied 1 of 1." in walked[f"{PRIMARY} policy rollback {of_paris} --watch"]
    task = walked[f"{PRIMARY} task run acme.example/Sites --kind disk-space --deadline 30s --wait"]
    assert "2 succeeded" in task
    assert "--- printer-2" in task


def test_the_part_about_policies_was_walked_too() -> None:
    need(CHRONYD.exists(), f"{CHRONYD} is missing (Debian: chrony): the README's policies were not set")


def test_both_commands_and_every_file_the_readme_names_are_there() -> None:
    for path in re.findall(r"`((?:docs|scripts|tests)/[\w./-]+|[A-Z]+\.md)`", README):
        assert (ROOT / path).exists(), path
    for script in ("scripts/demo", "scripts/test"):
        assert os.access(ROOT / script, os.X_OK)
