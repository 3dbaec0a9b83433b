"""One primary for all attacks that share it; after each of them its victim is looked after, and the logs are searched."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.attacks.world import World, populated


@pytest.fixture(scope="session")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The primary that attacks share."""
    async with populated(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
async def world(shared_world: World) -> AsyncIterator[World]:
    """The shared primary; whatever a test does to it, its victim is unharmed afterwards and no secret was logged."""
    shared_world.mark = len(shared_world.records.records)
    yield shared_world
    await shared_world.assert_unharmed()
    shared_world.assert_nothing_leaked()
