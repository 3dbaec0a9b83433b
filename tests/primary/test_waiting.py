"""Servers that wait for a decision: `links.waiters` by itself, then over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.changes.publisher import Changes
from enlist_primary.links.waiters import PLACES, WaitingRoom
from enlist_primary.model.servers import State
from enlist_primary.store.changes import Position
from enlist_primary.store.servers import Standing
from tests.support.inprocess import Asker, Stubs, refused_by, running_primary

A = "acme.example"


def changes(account: str, *keys: str) -> Changes:
    """A page that names the servers with these keys."""
    records = tuple(Standing(account, f"id-{key}", key, State.PENDING, 0, None) for key in keys)
    return Changes(account, 2, Position(2, 0, 0), tuple(f"servers/{each.id}" for each in records), records)


def test_who_waits_is_woken_by_its_own_key_only() -> None:
    room = WaitingRoom()
    with (
        room.place(A, "one") as one,
        room.place(A, "one") as again,
        room.place(A, "two") as two,
        room.place("b.example", "one") as b,
    ):
        room.on_changes(changes(A, "one", "nobody"))
        assert [event.is_set() for event in (one, again, two, b)] == [True, True, False, False]


def test_there_are_so_many_places_and_one_is_free_again_when_it_is_left() -> None:
    room = WaitingRoom()
    places = [room.place(A, "one") for _ in range(PLACES)]
    for place in places:
        place.__enter__()
    with pytest.raises(Refused) as raised, room.place(A, "one"):
        pass
    assert raised.value.reason is Reason.OVERLOADED
    places[0].__exit__(None, None, None)
    with room.place(A, "one"):
        pass


def test_an_empty_room_remembers_nobody() -> None:
    room = WaitingRoom()
    for n in range(100):
        with room.place(A, str(n)):
            pass
    assert not room._waiting


def test_a_room_that_closes_sends_everybody_home_and_takes_nobody_in() -> None:
    room = WaitingRoom()
    with room.place(A, "one") as one, room.place(A, "two") as two:
        room.check()
        room.close()
        assert one.is_set()
        assert two.is_set()
        with pytest.raises(Refused) as raised:
            room.check()
        assert raised.value.reason is Reason.SHUTTING_DOWN


async def wait_for(asker: Asker, stub: Stubs) -> registration_pb2.AwaitAuthorizationRequest:
    """A server's request to be told."""
    claim, proof = await asker.claim(stub, "AwaitAuthorization")
    return registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)


async def test_every_change_is_told_in_order_and_the_stream_ends_when_waiting_is_in_vain(tmp_path: Path) -> None:
    states = []
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        asker = Asker(running)
        id = (await asker.register(stub)).server_id
        request, name = await wait_for(asker, stub), f"accounts/{A}/servers/{id}"
        async for enrolment in stub.registration.AwaitAuthorization(request):
            states.append(server_pb2.ServerState.Name(enrolment.state))
            assert bool(enrolment.certificate) == (enrolment.state == server_pb2.SERVER_STATE_TRUSTED)
            if enrolment.state == server_pb2.SERVER_STATE_PENDING:
                await running.admin.trust.DenyServer(trust_pb2.DenyServerRequest(name=name, reason="who are you"))
        assert states == ["SERVER_STATE_PENDING", "SERVER_STATE_DENIED"]
        assert enrolment.reason == "who are you"


async def test_a_suspended_server_waits_until_it_is_resumed(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        asker = Asker(running)
        id = (await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))).server_id
        name = f"accounts/{A}/servers/{id}"
        await running.admin.trust.SuspendServer(trust_pb2.SuspendServerRequest(name=name))
        wait = stub.registration.AwaitAuthorization(await wait_for(asker, stub))
        answers = aiter(wait)
        assert (await anext(answers)).state == server_pb2.SERVER_STATE_SUSPENDED
        await running.admin.trust.ResumeServer(trust_pb2.ResumeServerRequest(name=name))
        resumed = await anext(answers)
        assert resumed.state == server_pb2.SERVER_STATE_TRUSTED
        assert resumed.certificate


async def test_a_request_taken_back_wakes_whoever_else_waits_for_it(tmp_path: Path) -> None:
    """Nothing of it is in the journal; the change log has it all the same."""
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        asker = Asker(running)
        await asker.register(stub)
        answers = aiter(stub.registration.AwaitAuthorization(await wait_for(asker, stub)))
        await anext(answers)
        claim, proof = await asker.claim(stub, "Leave")
        await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
        assert (await anext(answers)).state == server_pb2.SERVER_STATE_WITHDRAWN


async def test_a_key_that_never_registered_has_nothing_to_wait_for(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        wait = stub.registration.AwaitAuthorization(await wait_for(Asker(running), stub))
        assert (await refused_by(anext(aiter(wait)))).reason is Reason.SERVER_UNKNOWN


async def test_a_decision_that_comes_while_the_server_is_looked_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is taken before the look, so whatever the look could not see wakes it."""
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        asker = Asker(running)
        name = f"accounts/{A}/servers/{(await asker.register(stub)).server_id}"
        request, database = await wait_for(asker, stub), running.primary.context.database
        read = database.read

        async def overtaken(query: Callable[..., Any], *args: Any) -> Any:
            found = await read(query, *args)
            if query.__name__ == "_load" and not denied.done():
                decided = running.primary.context.changes.changed(A)
                await running.admin.trust.DenyServer(trust_pb2.DenyServerRequest(name=name))
                await decided
                denied.set_result(None)
            return found

        denied = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(database, "read", overtaken)
        states = [each.state async for each in stub.registration.AwaitAuthorization(request)]
    assert states == [server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_DENIED]
