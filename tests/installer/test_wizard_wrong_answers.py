"""The wizard and a wrong answer: what is wrong, what to do, and the question again with the old answer as default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from enlist.runtime.terminal import moment
from tests.installer import in_between
from tests.installer.person import Person
from tests.installer.sitting import (
    ACCOUNT,
    AGAIN,
    API_KEY,
    CLIENTS,
    CONFIG,
    DATA,
    JOIN,
    NAME,
    PRIMARY,
    SAME,
    WRITE,
    goes_on,
    reaches,
    sitting,
)
from tests.installer.unattended import flags, set_up
from tests.support.ports import free_port
from tests.support.processes import PrimaryProcess, SecondaryProcess
from tests.support.waiting import wait_for


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


@pytest.mark.parametrize(
    ("address", "notes"),
    [
        ("127.0.0.1", ["Note: At 127.0.0.1 every client finds itself"]),
        ("gw1.enlist.invalid", ["Ask for this DNS record:", "gw1.enlist.invalid. IN A "]),
    ],
    ids=["leads nobody here", "unknown to the DNS"],
)
def test_an_address_that_clients_do_not_find_is_a_note_and_no_obstacle(
    primary: PrimaryProcess, place: Path, address: str, notes: list[str]
) -> None:
    with sitting(place) as person:
        reaches(person, primary.address)
        person.answers(ACCOUNT, "acme.example")
        person.answers(API_KEY)
        person.answers(NAME, "not found", instead=True)
        person.answers(CLIENTS, address, instead=True)
        for note in notes:
            person.sees(note)
        person.sees(WRITE)
        person.presses_ctrl_c()
        person.ends(1)
