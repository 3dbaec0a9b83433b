"""The wizard as a person meets it: a real process on a real terminal of 80 by 24, against a real primary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from enlist.runtime.terminal import moment
from tests.installer import in_between
from tests.installer.conftest import serving
from tests.installer.person import Person, tree
from tests.installer.test_unattended import flags, set_up
from tests.support.ports import free_port
from tests.support.processes import PrimaryProcess, SecondaryProcess
from tests.support.waiting import wait_for

JOIN, PRIMARY, SAME, ACCOUNT, API_KEY = (
    "Join line",
    "Primary server address",
    "Is it the same there?",
    "Account domain name",
    "API key",
)
NAME, CLIENTS, CONFIG, DATA = "Display name", "Address where clients find this server", "Configuration file", "Data folder"
WRITE, AGAIN = "Write this and register?", "Go through the questions again?"


@contextmanager
def sitting(place: Path, *arguments: str) -> Iterator[Person]:
    """A person who started the wizard for the server at `place`."""
    with Person("--config", str(place / "secondary.toml"), "--data", str(place / "data"), *arguments) as person:
        yield person


def reaches(person: Person, address: str) -> None:
    """The first questions, up to a primary whose fingerprint was compared."""
    person.answers(JOIN)
    person.answers(PRIMARY, address)
    person.answers(SAME, "y")


def goes_on(person: Person, name: str) -> None:
    """From the API key on, to the summary."""
    person.answers(API_KEY)
    person.answers(NAME, name, instead=True)
    person.answers(CLIENTS, "192.0.2.10", instead=True)
    person.sees("Summary")


def stops(person: Person, place: Path, before: dict[str, bytes]) -> None:
    """Ctrl-C, and nothing was written."""
    person.presses_ctrl_c()
    person.sees("INTERRUPTED: Stopped. Nothing was written.")
    person.ends(1)
    assert tree(place.parent) == before
    assert not place.exists()


# --- The whole way ------------------------------------------------------------------------------------------------------------


def test_from_nothing_to_trusted(primary: PrimaryProcess, tmp_path: Path) -> None:
    place = tmp_path / "server"
    with Person() as person:
        person.sees("Nothing is written before you have seen a summary.")
        person.answers(JOIN)
        person.answers(PRIMARY, primary.address)
        person.sees('Found "Test Primary"')
        person.sees(primary.fingerprint)
        person.answers(SAME, "yes")
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY)
        person.answers(NAME, "from nothing", instead=True)
        person.answers(CLIENTS, "192.0.2.10", instead=True)
        person.answers(CONFIG, str(place / "secondary.toml"), instead=True)
        person.answers(DATA, str(place / "data"), instead=True)
        person.sees("Summary")
        assert not place.exists()
        person.answers(WRITE, "y")
        person.sees("It is not trusted yet.")
        server = primary.server("from nothing")
        person.sees(server["comparison_code"])
        person.sees("ops@acme.example")
        person.sees("Expires")
        person.sees(f"enlist-primary server authorize {server['id']} --code {server['comparison_code']}")
        person.sees(f"enlist-secondary --config {place}/secondary.toml run")
        person.sees("Waiting until it is authorized. Ctrl-C leaves")
        primary.do("server", "authorize", "from nothing", "--code", server["comparison_code"])
        person.sees("Authorized: this server is trusted.")
        person.ends(0)
    assert 'way = "compared"' in (place / "data" / "known-primaries.toml").read_text()
    assert (place / "data" / "main" / "certificate.pem").exists()
    for path in [place, *place.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_join_line_answers_all_that_the_primary_needs(primary: PrimaryProcess, place: Path) -> None:
    line = primary.last_line("join", "acme.example", "--name", "joined")
    with sitting(place) as person:
        person.answers(JOIN, line)
        person.sees(f"{ACCOUNT}: acme.example")
        person.sees(f"{API_KEY}: (given)")
        person.sees(f"{NAME}: joined")
        person.answers(CLIENTS, "192.0.2.10", instead=True)
        person.sees("the join line vouches for it")
        person.sees("at once, by the API key")
        person.answers(WRITE)
        person.sees("This server is trusted.")
        person.ends(0)
    assert line.rsplit("_", 1)[-1] not in person.screen, "attacks row 44"
    assert primary.server("joined")["state"] == "trusted"


def test_while_the_daemon_runs_the_wizard_leaves_the_asking_to_it(primary: PrimaryProcess, tmp_path: Path) -> None:
    secondary = SecondaryProcess(tmp_path, "beside")
    try:
        with sitting(secondary.config.parent, "--no-service") as person:
            reaches(person, primary.address)
            person.answers(ACCOUNT, "acme.example")
            goes_on(person, "beside")
            person.answers(WRITE)
            person.sees("Waiting until it is authorized.")
            secondary.start()
            wait_for(lambda: "started" in secondary.log)
            primary.do("server", "authorize", "beside")
            person.sees("Authorized: this server is trusted.")
            person.ends(0)
        wait_for(lambda: secondary.status()["connected"])
    finally:
        secondary.close()


def test_ctrl_c_leaves_the_wait_and_the_request_stands(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "left alone")
        person.answers(WRITE)
        person.sees("Ctrl-C leaves")
        person.presses_ctrl_c()
        person.sees("The request stands until somebody decides.")
        person.ends(0)
    assert primary.server("left alone")["state"] == "pending"


def test_the_wait_outlasts_a_primary_that_goes_and_comes_back(tmp_path: Path, place: Path) -> None:
    with serving(tmp_path, "") as primary, sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "patient")
        person.answers(WRITE)
        person.sees("Ctrl-C leaves")
        primary.end()
        person.sees("! ")
        primary.start()
        primary.do("server", "authorize", "patient")
        person.sees("Authorized: this server is trusted.")
        person.ends(0)
    said = [line for line in person.screen.split("\n") if line.startswith("! ")]
    assert len(said) == len(set(said)), "each reason once"


def test_a_primary_that_restarted_while_the_summary_was_read_is_met_again(tmp_path: Path, place: Path) -> None:
    """It serves another certificate since; what was verified before says nothing about it."""
    with serving(tmp_path, "") as primary, sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "a slow reader")
        person.sees(WRITE)
        primary.end()
        primary.start()
        person.types()
        person.sees("Ctrl-C leaves")
        assert primary.server("a slow reader")["state"] == "pending"


def test_a_denial_while_waiting_ends_the_wizard_with_its_reason(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "turned down")
        person.answers(WRITE)
        person.sees("Ctrl-C leaves")
        primary.do("server", "deny", "turned down", "--reason", "not ours")
        person.sees("SERVER_DENIED: ")
        person.ends(1)
    assert "not ours" in person.screen


# --- Nothing is written before the summary is confirmed -----------------------------------------------------------------------

QUESTIONS = [JOIN, PRIMARY, SAME, ACCOUNT, API_KEY, NAME, CLIENTS, CONFIG, DATA, WRITE]


@pytest.mark.parametrize("last", QUESTIONS)
def test_ctrl_c_at_any_question_writes_nothing(primary: PrimaryProcess, place: Path, last: str) -> None:
    before = tree(place.parent)
    config, data = str(place / "secondary.toml"), str(place / "data")
    answers = ["", primary.address, "y", "acme.example", "", "stopped", "192.0.2.10", config, data]
    with Person() as person:
        for question, answer in zip(QUESTIONS, answers, strict=False):
            person.sees(question)
            if question == last:
                break
            person.types(answer, instead=question != SAME)
        else:
            person.sees(WRITE)
        stops(person, place, before)
    assert "stopped" not in [server["name"] for server in primary.json("server", "list")]


def test_ctrl_c_while_an_answer_is_checked_writes_nothing(primary: PrimaryProcess, place: Path) -> None:
    before = tree(place.parent)
    with in_between.silent() as (host, port), sitting(place) as person:
        person.answers(JOIN)
        person.answers(PRIMARY, f"{host}:{port}")
        person.sees("Looking for")
        stops(person, place, before)


def test_a_closed_terminal_writes_nothing(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "hung up")
        person.hangs_up()
    assert not place.exists()


def test_no_at_the_summary_goes_through_the_questions_with_the_old_answers(primary: PrimaryProcess, place: Path) -> None:
    key = primary.last_line("api-key", "add", "acme.example")
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY, key)
        person.answers(NAME, "first thought", instead=True)
        person.answers(CLIENTS, "192.0.2.10", instead=True)
        person.answers(WRITE, "n")
        assert not place.exists()
        person.answers(AGAIN)
        person.answers(PRIMARY)
        person.answers(SAME, "y")
        person.answers(ACCOUNT)
        person.answers("Use the API key you gave before?")
        person.sees(f"{API_KEY}: (given)")
        person.answers(NAME, "second thought", instead=True)
        person.answers(CLIENTS)
        person.answers(CONFIG)
        person.answers(DATA)
        person.answers(WRITE)
        person.sees("Ctrl-C leaves")
        person.presses_ctrl_c()
        person.ends(0)
    assert key not in person.screen
    assert primary.server("second thought")["state"] == "pending"


# --- A wrong answer: what is wrong, what to do, and the question again with the old answer as default -------------------------


@contextmanager
def nothing_there(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    yield f"127.0.0.1:{free_port()}"


@contextmanager
def no_such_name(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    yield "primary.invalid"


@contextmanager
def not_an_address(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    yield "https://primary.example"


@contextmanager
def not_enlist(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    with in_between.web_server() as (host, port):
        yield f"{host}:{port}"


@contextmanager
def ssl_port_blocked(primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    with in_between.forwarding("127.0.0.6", 0, ("127.0.0.1", primary.api_port)) as (host, port):
        yield f"{host}:{port}"


@contextmanager
def tls_opened(primary: PrimaryProcess, folder: Path) -> Iterator[str]:
    with in_between.intercepting(folder, "127.0.0.1", 0, ("127.0.0.1", primary.api_port)) as (host, port):
        yield f"{host}:{port}"


@contextmanager
def clock_off(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    with in_between.odd_primary(seconds_off=3600) as (host, port):
        yield f"{host}:{port}"


@contextmanager
def too_new(_primary: PrimaryProcess, _folder: Path) -> Iterator[str]:
    with in_between.odd_primary(oldest_protocol=7, newest_protocol=9) as (host, port):
        yield f"{host}:{port}"


@pytest.mark.parametrize(
    ("obstacle", "reason", "advice"),
    [
        (nothing_there, "UNREACHABLE", "firewalls in between"),
        (no_such_name, "NAME_NOT_FOUND", "Check the spelling"),
        (not_an_address, "INVALID_ARGUMENT", 'without "://"'),
        (not_enlist, "NOT_ENLIST", "Check the address and the port"),
        (ssl_port_blocked, "SSL_PORT_UNREACHABLE", "let this port through"),
        (tls_opened, "TLS_INTERCEPTED", "leave this address alone"),
        (clock_off, "CLOCK_SKEW", "clock"),
        (too_new, "VERSION_INCOMPATIBLE", "same release"),
    ],
)
def test_a_wrong_address_is_explained_and_asked_for_again(
    primary: PrimaryProcess,
    place: Path,
    tmp_path: Path,
    obstacle: Callable[[PrimaryProcess, Path], AbstractContextManager[str]],
    reason: str,
    advice: str,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with ExitStack() as stack:
        wrong = stack.enter_context(obstacle(primary, work))
        person = stack.enter_context(sitting(place))
        person.answers(JOIN)
        person.answers(PRIMARY, wrong)
        person.sees(f"! {reason}")
        person.sees(PRIMARY)
        person.sees(wrong)  # the old answer, as the default
        assert advice in " ".join(person.screen.split())
        person.types(primary.address, instead=True)
        person.sees('Found "Test Primary"')
        person.sees(SAME)
        person.presses_ctrl_c()
        person.ends(1)
    assert not place.exists()


def test_a_fingerprint_that_is_not_the_same_leads_back_to_the_address(primary: PrimaryProcess, place: Path) -> None:
    """attacks row 22: Enter alone means No"""
    with sitting(place) as person:
        person.answers(JOIN)
        person.answers(PRIMARY, primary.address)
        person.answers(SAME)
        person.sees("! IDENTITY_NOT_CONFIRMED")
        person.sees(PRIMARY)
        person.sees(primary.address)
        person.presses_ctrl_c()
        person.ends(1)
    assert not place.exists()


def test_a_fingerprint_given_that_does_not_match_is_never_asked_about(primary: PrimaryProcess, place: Path) -> None:
    """attacks row 22"""
    with sitting(place, "--primary-fingerprint", "0" * 64) as person:
        person.answers(JOIN)
        person.answers(PRIMARY, primary.address)
        person.sees("! IDENTITY_MISMATCH")
        person.sees(PRIMARY)
        person.presses_ctrl_c()
        person.ends(1)
    assert SAME not in person.screen


def test_another_authority_at_a_known_address_is_never_asked_about(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    """attacks row 22: a hard stop, also where only the list of known primaries is left"""
    with in_between.both_ports("127.0.0.9", primary) as address:
        set_up(*flags(primary, place, "once met"), "--primary", address)
    (place / "secondary.toml").unlink()
    with in_between.both_ports("127.0.0.9", other_primary, int(address.partition(":")[2])), sitting(place) as person:
        person.answers(JOIN)
        person.answers(PRIMARY, address)
        person.sees("! IDENTITY_CHANGED")
        person.sees(PRIMARY)
        person.presses_ctrl_c()
        person.ends(1)
    assert SAME not in person.screen


def test_a_refusal_after_the_summary_leaves_nothing_and_offers_the_questions_again(
    impatient_primary: PrimaryProcess, place: Path, tmp_path: Path
) -> None:
    set_up(*flags(impatient_primary, tmp_path / "first", "first"))
    with sitting(place) as person:
        reaches(person, impatient_primary.address)
        person.answers(ACCOUNT, "acme.example")
        goes_on(person, "second")
        person.answers(WRITE)
        person.sees("! TOO_MANY_PENDING")
        person.answers(AGAIN, "n")
        person.sees("INTERRUPTED: Stopped. Nothing was written.")
        person.ends(1)
    assert not place.exists()


def test_a_damaged_join_line_is_asked_for_again(primary: PrimaryProcess, place: Path) -> None:
    line = primary.last_line("join", "acme.example", "--name", "cut line")
    with sitting(place) as person:
        person.answers(JOIN, line[:60])
        person.sees("! INVALID_ARGUMENT")
        person.answers(JOIN, line)
        person.sees(CLIENTS)
        person.presses_ctrl_c()
        person.ends(1)
    assert line.rsplit("_", 1)[-1] not in person.screen


def test_a_wrong_account_is_asked_for_again(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.exampel")
        person.sees("! ACCOUNT_UNKNOWN")
        person.sees(ACCOUNT)
        person.sees("acme.exampel")
        assert "connection is fine, but Test Primary has no account" in " ".join(person.screen.split())
        person.types("acme.example", instead=True)
        person.sees(API_KEY)
        person.presses_ctrl_c()
        person.ends(1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (None, "API_KEY_INVALID"),
        (["--network", "203.0.113.0/24"], "API_KEY_NETWORK"),
        (["--expires", "1s"], "API_KEY_EXPIRED"),
        (["--uses", "1"], "API_KEY_USED_UP"),
    ],
)
def test_an_api_key_that_is_not_good_is_asked_for_again(
    primary: PrimaryProcess, place: Path, tmp_path: Path, options: list[str] | None, reason: str
) -> None:
    key = "enl_aaaaaaaaaa_" + "a" * 32 if options is None else primary.last_line("api-key", "add", "acme.example", *options)
    if reason == "API_KEY_USED_UP":
        used = SecondaryProcess(tmp_path, "used")
        (tmp_path / "key").write_text(key)
        used.set_up(primary, "--api-key-file", str(tmp_path / "key"))
    if reason == "API_KEY_EXPIRED":
        (listed,) = [each for each in primary.json("api-key", "list", "acme.example") if each["id"] == key.split("_")[1]]
        wait_for(lambda: moment(int(time.time())) > listed["expires"])
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY, key)
        person.sees(f"! {reason}")
        person.answers(API_KEY)
        person.sees(NAME)
        person.presses_ctrl_c()
        person.ends(1)
    assert key.rsplit("_", 1)[-1] not in person.screen, "attacks row 44"
    assert not place.exists()


def test_an_account_that_wants_an_api_key_asks_for_one(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "strict.example")
        person.answers(API_KEY)
        person.sees("! API_KEY_REQUIRED")
        person.sees(API_KEY)
        person.presses_ctrl_c()
        person.ends(1)


def test_too_many_attempts_are_explained(impatient_primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, impatient_primary.address)
        person.answers(ACCOUNT, "first.example")
        person.sees("! ACCOUNT_UNKNOWN")
        person.answers(ACCOUNT, "second.example", instead=True)
        person.sees("! TOO_MANY_ATTEMPTS")
        person.sees(ACCOUNT)
        person.presses_ctrl_c()
        person.ends(1)


@pytest.mark.parametrize(
    ("question", "wrong"), [(NAME, "a/b"), (CLIENTS, "no host"), (CONFIG, "/dev/null/x.toml"), (DATA, "/dev/null/x")]
)
def test_an_answer_about_this_machine_is_checked_as_well(
    primary: PrimaryProcess, tmp_path: Path, question: str, wrong: str
) -> None:
    with Person() as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY)
        for each, answer in (
            (NAME, "x"),
            (CLIENTS, "192.0.2.10"),
            (CONFIG, str(tmp_path / "x.toml")),
            (DATA, str(tmp_path / "data")),
        ):
            if each == question:
                person.answers(question, wrong, instead=True)
                person.sees("! ")
                person.sees(question)
                person.sees(wrong)
                break
            person.answers(each, answer, instead=True)
        person.presses_ctrl_c()
        person.ends(1)


def test_an_address_that_leads_nobody_here_is_a_note_and_no_obstacle(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY)
        person.answers(NAME, "to itself", instead=True)
        person.answers(CLIENTS, "127.0.0.1", instead=True)
        person.sees("Note: At 127.0.0.1 every client finds itself")
        person.sees(WRITE)
        person.presses_ctrl_c()
        person.ends(1)


def test_a_name_that_the_dns_does_not_know_is_a_note_and_no_obstacle(primary: PrimaryProcess, place: Path) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY)
        person.answers(NAME, "unknown to the dns", instead=True)
        person.answers(CLIENTS, "gw1.enlist.invalid", instead=True)
        person.sees("Ask for this DNS record:")
        person.sees("gw1.enlist.invalid. IN A ")
        person.sees(WRITE)
        person.presses_ctrl_c()
        person.ends(1)
