"""The demonstration: a primary and two secondaries on this machine, in a folder that is removed at the end.

Everything is done as a person would do it, with Enlist's own commands. On a terminal it stays up until Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

BIN = Path(sys.executable).parent
ACCOUNT = "acme.example"
AUTHORIZED, WAITING = "print-paris", "print-lyon"
POLICY, TASK = "print-queue", "uname"
SETTINGS = {"paper": "A4", "duplex": True}
DEADLINE = 60.0


def main() -> int:
    """Runs the demonstration; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="enlist-demo-"))
    with ExitStack() as stack:
        stack.callback(_remove, folder)
        try:
            demonstration = Demonstration(folder, stack)
            demonstration.run()
            if sys.stdout.isatty():
                demonstration.stay()
        except KeyboardInterrupt:
            print("\nEnding the demonstration.")
        except Failed as failed:
            print(f"The demonstration failed: {failed}", file=sys.stderr)
            return 1
    return 0


class Failed(Exception):
    """A step did not come out as it should."""


class Demonstration:
    """The folder and the processes of one demonstration."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack

    def run(self) -> None:
        """From an empty folder to a policy, a task and the tree."""
        self._bring_up_primary()
        for name in (AUTHORIZED, WAITING):
            self._set_up(name)
            self._start(name, "enlist-secondary", "--config", str(self._config(name)), "run")
        code = self._status(AUTHORIZED)["comparison_code"]
        print(f"\nThe administrator compares {AUTHORIZED}'s code, {code}, and authorizes it.")
        self._primary("server", "authorize", AUTHORIZED, "--code", code)
        self._wait("the link", lambda: self._status(AUTHORIZED)["connected"])
        self._set_policy()
        self._run_task()
        print(f"\n{self._primary('tree')}")
        for server in json.loads(self._primary("server", "list", "--json")):
            print(f"{server['name']} {server['state']}")

    def stay(self) -> None:
        """Says where to look and what to try, and waits for Ctrl-C."""
        primary = f"{_shown(BIN / 'enlist-primary')} --data {self.folder / 'primary'}"
        secondary = f"{_shown(BIN / 'enlist-secondary')} --config {self._config(WAITING)}"
        print(
            f"\nAll of it runs in {self.folder} until you press Ctrl-C. In another terminal, try:\n\n"
            f"  {primary} server authorize {WAITING}\n"
            f"  {primary} tree\n"
            f"  {primary} server suspend {AUTHORIZED} --reason 'maintenance'\n"
            f"  {primary} policy show {ACCOUNT} --kind {POLICY}\n"
            f'  echo \'{{"paper": "A3"}}\' | {primary} policy set {ACCOUNT} --kind {POLICY} --file - --watch\n'
            f"  {primary} policy rollback {ACCOUNT} --kind {POLICY} --watch\n"
            f"  {primary} policy explain {AUTHORIZED} --kind {POLICY}\n"
            f"  {primary} task run {AUTHORIZED} --kind {TASK} --wait\n"
            f"  {primary} journal show {ACCOUNT}\n"
            f"  {secondary} status\n"
            f"  {secondary} doctor\n\n"
            f"The logs are {self.folder}/*.log.",
            flush=True,
        )
        while True:
            signal.pause()

    def _bring_up_primary(self) -> None:
        ports = ["--ssl-port", "0", "--api-port", "0"]  # the system chooses, and they are kept while the primary serves
        print(self._primary("init", "--name", "Head office", "--listen", "127.0.0.1", *ports))
        self._start("primary", "enlist-primary", "--data", str(self.folder / "primary"), "serve")
        self._wait("the primary", lambda: self._primary("status", "--json", check=False))
        print(self._primary("account", "add", ACCOUNT, "--contact", f"ops@{ACCOUNT}"))

    def _set_up(self, name: str) -> None:
        status = json.loads(self._primary("status", "--json"))
        answers = {
            "--primary": f"127.0.0.1:{status['api_port']}",
            "--account": ACCOUNT,
            "--name": name,
            "--config": str(self._config(name)),
            "--data": str(self.folder / name / "data"),
            "--primary-fingerprint": status["fingerprint"],
        }
        print(f"\nThe wizard sets up {name}:")
        print(_run("enlist-setup", "--unattended", *(part for pair in answers.items() for part in pair)))
        with self._config(name).open("a") as config:
            config.write(self._handlers(name))

    def _handlers(self, name: str) -> str:
        """What the owner of a server lets policies and tasks do there: write one file, and run one program."""
        path = json.dumps(str(self._written(name)))  # JSON's quotes are TOML's
        return (
            f'\n[handlers.policy.{POLICY}]\ntype = "file"\nformat = "json"\npath = {path}\n'
            f'\n[handlers.task.{TASK}]\ntype = "exec"\ncommand = ["uname", "-sr"]\n'
        )

    def _set_policy(self) -> None:
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps(SETTINGS))
        print(f"\nA policy for all of {ACCOUNT}:")
        print(self._primary("policy", "set", ACCOUNT, "--kind", POLICY, "--file", str(settings), "--watch"))
        print(f"{AUTHORIZED} has written {self._written(AUTHORIZED)}:\n{self._written(AUTHORIZED).read_text()}")

    def _run_task(self) -> None:
        print("A task:")
        print(self._primary("task", "run", ACCOUNT, "--kind", TASK, "--deadline", "30s", "--wait"))

    def _written(self, name: str) -> Path:
        """The file that the policy makes at a server."""
        return self.folder / name / "print-queue.json"

    def _config(self, name: str) -> Path:
        return self.folder / name / "secondary.toml"

    def _status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(_run("enlist-secondary", "--config", str(self._config(name)), "status", "--json"))
        return status

    def _primary(self, *arguments: str, check: bool = True) -> str:
        return _run("enlist-primary", "--data", str(self.folder / "primary"), *arguments, check=check)

    def _start(self, name: str, command: str, *arguments: str) -> None:
        log = self.stack.enter_context((self.folder / f"{name}.log").open("wb"))
        # A session of its own: Ctrl-C is for the demonstration, which ends its processes in order.
        process = subprocess.Popen(
            [str(BIN / command), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self.stack.callback(_end, process)

    def _wait(self, what: str, condition: Any) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what} did not come up within {DEADLINE:.0f} s; the logs: {self._logs()}")
            time.sleep(0.2)

    def _logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def _run(command: str, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        [str(BIN / command), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    if done.returncode and check:
        raise Failed(f"{command} {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip() if not done.returncode else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
