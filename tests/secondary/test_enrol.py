"""Asking to join, resumed from wherever it stopped: faults rows 1, 2, 16 and 17, attacks rows 9, 44 and 47."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from enlist import certificates, channel, joinline, names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_secondary import api_key, enrol, meeting, state
from enlist_secondary.identity import Identity
from tests.support.dialling import dial
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary
from tests.support.pretender import new_signer, pretending
from tests.support.secondaries import Secondary, at_primary, set_up, written


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_primary(tmp_path) as primary:
        yield primary


@pytest.fixture
def secondary(tmp_path: Path, running: Running) -> Secondary:
    return set_up(tmp_path / "one", running)


async def resume(secondary: Secondary, **more: Any) -> Identity:
    async with asyncio.timeout(20):
        return await enrol.resume(Dialer(), secondary.config, secondary.identity, time.time, **more)


async def ask(secondary: Secondary) -> None:
    """Asks, and reads no answer."""
    primary = await meeting.meet(Dialer(), secondary.config, secondary.identity.authority, time.time)
    async with dial(primary.address, primary.pin()) as api:
        await enrol.Applicant(api, primary, secondary.config, secondary.identity, time.time).register()


class _Heard(Exception):
    """Ends a wait at its first word."""


async def hear(secondary: Secondary) -> None:
    """Asks, hears where it stands, and waits for nothing."""

    def first(_: registration_pb2.Enrolment) -> None:
        raise _Heard

    with suppress(_Heard):
        await resume(secondary, news=first)


async def decide(running: Running, decision: str, secondary: Secondary) -> None:
    """An administrator's decision, by its name."""
    name = names.resource("accounts", ACCOUNT, "servers", secondary.state.server_id)
    request = getattr(trust_pb2, f"{decision}ServerRequest")(name=name)
    await getattr(running.admin.trust, f"{decision}Server")(request)


async def refusal(call: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value


async def servers(running: Running) -> list[server_pb2.Server]:
    listed = await running.admin.hierarchy.ListServers(hierarchy_pb2.ListServersRequest(parent=f"accounts/{ACCOUNT}"))
    return list(listed.servers)


# --- The straight way ---------------------------------------------------------------------------------------------------------


async def test_it_asks_waits_and_fetches_its_certificate_the_moment_somebody_authorizes(
    running: Running, secondary: Secondary
) -> None:
    heard: list[str] = []
    waiting = asyncio.create_task(resume(secondary, news=lambda told: heard.append(state.state_name(told.state))))
    pending = await secondary.becomes("pending")
    assert (pending.contact, pending.display_name) == ("ops@acme.example", "one")
    assert pending.expires_at is not None
    assert (await at_primary(running, secondary)).comparison_code == secondary.identity.comparison_code(ACCOUNT)
    started = time.monotonic()
    await running.authorize(pending.server_id, secondary.identity.comparison_code(ACCOUNT))
    mine = await waiting
    assert time.monotonic() - started < 2
    assert mine.certificate is not None
    assert mine.certificate == secondary.identity.certificate
    assert certificates.server_identity(mine.certificate) == (ACCOUNT, pending.server_id)
    assert heard[-1] == "trusted"


async def test_with_a_full_api_key_it_is_trusted_at_once_and_the_api_key_erased(tmp_path: Path, running: Running) -> None:
    """Attacks row 44."""
    secret = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
    secondary = set_up(tmp_path / "one", running, secret)
    assert (await resume(secondary)).certificate is not None
    assert api_key.load(secondary.config.folder) == ""
    for path in secondary.config.data_folder.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


async def test_a_restricted_api_key_is_kept_until_the_authorization(tmp_path: Path, running: Running) -> None:
    secret = await running.api_key()
    secondary = set_up(tmp_path / "one", running, secret)
    waiting = asyncio.create_task(resume(secondary))
    pending = await secondary.becomes("pending")
    assert api_key.load(secondary.config.folder) == secret
    await running.authorize(pending.server_id)
    await waiting
    assert api_key.load(secondary.config.folder) == ""


# --- Interruptions ------------------------------------------------------------------------------------------------------------


async def after_key(secondary: Secondary) -> None:
    """Killed once the key was written."""


async def after_request(secondary: Secondary) -> None:
    """Killed once the primary had committed, before its answer was read."""
    await ask(secondary)
    assert (secondary.state.asked, secondary.state.told_at) == (True, None)


async def after_request_and_nothing_noted(secondary: Secondary) -> None:
    """The same, and the power cut took the state with it."""
    await ask(secondary)
    files.remove(secondary.config.folder / "state.json")


async def after_word(secondary: Secondary) -> None:
    """Killed once the answer was written down, before the certificate was in place."""
    await after_certificate(secondary)
    files.remove(secondary.config.folder / "certificate.pem")


async def after_certificate(secondary: Secondary) -> None:
    """Killed once the certificate was in place, before the API key was erased."""
    secret = api_key.load(secondary.config.folder)
    await resume(secondary)
    api_key.keep(secondary.config.folder, secret)


@pytest.mark.parametrize("kill", [after_key, after_request, after_request_and_nothing_noted, after_word, after_certificate])
async def test_killed_at_any_step_the_same_key_resumes(tmp_path: Path, running: Running, kill: Any) -> None:
    """Faults rows 1 and 2, attacks row 9: one row, one use of the API key, one valid certificate."""
    secret = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1)
    secondary = set_up(tmp_path / "one", running, secret)
    key = secondary.identity.fingerprint
    await kill(secondary)
    mine = await resume(secondary)
    assert mine.fingerprint == key
    assert mine.usable(int(time.time()))
    assert secondary.state.server_id
    assert [server.fingerprint for server in await servers(running)] == [key]


async def test_a_wait_that_is_interrupted_goes_on(running: Running, secondary: Secondary) -> None:
    """Faults row 2."""
    for _ in range(2):
        waiting = asyncio.create_task(resume(secondary))
        await secondary.becomes("pending")
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    waiting = asyncio.create_task(resume(secondary))
    await running.authorize(secondary.state.server_id)
    assert (await waiting).certificate is not None
    assert len(await servers(running)) == 1


async def test_refused_once_it_asks_again_with_the_same_key(tmp_path: Path, running: Running) -> None:
    """Faults row 16."""
    account = account_pb2.UpdateAccountRequest(name=f"accounts/{ACCOUNT}", default_api_key=False)
    await running.admin.accounts.UpdateAccount(account)
    secondary = set_up(tmp_path / "one", running)
    assert (await refusal(resume(secondary))).reason is Reason.API_KEY_REQUIRED
    assert not secondary.state.asked
    account.default_api_key = True
    await running.admin.accounts.UpdateAccount(account)
    waiting = asyncio.create_task(resume(secondary))
    await secondary.becomes("pending")
    assert [server.fingerprint for server in await servers(running)] == [secondary.identity.fingerprint]
    await running.authorize(secondary.state.server_id)
    await waiting


async def test_a_key_that_was_registered_is_not_forgotten_over_a_refusal_that_came_after(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults row 2: the API key for one is used up, so this very key must come back for its certificate."""

    def full(*_: object) -> AbstractContextManager[asyncio.Event]:
        raise Refused(Reason.OVERLOADED, "Too many wait here.")

    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(running.primary.context.waiting, "place", full)
        assert (await refusal(resume(secondary))).reason is Reason.OVERLOADED
    assert (secondary.state.asked, secondary.state.state) == (True, "new")
    assert (await resume(secondary)).certificate is not None


@pytest.mark.parametrize("reason", enrol.PERHAPS_HEARD)
async def test_whoever_may_have_been_heard_asks_again_with_the_same_key(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    """Faults rows 1 and 2: the request was committed, and its answer lost in whatever way."""

    async def lost(call: Awaitable[Any]) -> Any:
        answer = await call
        if isinstance(answer, registration_pb2.Enrolment):
            raise Refused(reason, "Lost.")
        return answer

    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(channel, "answer", lost)
        assert (await refusal(ask(secondary))).reason is reason
    assert secondary.state.asked
    assert (await resume(secondary)).certificate is not None


async def test_nothing_is_asked_before_it_is_noted_that_it_was(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults row 7: else a lost answer would lose the key as well, and the use of the API key with it."""
    real = files.write

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name == "state.json":
            raise Refused(Reason.STORAGE_FULL, "The disk is full.")
        real(path, data, mode)

    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(files, "write", full)
        assert (await refusal(ask(secondary))).reason is Reason.STORAGE_FULL
    assert await servers(running) == []


async def test_a_lost_certificate_is_given_again(tmp_path: Path, running: Running) -> None:
    """The key is the identity; a certificate only carries it."""
    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1))
    first = await resume(secondary)
    files.remove(secondary.config.folder / "certificate.pem")
    again = await resume(secondary)
    assert again.fingerprint == first.fingerprint
    assert again.certificate is not None
    assert again.certificate != first.certificate


async def test_a_server_that_never_asked_costs_the_primary_no_refusal(running: Running, secondary: Secondary) -> None:
    """Two hundred servers behind one address must not look like two hundred failed attempts."""
    waiting = asyncio.create_task(resume(secondary))
    await secondary.becomes("pending")
    status = await running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())
    assert list(status.refusals) == []
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting


# --- Decisions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "reason"),
    [("Deny", Reason.SERVER_DENIED), ("Remove", Reason.SERVER_REMOVED), ("Withdraw", Reason.SERVER_WITHDRAWN)],
)
async def test_a_no_ends_the_wait_and_is_not_asked_about_again(
    running: Running, secondary: Secondary, decision: str, reason: Reason
) -> None:
    waiting = asyncio.create_task(resume(secondary))
    await secondary.becomes("pending")
    await decide(running, decision, secondary)
    refused = await refusal(waiting)
    assert refused.reason is reason
    assert refused.reason in enrol.FINAL
    assert "since 20" in refused.message
    assert "enlist-setup" in refused.message
    assert (await refusal(resume(secondary))).reason is reason
    assert (await at_primary(running, secondary)).state != server_pb2.SERVER_STATE_PENDING


async def test_a_person_may_ask_again_after_having_been_removed(running: Running, secondary: Secondary) -> None:
    await hear(secondary)
    await decide(running, "Remove", secondary)
    primary = await meeting.meet(Dialer(), secondary.config, secondary.identity.authority, time.time)
    waiting = asyncio.create_task(enrol.enrol(Dialer(), primary, secondary.config, secondary.identity, time.time, ask_again=True))

    async with asyncio.timeout(20):
        while (await at_primary(running, secondary)).state != server_pb2.SERVER_STATE_PENDING:
            await asyncio.sleep(0.01)
    await running.authorize(secondary.state.server_id)
    assert (await waiting).certificate is not None


async def test_a_suspended_server_waits_and_is_told_when_it_is_resumed(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    await resume(secondary)
    await decide(running, "Suspend", secondary)
    waiting = asyncio.create_task(resume(secondary))
    await secondary.becomes("suspended")
    await decide(running, "Resume", secondary)
    assert (await waiting).certificate is not None


async def test_a_revoked_key_is_told_what_it_may_do(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    mine = await resume(secondary)
    await decide(running, "Revoke", secondary)
    refused = await refusal(resume(secondary))
    assert refused.reason is Reason.SERVER_REVOKED
    assert "reset-identity" in refused.message
    assert secondary.identity.certificate == mine.certificate


async def test_leaving_takes_a_request_back_or_ends_the_trust(tmp_path: Path, running: Running) -> None:
    pending = set_up(tmp_path / "pending", running, name="pending")
    trusted = set_up(tmp_path / "trusted", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL), name="trusted")
    await hear(pending)
    await resume(trusted)
    for secondary, expected in ((pending, "withdrawn"), (trusted, "departed")):
        primary = await meeting.meet(Dialer(), secondary.config, secondary.identity.authority, time.time)
        await enrol.leave(Dialer(), primary, secondary.config, secondary.identity, time.time)
        assert secondary.state.state == expected
        assert (await refusal(resume(secondary))).reason in enrol.FINAL


# --- Strangers and liars ------------------------------------------------------------------------------------------------------


async def test_another_primary_at_the_address_is_told_nothing_and_is_an_alarm(tmp_path: Path) -> None:
    """Attacks row 22: changed identity later; and row 44: the API key stays here."""
    ours, theirs = new_signer(), new_signer()
    async with pretending(theirs) as stranger:
        secondary = written(tmp_path / "one", stranger.address, ours.authority, "enl_abcdefghij_" + "k" * 32)
        refused = await refusal(resume(secondary))
        assert refused.reason is Reason.IDENTITY_CHANGED
        assert stranger.told == []
    (alarm,) = secondary.state.alarms
    assert (alarm.address, alarm.fingerprint) == (str(stranger.address), theirs.authority.fingerprint)


async def test_an_interception_is_an_alarm_without_a_fingerprint(tmp_path: Path) -> None:
    """Attacks row 22."""
    ours = new_signer()
    async with pretending(new_signer()) as between:
        between.described = {"authority_certificate": certificates.der(ours.authority.certificate)}
        secondary = written(tmp_path / "one", between.address, ours.authority)
        assert (await refusal(resume(secondary))).reason is Reason.TLS_INTERCEPTED
        assert between.told == []
    assert [alarm.fingerprint for alarm in secondary.state.alarms] == [""]


async def test_a_primary_that_is_no_longer_accepted_is_not_asked(tmp_path: Path) -> None:
    """Whoever deletes the entry of a known primary means it."""
    ours = new_signer()
    async with pretending(ours) as primary:
        secondary = written(tmp_path / "one", primary.address, ours.authority)
        files.remove(secondary.config.data_folder / "known-primaries.toml")
        refused = await refusal(meeting.prepare(Dialer(), secondary.config, time.time))
        assert refused.reason is Reason.IDENTITY_NOT_CONFIRMED
        assert ours.authority.fingerprint in refused.message
        assert primary.told == []


async def test_a_certificate_made_out_for_somebody_else_is_not_kept(
    tmp_path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks row 47, faults row 17: the primary errs, and what was good stays."""
    secondary = set_up(tmp_path / "one", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    good = await resume(secondary)
    signer = running.primary.context.signer
    wrong = signer.issue_secondary(certificates.new_key().public_key(), ACCOUNT, "abcdefghij", 3600, int(time.time()))
    monkeypatch.setattr(signer, "issue_secondary", lambda *_: wrong)
    assert (await refusal(resume(secondary))).reason is Reason.CERTIFICATE_INVALID
    assert secondary.identity.certificate == good.certificate


async def test_a_name_that_is_kept_by_the_invitation_goes_before_ours(tmp_path: Path, running: Running) -> None:
    invited = await running.admin.trust.InviteServers(
        trust_pb2.InviteServersRequest(parent=f"accounts/{ACCOUNT}", invitees=[trust_pb2.Invitee(display_name="Front desk")])
    )
    line = joinline.parse(invited.invitations[0].join_line)
    secondary = set_up(tmp_path / "one", running, line.api_key)
    await resume(secondary)
    assert secondary.state.display_name == "Front desk"


async def test_a_request_by_somebody_else_for_our_row_changes_nothing(running: Running, secondary: Secondary) -> None:
    """Attacks row 47: another key's claim is another server's."""
    await hear(secondary)
    thief = Asker(running)
    thief.public_key = secondary.identity.public_key
    async with running.stranger() as stub:
        claim, proof = await thief.claim(stub, "Leave")
        with pytest.raises(Exception, match="not signed by the key"):
            await stub.registration.Leave(registration_pb2.LeaveRequest(claim=claim, proof=proof))
    assert (await at_primary(running, secondary)).state == server_pb2.SERVER_STATE_PENDING
