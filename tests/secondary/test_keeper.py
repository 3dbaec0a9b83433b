"""Keeping the link: it comes back by itself after any interruption. Faults rows 3, 12, 16 and 17, attacks rows 16, 20 and 22."""

import asyncio
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest

from enlist import certificates, names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.controller import Backoff
from enlist.v1 import account_pb2, document_pb2, policy_pb2, server_pb2, trust_pb2, upstream_pb2, upstream_pb2_grpc
from enlist_primary import config as primary_config
from enlist_secondary import api_key, dialling, keeper, state
from enlist_secondary.config import LocalPrimary
from enlist_secondary.connection import staying
from enlist_secondary.connection.link import Link
from enlist_secondary.federation import upstream
from enlist_secondary.identity import Identity
from tests.secondary.disks import Disk
from tests.support.inprocess import ACCOUNT, Running, running_primary, serving
from tests.support.ports import free_port
from tests.support.pretender import new_signer, pretending
from tests.support.secondaries import Secondary, at_primary, kept, set_up
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BACKOFF", Backoff(0.02, 0.2))


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

    async def decide(self, decision: str, **fields: Any) -> None:
        """An administrator's decision, by its name."""
        name = names.resource("accounts", ACCOUNT, "servers", self.secondary.state.server_id)
        request = getattr(trust_pb2, f"{decision}ServerRequest")(name=name, **fields)
        await getattr(self.running.admin.trust, f"{decision}Server")(request)

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
    monkeypatch.setattr(keeper, "BACKOFF", Backoff(30.0, 60.0))
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

    async def once_lost(self: Link, identity: Identity) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            if lost == "reply":
                await renew(self, identity)
            raise Refused(Reason.TIMED_OUT, "Lost.")
        return await renew(self, identity)

    monkeypatch.setattr(Link, "renew", once_lost)
    monkeypatch.setattr(staying, "RETRY_RENEWAL", 0.1)
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
    begins, ends = certificates.begins_at(certificate), certificates.ends_at(certificate)
    due = [staying.renewal_due(begins, ends, chance) - now for chance in (0.0, 0.5, 1.0)]
    assert due == pytest.approx([13.5 * day, 15 * day, 16.5 * day])


async def test_a_daemon_that_stops_while_one_link_follows_another_leaves_none_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a configuration that names another primary would leave this one with an open link."""
    links, closed, close = dialled(monkeypatch), list[Link](), Link.close
    closing, leave = asyncio.Event(), asyncio.Event()

    async def slowly(self: Link) -> None:
        closing.set()
        await leave.wait()
        await close(self)
        closed.append(self)

    monkeypatch.setattr(Link, "close", slowly)
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 6)
        async with kept(pair.secondary) as task:
            await eventually(lambda: len(links) == 2 and closing.is_set())
            task.cancel()
            leave.set()
        assert links[1] in closed
        assert not pair.secondary.state.connected


async def test_a_second_dial_that_fails_leaves_the_healthy_link_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = dialled(monkeypatch, failing={2: Refused(Reason.TIMED_OUT, "Late."), 3: ZeroDivisionError("unforeseen")})
    ends, close = list[Link](), Link.close

    async def noted(self: Link) -> None:
        ends.append(self)
        await close(self)

    monkeypatch.setattr(Link, "close", noted)
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 6)
        async with kept(pair.secondary):
            opened = (await pair.secondary.connects()).connected_at
            first = pair.secondary.identity.certificate
            await eventually(lambda: pair.secondary.state.last_problem, what="the failure in the state")
            assert (pair.secondary.state.connected, pair.secondary.state.connected_at) == (True, opened)
            assert pair.secondary.identity.certificate != first
            await eventually(lambda: len(links) == 2, what="the link over the renewed certificate")
            await eventually(lambda: ends == links[:1], what="the end of the first link")
            await eventually(lambda: pair.secondary.state.last_problem is None)
            assert (await at_primary(pair.running, pair.secondary)).connected


async def test_a_link_that_ends_while_the_second_dial_fails_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor is not waited for: everything begins anew, from asking where this server stands."""
    late = Refused(Reason.TIMED_OUT, "Late.")
    links = dialled(monkeypatch, failing=dict.fromkeys(range(2, 1000), late))
    async with paired(tmp_path) as pair:
        object.__setattr__(pair.running.primary.context, "certificate_lifetime", 6)
        async with kept(pair.secondary) as task:
            await eventually(lambda: pair.secondary.state.last_problem, what="the second dial to fail")
            await pair.decide("Revoke")
            with pytest.raises(Refused, match="revoked"):
                await asyncio.wait_for(asyncio.shield(task), 10)
    assert len(links) == 1


def dialled(monkeypatch: pytest.MonkeyPatch, failing: Mapping[int, Exception] = {}) -> list[Link]:
    """The links that are opened from now on; the dials of these numbers, counted from 1, fail so."""
    connect, links, dials = dialling.connect, list[Link](), itertools.count(1)

    async def dial(*arguments: Any) -> Link:
        if (error := failing.get(next(dials))) is not None:
            raise error
        links.append(await connect(*arguments))
        return links[-1]

    monkeypatch.setattr(dialling, "connect", dial)
    return links


# --- Another id, and the end --------------------------------------------------------------------------------------------------


def with_motd(secondary: Secondary) -> Path:
    """The file that policies of the kind motd are written to."""
    motd = secondary.path.with_name("motd")
    handlers = {"policy": {"motd": {"type": "file", "path": str(motd), "format": "json"}}}
    secondary.config = msgspec.structs.replace(secondary.config, handlers=handlers)
    return motd


async def set_motd(running: Running, text: str) -> None:
    key = policy_pb2.PolicyKey(parent=f"accounts/{ACCOUNT}", group="/", kind="motd")
    layer = policy_pb2.Layer(settings=json.dumps({"text": text}).encode())
    await running.admin.policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer))


def read(path: Path) -> str:
    return str(json.loads(path.read_text())["text"]) if path.exists() else ""


async def backed_up(pair: Pair, to: Path) -> Path:
    """A copy of the primary's data."""
    await pair.stop()
    shutil.copytree(pair.running.folder.path, to)
    await pair.start()
    return to


async def put_back(pair: Pair, copy: Path) -> None:
    """The primary's data are what they were then."""
    await pair.stop()
    shutil.rmtree(pair.running.folder.path)
    shutil.copytree(copy, pair.running.folder.path)
    await pair.start()


async def test_a_server_that_gets_another_id_takes_what_is_set_for_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The primary's data were put back to before this server joined. What is in force stays until the new set says otherwise."""
    async with paired(tmp_path) as pair:
        motd = with_motd(pair.secondary)
        before = await backed_up(pair, tmp_path / "before")
        async with kept(pair.secondary):
            first = (await pair.secondary.connects()).server_id
            await set_motd(pair.running, "first")
            await eventually(lambda: read(motd) == "first", what="the first policy")
            await put_back(pair, before)
            await eventually(lambda: pair.secondary.state.server_id not in ("", first), what="another id")
            assert read(motd) == "first"
            await pair.running.authorize(pair.secondary.state.server_id)
            await pair.secondary.connects()
            await set_motd(pair.running, "second")
            await eventually(lambda: read(motd) == "second", what="the policy for the other id")
    assert "a desired set was refused" not in caplog.messages


async def test_what_is_in_force_is_not_taken_back_for_a_server_that_gets_another_id(tmp_path: Path) -> None:
    """Faults row 9: not even until the first set for the new id is here."""
    async with paired(tmp_path) as pair:
        motd = with_motd(pair.secondary)
        await set_motd(pair.running, "first")
        before = await backed_up(pair, tmp_path / "before")
        async with kept(pair.secondary):
            first = (await pair.secondary.connects()).server_id
            await eventually(lambda: read(motd) == "first", what="the policy")
            written = motd.stat()
            await put_back(pair, before)
            await eventually(lambda: pair.secondary.state.server_id not in ("", first), what="another id")
            await pair.running.authorize(pair.secondary.state.server_id)
            await pair.secondary.connects()

            async def applied() -> bool:
                request = policy_pb2.ListPoliciesRequest(parent=f"accounts/{ACCOUNT}")
                return [each.counts.applied for each in (await pair.running.admin.policies.ListPolicies(request)).policies] == [1]

            await eventually(applied, what="the new server's report")
    assert (motd.stat().st_ino, motd.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


async def test_a_local_primary_that_does_not_run_holds_up_no_final_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next start tells it, although there is nothing else left to do for it."""
    monkeypatch.setattr(upstream, "FAREWELL_SECONDS", 0.2)
    async with paired(tmp_path) as pair:
        socket = tmp_path / "upstream.sock"
        pair.secondary.config = msgspec.structs.replace(pair.secondary.config, local_primary=LocalPrimary(str(socket)))
        async with kept(pair.secondary) as task:
            await pair.secondary.connects()
            await pair.decide("Revoke")
            assert (await final_no(task)).reason is Reason.SERVER_REVOKED
        assert [message for message in caplog.messages if "the next start repeats it" in message]
        caplog.clear()
        async with local_primary(socket) as told, kept(pair.secondary) as task:
            assert (await final_no(task)).reason is Reason.SERVER_REVOKED
        assert document_pb2.ANCESTOR_STATE_PRESENT not in {upper.bequest for upper in told}
        assert told
        assert not [message for message in caplog.messages if "the next start tells it" in message]


async def test_final_no_counts_once_it_is_written_down(tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """Faults row 7: it says what stays below, and without that word everything from above would end there."""
    async with paired(tmp_path) as pair:
        socket = tmp_path / "upstream.sock"
        pair.secondary.config = msgspec.structs.replace(pair.secondary.config, local_primary=LocalPrimary(str(socket)))
        async with local_primary(socket) as told, kept(pair.secondary) as task:
            await pair.secondary.connects()
            disk.full = lambda path: path.name == state.FILE
            await pair.decide("Revoke", bequest=trust_pb2.BEQUEST_FREEZE)
            await eventually(lambda: _full(caplog), what="the attempt that finds no space")
            assert {upper.bequest for upper in told} <= {document_pb2.ANCESTOR_STATE_PRESENT}
            disk.full = lambda _: False
            assert (await final_no(task)).reason is Reason.SERVER_REVOKED
        assert told[-1].bequest == document_pb2.ANCESTOR_STATE_FROZEN


def _full(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether an attempt failed because the disk is full."""
    fields = [getattr(each, "fields", {}) for each in caplog.records if each.getMessage() == "attempt failed"]
    return any(each.get("reason") == Reason.STORAGE_FULL for each in fields)


async def final_no(task: asyncio.Task[None]) -> Refused:
    with pytest.raises(Refused) as caught:
        await asyncio.wait_for(asyncio.shield(task), 10)
    return caught.value


@asynccontextmanager
async def local_primary(socket: Path) -> AsyncIterator[list[upstream_pb2.Upper]]:
    """A primary on this host that writes down whatever it is told of the one above."""
    told: list[upstream_pb2.Upper] = []

    class Service(upstream_pb2_grpc.UpstreamServiceServicer):
        async def Attach(self, requests: Any, context: Any) -> AsyncIterator[upstream_pb2.ToDaemon]:
            async for message in requests:
                if message.HasField("upper"):
                    told.append(message.upper)
                    yield upstream_pb2.ToDaemon(heard=message.upper)

    server = grpc.aio.server()
    upstream_pb2_grpc.add_UpstreamServiceServicer_to_server(Service(), server)
    server.add_secure_port(f"unix:{socket}", grpc.local_server_credentials(grpc.LocalConnectionType.UDS))
    await server.start()
    try:
        yield told
    finally:
        await server.stop(None)
