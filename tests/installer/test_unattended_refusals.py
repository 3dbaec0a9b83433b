"""Setting up without a person where something is wrong: the same checks as the wizard's, each with its own reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enlist import certificates
from enlist.runtime import files
from tests.installer import in_between
from tests.installer.conftest import serving
from tests.installer.person import tree
from tests.installer.unattended import flags, places, refused, secret, set_up
from tests.support.ports import free_port
from tests.support.processes import PrimaryProcess, command, run
from tests.support.waiting import wait_for

# --- Bad input: each its own reason, exit 1, nothing written ------------------------------------------------------------------


def test_no_connection(primary: PrimaryProcess, place: Path) -> None:
    assert refused(place, *flags(primary, place), "--primary", f"127.0.0.1:{free_port()}") == "UNREACHABLE"


def test_a_name_that_does_not_resolve(primary: PrimaryProcess, place: Path) -> None:
    assert refused(place, *flags(primary, place), "--primary", "primary.invalid") == "NAME_NOT_FOUND"


def test_a_port_that_is_not_enlist(primary: PrimaryProcess, place: Path) -> None:
    with in_between.web_server() as (host, port):
        assert refused(place, *flags(primary, place), "--primary", f"{host}:{port}") == "NOT_ENLIST"


def test_the_ssl_port_given_for_the_api_port(primary: PrimaryProcess, place: Path) -> None:
    reason = refused(place, *flags(primary, place), "--primary", f"127.0.0.1:{primary.ssl_port}")
    assert reason in ("UNREACHABLE", "NOT_ENLIST")


def test_the_ssl_port_blocked_while_the_api_port_answers(primary: PrimaryProcess, place: Path) -> None:
    with in_between.forwarding("127.0.0.3", 0, ("127.0.0.1", primary.api_port)) as (host, port):
        assert refused(place, *flags(primary, place), "--primary", f"{host}:{port}") == "SSL_PORT_UNREACHABLE"


def test_tls_at_the_api_port_opened_by_someone_else(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    """attacks row 22"""
    with in_between.intercepting(tmp_path, "127.0.0.1", 0, ("127.0.0.1", primary.api_port)) as (host, port):
        assert refused(place, *flags(primary, place), "--primary", f"{host}:{port}") == "TLS_INTERCEPTED"


def test_tls_at_the_ssl_port_opened_by_someone_else(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    """attacks row 22"""
    target = ("127.0.0.1", primary.api_port)
    with (
        in_between.forwarding("127.0.0.4", 0, target) as (host, port),
        in_between.intercepting(tmp_path, "127.0.0.4", primary.ssl_port, target),
    ):
        assert refused(place, *flags(primary, place), "--primary", f"{host}:{port}") == "TLS_INTERCEPTED"


def test_an_account_that_is_not_there(primary: PrimaryProcess, place: Path) -> None:
    arguments = [*flags(primary, place), "--account", "other.example"]
    assert refused(place, *arguments) == "ACCOUNT_UNKNOWN"
    said = run("enlist-setup", "--unattended", *arguments, expect=1).stderr
    assert "connection is fine, but Test Primary has no account" in said
    assert "other.example" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--network", "203.0.113.0/24"], "API_KEY_NETWORK"),
        (["--uses", "1"], "API_KEY_USED_UP"),
        (["--expires", "1s"], "API_KEY_EXPIRED"),
    ],
)
def test_an_api_key_that_is_not_good_here_and_now(
    primary: PrimaryProcess, place: Path, tmp_path: Path, options: list[str], reason: str
) -> None:
    key = secret(tmp_path, primary.last_line("api-key", "add", "acme.example", *options))
    arguments = [*flags(primary, place), "--api-key-file", key]
    if reason == "API_KEY_USED_UP":
        set_up(*flags(primary, tmp_path / "first", "first"), "--api-key-file", key)
    if reason == "API_KEY_EXPIRED":
        wait_for(lambda: _reason_of_check(arguments) == reason)
    assert refused(place, *arguments) == reason


def _reason_of_check(arguments: list[str]) -> str:
    argv = command("enlist-setup", "--unattended", "--json", "--check", *arguments)
    return str(json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout)["reason"])


def test_a_wrong_api_key(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    key = secret(tmp_path, "enl_aaaaaaaaaa_" + "a" * 32)
    assert refused(place, *flags(primary, place), "--api-key-file", key) == "API_KEY_INVALID"


def test_an_account_that_wants_an_api_key(primary: PrimaryProcess, place: Path) -> None:
    assert refused(place, *flags(primary, place), "--account", "strict.example") == "API_KEY_REQUIRED"


def test_a_fingerprint_that_does_not_match(primary: PrimaryProcess, place: Path) -> None:
    """attacks row 22"""
    assert refused(place, *flags(primary, place), "--primary-fingerprint", "0" * 64) == "IDENTITY_MISMATCH"


def test_a_join_line_whose_primary_is_another_one(primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path) -> None:
    """attacks row 22: the API key in the line must not reach the stranger"""
    line = primary.last_line("join", "acme.example").replace(f":{primary.api_port}/", f":{other_primary.api_port}/")
    assert refused(place, "--join-file", "-", *places(place), stdin=line) == "IDENTITY_MISMATCH"


def test_nobody_confirmed_the_primary(primary: PrimaryProcess, place: Path) -> None:
    arguments = ["--primary", primary.address, "--account", "acme.example", *places(place)]
    assert refused(place, *arguments) == "IDENTITY_NOT_CONFIRMED"
    said = run("enlist-setup", "--unattended", *arguments, expect=1).stderr
    assert primary.fingerprint in said
    assert "enlist-primary status" in said


def test_another_authority_at_a_known_primary_is_a_hard_stop_and_an_alarm(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    """attacks row 22: also with the stranger's own fingerprint on the command line"""
    with in_between.both_ports("127.0.0.5", primary) as address:
        first = set_up(*flags(primary, place, "loyal"), "--primary", address)
    before = (place / "secondary.toml").read_bytes()
    with in_between.both_ports("127.0.0.5", other_primary, port=int(address.rsplit(":")[-1])):
        outcome = set_up(*flags(other_primary, place, "loyal"), "--primary", address, expect=1)
    assert outcome == {**first, "changed": False, "reason": "IDENTITY_CHANGED"}
    assert (place / "secondary.toml").read_bytes() == before
    status = json.loads(run("enlist-secondary", "--config", str(place / "secondary.toml"), "status", "--json").stdout)
    assert [alarm["fingerprint"] for alarm in status["alarms"]] == [other_primary.fingerprint]


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"seconds_off": 3600}, "CLOCK_SKEW"),
        ({"seconds_off": -3600}, "CLOCK_SKEW"),
        ({"oldest_protocol": 7, "newest_protocol": 9}, "VERSION_INCOMPATIBLE"),
        ({"authority_certificate": b"nonsense"}, "NOT_ENLIST"),
    ],
)
def test_a_primary_that_is_odd(place: Path, described: dict[str, Any], reason: str) -> None:
    with in_between.odd_primary(**described) as (host, port):
        arguments = ["--primary", f"{host}:{port}", "--account", "acme.example", *places(place), "--primary-fingerprint", "0" * 64]
        assert refused(place, *arguments) == reason


def test_too_many_attempts(impatient_primary: PrimaryProcess, place: Path) -> None:
    arguments = [*flags(impatient_primary, place), "--account", "other.example"]
    assert set_up(*arguments, expect=1)["reason"] == "ACCOUNT_UNKNOWN"
    outcome = set_up(*arguments, expect=1)
    assert (outcome["reason"], outcome["retry"]) == ("TOO_MANY_ATTEMPTS", True)
    assert not place.exists()


def test_a_registration_that_is_refused_after_all_leaves_nothing_behind(
    impatient_primary: PrimaryProcess, place: Path, tmp_path: Path
) -> None:
    """Whether too many wait already is said only to who registers."""
    set_up(*flags(impatient_primary, tmp_path / "first", "first"))
    outcome = set_up(*flags(impatient_primary, place, "second"), expect=1)
    assert (outcome["changed"], outcome["reason"]) == (False, "TOO_MANY_PENDING")
    assert not place.exists()


# --- Who vouches --------------------------------------------------------------------------------------------------------------


def test_a_company_authority_may_vouch_and_only_for_what_it_signed(tmp_path: Path) -> None:
    company, stranger = in_between.new_signer(), in_between.new_signer()
    served = in_between.leaf(company)
    for name, content in {
        "company.pem": certificates.pem(company.authority.certificate),
        "stranger.pem": certificates.pem(stranger.authority.certificate),
        "served.pem": served.certificate,
        "served.key": served.key,
    }.items():
        files.write(tmp_path / name, content)
    settings = f'[certificates]\napi_certificate = "{tmp_path}/served.pem"\napi_key_file = "{tmp_path}/served.key"'
    with serving(tmp_path, settings) as primary:

        def arguments(name: str, *more: str) -> list[str]:
            return ["--primary", primary.address, "--account", "acme.example", "--name", name, *places(tmp_path / name), *more]

        vouched = ["--company-ca", str(tmp_path / "company.pem")]
        assert set_up(*arguments("by-ca", *vouched))["state"] == "pending"
        assert 'way = "company-ca"' in (tmp_path / "by-ca" / "data" / "known-primaries.toml").read_text()
        for name, more in {
            "always": [*vouched, "--confirm-identity", "always"],
            "stranger": ["--company-ca", str(tmp_path / "stranger.pem")],
            "system": [],
            "none": ["--company-ca", "none"],
        }.items():
            assert set_up(*arguments(name, *more), expect=1)["reason"] == "IDENTITY_NOT_CONFIRMED"
            assert not (tmp_path / name).exists()


# --- Wrong usage, unsafe files, secrets ---------------------------------------------------------------------------------------


def test_without_a_terminal_and_without_unattended_it_says_so() -> None:
    done = run("enlist-setup", expect=2)
    assert done.stderr.startswith("NO_TERMINAL: There is no terminal to ask at. Use --unattended")


@pytest.mark.parametrize("missing", ["--primary", "--account"])
def test_a_missing_answer_is_wrong_usage(primary: PrimaryProcess, place: Path, missing: str) -> None:
    arguments = flags(primary, place)
    at = arguments.index(missing)
    done = run("enlist-setup", "--unattended", *arguments[:at], *arguments[at + 2 :], expect=2)
    assert "--primary and --account, or a join line" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--check"], ["--json"], ["--wait", "trusted:5"], ["--unattended", "--wait", "happy:5"], ["--api-key", "enl_x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    run("enlist-setup", *arguments, expect=2)


def test_a_malformed_configuration_is_named_with_line_and_key(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "secondary.toml").write_text('format = 2\nprimary = "primary.example"\naccount = 7\n')
    done = run("enlist-setup", "--unattended", *places(place), expect=1)
    assert done.stderr.startswith("CONFIG_INVALID: ")
    assert f"{place}/secondary.toml: line 3: account: expected text in quotes, got a whole number" in done.stderr


def test_a_planted_configuration_is_not_read(place: Path) -> None:
    """attacks row 45"""
    place.mkdir(mode=0o700)
    (place / "secondary.toml").write_text('primary = "evil.example"\n')
    (place / "secondary.toml").chmod(0o666)
    done = run("enlist-setup", "--unattended", *places(place), expect=1)
    assert done.stderr.startswith("FILE_UNSAFE: ")


def test_a_data_folder_that_others_use_is_left_alone(primary: PrimaryProcess, place: Path) -> None:
    data = place / "data"
    data.mkdir(parents=True)
    (data / "theirs").write_text("x")
    data.chmod(0o755)
    outcome = set_up(*flags(primary, place), expect=1)
    assert outcome["reason"] == "FOLDER_IN_USE"
    assert data.stat().st_mode & 0o777 == 0o755
    assert not (place / "secondary.toml").exists()


def test_a_data_folder_of_another_server_is_refused(primary: PrimaryProcess, place: Path) -> None:
    """Or removing the one would remove the other's key."""
    set_up(*flags(primary, place, "its owner"))
    before = tree(place)
    other = [*flags(primary, place, "its guest"), "--config", str(place / "guest.toml")]
    assert set_up(*other, expect=1)["reason"] == "FOLDER_IN_USE"
    assert tree(place) == before


def test_a_service_where_there_is_no_systemd_is_refused_before_anything_is_written(primary: PrimaryProcess, place: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs this machine")
    assert refused(place, *flags(primary, place), "--service") == "INVALID_ARGUMENT"


def test_no_secret_reaches_output_or_argv(primary: PrimaryProcess, place: Path, tmp_path: Path) -> None:
    """attacks row 44"""
    key = "enl_bbbbbbbbbb_" + "b" * 32
    done = run("enlist-setup", "--unattended", "--json", *flags(primary, place), "--api-key-file", secret(tmp_path, key), expect=1)
    assert "bbbbbbbb" not in done.stdout + done.stderr
    line = primary.last_line("join", "acme.example").replace("primary=", "primaries=")
    done = run("enlist-setup", "--unattended", *places(place), "--join-file", "-", stdin=line, expect=1)
    assert line.rsplit("_", 1)[-1] not in done.stdout + done.stderr
