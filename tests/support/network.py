"""Two network namespaces with a line between them, which can be made slow; and a primary and a secondary at its ends.

Only root can make namespaces, with ip(8) and tc(8).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.means import need
from tests.support.processes import Daemon, command, run
from tests.support.waiting import wait_for

SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ACCOUNT = "acme.example"
_DEVICE = "line"
_PORT = 5000
_RECEIVES = f"""
import socket, time
with socket.create_server(("0.0.0.0", {_PORT})) as server:
    print(flush=True)
    connection, _ = server.accept()
    begin = time.monotonic()
    with connection:
        while connection.recv(65536):
            pass
    print(time.monotonic() - begin)
"""
_SENDS = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {_PORT})) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""
_numbers = count(1)


@dataclass(frozen=True)
class Namespace:
    """One end of the line."""

    name: str
    address: str

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in here; the process keeps its id."""
        return [_tool("ip"), "netns", "exec", self.name, *argv]

    @property
    def sent(self) -> int:
        """Bytes that left from here over the line, frames included."""
        shown = subprocess.run(
            [_tool("ip"), "-n", self.name, "-s", "-j", "link", "show", "dev", _DEVICE], capture_output=True, check=True
        )
        (link,) = json.loads(shown.stdout)
        return int(link["stats64"]["tx"]["bytes"])

    def slow(self, rate: str, latency: str) -> None:
        """Lets no more out than this: tc-tbf(8). The burst is that of a single frame."""
        bucket = ("tbf", "rate", rate, "burst", "1540", "latency", latency)
        _do("tc", "-n", self.name, "qdisc", "add", "dev", _DEVICE, "root", *bucket)


def can_make_namespaces() -> bool:
    """Whether this user may, and has the tools."""
    return os.geteuid() == 0 and all(shutil.which(name, path=SBIN) for name in ("ip", "tc"))


def need_namespaces() -> None:
    """For tests that make namespaces."""
    need(can_make_namespaces(), "only root can make network namespaces, with ip and tc (Debian: iproute2)")


@contextmanager
def line() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a line between them; both are gone afterwards."""
    label = f"enlist-{os.getpid()}-{next(_numbers)}"
    ends = (Namespace(f"{label}-a", "10.77.0.1"), Namespace(f"{label}-b", "10.77.0.2"))
    with ExitStack() as stack:
        for end in ends:
            _do("ip", "netns", "add", end.name)
            stack.callback(_do, "ip", "netns", "delete", end.name)
        peer = ("peer", "name", _DEVICE, "netns", ends[1].name)
        _do("ip", "link", "add", "name", _DEVICE, "netns", ends[0].name, "type", "veth", *peer)
        for end in ends:
            _do("ip", "-n", end.name, "address", "add", f"{end.address}/24", "dev", _DEVICE)
            for device in ("lo", _DEVICE):
                _do("ip", "-n", end.name, "link", "set", device, "up")
        yield ends


def own_time(near: Namespace, far: Namespace, size: int) -> float:
    """Seconds that the line itself needs for so many bytes, over a bare TCP connection, until the last one has arrived."""
    receives = far.command(sys.executable, "-c", _RECEIVES)
    with subprocess.Popen(receives, stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None, "it is a pipe"
        receiver.stdout.readline()
        subprocess.run(near.command(sys.executable, "-c", _SENDS, far.address, str(size)), check=True)
        return float(receiver.stdout.readline())


class LinkedPair:
    """A primary at one end and a trusted secondary at the other. Their handlers write a file per kind."""

    def __init__(self, folder: Path, ends: tuple[Namespace, Namespace], kinds: tuple[str, ...], stack: ExitStack) -> None:
        """The daemons run until the stack is closed; the secondary is not started."""
        self.near, self.far = ends
        self.folder = folder
        self._data = folder / "primary"
        self.do("init", "--name", "Slow", "--listen", self.near.address)
        serve = command("enlist-primary", "--data", str(self._data), "serve")
        self.primary = Daemon(folder / "primary.log", *self.near.command(*serve))
        stack.callback(self.primary.close)
        self.primary.start()
        wait_for(lambda: " ready " in self.primary.log, what="the primary's readiness")
        self.do("account", "add", ACCOUNT, "--contact", f"ops@{ACCOUNT}")
        self._enrol(kinds)
        runs = command("enlist-secondary", "--config", str(folder / "secondary.toml"), "run")
        self.secondary = Daemon(folder / "secondary.log", *self.far.command(*runs))
        stack.callback(self.secondary.close)

    def do(self, *arguments: str) -> str:
        """What an `enlist-primary` command prints; it reaches the primary through its socket, from any namespace."""
        return run("enlist-primary", "--data", str(self._data), *arguments).stdout

    def connect(self) -> None:
        """Starts the secondary and waits for its link."""
        self.secondary.start()
        wait_for(lambda: self.server["connected"], 30, what="the link")

    @property
    def server(self) -> dict[str, Any]:
        """The one server, as `server list --json` shows it."""
        (server,) = json.loads(self.do("server", "list", "--json"))
        return dict(server)

    def set_policy(self, kind: str, settings: object) -> None:
        """Sets the policy of the root group."""
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))
        self.do("policy", "set", ACCOUNT, "--kind", kind, "--file", str(file), "--json")

    def in_force(self, kind: str) -> bool:
        """Whether the secondary has written this kind's file."""
        return self._file(kind).exists()

    def reported(self, kind: str) -> str:
        """The state that the primary knows of this kind at the server."""
        shown = json.loads(self.do("policy", "show", ACCOUNT, "--kind", kind, "--json"))
        (server,) = shown["servers"]
        return str(server["state"])

    def _file(self, kind: str) -> Path:
        return self.folder / f"{kind}.json"

    def _enrol(self, kinds: tuple[str, ...]) -> None:
        join = self.folder / "join"
        join.write_text(self.do("join", ACCOUNT, "--name", "far").splitlines()[-1])
        config = self.folder / "secondary.toml"
        where = ("--config", str(config), "--data", str(self.folder / "data"))
        setup = command("enlist-setup", "--unattended", "--json", "--join-file", str(join), *where)
        subprocess.run(self.far.command(*setup), capture_output=True, timeout=60, check=True)
        with config.open("a") as text:
            for kind in kinds:
                handler = f'type = "file"\nformat = "json"\npath = "{self._file(kind)}"\n'
                text.write(f"\n[handlers.policy.{kind}]\n{handler}")


def _tool(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    assert found is not None, f"{name} is not installed"
    return found


def _do(name: str, *arguments: str) -> None:
    done = subprocess.run([_tool(name), *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr}"
