"""Attacks row 3: a server that nobody authorized opens a link, or asks for anything but its own status."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from enlist import certificates
from enlist.channel import ClientIdentity
from enlist.reasons import Reason
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.authority import keys
from enlist_primary.authority.signer import Signer
from tests.attacks.world import World
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, Asker, refused_by, stubs
from tests.support.links import open_link


@pytest.fixture
async def pending(world: World) -> AsyncIterator[Asker]:
    """A server that waits."""
    asker, id = await world.pending("impatient")
    yield asker
    assert (await world.running.server(id)).state == server_pb2.SERVER_STATE_PENDING


async def test_it_is_given_no_certificate_whatever_it_asks_for_its_status(world: World, pending: Asker) -> None:
    async with world.running.stranger() as stub:
        await pending.register(stub)
        status = await pending.fetch(stub)
        assert status.state == server_pb2.SERVER_STATE_PENDING
        assert not status.certificate
        assert status.comparison_code


async def test_without_a_certificate_the_ssl_port_does_not_let_it_in(world: World, pending: Asker) -> None:
    """Nor with one that it made out for itself, in the form that the authority's have."""
    pin, now = await world.running.pin(world.running.ssl), int(time.time())
    async with dial(world.running.ssl, pin) as on:
        assert (await refused_by(open_link(stubs(on), pending))).reason is Reason.UNREACHABLE
    made = Signer(pending.key, world.running.authority.certificate).issue_secondary(
        pending.key.public_key(), ACCOUNT, world.victim_id, 3600, now
    )
    identity = ClientIdentity(certificates.pem(certificates.load(made)), keys.private_pem(pending.key))
    async with dial(world.running.ssl, pin, identity) as on:
        assert (await refused_by(open_link(stubs(on), pending))).reason is Reason.UNREACHABLE


async def test_at_the_api_port_there_is_no_link_and_nothing_to_read(world: World, pending: Asker) -> None:
    """Whatever it says of itself in the metadata."""
    metadata = (("enlist-server-id", world.victim_id), ("authorization", ""))
    async with world.running.stranger() as stub:
        link = stub.hierarchy.Connect(metadata=metadata)
        assert (await refused_by(link.read())).reason is Reason.NOT_LOGGED_ON
        account = f"accounts/{ACCOUNT}"
        for call in (
            stub.trust.RenewCertificate(trust_pb2.RenewCertificateRequest(), metadata=metadata),
            stub.hierarchy.ListServers(hierarchy_pb2.ListServersRequest(parent=account), metadata=metadata),
            stub.accounts.GetAccount(account_pb2.GetAccountRequest(name=account), metadata=metadata),
        ):
            assert (await refused_by(call)).reason is Reason.NOT_LOGGED_ON


async def test_one_that_was_trusted_once_opens_nothing_with_its_old_certificate(world: World) -> None:
    asker, id = await world.trusted("was trusted")
    async with asker.at_ssl_port() as stub:
        link = await open_link(stub, asker)
        await world.decide("Remove", id)
        assert (await refused_by(link.read())).reason is Reason.SERVER_REMOVED
        async with world.running.stranger() as stranger:
            assert (await asker.register(stranger)).state == server_pb2.SERVER_STATE_PENDING
        for call in (open_link(stub, asker), stub.trust.RenewCertificate(await asker.renewal(stub))):
            assert (await refused_by(call)).reason is Reason.SERVER_PENDING
        claim, proof = await asker.claim(stub, "AwaitAuthorization")
        request = registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)
        status = await anext(aiter(stub.registration.AwaitAuthorization(request)))
        assert status.state == server_pb2.SERVER_STATE_PENDING
