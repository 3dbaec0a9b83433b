"""`status` and `doctor`: what they say, and that it cannot upset a terminal (attacks row 41)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enlist import certificates
from enlist.documents import ItemVersion
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files, standings
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2
from enlist_secondary import api_key, cli, doctor, enrol, identity, report, state
from enlist_secondary import config as configs
from enlist_secondary.policy_records import Good, Record
from enlist_secondary.tasks import Run
from tests.support.inprocess import Running, running_primary
from tests.support.means import need_machine_id
from tests.support.ports import free_port
from tests.support.pretender import new_signer, pretending
from tests.support.secondaries import Secondary, kept, set_up, written

KEYS = [
    "state",
    "connected",
    "running",
    "primary",
    "primary_name",
    "primary_fingerprint",
    "account",
    "name",
    "server_id",
    "fingerprint",
    "comparison_code",
    "since",
    "told_at",
    "expires_at",
    "contact",
    "reason",
    "certificate_expires",
    "problem",
    "alarms",
    "policies",
    "tasks",
    "staged",
]

STAGES = ["name", "TCP", "TLS", "version", "clock", "identity", "account", "API key", "SSL port", "machine", "certificate", "state"]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_primary(tmp_path) as primary:
        yield primary


@pytest.fixture
def secondary(tmp_path: Path, running: Running) -> Secondary:
    return set_up(tmp_path / "one", running)


async def diagnosis(secondary: Secondary) -> dict[str, doctor.Stage]:
    stages = await doctor.diagnose(Dialer(), configs.load(secondary.path), time.time)
    assert [stage.name for stage in stages] == STAGES
    return {stage.name: stage for stage in stages}


def failures(stages: dict[str, doctor.Stage]) -> dict[str, str]:
    return {name: stage.reason for name, stage in stages.items() if stage.ok is False}


# --- Status -------------------------------------------------------------------------------------------------------------------


def test_before_anything_was_asked(secondary: Secondary, running: Running) -> None:
    told = report.status(secondary.path)
    assert list(asdict(told)) == KEYS
    assert (told.state, told.connected, told.running, told.since) == ("new", False, False, None)
    assert told.primary_fingerprint == running.authority.fingerprint
    assert told.fingerprint == secondary.identity.fingerprint


async def test_linked(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "two", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    async with kept(secondary):
        await secondary.connects()
        with files.lock(secondary.config.lock, Reason.ALREADY_RUNNING, ""):
            told = report.status(secondary.path)
        assert (told.state, told.connected, told.running) == ("trusted", True, True)
        assert told.certificate_expires is not None
        assert (told.problem, told.alarms) == (None, ())
        # The daemon was killed, and could not say so: without its lock nothing is connected.
        assert not report.status(secondary.path).connected


def test_problems_and_alarms_are_told(secondary: Secondary) -> None:
    state.change(secondary.config.folder, lambda kept: kept.failed(Refused(Reason.TIMED_OUT, "Late."), 60).alarmed("a:1", "ff", 61))
    told = report.status(secondary.path)
    assert told.problem == report.Problem("TIMED_OUT", "Late.", "1970-01-01T00:01:00Z")
    assert told.alarms == (report.Alarm("1970-01-01T00:01:01Z", "a:1", "ff"),)


def version(revision: int) -> ItemVersion:
    return ItemVersion(revision, "d" * 64)


def test_policies_and_the_last_tasks_are_told_by_whoever_only_looks(
    secondary: Secondary, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks rows 36 and 41: a program's words are text from outside. What is damaged is told as what it is."""
    folder, applied = secondary.config.folder, {"a": (version(7),), "b": (version(9), version(12))}
    for name in ("policies", "tasks"):
        files.make_folder(folder / name)
    running = Good(settings={"text": "x"}, versions=applied)
    good = Record(versions=applied, state="applied", at=60, running=running)
    failed = replace(good, state="failed", message="line 3: \x1b[2Jbad", running=replace(running, versions={"b": (version(5),)}))
    for kind, record in {"motd": good, "ntp": failed}.items():
        files.write(folder / "policies" / f"{kind}.json", msgspec.json.encode(record))
    files.write(folder / "policies" / "web.json", b"{")
    for n in range(12):
        id = "a" * 9 + "abcdefghijkl"[n]
        run = Run(
            id, "note", "b", version(7), 600, "failed" if n == 11 else "succeeded", 60 + n, "\u202e", 3 if n == 11 else 0, b"said"
        )
        files.write(folder / "tasks" / f"{id}.json", msgspec.json.encode(run))
    told = report.status(secondary.path)
    assert [(each.kind, each.state, each.revisions, each.running) for each in told.policies[:2]] == [
        ("motd", "applied", (7, 9, 12), (7, 9, 12)),
        ("ntp", "failed", (7, 9, 12), (5,)),
    ]
    assert [each.kind for each in told.policies] == ["motd", "ntp", "web"]
    assert len(told.tasks) == report.TASKS
    assert (told.tasks[0].run, told.tasks[0].exit_code) == ("a" * 9 + "l", 3)
    assert cli.main(["--config", str(secondary.path), "status"]) == 0
    shown = capsys.readouterr().out
    assert "line 3: \\x1b[2Jbad" in shown
    assert not set("\x1b\u202e") & set(shown)


def test_a_status_for_people_is_escaped_and_leaves_out_what_is_empty(
    secondary: Secondary, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks row 41: what the primary calls itself and this server is text from outside."""
    state.change(
        secondary.config.folder,
        lambda kept: replace(kept, state="pending", since=0, contact="ops\x1b[31m\u202e", primary_name="Tower\n", reason="\x07"),
    )
    assert cli.main(["--config", str(secondary.path), "status"]) == 0
    shown = capsys.readouterr().out
    assert "State:                  pending since 1970-01-01T00:00:00Z" in shown
    assert "\\x1b[31m\\u202e" in shown
    assert not set("\x1b\u202e\x07") & set(shown)
    assert "Certificate expires" not in shown


@pytest.mark.parametrize(
    ("name", "shown"), [("trusted", True), ("suspended", True), ("departed", False), ("removed", False), ("revoked", False)]
)
async def test_a_certificate_that_opens_nothing_is_left_out(tmp_path: Path, running: Running, name: str, shown: bool) -> None:
    secondary = set_up(tmp_path / "two", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    await enrol.resume(Dialer(), secondary.config, secondary.identity, time.time)
    state.change(secondary.config.folder, lambda told: replace(told, state=name))
    told = report.status(secondary.path)
    assert told.certificate_expires is not None
    assert ("Certificate expires" in dict(report.lines(told))) is shown


def test_every_heading_stands_apart_from_its_text(secondary: Secondary, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those of a different primary that has yet to authorize this server, which are indented."""
    files.write(configs.next_path(secondary.path), configs.render(secondary.config).encode())
    assert cli.main(["--config", str(secondary.path), "status"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "Primary's fingerprint:" in line]
    assert [line.split(": ")[0] for line in told] == ["Primary's fingerprint", "  Primary's fingerprint"]
    assert len({line.index(secondary.identity.authority.fingerprint) for line in told}) == 1, "one column"


def test_the_json_has_numbers_as_numbers_and_false_written_out(secondary: Secondary, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(secondary.path), "status", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(told) == KEYS
    assert told["connected"] is False
    assert told["comparison_code"] == secondary.identity.comparison_code("acme.example")


# --- Doctor -------------------------------------------------------------------------------------------------------------------


async def test_all_is_well_before_the_authorization_but_for_the_daemon(secondary: Secondary) -> None:
    stages = await diagnosis(secondary)
    assert failures(stages) == {"state": "NOT_RUNNING"}
    assert "enlist-secondary run" in stages["state"].advice
    assert stages["certificate"].ok is None


async def test_all_is_well_on_a_linked_server(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "two", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    async with kept(secondary):
        await secondary.connects()
        with files.lock(secondary.config.lock, Reason.ALREADY_RUNNING, ""):
            stages = await diagnosis(secondary)
    assert failures(stages) == {}
    assert stages["identity"].message.endswith("(known).")


@pytest.mark.parametrize(
    ("host", "failed", "reason"),
    [("no-such-host.invalid", "name", Reason.NAME_NOT_FOUND), ("127.0.0.1", "TCP", Reason.UNREACHABLE)],
)
async def test_what_comes_after_a_failure_is_not_tried(tmp_path: Path, host: str, failed: str, reason: Reason) -> None:
    secondary = written(tmp_path / "one", Address(host, free_port()), new_signer().authority)
    stages = await diagnosis(secondary)
    position = STAGES.index(failed)
    assert [stages[name].ok for name in STAGES[:9]] == [True] * position + [False] + [None] * (8 - position)
    assert stages[failed].reason == reason
    assert stages[failed].advice


async def test_a_stranger_is_told_nothing_and_the_ssl_port_is_judged_by_the_known_authority(tmp_path: Path) -> None:
    """Attacks row 22."""
    async with pretending(new_signer()) as stranger:
        secondary = written(tmp_path / "one", stranger.address, new_signer().authority, "enl_secret")
        stages = await diagnosis(secondary)
        assert stranger.told == []
    assert stages["identity"].reason == Reason.IDENTITY_CHANGED
    assert "was accepted there" not in stages["identity"].message  # nobody looked where it was accepted
    assert stages["identity"].message.endswith(f"own primary is {secondary.identity.authority.fingerprint}.")
    assert stages["SSL port"].reason == Reason.TLS_INTERCEPTED
    assert (stages["account"].ok, stages["API key"].ok) == (None, None)


@pytest.mark.parametrize(
    ("described", "stage", "reason"),
    [
        ({"newest_protocol": 0}, "version", Reason.VERSION_INCOMPATIBLE),
        ({"authority_certificate": b"garbage"}, "TLS", Reason.NOT_ENLIST),
    ],
)
async def test_each_failure_has_its_own_stage(tmp_path: Path, described: dict[str, Any], stage: str, reason: Reason) -> None:
    signer = new_signer()
    async with pretending(signer) as pretender:
        pretender.described = described
        stages = await diagnosis(written(tmp_path / "one", pretender.address, signer.authority))
    assert stages[stage].reason == reason


async def test_a_clock_that_is_off_is_found(tmp_path: Path) -> None:
    signer = new_signer()
    async with pretending(signer) as pretender:
        pretender.clock_error = 1000
        stages = await diagnosis(written(tmp_path / "one", pretender.address, signer.authority))
    assert stages["clock"].reason == Reason.CLOCK_SKEW
    assert [stages[name].ok for name in ("name", "TCP", "TLS", "version")] == [True] * 4


async def test_wrong_account_and_wrong_api_key_are_told_apart(running: Running, secondary: Secondary) -> None:
    api_key.keep(secondary.config.folder, "enl_wrong")
    stages = await diagnosis(secondary)
    assert (stages["account"].ok, stages["API key"].reason) == (True, Reason.API_KEY_INVALID)
    api_key.erase(secondary.config.folder)
    files.write(secondary.path, configs.render(secondary.config).replace("acme.example", "other.example").encode())
    assert failures(await diagnosis(secondary))["account"] == Reason.ACCOUNT_UNKNOWN


async def test_an_api_key_that_this_server_s_own_request_used_up_is_no_fault(tmp_path: Path, running: Running) -> None:
    """docs/adr/0003: for a server that stands an API key is not looked at again."""
    secondary = set_up(tmp_path / "used", running, await running.api_key(max_uses=1))
    async with kept(secondary):
        await secondary.becomes("pending")
        stages = await diagnosis(secondary)
    assert (stages["API key"].ok, stages["API key"].message) == (None, "Not needed any more.")


async def test_a_blocked_ssl_port_is_found_while_the_api_port_answers(tmp_path: Path) -> None:
    signer = new_signer()
    async with pretending(signer) as pretender:
        pretender.described = {"ssl_port": free_port()}
        stages = await diagnosis(written(tmp_path / "one", pretender.address, signer.authority))
    assert stages["identity"].ok
    assert stages["SSL port"].reason == Reason.SSL_PORT_UNREACHABLE


async def test_a_certificate_that_ran_out_is_found(tmp_path: Path, running: Running) -> None:
    secondary = set_up(tmp_path / "two", running, await running.api_key(kind=account_pb2.API_KEY_KIND_FULL))
    mine = await enrol.resume(Dialer(), secondary.config, secondary.identity, time.time)
    assert mine.certificate is not None
    after = certificates.ends_at(mine.certificate) + 1
    assert doctor._certificate(secondary.identity, after).reason == Reason.CERTIFICATE_EXPIRED


async def stands(secondary: Secondary, **fields: Any) -> doctor.Stage:
    """What doctor says of a running daemon's state."""
    state.change(secondary.config.folder, lambda told: replace(told, since=60, **fields))
    with files.lock(secondary.config.lock, Reason.ALREADY_RUNNING, ""):
        return (await diagnosis(secondary))["state"]


@pytest.mark.parametrize("name", ["denied", "suspended", "revoked", "expired", "withdrawn", "departed", "removed"])
async def test_a_server_that_is_not_trusted_is_told_why_and_what_to_do(secondary: Secondary, name: str) -> None:
    stage = await stands(secondary, state=name, reason="late\x1b[31m")
    assert (stage.ok, stage.reason) == (False, f"SERVER_{name.upper()}")
    assert standings.SENTENCES[name] in stage.message
    assert '"late\\x1b[31m"' in stage.message
    assert "enlist-setup" in stage.message + stage.advice or "resume" in stage.advice


async def test_a_state_of_a_later_version_is_no_good_news(secondary: Secondary) -> None:
    assert (await stands(secondary, state="unspecified")).reason == Reason.VERSION_INCOMPATIBLE


@pytest.mark.parametrize("contact", ["ops@acme.example", ""])
async def test_a_pending_server_has_no_fault_and_says_what_is_awaited(secondary: Secondary, contact: str) -> None:
    stage = await stands(secondary, state="pending", contact=contact)
    assert (stage.ok, stage.reason) == (True, "")
    assert stage.message == f"{standings.SENTENCES['pending']} since 1970-01-01T00:01:00Z."
    assert (contact or "administrator") in stage.advice
    assert secondary.identity.comparison_code("acme.example") in stage.advice


async def test_a_newer_problem_comes_before_the_state(secondary: Secondary) -> None:
    late = state.Problem("TIMED_OUT", "Late.", 61)
    assert (await stands(secondary, state="suspended", last_problem=late)).reason == Reason.TIMED_OUT


async def test_a_copied_identity_is_found_in_the_words_of_the_daemon(secondary: Secondary) -> None:
    need_machine_id()
    assert (await diagnosis(secondary))["machine"].ok
    files.write(secondary.config.folder / "machine-id", b"0" * 64)
    stage = (await diagnosis(secondary))["machine"]
    with pytest.raises(Refused) as caught:
        identity.check_machine(secondary.config.folder)
    assert (stage.ok, stage.reason, stage.message) == (False, Reason.IDENTITY_COPIED, caught.value.message)


async def test_before_there_is_a_key_nothing_was_copied(secondary: Secondary) -> None:
    identity.reset(secondary.config.folder)
    assert (await diagnosis(secondary))["machine"].ok is None


@pytest.mark.parametrize("as_json", [False, True])
async def test_the_command_prints_every_stage_and_fails_with_it(
    secondary: Secondary, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    arguments = ["--config", str(secondary.path), "doctor", *(["--json"] if as_json else [])]
    assert await asyncio.to_thread(cli.main, arguments) == 1
    shown = capsys.readouterr().out
    if as_json:
        assert [set(stage) for stage in json.loads(shown)] == [{"name", "ok", "reason", "message", "advice"}] * len(STAGES)
    else:
        assert len(shown.splitlines()) == len(STAGES) + 1
        assert "NOT_RUNNING" in shown
