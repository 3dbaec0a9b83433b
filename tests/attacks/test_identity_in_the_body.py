"""Attacks row 14: a certificate says one thing, the body or the metadata another; the certificate is the only source."""

from __future__ import annotations

import time

import pytest

from enlist import certificates
from enlist.channel import ClientIdentity
from enlist.reasons import Reason
from enlist.v1 import registration_pb2, trust_pb2
from enlist_primary.authority import keys
from enlist_primary.model.users import Role
from tests.attacks.world import OTHER, World, bearer, server_name
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, refused_by, stubs
from tests.support.links import open_link


def claims(world: World) -> tuple[tuple[str, str], ...]:
    """Every way to say in metadata that one is the victim, or somebody greater."""
    victim = certificates.spiffe_id(world.running.authority.stable_name, ACCOUNT, world.victim_id)
    return (
        *(("enlist-server-id", world.victim_id), ("enlist-account", ACCOUNT), ("enlist-local-user", "root")),
        *(("x-forwarded-client-cert", f"URI={victim}"), ("x-ssl-client-cert", victim), ("x-forwarded-for", "127.0.0.9")),
        *(("x-real-ip", "127.0.0.9"), ("forwarded", "for=127.0.0.9"), ("spiffe-id", victim), ("peer", "unix:/admin.sock")),
    )


async def test_metadata_that_names_the_victim_leaves_the_caller_who_it_is(world: World) -> None:
    attacker, id = await world.trusted("attacker", OTHER)
    async with attacker.at_ssl_port() as stub:
        renewed = await stub.trust.RenewCertificate(await attacker.renewal(stub), metadata=claims(world))
        leaf = certificates.load(renewed.certificate)
        assert certificates.server_identity(leaf) == (OTHER, id)
        assert certificates.spki(certificates.key_of(leaf)) == attacker.public_key
        said = {"version": world.victim_id, "server_address": "victim.acme.example"}
        link = await open_link(stub, attacker, claims(world), **said)
        assert link.welcome.display_name == "attacker"
    victim = await world.running.server(world.victim_id)
    assert (victim.version, victim.server_address) == ("0.1.0", "")


async def test_a_token_at_the_ssl_port_adds_nothing_to_a_certificate(world: World) -> None:
    """Not even the owner's: a stolen token must be used where it counts, and a stolen certificate stays a server's."""
    attacker, _ = await world.trusted("attacker")
    before = await world.tables()
    revoke = trust_pb2.RevokeServerRequest(name=server_name(world.victim_id))
    async with attacker.at_ssl_port() as stub:
        call = stub.trust.RevokeServer(revoke, metadata=bearer(world.running.owner_token))
        assert (await refused_by(call)).reason is Reason.NOT_ALLOWED
    assert await world.tables() == before


async def test_a_stranger_who_calls_itself_local_or_comes_from_elsewhere_is_a_stranger(world: World) -> None:
    before = await world.tables()
    revoke = trust_pb2.RevokeServerRequest(name=server_name(world.victim_id))
    async with world.running.stranger() as stub:
        assert (await refused_by(stub.trust.RevokeServer(revoke, metadata=claims(world)))).reason is Reason.NOT_LOGGED_ON
    assert await world.tables() == before


async def test_the_journal_names_the_user_behind_the_token_whatever_the_metadata_says(world: World) -> None:
    metadata, head = await world.user(Role.ADMINISTRATOR, ACCOUNT), await world.head()
    _, id = await world.pending("to be denied")
    async with world.running.stranger() as stub:
        deny = trust_pb2.DenyServerRequest(name=server_name(id))
        await stub.trust.DenyServer(deny, metadata=(*claims(world), *metadata))
    (entry,) = await world.entries(after=head)
    assert entry.actor.startswith("administrator ")
    assert (entry.method, entry.source) == ("token", "127.0.0.1")


async def test_the_source_of_a_request_is_the_address_that_the_primary_saw(world: World) -> None:
    """Row 29's shadow: X-Forwarded-For does not open an API key that is good in another network."""
    api_key = await world.api_key(networks=["10.0.0.0/8"])
    asker = world.asker("far away")
    async with world.running.stranger() as stub:
        request = registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=api_key)
        call = stub.registration.Validate(request, metadata=(("x-forwarded-for", "10.1.2.3"), ("x-real-ip", "10.1.2.3")))
        assert (await refused_by(call)).reason is Reason.API_KEY_NETWORK
        assert (await refused_by(asker.register(stub, api_key))).reason is Reason.API_KEY_NETWORK


@pytest.mark.parametrize("account", [ACCOUNT, OTHER, "nowhere.example"])
async def test_a_certificate_whose_key_is_not_its_row_s_is_nobody_s(world: World, account: str) -> None:
    """Even one that the authority itself had made out wrongly: key, account and id must all be the row's."""
    attacker, _ = await world.trusted("attacker")
    signer = keys.load(world.running.folder)
    der = signer.issue_secondary(attacker.key.public_key(), account, world.victim_id, 3600, int(time.time()))
    identity = ClientIdentity(certificates.pem(certificates.load(der)), keys.private_pem(attacker.key))
    async with world.running.stranger() as stub:
        renewal = await attacker.renewal(stub)
    async with dial(world.running.ssl, await world.running.pin(world.running.ssl), identity) as on:
        assert (await refused_by(open_link(stubs(on), attacker))).reason is Reason.SERVER_UNKNOWN
        call = stubs(on).trust.RenewCertificate(renewal)
        assert (await refused_by(call)).reason is Reason.SERVER_UNKNOWN


async def test_the_name_of_the_local_administrator_is_a_remark_and_cannot_forge_a_line(world: World) -> None:
    """Who may open the socket is trusted; what it calls itself is escaped and cut all the same."""
    head = await world.head()
    _, id = await world.pending("to be denied locally")
    deny = trust_pb2.DenyServerRequest(name=server_name(id))
    await world.running.admin.trust.DenyServer(deny, metadata=(("enlist-local-user", "x" * 500),))
    (entry,) = await world.entries(after=head)
    assert entry.actor == f"local:{'x' * 63}"
    assert (entry.method, entry.source) == ("admin.sock", "")
