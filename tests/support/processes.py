"""Real processes: a primary and secondaries as their users run them, each in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.waiting import wait_for

BIN = Path(sys.executable).parent


def command(name: str, *arguments: str) -> list[str]:
    """The command line of one of Enlist's commands."""
    return [str(BIN / name), *arguments]


def run(
    name: str, *arguments: str, expect: int = 0, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and checks its exit status."""
    done = ran(name, *arguments, stdin=stdin, env=env)
    assert done.returncode == expect, f"{arguments} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def ran(
    name: str, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; no traceback ever reaches a user."""
    done = subprocess.run(
        command(name, *arguments),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


class Daemon:
    """A process that runs until it is told to stop, with its log in a file."""

    def __init__(self, log: Path, *argv: str) -> None:
        self.log_path = log
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Starts the process."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def end(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        """Sends a signal and waits for the end; the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(within)

    @property
    def log(self) -> str:
        """All that was logged so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def close(self) -> None:
        """Makes sure that it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(20)


class PrimaryProcess(Daemon):
    """`enlist-primary serve` on loopback, at ports that stay the same over a restart."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", *extra: str) -> None:
        self.data = folder / "primary"
        self.host = host
        self.ssl_port, self.api_port = free_port(host), free_port(host)
        super().__init__(folder / "primary.log", *command("enlist-primary", "--data", str(self.data), "serve"))
        ports = ["--ssl-port", str(self.ssl_port), "--api-port", str(self.api_port)]
        made = self.do("init", "--name", "Test Primary", "--listen", host, *ports, *extra, "--json")
        self.fingerprint: str = json.loads(made.stdout)["fingerprint"]

    @property
    def address(self) -> str:
        """What a person types into the wizard."""
        return f"[{self.host}]:{self.api_port}" if ":" in self.host else f"{self.host}:{self.api_port}"

    @property
    def owner_token(self) -> str:
        """The first owner's token."""
        return (self.data / "owner.token").read_text().strip()

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Starts it and waits until it is ready."""
        before = self.log.count(" ready ")
        super().start(env)
        wait_for(lambda: self.log.count(" ready ") > before or self.returncode is not None, what="the primary's readiness")
        assert self.returncode is None, self.log

    def configure(self, text: str) -> None:
        """Adds to its configuration and starts it anew."""
        with (self.data / "primary.toml").open("a") as config:
            config.write(text)
        self.end()
        self.start()

    def do(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """An `enlist-primary` command on this data folder."""
        return run("enlist-primary", "--data", str(self.data), *arguments, expect=expect)

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.do(*arguments, "--json").stdout)

    def server(self, name: str) -> dict[str, Any]:
        """The one server of this name, as `server list --json` shows it."""
        (found,) = [server for server in self.json("server", "list") if server["name"] == name]
        return dict(found)

    def last_line(self, *arguments: str) -> str:
        """The last line a command prints: an API key, or a join line."""
        return self.do(*arguments).stdout.splitlines()[-1]


@contextmanager
def primary_process(folder: Path, host: str = "127.0.0.1", *extra: str) -> Iterator[PrimaryProcess]:
    """A running primary with the account `acme.example`."""
    primary = PrimaryProcess(folder, host, *extra)
    try:
        primary.start()
        primary.do("account", "add", "acme.example", "--contact", "ops@acme.example")
        yield primary
    finally:
        primary.close()


class SecondaryProcess(Daemon):
    """`enlist-secondary run` with its configuration and data in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.config = folder / name / "secondary.toml"
        self.data = folder / name / "data"
        self.config.parent.mkdir(mode=0o700, exist_ok=True)
        super().__init__(folder / f"{name}.log", *command("enlist-secondary", "--config", str(self.config), "run"))

    def set_up(self, primary: PrimaryProcess, *extra: str, expect: int = 0) -> dict[str, Any]:
        """Runs the wizard unattended; the JSON it prints."""
        done = run(
            "enlist-setup",
            *("--unattended", "--json", "--primary", primary.address, "--account", "acme.example"),
            *("--name", self.name, "--config", str(self.config), "--data", str(self.data)),
            *("--primary-fingerprint", primary.fingerprint, *extra),
            expect=expect,
        )
        return dict(json.loads(done.stdout))

    def status(self) -> dict[str, Any]:
        """What `enlist-secondary status --json` shows."""
        return dict(json.loads(run("enlist-secondary", "--config", str(self.config), "status", "--json").stdout))
