"""Attacks row 5: names that nearly match - prefix, case, look-alike letters, trailing dot, NUL - match nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.cli import servers as cli
from tests.attacks.world import World, bearer, server_name
from tests.support.inprocess import ACCOUNT, refused_by

NEAR = [
    *("acme.exampl", "acme.examplee", "cme.example", "acme", "example", "xacme.example", "acme.example.org", "a.acme.example"),
    *("ACME.example", "Acme.Example", "acme.EXAMPLE"),
    *("аcme.example", "acme.ехample", "acme\u3002example", "acme\uff0eexample", "ａcme.example", "acme.example\u200b", "acme.ﬁ"),
    *(
        "acme.example.",
        ".acme.example",
        "acme..example",
        "acme.example\0",
        "acme\0.example",
        "\0",
        "acme.example\n",
        " acme.example",
    ),
    *("acme.example ", "acme.example/", "acme.example/servers", "acme.%", "%", "_cme.example", "acme.exampl_", "*", "-", ".", ""),
    *("acme.example' OR '1'='1", "acme.example--", "xn--acme-.example", "acme.example:13299", "acme.example@other.example"),
]
NO_MATCH = (Reason.ACCOUNT_UNKNOWN, Reason.INVALID_ARGUMENT)


@pytest.mark.parametrize("domain", NEAR)
async def test_an_account_domain_that_nearly_matches_is_refused_to_strangers(world: World, domain: str) -> None:
    before, asker = await world.tables(), world.asker(account=domain)
    api_key = await world.api_key()
    before = await world.tables()
    async with world.running.stranger() as stub:
        validate = registration_pb2.ValidateRequest(account_domain=domain, api_key=api_key)
        assert (await refused_by(stub.registration.Validate(validate))).reason in NO_MATCH
        assert (await refused_by(asker.register(stub, api_key))).reason in NO_MATCH
        claim = registration_pb2.Claim(account_domain=domain, public_key=world.victim.public_key).SerializeToString()
        leave = registration_pb2.LeaveRequest(claim=claim, proof=await world.victim.proof(stub, "Leave", claim))
        assert (await refused_by(stub.registration.Leave(leave))).reason in NO_MATCH
    assert await world.tables() == before


@pytest.mark.parametrize("domain", [domain for domain in NEAR if domain != "-"])  # which is all accounts, by AIP-159
async def test_a_resource_name_that_nearly_matches_names_nothing(world: World, domain: str) -> None:
    admin, before = world.running.admin, await world.tables()
    revoke = trust_pb2.RevokeServerRequest(name=server_name(world.victim_id, domain))
    assert (await refused_by(admin.trust.RevokeServer(revoke))).reason in (*NO_MATCH, Reason.NOT_FOUND)
    if domain != ".":  # the primary's own account: the local administrator sees it, and no server is in it
        servers = hierarchy_pb2.ListServersRequest(parent=f"accounts/{domain}")
        assert (await refused_by(admin.hierarchy.ListServers(servers))).reason in NO_MATCH
    assert await world.tables() == before


@pytest.mark.parametrize(
    "near",
    [
        *(lambda id: id[:-1], lambda id: id + "a", str.upper, lambda id: id + "\0", lambda id: f" {id}", lambda id: f"{id}."),
        *(lambda id: "%", lambda id: "_" * 10, lambda id: f"../{id}", lambda id: f"{id}/../{id}", lambda id: f"{id}' --"),
        *(lambda id: "victim", lambda id: ""),
    ],
)
async def test_a_server_s_id_that_nearly_matches_names_nothing(world: World, near: Callable[[str], str]) -> None:
    before, name = await world.tables(), server_name(near(world.victim_id))
    refused = await refused_by(world.running.admin.trust.RevokeServer(trust_pb2.RevokeServerRequest(name=name)))
    assert refused.reason in (Reason.NOT_FOUND, Reason.INVALID_ARGUMENT)
    assert await world.tables() == before


@pytest.mark.parametrize(
    "name",
    [
        "victim\0",
        "victim ",
        " victim",
        "vic\u202etim",
        "victim\u0301",
        "victim\u200b",
        "vic\ntim",
        "-victim",
        "a/victim",
        "a" * 64,
        "",
    ],
)
async def test_a_display_name_that_shows_as_another_s_is_refused(world: World, name: str) -> None:
    before = await world.tables()
    async with world.running.stranger() as stub:
        assert (await refused_by(world.asker(name).register(stub))).reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before


@pytest.mark.parametrize("name", ["Victim", "vіctim", "victi", "victim2", "ｖictim", "victiḿ"])
async def test_a_display_name_that_looks_like_another_s_is_another(world: World, name: str) -> None:
    """It may stand in the list (keys identify, names describe); a command that names the victim does not mean it."""
    _, id = await world.pending(name)
    try:
        chosen = cli.choose(await world.servers(), "victim")
        assert chosen.id == world.victim_id
    finally:
        await world.decide("Remove", id)


def row(id: str, name: str, state: server_pb2.ServerState.ValueType = server_pb2.SERVER_STATE_PENDING) -> server_pb2.Server:
    """A server as the primary lists it."""
    return server_pb2.Server(id=id, display_name=name, state=state, account=ACCOUNT)


def test_a_server_that_calls_itself_by_another_s_id_does_not_shield_that_one() -> None:
    """Else a stranger's request would keep an administrator from revoking the server whose id it bears as its name."""
    victim = row("aaaaaaaaaa", "web1", server_pb2.SERVER_STATE_TRUSTED)
    assert cli.choose([row("bbbbbbbbbb", "aaaaaaaaaa"), victim], "aaaaaaaaaa") is victim
    past = row("aaaaaaaaaa", "web1", server_pb2.SERVER_STATE_REMOVED)
    assert cli.choose([row("bbbbbbbbbb", "aaaaaaaaaa"), past], "aaaaaaaaaa") is past


def test_an_ambiguous_name_is_refused_with_the_ids() -> None:
    twins = [row("aaaaaaaaaa", "web1", server_pb2.SERVER_STATE_TRUSTED), row("bbbbbbbbbb", "web1")]
    with pytest.raises(Refused) as raised:
        cli.choose(twins, "web1")
    assert raised.value.reason is Reason.AMBIGUOUS_NAME
    assert all(each.id in raised.value.message for each in twins)


async def test_a_token_is_good_for_its_own_letters_only(world: World) -> None:
    """Case, prefix, suffix, another user's id with the same secret, the form of an API key."""
    token = world.running.owner_token
    head, _, secret = token.rpartition("_")
    forged = [
        token[:-1],
        token + "a",
        token.upper(),
        f"{head}_{secret[::-1]}",
        f"enlu_aaaaaaaaaa_{secret}",
        f"enl_{token[5:]}",
        secret,
    ]
    for each in [*forged, f"{token} {token}", f" {token}", f"{token},"]:
        async with world.running.stranger() as stub:
            call = stub.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest(), metadata=bearer(each))
            assert (await refused_by(call)).reason is Reason.NOT_LOGGED_ON, each


def test_the_commands_pass_a_name_on_as_it_was_typed() -> None:
    """No trimming, no folding on the way: what was typed is what is compared."""
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    assert parser.parse_args(["server", "revoke", " Victim "]).server == " Victim "
    assert names.resource("accounts", "ACME.example") == "accounts/ACME.example"
