"""Secondaries inside the test's own process: what the wizard would have written, and a keeper that keeps it up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from enlist.certificates import Authority
from enlist.names import Address
from enlist.runtime import files
from enlist.transport.dialer import Dialer
from enlist.v1 import server_pb2
from enlist_secondary import api_key as api_keys
from enlist_secondary import config as configs
from enlist_secondary import identity
from enlist_secondary import state as states
from enlist_secondary.checks import Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.keeper import Keeper
from enlist_secondary.known_primaries import KnownPrimaries
from tests.support.inprocess import ACCOUNT, Running
from tests.support.waiting import eventually


@dataclass
class Secondary:
    """A secondary's configuration and folder, as the wizard leaves them."""

    path: Path
    config: SecondaryConfig

    @property
    def state(self) -> states.State:
        """The state last heard."""
        return states.load(self.config.folder)

    @property
    def identity(self) -> Identity:
        """The key, with the certificate if there is one."""
        found = identity.load(self.config.folder)
        assert found is not None
        return found

    async def becomes(self, wanted: str, within: float = 20.0) -> states.State:
        """Waits until the primary has told this state."""
        await eventually(lambda: self.state.state == wanted, within, f"the state {wanted} (it is {self.state})")
        return self.state

    async def connects(self, within: float = 20.0) -> states.State:
        """Waits until the link is open."""
        await eventually(lambda: self.state.connected, within, "the link")
        return self.state


def written(
    folder: Path, address: Address, authority: Authority, api_key: str = "", name: str = "one", enrolment: str = "main"
) -> Secondary:
    """What the wizard writes after "Write this and register?", before it registers."""
    files.make_folder(folder)
    config = SecondaryConfig(primary=str(address), account=ACCOUNT, name=name, data=str(folder / "data"), enrolment=enrolment)
    files.make_folder(config.data_folder)
    KnownPrimaries.load(config.data_folder).accept(authority, address, Way.COMPARED, "test", int(time.time()))
    identity.make(config.folder, authority)
    api_keys.keep(config.folder, api_key)
    path = folder / "secondary.toml"
    files.write(path, configs.render(config).encode())
    return Secondary(path, config)


def set_up(folder: Path, running: Running, api_key: str = "", name: str = "one") -> Secondary:
    """The same for a primary that runs."""
    return written(folder, running.api, running.authority, api_key, name)


@asynccontextmanager
async def kept(secondary: Secondary) -> AsyncIterator[asyncio.Task[None]]:
    """Keeps the enrolment up while the context lasts."""
    task = asyncio.create_task(Keeper(secondary.config, Dialer()).keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def at_primary(running: Running, secondary: Secondary) -> server_pb2.Server:
    """The server as its primary's administrator sees it."""
    return await running.server(secondary.state.server_id)
