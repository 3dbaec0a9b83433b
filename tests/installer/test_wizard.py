"""The wizard as a person meets it: a real process on a real terminal of 80 by 24, against a real primary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installer import in_between
from tests.installer.conftest import serving
from tests.installer.person import Person, tree
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
    stops,
)
from tests.support.processes import PrimaryProcess, SecondaryProcess
from tests.support.waiting import wait_for

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
