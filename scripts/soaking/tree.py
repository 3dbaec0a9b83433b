"""The processes of a soak: primaries at three levels, and servers under them.

top       a primary: host-1, and servers directly under it
middle    the primary on host-1: host-2
low       the primary on host-2: the leaves
servers   `enlist-secondary run`, each with handlers that write into a folder of its own
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.processes import Daemon, PrimaryProcess, SecondaryProcess, run
from tests.support.waiting import wait_for

ACCOUNT = "acme.example"
GROUPS = ("/", "Sites", "Sites/Paris", "Depot")
KINDS = ("web", "mail")
TASK = "note"
PRIMARIES = ("top", "middle", "low")

_POLICY = """
[handlers.policy.{kind}]
type = "file"
path = "{folder}/{kind}.json"
format = "json"
"""
# One write per run, at its beginning: a run that is begun twice leaves its line twice, even if it is killed later.
_TASK = """
[handlers.task.{task}]
type = "exec"
command = ["/bin/sh", "-c", "cat >> {folder}/runs; sleep 0.{tenths}"]
"""


class Server:
    """A secondary, the primary that it enrolled at, and what its handlers left behind."""

    def __init__(self, folder: Path, name: str, parent: PrimaryProcess, tenths: int) -> None:
        """Enrols it; `tenths` of a second is how long its tasks take."""
        self.name = name
        self.parent = parent
        self.daemon = SecondaryProcess(folder, name)
        self.folder = folder / name
        join = self.folder / "join"
        join.write_text(parent.last_line("join", ACCOUNT, "--name", name))
        where = ("--config", str(self.daemon.config), "--data", str(self.daemon.data))
        enrolled = run("enlist-setup", "--unattended", "--json", "--join-file", str(join), *where)
        self.id = str(json.loads(enrolled.stdout)["server_id"])
        policies = [_POLICY.format(kind=kind, folder=self.folder) for kind in KINDS]
        self.configure("".join([*policies, _TASK.format(task=TASK, folder=self.folder, tenths=tenths)]))

    def configure(self, text: str) -> None:
        """Adds to its configuration."""
        with self.daemon.config.open("a") as config:
            config.write(text)

    def settings(self, kind: str) -> Any:
        """What the policies of this kind put in force; None if nothing."""
        path = self.folder / f"{kind}.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def runs(self) -> list[str]:
        """The token of each run that began here."""
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["token"] for line in lines]


class Tree:
    """All of them, enrolled and running."""

    def __init__(self, folder: Path, stack: ExitStack, leaves: int, direct: int) -> None:
        """`leaves` servers under the lowest primary, `direct` ones under the top beside the host."""
        self.folder = folder
        self.primaries = {name: _primary(folder / name, stack) for name in PRIMARIES}
        top, middle, low = self.primaries.values()
        hosts = [_host(folder, "host-1", top, middle), _host(folder, "host-2", middle, low)]
        beside = [Server(folder, f"direct-{number}", top, tenths=number) for number in range(1, direct + 1)]
        lowest = [Server(folder, f"leaf-{number}", low, tenths=number) for number in range(1, leaves + 1)]
        self._under = {"top": [hosts[0], *beside], "middle": [hosts[1]], "low": lowest}
        for server in self.servers:
            stack.callback(server.daemon.close)
            server.daemon.start()
        for host in hosts:
            host.parent.do("server", "authorize", host.name, "--may-have-secondaries")
        wait_for(self._complete, 60, what="every server in the tree, connected")

    @property
    def servers(self) -> list[Server]:
        """Every secondary."""
        return [server for name in PRIMARIES for server in self._under[name]]

    @property
    def processes(self) -> dict[str, Daemon]:
        """What may be killed, by name."""
        return {**self.primaries, **{server.name: server.daemon for server in self.servers}}

    def under(self, primary: str) -> Sequence[Server]:
        """The servers that enrolled at this primary."""
        return self._under[primary]

    def _complete(self) -> bool:
        (account,) = self.primaries["top"].json("tree", ACCOUNT)
        found = list(_walked(account["servers"]))
        return len(found) == len(self.servers) and all(server["connected"] for server in found)


def _walked(servers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """These servers, and all below them."""
    for server in servers:
        yield server
        yield from _walked(server["below"])


def _host(folder: Path, name: str, above: PrimaryProcess, local: PrimaryProcess) -> Server:
    """The secondary on a host where another primary runs too."""
    host = Server(folder, name, above, tenths=1)
    host.configure(f'\n[local_primary]\nsocket = "{local.data}/run/upstream.sock"\n')
    return host


def _primary(folder: Path, stack: ExitStack) -> PrimaryProcess:
    """A primary with the account and its groups."""
    folder.mkdir(mode=0o700)
    primary = PrimaryProcess(folder)
    stack.callback(primary.close)
    primary.start()
    primary.do("account", "add", ACCOUNT, "--contact", f"ops@{ACCOUNT}")
    for group in GROUPS[1:]:
        primary.do("group", "add", f"{ACCOUNT}/{group}")
    return primary
