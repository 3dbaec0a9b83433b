"""How a server asks to join, over the wire: `rpc.registration`. What the rules are is tested with the operations."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enlist import certificates, proofs
from enlist.channel import PROTOCOL
from enlist.reasons import Reason
from enlist.v1 import account_pb2, journal_pb2, registration_pb2, server_pb2, trust_pb2
from tests.support.inprocess import ACCOUNT, Asker, Running, Stubs, refused_by, running_primary

PENDING, TRUSTED = server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_TRUSTED
DAY = 86400


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One primary for this file."""
    async with running_primary(tmp_path_factory.mktemp("registration")) as running:
        yield running


@pytest.fixture
async def stub(running: Running) -> AsyncIterator[Stubs]:
    """A stranger."""
    async with running.stranger() as stub:
        yield stub


async def following(asker: Asker, stub: Stubs) -> AsyncIterator[registration_pb2.Enrolment]:
    """What a server hears that waits."""
    claim, proof = await asker.claim(stub, "AwaitAuthorization")
    request = registration_pb2.AwaitAuthorizationRequest(claim=claim, proof=proof)
    return aiter(stub.registration.AwaitAuthorization(request))


async def test_the_primary_describes_itself_and_its_ports(running: Running, stub: Stubs) -> None:
    described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL))
    authority = certificates.read_authority(described.authority_certificate)
    assert authority.fingerprint == running.authority.fingerprint
    assert described.primary_name == "Test Primary"
    assert described.ssl_port == running.ssl.port
    assert (described.oldest_protocol, described.newest_protocol) == (2, 2)
    assert abs(described.time.seconds - time.time()) < 60
    signer = running.primary.context.signer
    proofs.check_challenge(signer.challenge_secret, described.challenge, int(time.time()))


async def test_every_challenge_is_another(stub: Stubs) -> None:
    request = registration_pb2.DescribePrimaryRequest(protocol=PROTOCOL)
    assert len({(await stub.registration.DescribePrimary(request)).challenge for _ in range(20)}) == 20


@pytest.mark.parametrize("protocol", [0, 1, 3, 99])
async def test_whoever_speaks_another_protocol_is_told_which_this_one_speaks(stub: Stubs, protocol: int) -> None:
    """Not refused: it is the one place where a version that is too old, or too new, can learn that it is."""
    described = await stub.registration.DescribePrimary(registration_pb2.DescribePrimaryRequest(protocol=protocol))
    assert (described.oldest_protocol, described.newest_protocol) == (2, 2)


async def test_validate_says_what_registering_leads_to_and_writes_nothing(running: Running, stub: Stubs) -> None:
    full = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, group="Sites/Paris", max_uses=1)
    invitees = [trust_pb2.Invitee(display_name="kept", group="Vault")]
    invite = trust_pb2.InviteServersRequest(parent=f"accounts/{ACCOUNT}", invitees=invitees)
    (invitation,) = (await running.admin.trust.InviteServers(invite)).invitations
    invited = invitation.join_line.rpartition("api-key=")[2]
    answers = []
    for api_key in ("", await running.api_key(), full, full, invited):
        answer = await stub.registration.Validate(registration_pb2.ValidateRequest(account_domain=ACCOUNT, api_key=api_key))
        answers.append((answer.admission, answer.server_name, answer.group, answer.contact))
    ask, trusted, contact = registration_pb2.ADMISSION_ASK, registration_pb2.ADMISSION_TRUSTED, "ops@acme.example"
    assert answers == [
        *[(ask, "", "/", contact)] * 2,
        *[(trusted, "", "Sites/Paris", contact)] * 2,
        (trusted, "kept", "Vault", contact),
    ]


async def test_a_wrong_account_is_said_in_the_issue_s_words(stub: Stubs) -> None:
    request = registration_pb2.ValidateRequest(account_domain="nowhere.example")
    refused = await refused_by(stub.registration.Validate(request))
    assert refused.reason is Reason.ACCOUNT_UNKNOWN
    assert refused.message == 'The connection is fine, but Test Primary has no account "nowhere.example". Check the domain name.'


async def test_a_pending_server_learns_its_code_whom_to_ask_and_until_when(running: Running, stub: Stubs) -> None:
    asker = Asker(running, "web1")
    enrolment = await asker.register(stub)
    code = certificates.comparison_code(running.authority.primary_id, asker.public_key, ACCOUNT)
    assert (enrolment.state, enrolment.display_name, enrolment.contact) == (PENDING, "web1", "ops@acme.example")
    assert enrolment.comparison_code == code == (await running.server(enrolment.server_id)).comparison_code
    assert enrolment.expire_time.seconds == enrolment.state_time.seconds + 7 * DAY
    assert not (await asker.fetch(stub)).certificate


async def test_the_certificate_comes_the_moment_somebody_authorizes(running: Running, stub: Stubs) -> None:
    asker = Asker(running)
    id = (await asker.register(stub)).server_id
    answers = await following(asker, stub)
    assert (await anext(answers)).state == PENDING
    await running.authorize(id, certificates.comparison_code(running.authority.primary_id, asker.public_key, ACCOUNT))
    trusted = await anext(answers)
    assert trusted.state == TRUSTED
    certificates.check_own(certificates.load(trusted.certificate), running.authority, asker.public_key, ACCOUNT)
    with pytest.raises(StopAsyncIteration):
        await anext(answers)


async def test_a_lost_answer_is_asked_for_again(running: Running, stub: Stubs) -> None:
    """Waiting also answers after a reply was lost, and whenever a certificate was."""
    asker = Asker(running)
    asked = await asker.register(stub, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    assert (asked.state, asked.certificate) == (TRUSTED, b"")
    for _ in range(2):
        found = await anext(await following(asker, stub))
        certificates.check_own(certificates.load(found.certificate), running.authority, asker.public_key, ACCOUNT)


async def test_who_takes_a_request_back_is_withdrawn_and_who_leaves_has_departed(running: Running, stub: Stubs) -> None:
    """With a stop at a second `Leave`, which changes nothing any more."""
    full = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
    for api_key, state in (("", server_pb2.SERVER_STATE_WITHDRAWN), (full, server_pb2.SERVER_STATE_DEPARTED)):
        asker = Asker(running)
        id = (await asker.register(stub, api_key)).server_id
        for _ in range(2):
            claim, proof = await asker.claim(stub, "Leave")
            left = await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
            assert (left.server_id, left.state, left.certificate) == (id, state, b"")


async def test_a_returning_server_learns_what_happened_to_it_and_when(running: Running, stub: Stubs) -> None:
    asker = Asker(running)
    id = (await asker.register(stub)).server_id
    deny = trust_pb2.DenyServerRequest(name=f"accounts/{ACCOUNT}/servers/{id}", reason="not one of ours")
    denied = await running.admin.trust.DenyServer(deny)
    refused = await refused_by(asker.register(stub))
    assert refused.reason is Reason.SERVER_DENIED
    assert "not one of ours" in refused.message
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(denied.state_time.seconds)) in refused.message


async def test_a_request_past_its_end_is_over_though_no_sweep_came_by(tmp_path: Path) -> None:
    moment = [float(int(time.time()))]
    async with running_primary(tmp_path, clock=lambda: moment[0]) as running, running.stranger() as stub:
        asker = Asker(running)
        id = (await asker.register(stub)).server_id
        moment[0] += 7 * DAY
        assert (await running.server(id)).state == server_pb2.SERVER_STATE_EXPIRED
        assert (await anext(await following(asker, stub))).state == server_pb2.SERVER_STATE_EXPIRED
        authorize = trust_pb2.AuthorizeServerRequest(name=f"accounts/{ACCOUNT}/servers/{id}")
        assert (await refused_by(running.admin.trust.AuthorizeServer(authorize))).reason is Reason.STATE_FORBIDS
        again = await asker.register(stub)
        assert (again.server_id, again.state) == (id, PENDING)
        assert again.expire_time.seconds == int(moment[0]) + 7 * DAY


async def test_the_journal_of_a_restricted_enrolment_begins_with_the_decision(running: Running, stub: Stubs) -> None:
    async def entries(id: str) -> list[tuple[str, str]]:
        listed = await running.admin.journal.ListEntries(journal_pb2.ListEntriesRequest(parent=f"accounts/{ACCOUNT}"))
        return [(entry.action, entry.evidence) for entry in listed.entries if entry.subject == f"servers/{id}"]

    asker = Asker(running)
    id = (await asker.register(stub)).server_id
    assert await entries(id) == []
    await running.authorize(id, certificates.comparison_code(running.authority.primary_id, asker.public_key, ACCOUNT))
    assert await entries(id) == [("server.authorize", "code compared")]


async def test_a_wrong_comparison_code_is_refused_and_the_server_goes_on_waiting(running: Running, stub: Stubs) -> None:
    id = (await Asker(running).register(stub)).server_id
    refused = await refused_by(running.authorize(id, "00000-00000-00000-00000"))
    assert refused.reason is Reason.CODE_MISMATCH
    assert (await running.server(id)).state == PENDING
