"""Attacks row 28: who guesses API keys, tokens and users gets one text, takes one time, and soon has to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2
from enlist_primary.config import Limits
from tests.attacks.world import OTHER, World, bearer
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, Asker, refused_by, running_primary, stubs
from tests.support.relay import relay

SECRET = "a" * 32


async def guesses(world: World) -> dict[str, str]:
    """API keys that are wrong in every way there is."""
    right, revoked, foreign = await world.api_key(), await world.api_key(), await world.full_api_key(OTHER)
    name = f"accounts/{ACCOUNT}/apiKeys/{revoked.split('_')[1]}"
    await world.running.admin.accounts.RevokeApiKey(account_pb2.RevokeApiKeyRequest(name=name))
    used_up = await world.api_key(max_uses=1)
    async with world.running.stranger() as stub:
        await world.asker().register(stub, used_up)
    elsewhere = await world.api_key(networks=["10.0.0.0/8"])
    keys = {"there": right, "revoked": revoked, "of another account": foreign, "used up": used_up, "of a network": elsewhere}
    return {
        **{what: f"{key.rpartition('_')[0]}_{SECRET}" for what, key in keys.items()},
        "not there": f"enl_aaaaaaaaaa_{SECRET}",
        "cut": right[:-1],
        "no API key at all": "swordfish",
        "a token": world.running.owner_token,
    }


async def test_every_wrong_api_key_gets_the_same_answer(world: World) -> None:
    """Whether its id is there, is used up, revoked, or somebody else's, only who knows the secret learns."""
    answers = set()
    wrong = await guesses(world)
    before = await world.tables()
    async with world.running.stranger() as stub:
        for key in wrong.values():
            request = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=key)
            for refused in (
                await refused_by(stub.registration.Validate(request)),
                await refused_by(world.asker().register(stub, key)),
            ):
                answers.add((refused.reason, refused.message))
    ((reason, _),) = answers
    assert reason is Reason.API_KEY_INVALID
    assert await world.tables() == before


async def test_every_wrong_token_gets_the_same_answer(world: World) -> None:
    head, _, secret = world.running.owner_token.rpartition("_")
    answers = set()
    async with world.running.stranger() as stub:
        for token in (f"{head}_{SECRET}", f"enlu_aaaaaaaaaa_{secret}", f"enlu_aaaaaaaaaa_{SECRET}", "swordfish", f"{head}_", head):
            call = stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=bearer(token))
            refused = await refused_by(call)
            answers.add((refused.reason, refused.message))
    ((reason, _),) = answers
    assert reason is Reason.NOT_LOGGED_ON


async def fast_ones(tries: dict[str, Callable[[], Awaitable[Any]]], rounds: int = 60) -> list[float]:
    """The time of each when nothing disturbs it: the fastest tenth, measured in turn so that a busy machine is so to all."""
    times: dict[str, list[float]] = {name: [] for name in tries}
    for _ in range(rounds):
        for name, attempt in tries.items():
            begin = time.perf_counter()
            await attempt()
            times[name].append(time.perf_counter() - begin)
    return [sorted(each)[rounds // 10] for each in times.values()]


async def alike(tries: dict[str, Callable[[], Awaitable[Any]]]) -> bool:
    """Whether all take about as long; the noise of a shared machine goes when it is measured again, an oracle stays."""
    for _ in range(8):
        measured = await fast_ones(tries)
        if max(measured) < 1.25 * min(measured):
            return True
    return False


async def test_a_guess_takes_as_long_whether_the_id_is_there_or_not(world: World) -> None:
    """API keys and users. What differs by less than a quarter of a call drowns in any network's noise."""
    wrong = await guesses(world)
    head = world.running.owner_token.rpartition("_")[0]
    async with world.running.stranger() as stub:

        async def api_key(text: str) -> None:
            request = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=text)
            await refused_by(stub.registration.Validate(request))

        async def token(text: str) -> None:
            await refused_by(stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=bearer(text)))

        assert await alike({what: partial(api_key, wrong[what]) for what in ("there", "not there", "used up")})
        assert await alike({user: partial(token, f"{user}_{SECRET}") for user in (head, "enlu_aaaaaaaaaa")})


async def test_a_measurement_of_these_tests_tells_a_millisecond(world: World) -> None:
    """Else the test above could not fail."""

    async def slow() -> None:
        await asyncio.sleep(0.001)

    async def slower() -> None:
        await asyncio.sleep(0.002)

    assert not await alike({"slow": slow, "slower": slower})


async def test_whoever_guesses_must_wait_and_nobody_else(tmp_path: Path) -> None:
    """Thirty wrong guesses a minute and address, whatever they are about; another address is served meanwhile."""
    async with running_primary(tmp_path, limits=Limits(attempts_per_minute=6)) as running, running.stranger() as stub:
        real = await running.api_key()
        metadata = bearer(f"enlu_aaaaaaaaaa_{SECRET}")
        attempts: list[Callable[[], Awaitable[Any]]] = [
            lambda: stub.registration.Validate(registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key="swordfish")),
            lambda: stub.registration.Validate(registration_pb2.ValidateRequest(account_domain="nowhere.example")),
            lambda: Asker(running).register(stub, "swordfish"),
            lambda: Asker(running, account="nowhere.example").register(stub),
            lambda: stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=metadata),
            lambda: stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=metadata),
        ]
        for attempt in attempts:
            assert (await refused_by(attempt())).reason is not Reason.TOO_MANY_ATTEMPTS
        for attempt in attempts:
            assert (await refused_by(attempt())).reason is Reason.TOO_MANY_ATTEMPTS
        assert (await refused_by(Asker(running).register(stub, real))).reason is Reason.TOO_MANY_ATTEMPTS

        pin = await running.pin(running.api)
        async with relay(running.api, source="127.0.0.77") as between, dial(between.address, pin) as on:
            assert (await Asker(running).register(stubs(on), real)).server_id


@pytest.mark.parametrize("account", [ACCOUNT, OTHER])
async def test_a_wrong_guess_is_counted_for_the_account_and_never_journalled(world: World, account: str) -> None:
    before, head = await world.refusals(account, Reason.API_KEY_INVALID), await world.head(account)
    async with world.running.stranger() as stub:
        for _ in range(3):
            await refused_by(world.asker(account=account).register(stub, f"enl_aaaaaaaaaa_{SECRET}"))
    assert await world.refusals(account, Reason.API_KEY_INVALID) == before + 3
    assert await world.head(account) == head
