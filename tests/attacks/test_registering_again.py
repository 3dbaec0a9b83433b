"""Attacks rows 9 to 12: registering again, elsewhere, under a name that is taken, and under a name that was removed."""

from __future__ import annotations

import asyncio
from typing import Any

from enlist.reasons import Reason
from enlist.v1 import account_pb2, registration_pb2, server_pb2
from tests.attacks.world import OTHER, World, server_name
from tests.support.inprocess import ACCOUNT, Asker, refused_by
from tests.support.links import open_link

PENDING, TRUSTED = server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_TRUSTED


async def test_a_registration_sent_twenty_times_at_once_is_one_row_and_one_answer(world: World) -> None:
    """Row 9, pending: no second row, no journal entry, the expiry does not move."""
    asker, head = world.asker("again"), await world.head()
    count = len(await world.servers())
    async with world.running.stranger() as stub:
        answers = await asyncio.gather(*[asker.register(stub) for _ in range(20)])
    assert {answer.SerializeToString() for answer in answers} == {answers[0].SerializeToString()}
    assert answers[0].state == PENDING
    assert len(await world.servers()) == count + 1
    assert await world.head() == head


async def test_a_trusted_server_s_registration_sent_again_uses_no_api_key_up(world: World) -> None:
    """Row 9, trusted: the same row, a certificate for the same key, the API key used once."""
    api_key = await world.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1)
    asker = world.asker("again trusted")
    async with world.running.stranger() as stub:
        answers = [await asker.register(stub, api_key) for _ in range(5)]
    assert {(answer.server_id, answer.state) for answer in answers} == {(answers[0].server_id, TRUSTED)}
    listed = await world.running.admin.accounts.ListApiKeys(account_pb2.ListApiKeysRequest(parent=f"accounts/{ACCOUNT}"))
    (used,) = [each.uses for each in listed.api_keys if each.id == api_key.split("_")[1]]
    assert used == 1
    decisions = [entry.action for entry in await world.entries() if entry.subject == f"servers/{answers[0].server_id}"]
    assert decisions == ["server.register"]


# --- Row 10 --------------------------------------------------------------------------------------------------------------------


def shown(enrolment: registration_pb2.Enrolment) -> dict[str, Any]:
    """What an answer tells, without what is different for every server."""
    fields = {descriptor.name: value for descriptor, value in enrolment.ListFields()}
    return {
        name: value for name, value in fields.items() if name not in ("server_id", "state_time", "expire_time", "comparison_code")
    }


async def test_a_key_or_name_of_another_account_is_treated_like_any_other(world: World) -> None:
    """Row 10: whoever holds the victim's key, or knows its name, learns in another account nothing about the victim's."""
    before = await world.running.server(world.victim_id)
    known = Asker(world.running, "victim", OTHER)
    known.key, known.public_key = world.victim.key, world.victim.public_key
    fresh = world.asker("victim", OTHER)
    async with world.running.stranger() as stub:
        claim, proof = await known.claim(stub, "Leave")
        leave = registration_pb2.LeaveRequest(claim=claim, proof=proof)
        refused = await refused_by(stub.registration.Leave(leave))
        claim, proof = await fresh.claim(stub, "Leave")
        unheard = await refused_by(stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof)))
        assert (refused.reason, refused.message) == (unheard.reason, unheard.message)
        assert refused.reason is Reason.SERVER_UNKNOWN
        assert shown(await known.register(stub)) == shown(await fresh.register(stub))
    assert await world.running.server(world.victim_id) == before


async def test_a_certificate_of_one_account_opens_nothing_in_another(world: World) -> None:
    """The same key in two accounts, trusted in one: what it holds there is no passport to here."""
    asker, _ = await world.trusted("two homes", OTHER)
    elsewhere = Asker(world.running, "two homes", ACCOUNT)
    elsewhere.key, elsewhere.public_key, elsewhere.certificate = asker.key, asker.public_key, asker.certificate
    async with world.running.stranger() as stub:
        await elsewhere.register(stub)
        enrolment = await elsewhere.fetch(stub)
    assert enrolment.state == PENDING
    assert not enrolment.certificate
    async with elsewhere.at_ssl_port() as stub:
        await open_link(stub, elsewhere)
        assert not (await world.running.server(enrolment.server_id)).connected


# --- Row 11 --------------------------------------------------------------------------------------------------------------------


async def test_a_name_that_is_taken_with_a_new_key_is_a_new_pending_row(world: World) -> None:
    """Row 11: the impostor waits; the one who bears the name keeps its row, certificate and link."""
    before, head = await world.running.server(world.victim_id), await world.head()
    _, id = await world.pending("victim")
    impostor = await world.running.server(id)
    assert id != world.victim_id
    assert (impostor.state, impostor.revision, impostor.display_name) == (PENDING, 0, "victim")
    assert impostor.fingerprint != before.fingerprint
    assert impostor.comparison_code != before.comparison_code
    assert await world.running.server(world.victim_id) == before
    assert await world.head() == head
    async with world.victim.at_ssl_port() as stub:
        assert (await stub.trust.RenewCertificate(await world.victim.renewal(stub))).certificate
    await world.decide("Remove", id)


# --- Row 12 --------------------------------------------------------------------------------------------------------------------


async def test_a_removed_server_s_name_brings_a_new_key_nothing(world: World) -> None:
    """Row 12: no trust, group, id, certificate or revision is inherited by name."""
    grouped = await world.api_key(kind=account_pb2.API_KEY_KIND_FULL, group="Vault")
    old = world.asker("keeper")
    async with world.running.stranger() as stub:
        first = await old.register(stub, grouped)
    await world.decide("Remove", first.server_id)
    new, id = await world.pending("keeper")
    row = await world.running.server(id)
    assert (row.state, row.group, row.revision, row.connected) == (PENDING, "/", 0, False)
    assert id != first.server_id
    async with world.running.stranger() as stub:
        assert (await new.fetch(stub)).certificate == b""
    async with old.at_ssl_port() as stub:
        assert (await refused_by(open_link(stub, old))).reason is Reason.SERVER_REMOVED


async def test_a_removed_server_that_asks_again_inherits_nothing_but_its_id(world: World) -> None:
    grouped = await world.api_key(kind=account_pb2.API_KEY_KIND_FULL, group="Vault")
    asker = world.asker("returning")
    async with world.running.stranger() as stub:
        first = await asker.register(stub, grouped)
        await world.decide("Remove", first.server_id)
        await asker.register(stub)
        again = await asker.fetch(stub)
    row = await world.running.server(first.server_id)
    assert (again.server_id, again.state, again.certificate) == (first.server_id, PENDING, b"")
    assert (row.state, row.group, row.asked_with, row.reason) == (PENDING, "/", "default", "")
    async with asker.at_ssl_port() as stub:  # with the certificate of its better days
        assert (await refused_by(open_link(stub, asker))).reason is Reason.SERVER_PENDING
        assert server_name(first.server_id) == row.name


async def test_a_revoked_key_never_comes_back_with_whatever_api_key_or_account_name(world: World) -> None:
    asker, id = await world.trusted("gone")
    await world.decide("Revoke", id)
    before = await world.tables()
    async with world.running.stranger() as stub:
        assert (await refused_by(asker.register(stub))).reason is Reason.SERVER_REVOKED
        api_key = await world.full_api_key()
        before = await world.tables()
        assert (await refused_by(asker.register(stub, api_key))).reason is Reason.SERVER_REVOKED
    assert await world.tables() == before
    async with asker.at_ssl_port() as stub:
        assert (await refused_by(open_link(stub, asker))).reason is Reason.SERVER_REVOKED
