"""One attempt at a link looks its primary's name up once, however many ports it takes (docs/adr/0010)."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist.v1 import account_pb2
from enlist_installer import examine
from enlist_installer.answers import Answers
from enlist_secondary import dialling, doctor, enrol, state
from tests.support.dialling import Names
from tests.support.inprocess import Running, running_primary
from tests.support.ports import free_port
from tests.support.secondaries import Secondary, written

NAME = "primary.example"
HERE = Endpoint("127.0.0.1", 1)
"""What the name stands for; an attempt puts in the port that it asks for."""


@dataclass
class Site:
    """A primary that goes by a name, and a trusted secondary of it."""

    running: Running
    secondary: Secondary

    async def link(self, names: Names) -> None:
        """One attempt at a link."""
        dialer, config = Dialer(resolve=names), self.secondary.config
        await (await dialling.connect(dialer, config, self.secondary.identity, time.time)).close()

    async def refusal(self, names: Names) -> Reason:
        """Why that attempt failed."""
        with pytest.raises(Refused) as caught:
            await self.link(names)
        return caught.value.reason

    def remember(self, ssl_port: int) -> None:
        """As if the SSL port had been learnt to be this one."""
        config = self.secondary.config
        state.change(config.folder, lambda known: known.met(config.address, "Test Primary", ssl_port))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_primary(tmp_path) as running:
        secret = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1)
        secondary = written(tmp_path / "one", Address(NAME, running.api.port), running.authority, secret)
        await enrol.resume(Dialer(resolve=Names(HERE)).attempt(), secondary.config, secondary.identity, time.time)
        yield Site(running, secondary)


async def test_a_link_costs_one_look_up(site: Site) -> None:
    names = Names(HERE)
    await site.link(names)
    assert len(names.asked) == 1
    await site.link(names)
    assert len(names.asked) == 2  # the next attempt asks anew


async def test_a_moved_ssl_port_costs_no_further_look_up(site: Site) -> None:
    """Three probes: the remembered SSL port, the API port, the SSL port as it is now."""
    site.remember(free_port())
    names = Names(HERE)
    await site.link(names)
    assert len(names.asked) == 1


async def test_a_primary_that_is_down_costs_one_look_up(site: Site) -> None:
    names = Names(Endpoint("127.0.0.9", 1))
    assert await site.refusal(names) is Reason.UNREACHABLE
    assert len(names.asked) == 1


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_name_that_is_not_found_ends_the_attempt_at_once(site: Site, remembered: bool) -> None:
    if not remembered:
        other = Address("other.example", 1)
        state.change(site.secondary.config.folder, lambda known: known.met(other, "Test Primary", 1))
    names = Names()
    assert await site.refusal(names) is Reason.NAME_NOT_FOUND
    assert len(names.asked) == 1


async def test_the_installer_and_doctor_look_up_once(site: Site, tmp_path: Path) -> None:
    names, config = Names(HERE), site.secondary.config
    await examine.meet(Dialer(resolve=names), config.address, Answers(), tmp_path / "new", time.time)
    assert len(names.asked) == 1
    await doctor.diagnose(Dialer(resolve=names), config, time.time)
    assert len(names.asked) == 2
    nowhere = Names()
    await doctor.diagnose(Dialer(resolve=nowhere), config, time.time)
    assert len(nowhere.asked) == 1
