"""Attacks row 13: a single-use API key in fifty calls at once, and an API key at its expiry."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc.aio
import pytest

from enlist import joinline
from enlist.channel import refusal
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, registration_pb2, server_pb2, trust_pb2
from tests.attacks.world import World
from tests.support.inprocess import ACCOUNT, Asker, Stubs, refused_by, running_primary

FULL = account_pb2.API_KEY_KIND_FULL
TRUSTED = server_pb2.SERVER_STATE_TRUSTED


async def outcome(stub: Stubs, asker: Asker, api_key: str) -> Refused | registration_pb2.Enrolment:
    """The enrolment, or the refusal."""
    try:
        return await asker.register(stub, api_key)
    except grpc.aio.AioRpcError as error:
        return refusal(error)


async def race(world: World, api_key: str, count: int = 50) -> tuple[list[registration_pb2.Enrolment], list[Reason]]:
    """Many servers with keys of their own ask with one API key at the same time."""
    async with world.running.stranger() as stub:
        outcomes = await asyncio.gather(*[outcome(stub, world.asker(f"racer {n}"), api_key) for n in range(count)])
    refused = [each.reason for each in outcomes if isinstance(each, Refused)]
    return [each for each in outcomes if isinstance(each, registration_pb2.Enrolment)], refused


async def test_a_single_use_api_key_in_fifty_calls_at_once_lets_exactly_one_in(world: World) -> None:
    api_key = await world.api_key(kind=FULL, max_uses=1)
    before, head = len(await world.servers()), await world.head()
    won, lost = await race(world, api_key)
    assert [each.state for each in won] == [TRUSTED]
    assert lost == [Reason.API_KEY_USED_UP] * 49
    assert len(await world.servers()) == before + 1
    assert [(entry.action, entry.evidence) for entry in await world.entries(after=head)] == [("server.register", "full API key")]
    assert await world.refusals(ACCOUNT, Reason.API_KEY_USED_UP) >= 49


async def test_a_restricted_api_key_for_three_lets_exactly_three_ask(world: World) -> None:
    before, head = len(await world.servers()), await world.head()
    won, lost = await race(world, await world.api_key(max_uses=3), 20)
    assert [each.state for each in won] == [server_pb2.SERVER_STATE_PENDING] * 3
    assert lost == [Reason.API_KEY_USED_UP] * 17
    assert len(await world.servers()) == before + 3
    assert [entry.action for entry in await world.entries(after=head)] == ["api-key.create"]


async def test_a_join_line_raced_by_twenty_lets_exactly_one_in(world: World) -> None:
    request = trust_pb2.InviteServersRequest(parent=f"accounts/{ACCOUNT}", invitees=[trust_pb2.Invitee(display_name="invited")])
    (invitation,) = (await world.running.admin.trust.InviteServers(request)).invitations
    api_key = joinline.parse(invitation.join_line).api_key
    world.secrets.append(api_key.rpartition("_")[2])
    won, lost = await race(world, api_key, 20)
    assert [(each.server_id, each.display_name, each.state) for each in won] == [(invitation.server.id, "invited", TRUSTED)]
    assert lost == [Reason.API_KEY_USED_UP] * 19


async def test_an_api_key_revoked_while_fifty_use_it_lets_nobody_in_afterwards(world: World) -> None:
    api_key = await world.full_api_key()
    name = f"accounts/{ACCOUNT}/apiKeys/{api_key.split('_')[1]}"
    revoke = world.running.admin.accounts.RevokeApiKey(account_pb2.RevokeApiKeyRequest(name=name))
    (won, lost), revoked = await asyncio.gather(race(world, api_key), revoke)
    entries = await world.entries()
    end = next(entry.number for entry in entries if entry.subject == f"apiKeys/{revoked.id}" and entry.action == "api-key.revoke")
    used = [entry.number for entry in entries if entry.detail.get("api key") == revoked.id]
    assert all(number < end for number in used)
    assert len(won) == len(used)
    assert set(lost) <= {Reason.API_KEY_EXPIRED}
    async with world.running.stranger() as stub:
        assert (await refused_by(world.asker().register(stub, api_key))).reason is Reason.API_KEY_EXPIRED


@pytest.mark.parametrize("uses", [0, 1])
async def test_at_its_expiry_and_a_second_later_an_api_key_lets_nobody_in(tmp_path: Path, uses: int) -> None:
    moment = [time.time() // 1]
    async with running_primary(tmp_path, clock=lambda: moment[0]) as running, running.stranger() as stub:
        api_key = await running.api_key(kind=FULL, max_uses=uses, lifetime_seconds=60)
        begin = moment[0]
        for late in (60, 61, 3600):
            moment[0] = begin + late
            for _ in range(5):
                assert (await refused_by(Asker(running).register(stub, api_key))).reason is Reason.API_KEY_EXPIRED
            validate = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=api_key)
            assert (await refused_by(stub.registration.Validate(validate))).reason is Reason.API_KEY_EXPIRED
        moment[0] = begin + 59
        assert (await Asker(running).register(stub, api_key)).state == TRUSTED
