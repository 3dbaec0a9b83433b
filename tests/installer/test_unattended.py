"""Setting up without a person: every answer by flag, file or join line, and JSON for a program."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason
from enlist.runtime import files
from tests.installer import in_between
from tests.installer.person import tree
from tests.installer.unattended import flags, places, secret, set_up
from tests.support.processes import PrimaryProcess, SecondaryProcess, command, run
from tests.support.waiting import wait_for

# --- What goes well -----------------------------------------------------------------------------------------------------------


def test_a_server_asks_to_join_and_a_second_run_changes_nothing(primary: PrimaryProcess, place: Path) -> None:
    first = set_up(*flags(primary, place, "twice"))
    assert (first["changed"], first["state"], first["reason"], first["retry"]) == (True, "pending", "", False)
    assert primary.server("twice")["id"] == first["server_id"]
    config, key = (place / "secondary.toml").read_bytes(), (place / "data" / "main" / "server.key").read_bytes()
    assert set_up(*flags(primary, place, "twice")) == {**first, "changed": False}
    said = run("enlist-setup", "--unattended", *flags(primary, place, "twice")).stdout
    assert said.startswith("Nothing to change: this server is pending in acme.example")
    assert (place / "secondary.toml").read_bytes() == config
    assert (place / "data" / "main" / "server.key").read_bytes() == key
    assert not (place / "secondary.toml.bak").exists()


def test_everything_written_is_0600_in_0700_whatever_the_umask(primary: PrimaryProcess, place: Path) -> None:
    """attacks row 45"""
    argv = command("enlist-setup", "--unattended", *flags(primary, place, "umask"))
    subprocess.run(["sh", "-c", 'umask 000; exec "$@"', "sh", *argv], check=True, capture_output=True, timeout=60)
    for path in [place, *place.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_check_says_what_would_change_and_writes_nothing(primary: PrimaryProcess, place: Path) -> None:
    arguments = flags(primary, place, "checked")
    before = tree(place.parent)
    outcome = set_up("--check", *arguments)
    assert (outcome["changed"], outcome["state"]) == (True, "new")
    assert tree(place.parent) == before
    assert not place.exists()
    assert "checked" not in [server["name"] for server in primary.json("server", "list")]
    set_up(*arguments)
    before = tree(place)
    assert set_up("--check", *arguments)["changed"] is False
    assert set_up("--check", *arguments, "--server-address", "192.0.2.9")["changed"] is True
    assert tree(place) == before


def test_a_full_api_key_from_a_file_is_trusted_at_once_and_then_erased(
    primary: PrimaryProcess, place: Path, tmp_path: Path
) -> None:
    key = primary.last_line("api-key", "add", "acme.example", "--full")
    file = secret(tmp_path, key)
    outcome = set_up(*flags(primary, place, "full"), "--api-key-file", file)
    assert (outcome["changed"], outcome["state"]) == (True, "trusted")
    assert (place / "data" / "main" / "certificate.pem").exists()
    assert all(key.encode() not in content for content in tree(place).values())
    assert set_up(*flags(primary, place, "full"), "--api-key-file", file) == {**outcome, "changed": False}


@pytest.mark.parametrize("way", ["file", "stdin", "environment"])
def test_a_join_line_is_enough_and_works_a_second_time(primary: PrimaryProcess, place: Path, tmp_path: Path, way: str) -> None:
    line = primary.last_line("join", "acme.example", "--name", f"invited by {way}")
    by: dict[str, tuple[list[str], dict[str, Any]]] = {
        "file": (["--join-file", secret(tmp_path, line)], {}),
        "stdin": (["--join-file", "-"], {"stdin": line}),
        "environment": ([], {"env": {"ENLIST_JOIN": line}}),
    }
    arguments, options = by[way]
    outcome = set_up(*arguments, *places(place), **options)
    assert (outcome["changed"], outcome["state"]) == (True, "trusted")
    assert primary.server(f"invited by {way}")["id"] == outcome["server_id"]
    assert "join-line" in (place / "data" / "known-primaries.toml").read_text()
    assert f'name = "invited by {way}"' in (place / "secondary.toml").read_text(), "and not the machine's"
    assert set_up(*arguments, *places(place), **options) == {**outcome, "changed": False}


def test_a_name_beside_an_invited_one_is_written_and_the_primary_keeps_its_own(primary: PrimaryProcess, place: Path) -> None:
    line = primary.last_line("join", "acme.example", "--name", "as invited")
    done = run("enlist-setup", "--unattended", "--join-file", "-", "--name", "as called here", *places(place), stdin=line)
    server = primary.server("as invited")
    assert f"enlist-primary server rename {server['id']} 'as called here'" in done.stdout
    assert 'name = "as called here"' in (place / "secondary.toml").read_text()


def test_an_api_key_comes_from_standard_input_or_the_environment_as_well(primary: PrimaryProcess, tmp_path: Path) -> None:
    key = primary.last_line("api-key", "add", "acme.example", "--full")
    arguments = flags(primary, tmp_path / "a", "by stdin")
    assert set_up(*arguments, "--api-key-file", "-", stdin=key)["state"] == "trusted"
    assert set_up(*flags(primary, tmp_path / "b", "by environment"), env={"ENLIST_API_KEY": key})["state"] == "trusted"


def test_every_answer_may_stand_in_a_file_and_a_flag_goes_before_it(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.toml"
    answers.write_text(f"""
primary = "{primary.address}"
primary_fingerprint = "{primary.fingerprint}"
account = "acme.example"
name = "from the file"
server_address = "192.0.2.7"
config = "{place}/secondary.toml"
data = "{place}/data"
confirm_identity = "always"
company_ca = "none"
""")
    set_up("--answers", str(answers), "--name", "from the flag")
    written = (place / "secondary.toml").read_text()
    for line in ('name = "from the flag"', 'server_address = "192.0.2.7"', 'confirm_identity = "always"', 'company_ca = "none"'):
        assert line in written


@pytest.mark.parametrize("address", ["short", "127.0.0.1"])
def test_an_address_that_clients_do_not_find_is_a_warning_and_no_refusal(
    primary: PrimaryProcess, place: Path, address: str
) -> None:
    done = run("enlist-setup", "--unattended", *flags(primary, place, "dns"), "--server-address", address)
    assert "Note:" in done.stdout
    assert (place / "secondary.toml").exists()


def test_what_must_run_is_said_unless_it_runs(primary: PrimaryProcess, place: Path) -> None:
    arguments = ["--unattended", *flags(primary, place, "to be run")]
    for more in ([], ["--json"], []):
        done = run("enlist-setup", *arguments, *more)
        said = done.stderr if more else done.stdout
        assert re.search(f"Keep this running; .*:\n +/.*/enlist-secondary --config {place}/secondary.toml run\n", said)
    assert "Keep this running" not in run("enlist-setup", *arguments, "--check").stdout, "nothing was set up"
    with files.lock(place / "data" / "lock", Reason.ALREADY_RUNNING, ""):
        assert "Keep this running" not in run("enlist-setup", *arguments).stdout


# --- A second run that wants something else -----------------------------------------------------------------------------------


def test_changed_settings_keep_the_old_file_as_a_backup(primary: PrimaryProcess, place: Path) -> None:
    set_up(*flags(primary, place, "settings"))
    before = (place / "secondary.toml").read_bytes()
    key = (place / "data" / "main" / "server.key").read_bytes()
    outcome = set_up(*places(place), "--server-address", "192.0.2.8")
    assert (outcome["changed"], outcome["state"]) == (True, "pending")
    assert 'server_address = "192.0.2.8"' in (place / "secondary.toml").read_text()
    assert (place / "secondary.toml.bak").read_bytes() == before
    assert (place / "data" / "main" / "server.key").read_bytes() == key


def test_another_name_says_how_the_primary_learns_it_and_only_once(primary: PrimaryProcess, place: Path) -> None:
    server_id = set_up(*flags(primary, place, "first name"))["server_id"]
    renaming = ["enlist-setup", "--unattended", *flags(primary, place, "second name")]
    said = run(*renaming).stdout
    assert "The primary keeps the name it knows until an administrator changes it there:" in said
    command = f"enlist-primary server rename {server_id} 'second name'"
    assert command in said
    assert "The primary keeps" not in run(*renaming).stdout
    primary.do(*shlex.split(command)[1:])
    assert primary.server("second name")["id"] == server_id
    assert "The primary keeps" not in run("enlist-setup", "--unattended", *flags(primary, place / "new", "third name")).stdout


def test_the_same_primary_at_a_new_address_keeps_the_enrolment(primary: PrimaryProcess, place: Path) -> None:
    first = set_up(*flags(primary, place, "moved"))
    with in_between.both_ports("127.0.0.2", primary) as moved:
        outcome = set_up(*places(place), "--primary", moved)
    assert outcome == {**first, "changed": True}
    known = (place / "data" / "known-primaries.toml").read_text()
    assert f'"127.0.0.1:{primary.api_port}", "{moved}"' in known


def test_a_different_primary_takes_over_only_when_it_has_authorized(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    set_up(*flags(primary, place, "mover"))
    before = (place / "secondary.toml").read_bytes()
    new = flags(other_primary, place, "mover")
    outcome = set_up(*new)
    assert (outcome["changed"], outcome["state"]) == (True, "pending")
    assert (place / "secondary.toml").read_bytes() == before
    assert set_up(*new) == {**outcome, "changed": False}
    other_primary.do("server", "authorize", outcome["server_id"])
    said = run("enlist-setup", "--unattended", *new, "--wait", "trusted:30").stdout
    assert "Done: this server is trusted" in said
    assert f"enlist-primary server remove {primary.server('mover')['id']}" in said
    assert "server remove" not in run("enlist-setup", "--unattended", *new).stdout, "once is enough"
    assert other_primary.address in (place / "secondary.toml").read_text()
    assert (place / "secondary.toml.bak").read_bytes() == before
    assert not (place / "secondary.toml.next").exists()


def test_going_back_to_the_present_primary_gives_the_move_up(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    first = set_up(*flags(primary, place, "hesitant"))
    set_up(*flags(other_primary, place, "hesitant"))
    set_up(*places(place), "--server-address", "192.0.2.8")
    assert (place / "secondary.toml.next").exists(), "a change of settings says nothing about the move"
    outcome = set_up(*flags(primary, place, "hesitant"))
    assert outcome == {**first, "changed": True}
    assert not (place / "secondary.toml.next").exists()


def test_a_new_api_key_lifts_a_waiting_server(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    first = set_up(*flags(primary, place, "lifted"))
    key = primary.last_line("api-key", "add", "acme.example", "--full")
    outcome = set_up(*flags(primary, place, "lifted"), "--api-key-file", secret(tmp_path, key))
    assert outcome == {**first, "changed": True, "state": "trusted"}


@pytest.mark.parametrize(("decision", "again"), [("deny", "pending"), ("remove", "pending")])
def test_after_a_no_only_an_explicit_wish_asks_again(
    primary: PrimaryProcess, place: Path, tmp_path: Path, decision: str, again: str
) -> None:
    key = ["--api-key-file", secret(tmp_path, primary.last_line("api-key", "add", "acme.example"))]
    first = set_up(*flags(primary, place, decision), *key)
    primary.do("server", decision, first["server_id"])
    outcome = set_up(*flags(primary, place, decision), *key, expect=1)
    assert outcome["reason"] == {"deny": "SERVER_DENIED", "remove": "SERVER_REMOVED"}[decision]
    assert set_up(*flags(primary, place, decision), *key, "--ask-again")["state"] == again


def test_after_a_revocation_asking_again_takes_another_key(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    key = ["--api-key-file", secret(tmp_path, primary.last_line("api-key", "add", "acme.example", "--full"))]
    first = set_up(*flags(primary, place, "revoked"), *key)
    primary.do("server", "revoke", first["server_id"])
    (place / "data" / "main" / "certificate.pem").unlink()  # or nobody would ask
    assert set_up(*flags(primary, place, "revoked"), *key, expect=1)["reason"] == "SERVER_REVOKED"
    outcome = set_up(*flags(primary, place, "revoked"), *key, "--ask-again")
    assert outcome["state"] == "trusted"
    assert outcome["server_id"] != first["server_id"]


def test_a_server_that_left_by_itself_comes_back_by_itself(primary: PrimaryProcess, place: Path) -> None:
    first = set_up(*flags(primary, place, "returning"))
    run("enlist-secondary", "--config", str(place / "secondary.toml"), "leave", "--yes")
    outcome = set_up(*flags(primary, place, "returning"))
    assert outcome == {**first, "changed": True}


def test_an_api_key_that_was_not_given_again_is_not_sent_again(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    key = primary.last_line("api-key", "add", "acme.example", "--uses", "1")
    set_up(*flags(primary, place, "left its API key"), "--api-key-file", secret(tmp_path, key))
    run("enlist-secondary", "--config", str(place / "secondary.toml"), "leave", "--yes")
    again = set_up(*flags(primary, place, "left its API key"))
    assert (again["changed"], again["state"], again["reason"]) == (True, "pending", "")
    assert primary.server("left its API key")["asked_with"] == "default"


def test_an_api_key_of_a_request_that_never_went_out_is_checked_and_may_be_given_up(
    primary: PrimaryProcess, place: Path, tmp_path: Path
) -> None:
    """Killed between the configuration and the request; meanwhile the API key was revoked."""
    key = primary.last_line("api-key", "add", "acme.example", "--full")
    set_up(*flags(primary, place, "killed"), "--api-key-file", secret(tmp_path, ""))
    primary.do("server", "remove", "killed")
    folder = place / "data" / "main"
    (folder / "state.json").unlink()
    (folder / "api-key").write_text(f"{key}\n")
    (folder / "api-key").chmod(0o600)
    primary.do("api-key", "revoke", "acme.example", key.split("_")[1])
    for arguments in (["--check"], []):
        outcome = set_up(*flags(primary, place, "killed"), *arguments, expect=1)
        assert (outcome["reason"], outcome["changed"]) == ("API_KEY_EXPIRED", False)
    assert set_up(*flags(primary, place, "killed"), "--api-key-file", secret(tmp_path, ""))["state"] == "pending"


def test_an_interruption_says_what_it_left(primary: PrimaryProcess, place: Path) -> None:
    """Ctrl-C as soon as the configuration is there, while the primary is asked or awaited."""
    arguments = command("enlist-setup", "--unattended", "--json", *flags(primary, place, "interrupted"), "--wait", "trusted:60")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        wait_for((place / "secondary.toml").exists)
        waiting.send_signal(signal.SIGINT)
        output, said = waiting.communicate(timeout=30)
    outcome = json.loads(output)
    assert (waiting.returncode, outcome["changed"], outcome["reason"]) == (1, True, "INTERRUPTED")
    assert "What was written stays" in said


def test_output_that_nobody_reads_ends_it_quietly(primary: PrimaryProcess, place: Path) -> None:
    arguments = command("enlist-setup", "--unattended", *flags(primary, place, "unheard"))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as alone:
        assert alone.stdout is not None
        alone.stdout.close()
        assert alone.stderr is not None
        assert alone.stderr.read() == ""
    assert alone.returncode == 1


# --- Waiting ------------------------------------------------------------------------------------------------------------------


def test_it_waits_until_the_daemon_is_connected(primary: PrimaryProcess, tmp_path: Path) -> None:
    secondary = SecondaryProcess(tmp_path, "waiting")
    secondary.set_up(primary)
    try:
        secondary.start()
        arguments = ["enlist-setup", "--unattended", "--json", "--config", str(secondary.config), "--wait", "connected:60"]
        waiting = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True)
        primary.do("server", "authorize", "waiting")
        output, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0
        assert json.loads(output)["state"] == "trusted"
        assert secondary.status()["connected"]
    finally:
        secondary.close()


def test_without_a_daemon_it_waits_until_a_link_could_be_opened(primary: PrimaryProcess, tmp_path: Path) -> None:
    secondary = SecondaryProcess(tmp_path, "alone")
    key = tmp_path / "api-key"
    key.write_text(primary.last_line("api-key", "add", "acme.example", "--full", "--uses", "1"))
    outcome = secondary.set_up(primary, "--api-key-file", str(key), "--wait", "connected:60")
    assert (outcome["state"], outcome["reason"]) == ("trusted", "")
    said = run("enlist-setup", "--unattended", "--config", str(secondary.config), "--wait", "connected:60").stdout
    assert "Keep this running; it holds the connection to the primary:" in said, "for the link that was tried is closed again"
    assert not secondary.status()["connected"]
    assert primary.server("alone")["connected_changed"]


def test_a_wait_that_is_too_long_says_so_and_may_be_tried_again(primary: PrimaryProcess, place: Path) -> None:
    outcome = set_up(*flags(primary, place, "impatient"), "--wait", "trusted:1", expect=1)
    assert (outcome["changed"], outcome["state"], outcome["reason"], outcome["retry"]) == (True, "pending", "TIMED_OUT", True)
    assert outcome["server_id"]


def test_whom_to_ask_and_the_comparison_code_are_said_before_the_wait(primary: PrimaryProcess, place: Path) -> None:
    done = run("enlist-setup", "--unattended", *flags(primary, place, "announced"), "--wait", "connected:1", expect=1)
    server = primary.server("announced")
    assert f"enlist-primary server authorize {server['id']} --code {server['comparison_code']}" in done.stdout
    assert re.search(r"Whom to ask +ops@acme\.example\n +Expires +2", done.stdout)
    assert done.stderr == (
        "TIMED_OUT: After 1 s this server is still pending: an administrator has to authorize it. Ask ops@acme.example.\n"
    )


def test_whoever_reads_along_can_authorize_while_it_waits(primary: PrimaryProcess, place: Path) -> None:
    argv = command("enlist-setup", "--unattended", *flags(primary, place, "read along"), "--wait", "trusted:60")
    buffering = {**os.environ, "PYTHONUNBUFFERED": ""}  # as a script's pipe is
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=buffering) as waiting:
        assert waiting.stdout
        line = next(line for line in waiting.stdout if "enlist-primary server authorize" in line)
        primary.do(*line.split()[1:])
        assert "Done: this server is trusted" in waiting.stdout.read()
    assert waiting.returncode == 0


def test_a_trusted_server_that_does_not_connect_in_time_is_told_where_to_look(primary: PrimaryProcess, place: Path) -> None:
    arguments = flags(primary, place, "speechless")
    primary.do("server", "authorize", set_up(*arguments)["server_id"])
    set_up(*arguments, "--wait", "trusted:60")
    with files.lock(place / "data" / "lock", Reason.ALREADY_RUNNING, ""):  # a daemon that has no link
        done = run("enlist-setup", "--unattended", *arguments, "--wait", "connected:1", expect=1)
    assert done.stderr == (
        "TIMED_OUT: After 1 s this server is trusted, but not connected to its primary. "
        f"To see why: enlist-secondary --config {place}/secondary.toml doctor\n"
    )


def test_a_wait_ends_when_the_answer_is_no(primary: PrimaryProcess, place: Path) -> None:
    server_id = set_up(*flags(primary, place, "hopeless"))["server_id"]
    argv = command("enlist-setup", "--unattended", "--json", *flags(primary, place, "hopeless"), "--wait", "trusted:60")
    waiting = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    primary.do("server", "deny", server_id)
    output, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, json.loads(output)["reason"]) == (1, "SERVER_DENIED")
