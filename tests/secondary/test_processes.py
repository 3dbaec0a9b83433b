"""The daemon and its commands as their users run them: faults rows 1 and 2, attacks rows 44 and 45, size and speed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest
from cryptography import x509

from enlist import certificates, names
from enlist.certificates import Authority
from enlist.runtime import files, formats
from enlist_secondary import config as configs
from enlist_secondary import report
from enlist_secondary.cli import FINAL_NO
from tests.support.means import need_machine_id
from tests.support.processes import Daemon, PrimaryProcess, command, primary_process, run
from tests.support.secondaries import Secondary, written
from tests.support.waiting import wait_for

COMMANDS = ["run", "status", "doctor", "leave", "reset-identity"]


class Process(Daemon):
    """`enlist-secondary run` over what the wizard would have written."""

    def __init__(self, folder: Path, primary: PrimaryProcess, api_key: str = "", name: str = "one", address: str = "") -> None:
        where = names.address(address or primary.address)
        self.secondary: Secondary = written(folder / name, where, _authority(primary), api_key, name)
        super().__init__(folder / f"{name}.log", *command("enlist-secondary", "--config", str(self.secondary.path), "run"))

    def do(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return run("enlist-secondary", "--config", str(self.secondary.path), *arguments, expect=expect)

    def status(self) -> dict[str, Any]:
        """What `status --json` prints, without a process for each look."""
        return asdict(report.status(self.secondary.path))

    def becomes(self, **wanted: object) -> dict[str, Any]:
        """Waits for a status that has these values."""

        def found() -> dict[str, Any] | None:
            told = self.status()
            return told if all(told[key] == value for key, value in wanted.items()) else None

        return wait_for(found, 30, f"{wanted}, with the log {self.log}") or {}


def _authority(primary: PrimaryProcess) -> Authority:
    certificate = x509.load_pem_x509_certificate((primary.data / "authority.pem").read_bytes())
    return certificates.read_authority(certificates.der(certificate))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrimaryProcess]:
    """A primary for the tests that do it no harm."""
    with primary_process(tmp_path_factory.mktemp("shared"), "0.0.0.0", "--advertise", "127.0.0.1") as primary:
        yield primary


@pytest.fixture
def process(tmp_path: Path, shared: PrimaryProcess) -> Iterator[Process]:
    """A trusted secondary, not started yet."""
    address = f"127.0.0.1:{shared.api_port}"
    made = Process(tmp_path, shared, full_key(shared), tmp_path.name[-30:], address)
    yield made
    made.close()


def full_key(primary: PrimaryProcess) -> str:
    return primary.last_line("api-key", "add", "acme.example", "--full", "--uses", "1")


def row(primary: PrimaryProcess, process: Process) -> dict[str, Any]:
    """The one row of this server's key."""
    key = process.secondary.identity.fingerprint
    (found,) = [server for server in primary.json("server", "list") if server["fingerprint"] == key]
    return dict(found)


# --- Killed at every step -------------------------------------------------------------------------------------------------------


def test_whoever_is_killed_wherever_the_enrolment_converges(tmp_path: Path) -> None:
    """Faults rows 1 and 2: SIGKILL of either side while it waits and while it is linked; one row, one key, one link."""
    with primary_process(tmp_path) as primary:
        process = Process(tmp_path, primary)
        try:
            process.start()
            process.becomes(state="pending")
            primary.end(signal.SIGKILL)
            process.end(signal.SIGKILL)
            process.start()
            process.becomes(running=True)
            primary.start()
            told = process.becomes(state="pending", problem=None)
            process.end(signal.SIGKILL)
            primary.do("server", "authorize", told["server_id"], "--code", told["comparison_code"])
            process.start()
            process.becomes(state="trusted", connected=True)
            primary.end(signal.SIGKILL)
            process.becomes(connected=False)
            primary.start()
            process.becomes(connected=True)
            process.end(signal.SIGKILL)
            assert not process.status()["connected"]
            process.start()
            process.becomes(connected=True)
            assert row(primary, process)["state"] == "trusted"
            assert len(primary.json("server", "list")) == 1
            assert process.status()["fingerprint"] == told["fingerprint"]
            assert process.end() == 0
        finally:
            process.close()


@pytest.mark.parametrize("trace", [".", "state.json", "certificate.pem"], ids=["start", "request", "certificate"])
def test_killed_at_any_step_the_same_key_resumes(process: Process, shared: PrimaryProcess, trace: str) -> None:
    """Faults row 2: as soon as a step has left its trace; nothing is asked for twice, and the one API key suffices."""
    key = process.secondary.identity.fingerprint
    process.start()
    wait_for((process.secondary.config.folder / trace).exists)
    process.end(signal.SIGKILL)
    process.start()
    told = process.becomes(state="trusted", connected=True)
    assert told["fingerprint"] == key
    assert row(shared, process)["id"] == told["server_id"]
    assert process.end() == 0


def test_an_address_that_is_absent_from_the_certificate_will_do(tmp_path: Path, shared: PrimaryProcess) -> None:
    process = Process(tmp_path, shared, full_key(shared), "absent", f"127.0.0.7:{shared.api_port}")
    try:
        process.start()
        process.becomes(connected=True)
    finally:
        process.close()


def test_ipv6(tmp_path: Path) -> None:
    with primary_process(tmp_path, "::1") as primary:
        process = Process(tmp_path, primary, full_key(primary))
        try:
            process.start()
            process.becomes(connected=True)
        finally:
            process.close()


# --- Its end --------------------------------------------------------------------------------------------------------------------


def test_a_final_no_ends_it_with_its_reason(process: Process, shared: PrimaryProcess) -> None:
    process.start()
    told = process.becomes(connected=True)
    shared.do("server", "remove", told["server_id"], "--reason", "moved out\u00e9")
    wait_for(lambda: process.returncode is not None)
    assert process.returncode == FINAL_NO
    last = process.log.splitlines()[-1]
    assert last.startswith("SERVER_REMOVED: ")
    assert "moved out" in last
    assert json.loads(process.do("status", "--json").stdout)["state"] == "removed"
    process.start()
    wait_for(lambda: process.returncode == FINAL_NO)
    assert row(shared, process)["state"] == "removed"


def test_leaving_is_final_too(process: Process, shared: PrimaryProcess) -> None:
    process.start()
    process.becomes(connected=True)
    assert json.loads(process.do("leave", "--json").stdout) == {"state": "departed"}
    wait_for(lambda: process.returncode == FINAL_NO)
    assert row(shared, process)["state"] == "departed"


@pytest.mark.parametrize(("answer", "state"), [("", "trusted"), ("n", "trusted"), ("y", "departed")])
def test_leaving_asks_first_and_the_answer_is_no_unless_it_is_yes(process: Process, answer: str, state: str) -> None:
    process.start()
    process.becomes(connected=True)
    process.end()
    terminal = pexpect.spawn(*_spawned(process, "leave"), encoding="utf-8", timeout=20)
    terminal.expect_exact("? [y/N] ")
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == (0 if state == "departed" else 1)
    assert process.status()["state"] == state


def _spawned(process: Process, *arguments: str) -> tuple[str, list[str]]:
    program, *rest = command("enlist-secondary", "--config", str(process.secondary.path), *arguments)
    return program, rest


def test_a_copied_folder_does_not_start_and_is_reset_to_a_server_of_its_own(process: Process) -> None:
    need_machine_id()
    process.start()
    old = process.becomes(connected=True)
    process.end()
    files.write(process.secondary.config.folder / "machine-id", b"0" * 64)
    refusal = process.do("run", expect=1).stderr.strip()
    assert refusal.startswith("IDENTITY_COPIED: ")
    assert refusal.removeprefix("IDENTITY_COPIED: ") in process.do("doctor", expect=1).stdout
    assert refusal == process.do("leave", "--yes", expect=1).stderr.strip(), "the original would have left"
    process.do("reset-identity", "--yes")
    process.start()
    new = process.becomes(state="pending")
    assert new["fingerprint"] != old["fingerprint"]
    assert "ALREADY_RUNNING" in process.do("reset-identity", "--yes", expect=1).stderr
    assert "ALREADY_RUNNING" in process.do("run", expect=1).stderr


# --- Bad input ------------------------------------------------------------------------------------------------------------------


def refusal(process: Process, name: str) -> dict[str, Any]:
    """A command's refusal as JSON; the daemon has only words."""
    done = process.do(name, *([] if name == "run" else ["--json"]), expect=1)
    if name == "run":
        reason, message = done.stderr.splitlines()[-1].split(": ", 1)
        assert done.stdout == ""
        return {"reason": reason, "message": message, "retry": False}
    told: dict[str, Any] = json.loads(done.stdout)
    assert set(told) == {"reason", "message", "retry"}
    assert done.stderr.splitlines()[-1].startswith(f"{told['reason']}: ")
    return told


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_or_malformed_configuration_is_named(process: Process, name: str) -> None:
    path = process.secondary.path
    files.write(path, f'format = {formats.FORMAT}\nprimary = "a"\nacount = "b"\n'.encode())
    told = refusal(process, name)
    assert (told["reason"], told["retry"]) == ("CONFIG_INVALID", False)
    assert told["message"].startswith(f"{path}: line 3: acount: ")
    files.remove(path)
    assert refusal(process, name)["reason"] == "CONFIG_MISSING"


@pytest.mark.parametrize("name", ["run", "status", "doctor", "leave"])
@pytest.mark.parametrize("planted", ["secondary.toml", "data/main/server.key"])
def test_planted_files_are_refused(process: Process, name: str, planted: str) -> None:
    """Attacks row 45."""
    (process.secondary.path.parent / planted).chmod(0o666)
    told = refusal(process, name)
    assert told["reason"] == "FILE_UNSAFE"
    assert planted in told["message"]


@pytest.mark.parametrize("arguments", [[], ["fly"], ["status", "--fast"], ["run", "--json"], ["--config"]])
def test_wrong_usage_is_exit_status_2(arguments: list[str]) -> None:
    assert "usage:" in run("enlist-secondary", *arguments, expect=2).stderr


def test_with_umask_000_everything_is_0600(process: Process) -> None:
    """Attacks row 45."""
    before = os.umask(0)
    try:
        process.start()
        process.becomes(connected=True)
    finally:
        os.umask(before)
    for path in process.secondary.config.data_folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_secret_is_seen_anywhere(process: Process) -> None:
    """Attacks row 44: logs, argv, errors, diagnostics, and the folder once it has done its work."""
    secret = (process.secondary.config.folder / "api-key").read_text().strip()
    before = process.do("doctor", expect=1).stdout + process.do("status").stdout
    process.start()
    process.becomes(connected=True)
    argv = " ".join(psutil.Process(process.pid).cmdline())
    after = process.do("doctor").stdout + process.do("status", "--json").stdout
    for text in (before, argv, after, process.log):
        assert secret not in text
        assert secret.rpartition("_")[2] not in text
        assert "PRIVATE KEY" not in text
    for path in process.secondary.path.parent.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


# --- Size and speed -------------------------------------------------------------------------------------------------------------


def test_the_daemon_stays_within_36_mb_of_its_own(process: Process) -> None:
    """Without the libraries' pages: the kernel maps 13 to 37 MB of those, by how large the pieces are that its cache has."""
    process.start()
    process.becomes(connected=True)
    memory = psutil.Process(process.pid).memory_info()
    assert memory.rss - memory.shared <= 36 * 1024 * 1024


def test_every_setting_is_written_by_the_wizard_with_its_meaning(process: Process) -> None:
    text = process.secondary.path.read_text()
    for key, comment in configs.COMMENTS.items():
        assert f"# {comment}\n{key} = " in text
