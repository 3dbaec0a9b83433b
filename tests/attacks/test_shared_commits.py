"""Attacks row 49: one decision fails in a commit that it shares; what was acknowledged is durable, and only that."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any
from unittest.mock import Mock

import grpc.aio
import pytest

from enlist.channel import refusal
from enlist.reasons import Reason
from enlist.v1 import account_pb2, hierarchy_pb2, trust_pb2
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.store.database import Transaction
from tests.attacks.world import World, server_name
from tests.support.inprocess import ACCOUNT, refused_by
from tests.support.waiting import eventually


@contextmanager
def known_ids(world: World, id: str) -> Iterator[None]:
    """A primary whose randomness has run out: every new id is this one."""
    own = world.running.primary.context
    letters = bytes("abcdefghijklmnopqrstuvwxyz234567".index(letter) for letter in id)
    good = own.random_bytes
    object.__setattr__(own, "random_bytes", lambda count: letters[:count])
    try:
        yield
    finally:
        object.__setattr__(own, "random_bytes", good)


class Line:
    """The line of decisions while the database is held up: those in it when it goes on share a commit."""

    def __init__(self, world: World) -> None:
        self._commits = world.running.primary.context.database._commits  # type: ignore[attr-defined]  # nothing else tells
        self._running: list[asyncio.Task[Any]] = []

    async def add(self, *decisions: Callable[[], Awaitable[Any]]) -> None:
        """Starts decisions, and returns when they stand in line."""
        self._running += [asyncio.create_task(_outcome(decision)) for decision in decisions]
        await eventually(lambda: len(self._commits._line) == len(self._running), what="the decisions to stand in line")

    async def outcomes(self) -> list[Any]:
        """Results, or the reasons of refusals, in the order in which they were added."""
        return list(await asyncio.gather(*self._running))


@asynccontextmanager
async def held(world: World) -> AsyncIterator[Line]:
    """Holds the database up; observations, which would stand in the same line, are written later."""
    own, patch = world.running.primary.context, pytest.MonkeyPatch()
    await own.observations.flush()
    patch.setattr(own.observations, "refused", Mock())
    gate, begun = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        begun.set()
        assert gate.wait(20)

    holding = asyncio.create_task(own.database.write(PRIMARY, hold))
    await eventually(begun.is_set)
    try:
        yield Line(world)
    finally:
        gate.set()
        patch.undo()
        await holding


async def in_one_commit(world: World, *decisions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What becomes of decisions that share a commit."""
    async with held(world) as line:
        await line.add(*decisions)
    return await line.outcomes()


async def _outcome(decision: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await decision()
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason


def on_disk(world: World, sql: str) -> list[tuple[Any, ...]]:
    """What another process would find in the database."""
    with closing(sqlite3.connect(f"{world.running.folder.database.as_uri()}?mode=ro", uri=True)) as database:
        return list(database.execute(sql))


async def test_a_decision_that_breaks_a_constraint_fails_alone(world: World) -> None:
    """Thirty API keys in one commit, one of them with an id that is taken: 29 are there, journalled without a gap."""
    taken = (await world.api_key()).split("_")[1]
    head, before = await world.head(), on_disk(world, "SELECT count(*) FROM api_key")[0][0]
    request = account_pb2.CreateApiKeyRequest(parent=f"accounts/{ACCOUNT}", kind=account_pb2.API_KEY_KIND_RESTRICTED)

    def make() -> Awaitable[Any]:
        return world.running.admin.accounts.CreateApiKey(request)

    async with held(world) as line:
        await line.add(*[make] * 14)
        with known_ids(world, taken):
            await line.add(make)
        await line.add(*[make] * 15)
        assert on_disk(world, "SELECT count(*) FROM api_key")[0][0] == before
    outcomes = await line.outcomes()
    assert outcomes.pop(14) is Reason.INTERNAL
    world.secrets += [each.secret.rpartition("_")[2] for each in outcomes]
    kept = {row[0] for row in on_disk(world, "SELECT id FROM api_key")}
    assert len(kept) == before + 29
    assert {each.api_key.id for each in outcomes} <= kept
    assert [entry.number for entry in await world.entries(after=head)] == list(range(head + 1, head + 30))


async def test_a_decision_that_is_refused_fails_alone(world: World) -> None:
    """Renames in one commit, with one of a server that is not there and one to an improper name between them."""
    servers = [(await world.pending(f"rename {n}"))[1] for n in range(6)]
    head = await world.head()

    def rename(id: str, name: str) -> Callable[[], Awaitable[Any]]:
        request = hierarchy_pb2.RenameServerRequest(name=server_name(id), display_name=name)
        return lambda: world.running.admin.hierarchy.RenameServer(request)

    decisions = [rename(id, f"renamed {id}") for id in servers]
    decisions[2:2] = [rename("aaaaaaaaaa", "nobody"), rename(servers[0], "a/b")]
    outcomes = await in_one_commit(world, *decisions)
    assert outcomes[2:4] == [Reason.NOT_FOUND, Reason.INVALID_ARGUMENT]
    done = [each.id for each in outcomes if not isinstance(each, Reason)]
    assert done == servers
    names = dict(on_disk(world, "SELECT id, name FROM server"))
    assert [names[id] for id in servers] == [f"renamed {id}" for id in servers]
    entries = await world.entries(after=head)
    assert sorted(entry.subject for entry in entries) == sorted(f"servers/{id}" for id in servers)
    for id in servers:
        await world.decide("Remove", id)


async def test_two_administrators_at_once_decide_once(world: World) -> None:
    """Authorize and deny in one commit: the first in line wins, the other is told, one entry is written."""
    _, id = await world.pending("contested")
    head, admin = await world.head(), world.running.admin
    outcomes = await in_one_commit(
        world,
        lambda: admin.trust.AuthorizeServer(trust_pb2.AuthorizeServerRequest(name=server_name(id))),
        lambda: admin.trust.DenyServer(trust_pb2.DenyServerRequest(name=server_name(id))),
    )
    refused = [each for each in outcomes if isinstance(each, Reason)]
    assert refused == [Reason.STATE_FORBIDS]
    (entry,) = await world.entries(after=head)
    assert entry.action in ("server.authorize", "server.deny")
    state = (await world.running.server(id)).state
    assert on_disk(world, f"SELECT state FROM server WHERE id = '{id}'")[0][0] == ("trusted" if state == 3 else "denied")


async def test_an_account_made_twice_in_one_commit_is_made_once(world: World) -> None:
    request = account_pb2.CreateAccountRequest(domain="twice.example")
    outcomes = await in_one_commit(world, *[lambda: world.running.admin.accounts.CreateAccount(request)] * 10)
    assert [each for each in outcomes if isinstance(each, Reason)] == [Reason.ALREADY_EXISTS] * 9
    assert await world.head("twice.example") == 1
    assert on_disk(world, "SELECT count(*) FROM server_group WHERE account = 'twice.example'") == [(1,)]
    assert (await refused_by(world.running.admin.accounts.CreateAccount(request))).reason is Reason.ALREADY_EXISTS
