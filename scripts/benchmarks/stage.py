"""Brings up what is measured, a primary as its users run it, and beside it the floor with the same authority."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates
from enlist.names import Address
from enlist.runtime import sockets
from enlist_primary.authority import keys
from enlist_primary.authority.signer import LEAF_LIFETIME
from enlist_primary.datafolder import DataFolder
from enlist_primary.rpc import listeners
from scripts.benchmarks.enrolling import ACCOUNT, Applicant, Server, enrol
from scripts.benchmarks.said import Said
from tests.support.processes import PrimaryProcess

# One address asks for more here than any honest network would.
LIMITS = "\n[limits]\npending_per_account = 1000000\npending_per_address = 1000000\n"


@dataclass(frozen=True)
class Stage:
    """A running primary with the account `acme.example` and a full API key, and the floor."""

    folder: Path
    process: PrimaryProcess
    primary: Server
    floor: Server
    full_api_key: str
    key: ec.EllipticCurvePrivateKey
    """The one key that the floor has a certificate for."""

    def applicant(self, api_key: str) -> Applicant:
        """A server about to enrol."""
        return Applicant(self.primary.signer, api_key, int(time.time()))


@asynccontextmanager
async def stage(asking: bool = False) -> AsyncIterator[Stage]:
    """Both, running. With `asking` the floor plays the enrolment of a server that waits for an administrator."""
    with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name, running_primary(Path(name)) as process:
        folder = Path(name)
        key = certificates.new_key()
        full = process.last_line("api-key", "add", ACCOUNT, "--full")
        with sockets.target(process.data / "run" / "admin.sock") as admin:
            primary = _described(process, admin)
            applicant = Applicant(primary.signer, "" if asking else full, int(time.time()), key)
            link = await enrol(primary, applicant)
            await link.close()
            with floor(folder / "floor", primary, link.said) as bare:
                yield Stage(folder, process, primary, bare, full, key)


@contextmanager
def running_primary(folder: Path) -> Iterator[PrimaryProcess]:
    """`enlist-primary serve` with the account, and limits that do not stand in the way."""
    process = PrimaryProcess(folder)
    try:
        with (process.data / "primary.toml").open("a") as config:
            config.write(LIMITS)
        process.start()
        process.do("account", "add", ACCOUNT, "--contact", "ops@acme.example")
        yield process
    finally:
        process.close()


def _described(process: PrimaryProcess, admin: str) -> Server:
    signer = keys.load(DataFolder(process.data))
    api, ssl = Address(process.host, process.api_port), Address(process.host, process.ssl_port)
    return Server(process.pid, api, ssl, admin, signer)


@contextmanager
def floor(folder: Path, primary: Server, said: Said) -> Iterator[Server]:
    """The bare server, running, with certificates of the primary's authority."""
    folder.mkdir(mode=0o700)
    said.save(folder)
    key, chain = listeners.own_certificate(primary.signer, ["127.0.0.1"], LEAF_LIFETIME, int(time.time()))
    for name, content in (("server.key", key), ("server.pem", chain), ("root.pem", _root(primary))):
        (folder / name).write_bytes(content)
    argv = [sys.executable, "-m", "scripts.benchmarks.floor", str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "it is a pipe"
            ports = json.loads(process.stdout.readline())
            api, ssl = (Address("127.0.0.1", ports[port]) for port in ("api", "ssl"))
            with sockets.target(folder / "admin.sock") as admin:
                yield Server(process.pid, api, ssl, admin, primary.signer)
        finally:
            process.terminate()


def _root(primary: Server) -> bytes:
    return certificates.pem(primary.signer.authority.certificate)
