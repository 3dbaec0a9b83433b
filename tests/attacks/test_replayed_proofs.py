"""Attacks row 47: another server's registration or proof replayed, also into another account."""

from __future__ import annotations

from enlist.reasons import Reason
from enlist.v1 import registration_pb2, server_pb2
from tests.attacks.world import OTHER, World
from tests.support.inprocess import ACCOUNT, Asker, Stubs, refused_by


async def recorded_request(stub: Stubs, owner: Asker, account: str = ACCOUNT) -> registration_pb2.RegisterRequest:
    """A registration as its owner sends it."""
    registration = registration_pb2.Registration(
        account_domain=account, display_name=owner.name, public_key=owner.public_key
    ).SerializeToString()
    return registration_pb2.RegisterRequest(registration=registration, proof=await owner.proof(stub, "Register", registration))


async def test_a_replayed_registration_tells_its_owner_s_state_and_changes_nothing(world: World) -> None:
    async with world.running.stranger() as stub:
        request = await recorded_request(stub, world.asker("owner"))
        first = await stub.registration.Register(request)
        before = await world.tables()
        replayed = await stub.registration.Register(request)
    assert replayed == first
    assert await world.tables() == before


async def test_another_s_request_with_a_proof_of_one_s_own_is_refused(world: World) -> None:
    attacker, before = world.asker("attacker"), await world.tables()
    async with world.running.stranger() as stub:
        request = await recorded_request(stub, world.victim)
        request.proof.CopyFrom(await attacker.proof(stub, "Register", request.registration))
        assert (await refused_by(stub.registration.Register(request))).reason is Reason.PROOF_INVALID
    assert await world.tables() == before


async def test_another_s_request_and_proof_cannot_be_taken_into_another_account(world: World) -> None:
    """The account is among what is signed; so are the name, and the API key."""
    async with world.running.stranger() as stub:
        request = await recorded_request(stub, world.victim)
        api_key = await world.full_api_key(OTHER)
        before = await world.tables()
        for change in (
            registration_pb2.Registration(account_domain=OTHER),
            registration_pb2.Registration(display_name="mine"),
            registration_pb2.Registration(api_key=api_key),
        ):
            altered = registration_pb2.Registration.FromString(request.registration)
            altered.MergeFrom(change)
            sent = registration_pb2.RegisterRequest(registration=altered.SerializeToString(), proof=request.proof)
            assert (await refused_by(stub.registration.Register(sent))).reason is Reason.PROOF_INVALID
    assert await world.tables() == before


async def test_a_proof_for_one_rpc_serves_no_other(world: World) -> None:
    """Whoever overhears a server waiting cannot make it leave."""
    async with world.running.stranger() as stub:
        claim, waiting = await world.victim.claim(stub, "AwaitAuthorization")
        leave = registration_pb2.LeaveRequest(claim=claim, proof=waiting)
        assert (await refused_by(stub.registration.Leave(leave))).reason is Reason.PROOF_INVALID
        registered = await recorded_request(stub, world.victim)
        leave = registration_pb2.LeaveRequest(claim=claim, proof=registered.proof)
        assert (await refused_by(stub.registration.Leave(leave))).reason is Reason.PROOF_INVALID


async def test_a_claim_to_another_s_key_is_refused_at_either_port(world: World) -> None:
    attacker, _ = await world.trusted("attacker")
    claim = registration_pb2.Claim(account_domain=ACCOUNT, public_key=world.victim.public_key).SerializeToString()
    async with world.running.stranger() as stub, attacker.at_ssl_port() as trusted:
        for at in (stub, trusted):
            leave = registration_pb2.LeaveRequest(claim=claim, proof=await attacker.proof(stub, "Leave", claim))
            assert (await refused_by(at.registration.Leave(leave))).reason is Reason.PROOF_INVALID
            proof = await attacker.proof(stub, "AwaitAuthorization", claim)
            wait = at.registration.AwaitAuthorization(registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof))
            assert (await refused_by(anext(aiter(wait)))).reason is Reason.PROOF_INVALID


async def test_a_replayed_registration_brings_no_certificate(world: World) -> None:
    """Besides, it would be no secret: it names the owner's key, and another's private key does not fit it."""
    owner, id = await world.trusted("owner")
    async with world.running.stranger() as stub:
        request = await recorded_request(stub, owner)
        await stub.registration.Register(request)
        answer = await stub.registration.Register(request)
    assert answer.server_id == id
    assert answer.state == server_pb2.SERVER_STATE_TRUSTED
    assert answer.certificate == b""
