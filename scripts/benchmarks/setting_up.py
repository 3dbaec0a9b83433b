"""A server that enrols as its user has it do: enlist-setup's own code, then enlist-secondary's, at a primary or at the floor.

So whatever handshakes and calls these two make, both get the same. The floor's constant answers hold a certificate for one key;
at the floor that is the key every server makes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec

from enlist import certificates
from enlist.transport.dialer import Dialer
from enlist_installer.answers import Answers
from enlist_installer.unattended import Request, Unattended
from enlist_secondary import config as configs
from enlist_secondary import dialling, enrol, identity
from enlist_secondary.connection.link import Link
from scripts.benchmarks.enrolling import ACCOUNT, Server, authorize


async def enrol_fully(at: Server, folder: Path, name: str, api_key: str) -> Link:
    """From nothing to the open link. Without an API key the local administrator authorizes the server while its daemon waits."""
    request = _request(at, folder, name, api_key)
    setup = Unattended(lambda _sentence: None, Dialer(), time.time)
    await setup.run(request)
    config = configs.load(request.path)
    mine = identity.load(config.folder)
    assert mine is not None, "enlist-setup has made one"
    if mine.certificate is None:
        mine = await _authorized(at, config, mine, setup.outcome().server_id)
    return await dialling.connect(Dialer(), config, mine, time.time)


def _request(at: Server, folder: Path, name: str, api_key: str) -> Request:
    answers = Answers(
        config=folder / "secondary.toml",
        primary=at.api,
        primary_fingerprint=at.signer.authority.fingerprint,
        account=ACCOUNT,
        api_key=api_key or None,
        name=name,
        data=folder / "data",
    )
    return Request(answers, person="bench")


async def _authorized(at: Server, config: configs.SecondaryConfig, mine: identity.Identity, id: str) -> identity.Identity:
    waits = asyncio.Event()
    resumed = asyncio.create_task(enrol.resume(Dialer(), config, mine, time.time, lambda _told: waits.set()))
    await waits.wait()
    await authorize(at, id)
    return await resumed


@contextmanager
def one_key(key: ec.EllipticCurvePrivateKey) -> Iterator[None]:
    """Every server set up meanwhile makes this key."""
    with mock.patch.object(certificates, "new_key", return_value=key):
        yield
