"""Keeping the link: it comes back by itself after any interruption. Faults rows 3, 12, 16 and 17, attacks rows 16, 20 and 22."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enlist import certificates, names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, server_pb2, trust_pb2
from enlist_primary import config as primary_config
from enlist_secondary import api_key, backoff, dialling, keeper, state
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.keeper import Keeper
from enlist_secondary.link import Link
from tests.support.inprocess import ACCOUNT, Running, running_primary, serving
from tests.support.ports import free_port
from tests.support.pretender import new_signer, pretending
from tests.support.secondaries import Secondary, at_primary, kept, set_up
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.02)
    monkeypatch.setattr(backoff, "LONGEST", 0.2)


@dataclass
class Pair:
    """A primary that can be stopped and started, and a trusted secondary."""

    running: Running
    secondary: Secondary
    stack: AsyncExitStack

    async def stop(self) -> None:
        """Stops the primary."""
        await self.stack.aclose()

    async def start(self, **changes: Any) -> None:
        """Starts it again over the same folder."""
        config = primary_config.load(self.running.folder.config)
        self.running = await self.stack.enter_async_context(serving(self.running.folder, config))

    async def decide(self, decision: str) -> None:
        """An administrator's decision, by its name."""
        name = names.resource("accounts", ACCOUNT, "servers", self.secondary.state.server_id)
        await getattr(self.running.admin.trust, f"{decision}Server")(getattr(trust_pb2, f"{decision}ServerRequest")(name=name))

    async def lost(self) -> state.State:
        """Waits until the link is closed."""
        await eventually(lambda: not self.secondary.state.connected, what="the end of the link")
        return self.secondary.state


@asynccontextmanager
async def paired(folder: Path, **config: Any) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_primary(folder, ssl_port=free_port(), api_port=free_port(), **config))
        secret = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL, max_uses=1)
        yield Pair(running, set_up(folder / "one", running, secret), stack)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with paired(tmp_path) as made:
        yield made


async def test_it_asks_and_links(pair: Pair) -> None:
    async with kept(pair.secondary):
        linked = await pair.secondary.connects()
        assert (linked.state, linked.primary_name, linked.display_name) == ("trusted", "Test Primary", "one")
        assert (await at_primary(pair.running, pair.secondary)).connected
    assert not pair.secondary.state.connected


async def test_a_primary_that_was_restarted_is_linked_to_again(pair: Pair) -> None:
    async with kept(pair.secondary):
        await pair.secondary.connects()
        await pair.stop()
        await pair.lost()
        await eventually(lambda: pair.secondary.state.last_problem is not None)
        await pair.start()
        await pair.secondary.connects()
        assert pair.secondary.state.last_problem is None


async def test_only_a_certificate_of_the_authority_is_accepted_at_the_ssl_port(pair: Pair) -> None:
    """Attacks row 20: the primary may come back with another certificate, and nobody else may take its place."""
    async with kept(pair.secondary):
        await pair.secondary.connects()
        await pair.stop()
        await pair.lost()
        async with pretending(new_signer(), port=pair.running.ssl.port):
            await eventually(lambda: pair.secondary.state.alarms)
            assert not pair.secondary.state.connected
        await pair.start()
        await pair.secondary.connects()


async def test_a_stranger_met_meanwhile_is_told_to_the_primary(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Attacks row 22: an alarm at both ends."""
    async with kept(pair.secondary):
        await pair.secondary.connects()
        await pair.stop()
        await pair.lost()
        stranger = new_signer()
        async with pretending(stranger, port=pair.running.api.port) as pretender:
            await eventually(lambda: any(alarm.fingerprint for alarm in pair.secondary.state.alarms))
            assert pretender.told == []
        assert stranger.authority.fingerprint in {alarm.fingerprint for alarm in pair.secondary.state.alarms}
        caplog.clear()
        await pair.start()
        await pair.secondary.connects()
        told = [record for record in caplog.records if "strange authority" in record.getMessage()]
        assert stranger.authority.fingerprint in {getattr(record, "fields", {}).get("fingerprint") for record in told}


async def test_a_moved_ssl_port_is_learnt_at_the_api_port(pair: Pair) -> None:
    async with kept(pair.secondary):
        await pair.secondary.connects()
        await pair.stop()
        moved = free_port()
        text = pair.running.folder.config.read_text()
        pair.running.folder.config.write_text(text.replace(f"ssl_port = {pair.running.ssl.port}", f"ssl_port = {moved}"))
        await pair.lost()
        await pair.start()
        assert (await pair.secondary.connects()).ssl_port == moved


async def test_the_link_comes_back_while_the_api_port_is_blocked(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API port is for strangers; who is trusted needs the SSL port only, even after the primary's certificate changed."""
    async with kept(pair.secondary):
        await pair.secondary.connects()

    async def blocked(*_: object) -> None:
        raise Refused(Reason.UNREACHABLE, "Blocked.")

    monkeypatch.setattr(dialling, "meet", blocked)
    pair.running.primary.renew_certificates()
    async with kept(pair.secondary):
        await pair.secondary.connects()


@pytest.mark.parametrize("port", [0, 1])
async def test_a_lost_or_wrong_ssl_port_costs_only_a_look(pair: Pair, port: int) -> None:
    async with kept(pair.secondary):
        good = await pair.secondary.connects()
    state.change(pair.secondary.config.folder, lambda known: replace(known, ssl_port=port))
    async with kept(pair.secondary):
        assert (await pair.secondary.connects()).ssl_port == good.ssl_port


# --- Decisions ----------------------------------------------------------------------------------------------------------------


async def test_a_suspended_server_waits_and_links_again_when_it_is_resumed(pair: Pair) -> None:
    """Attacks row 16."""
    async with kept(pair.secondary):
        await pair.secondary.connects()
        await pair.decide("Suspend")
        await pair.secondary.becomes("suspended")
        assert not pair.secondary.state.connected
        await pair.decide("Resume")
        await pair.secondary.connects()


@pytest.mark.parametrize(("decision", "reason"), [("Revoke", Reason.SERVER_REVOKED), ("Remove", Reason.SERVER_REMOVED)])
async def test_a_final_no_ends_it(pair: Pair, decision: str, reason: Reason) -> None:
    """Attacks row 16: within a second."""
    async with kept(pair.secondary) as task:
        await pair.secondary.connects()
        await pair.decide(decision)
        with pytest.raises(Refused) as caught:
            async with asyncio.timeout(5):
                await asyncio.shield(task)
        assert caught.value.reason is reason
    assert pair.secondary.state.state == reason.removeprefix("SERVER_").lower()
    assert pair.secondary.identity.certificate is not None


async def test_a_primary_that_contradicts_itself_is_not_dialled_in_a_hurry(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses the link and, asked where the server stands, says trusted: each round has its pause."""
    dialled = 0

    async def refuse(*_: object) -> None:
        nonlocal dialled
        dialled += 1
        raise Refused(Reason.CERTIFICATE_INVALID, "No.")

    monkeypatch.setattr(dialling, "connect", refuse)
    monkeypatch.setattr(backoff, "FIRST", 30.0)
    async with kept(pair.secondary):
        await eventually(lambda: dialled == 1)
        await eventually(lambda: pair.secondary.state.told_at is not None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await eventually(lambda: dialled > 1)


async def test_a_pending_server_links_the_moment_it_is_authorized(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running:
        secondary = set_up(tmp_path / "one", running)
        async with kept(secondary):
            pending = await secondary.becomes("pending")
            assert not pending.connected
            await running.authorize(pending.server_id)
            await secondary.connects(within=3)


async def test_an_api_key_that_a_crash_left_behind_is_erased(pair: Pair) -> None:
    """Faults row 2, attacks row 44."""
    async with kept(pair.secondary):
        await pair.secondary.connects()
    api_key.keep(pair.secondary.config.folder, "enl_left")
    async with kept(pair.secondary):
        await pair.secondary.connects()
    assert api_key.load(pair.secondary.config.folder) == ""


# --- Certificates -------------------------------------------------------------------------------------------------------------


async def test_a_certificate_is_renewed_at_half_its_life_and_the_link_follows(tmp_path: Path) -> None:
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 6)
        async with kept(pair.secondary):
            await pair.secondary.connects()
            first = pair.secondary.identity.certificate
            assert first is not None
            await eventually(lambda: pair.secondary.identity.certificate != first, 10, "the renewal")
            second = pair.secondary.identity.certificate
            assert second is not None
            assert certificates.spki(certificates.key_of(second)) == certificates.spki(certificates.key_of(first))
            assert certificates.begins_at(second) > certificates.begins_at(first)
            await eventually(lambda: pair.secondary.state.connected)
            server = await at_primary(pair.running, pair.secondary)
            assert (server.connected, server.state) == (True, server_pb2.SERVER_STATE_TRUSTED)


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_renewal_that_is_lost_is_repeated_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Faults row 3: the old certificate stays good until the new one is first used."""
    renew, attempts = Link.renew, 0

    async def once_lost(self: Link) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            if lost == "reply":
                await renew(self)
            raise Refused(Reason.TIMED_OUT, "Lost.")
        return await renew(self)

    monkeypatch.setattr(Link, "renew", once_lost)
    monkeypatch.setattr(keeper, "RETRY_RENEWAL", 0.1)
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 6)
        async with kept(pair.secondary):
            await pair.secondary.connects()
            first = pair.secondary.identity.certificate
            await eventually(lambda: attempts == 1)
            assert pair.secondary.identity.certificate == first
            assert pair.secondary.state.connected
            await eventually(lambda: attempts >= 2)
            await eventually(lambda: pair.secondary.identity.certificate != first)


async def test_a_certificate_that_ran_out_is_replaced_without_a_new_enrolment(tmp_path: Path) -> None:
    """The key is the identity: a long absence never needs a new enrolment."""
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 1)
        async with kept(pair.secondary):
            await pair.secondary.connects()
        old = pair.secondary.identity
        await eventually(lambda: not old.usable(int(time.time())), 5)
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 3600)
        async with kept(pair.secondary):
            await pair.secondary.connects()
        assert pair.secondary.identity.usable(int(time.time()))
        assert pair.secondary.identity.fingerprint == old.fingerprint


async def test_a_valid_certificate_is_never_deleted_because_something_failed(pair: Pair) -> None:
    """Faults row 17."""
    async with kept(pair.secondary):
        await pair.secondary.connects()
        good = (pair.secondary.config.folder / "certificate.pem").read_bytes()
        await pair.stop()
        for stranger in (new_signer(), new_signer()):
            async with pretending(stranger, port=pair.running.api.port), pretending(stranger, port=pair.running.ssl.port):
                met = len(pair.secondary.state.alarms)
                await eventually(lambda met=met: len(pair.secondary.state.alarms) > met)  # type: ignore[misc]  # binds the loop's value
        assert (pair.secondary.config.folder / "certificate.pem").read_bytes() == good
        await pair.start()
        await pair.secondary.connects()


async def test_a_full_disk_does_not_cost_the_link(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults row 7."""
    async with kept(pair.secondary) as task:
        await pair.secondary.connects()

        def full(*_: object) -> None:
            raise Refused(Reason.STORAGE_FULL, "Full.")

        monkeypatch.setattr(files, "write", full)
        state.change(pair.secondary.config.folder, lambda known: known.alarmed("a:1", "", 1))
        assert (await at_primary(pair.running, pair.secondary)).connected
        assert not task.done()


def test_renewal_is_due_around_half_the_life() -> None:
    signer, now, day = new_signer(), 1_795_000_000, 86400
    der = signer.issue_secondary(certificates.new_key().public_key(), ACCOUNT, "abcdefghij", 30 * day, now)
    certificate = certificates.load(der)
    due = [keeper.renewal_due(certificate, chance) - now for chance in (0.0, 0.5, 1.0)]
    assert due == pytest.approx([13.5 * day, 15 * day, 16.5 * day])


async def test_a_daemon_that_stops_while_one_link_follows_another_leaves_none_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a configuration that names another primary would leave this one with an open link."""
    unnamed: Any = None
    links: list[Any] = []

    class Dialled:
        def __init__(self) -> None:
            self.closing, self.closed, self.leave = asyncio.Event(), False, asyncio.Event()
            links.append(self)

        async def close(self) -> None:
            self.closing.set()
            await self.leave.wait()
            self.closed = True

    async def connect(*_: Any) -> Dialled:
        return Dialled()

    async def renewed(*_: Any) -> Any:
        return unnamed

    monkeypatch.setattr(dialling, "connect", connect)
    keeping = Keeper(SecondaryConfig(primary="primary.example", account=ACCOUNT, name="one", data=str(tmp_path)), Dialer())
    work: Any = SimpleNamespace(unlinked=lambda: None)
    keeping._work = work
    monkeypatch.setattr(keeping, "_until_renewed", renewed)
    linked = asyncio.create_task(keeping._link(unnamed))
    await eventually(lambda: len(links) == 2 and links[0].closing.is_set())
    linked.cancel()
    for link in links:
        link.leave.set()
    await asyncio.wait({linked})
    assert linked.cancelled()
    assert links[1].closed
