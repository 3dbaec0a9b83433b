"""A running primary, for the tests that ask for no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enlist_primary.rpc.context import Context
from tests.support.inprocess import Running, running_primary


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A primary in this process, with one account and no servers."""
    async with running_primary(tmp_path) as running:
        yield running


@pytest.fixture
def own(running: Running) -> Context:
    """What that primary is made of."""
    return running.primary.context
