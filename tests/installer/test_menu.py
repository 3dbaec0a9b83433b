"""What the wizard offers a server that is set up already, at a real terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason
from enlist.runtime import files
from tests.installer import in_between
from tests.installer.person import Person, tree
from tests.installer.sitting import ACCOUNT, API_KEY, CLIENTS, JOIN, NAME, PRIMARY, SAME, WRITE, sitting
from tests.installer.unattended import flags, set_up
from tests.support.means import need_machine_id
from tests.support.processes import PrimaryProcess, SecondaryProcess, run
from tests.support.waiting import wait_for

MENU = "What do you want to do?"
SETTINGS, ADDRESS, DIFFERENT = "Change settings", "Same primary at a new address", "A different primary"
STAY, REPAIR, REMOVE, NOTHING = "Stay with the present primary", "Repair", "Remove this server", "Nothing, leave all as it is"
JUST_WRITE = "Write this?"


def chooses(person: Person, wanted: str) -> None:
    """Finds the choice among those shown, and presses its number."""
    person.sees(MENU)
    person.sees(NOTHING)
    (line,) = [line for line in person.screen.split(MENU)[-1].split("\n") if wanted in line]
    person.types(line.strip(" >").partition(")")[0])


def enrolled(primary: PrimaryProcess, place: Path, name: str, trusted: bool = True) -> dict[str, Any]:
    """A server that is set up, and authorized."""
    outcome = set_up(*flags(primary, place, name))
    if trusted:
        primary.do("server", "authorize", outcome["server_id"])
        outcome = set_up(*flags(primary, place, name), "--wait", "trusted:30")
    return outcome


def status(place: Path) -> dict[str, Any]:
    return dict(json.loads(run("enlist-secondary", "--config", str(place / "secondary.toml"), "status", "--json").stdout))


def test_the_menu_shows_what_stands_and_leaves_it_alone(primary: PrimaryProcess, place: Path) -> None:
    enrolled(primary, place, "looked at")
    before = tree(place)
    with sitting(place) as person:
        person.sees(primary.address)
        person.sees("trusted")
        chooses(person, NOTHING)
        person.ends(0)
    assert STAY not in person.screen
    assert tree(place) == before


def test_changing_settings_keeps_the_old_file(primary: PrimaryProcess, place: Path) -> None:
    outcome = enrolled(primary, place, "settings by hand")
    set_up(*flags(primary, place, "settings by hand"), "--confirm-identity", "always", "--company-ca", "none")
    before = (place / "secondary.toml").read_bytes()
    with sitting(place) as person:
        chooses(person, SETTINGS)
        person.sees("settings by hand")  # the present value, as the default
        person.types("another name", instead=True)
        person.answers(CLIENTS, "192.0.2.11", instead=True)
        person.answers(JUST_WRITE)
        person.sees(f"enlist-primary server rename {outcome['server_id']} 'another name'")
        person.sees("This server is trusted.")
        person.ends(0)
    assert (place / "secondary.toml.bak").read_bytes() == before
    written = (place / "secondary.toml").read_text()
    assert 'name = "another name"' in written
    assert 'server_address = "192.0.2.11"' in written
    assert 'confirm_identity = "always"' in written, "what no question is about stays"
    assert 'company_ca = "none"' in written


def test_a_waiting_server_may_be_given_an_api_key_later(primary: PrimaryProcess, place: Path) -> None:
    enrolled(primary, place, "key later", trusted=False)
    key = primary.last_line("api-key", "add", "acme.example", "--full")
    with sitting(place) as person:
        chooses(person, SETTINGS)
        person.answers(API_KEY, key)
        person.answers(NAME)
        person.answers(CLIENTS)
        person.answers(WRITE)
        person.sees("This server is trusted.")
        person.ends(0)
    assert primary.server("key later")["state"] == "trusted"


def test_the_same_primary_at_a_new_address_and_nobody_else(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    """attacks row 22: the address may change, the key may not"""
    outcome = enrolled(primary, place, "moved by hand")
    with (
        in_between.both_ports("127.0.0.7", primary) as moved,
        sitting(place) as person,
    ):
        chooses(person, ADDRESS)
        person.answers(PRIMARY, other_primary.address, instead=True)
        person.sees("! IDENTITY_MISMATCH")
        person.answers(PRIMARY, moved, instead=True)
        person.answers(JUST_WRITE)
        person.sees("This server is trusted.")
        person.ends(0)
    assert SAME not in person.screen
    stands = status(place)
    assert (stands["primary"], stands["server_id"]) == (moved, outcome["server_id"])


def test_a_different_primary_takes_over_while_the_daemon_keeps_the_old_link(
    primary: PrimaryProcess, other_primary: PrimaryProcess, tmp_path: Path
) -> None:
    secondary = SecondaryProcess(tmp_path, "emigrant")
    secondary.set_up(primary)
    primary.do("server", "authorize", "emigrant")
    try:
        secondary.start()
        wait_for(lambda: secondary.status()["connected"])
        with sitting(secondary.config.parent) as person:
            chooses(person, DIFFERENT)
            person.sees("stays in charge until the new one has authorized it")
            person.answers(JOIN)
            person.answers(PRIMARY, other_primary.address, instead=True)
            person.sees(other_primary.fingerprint)
            person.answers(SAME, "y")
            person.answers(ACCOUNT)
            person.answers(API_KEY)
            person.answers(NAME)
            person.answers(CLIENTS)
            person.answers(WRITE)
            person.sees("Waiting until it is authorized.")
            assert primary.server("emigrant")["connected"]
            assert secondary.status()["primary"] == primary.address
            other_primary.do("server", "authorize", "emigrant")
            person.sees("Authorized: this server is trusted.")
            person.sees("Connected to its primary.")
            person.sees(f"{primary.address} still lists this server: emigrant, trusted.")
            person.sees(f"enlist-primary server remove {primary.server('emigrant')['id']}")
            person.ends(0)
        primary.do("server", "remove", "emigrant")
        wait_for(lambda: other_primary.server("emigrant")["connected"])
        assert secondary.status()["primary"] == other_primary.address
    finally:
        secondary.close()


def test_a_waiting_server_keeps_its_request_where_no_other_api_key_is_given(primary: PrimaryProcess, place: Path) -> None:
    """Though the account wants an API key by now."""
    enrolled(primary, place, "waiting for long", trusted=False)
    primary.do("account", "set", "acme.example", "--default-api-key", "off")
    try:
        with sitting(place) as person:
            chooses(person, SETTINGS)
            person.sees("This server has asked already.")
            person.answers(API_KEY)
            person.answers(NAME, "waiting for longer", instead=True)
            person.answers(CLIENTS, "192.0.2.10", instead=True)
            person.answers("Write this?")
            person.sees("Waiting until it is authorized.")
            person.presses_ctrl_c()
            person.ends(0)
    finally:
        primary.do("account", "set", "acme.example", "--default-api-key", "on")
    assert primary.server("waiting for long")["state"] == "pending"


def test_removing_takes_back_what_waits_at_a_different_primary(
    primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path
) -> None:
    enrolled(primary, place, "at two")
    for name in ("at two", "at two still"):  # the second leaves a backup of the staged configuration
        set_up(*flags(other_primary, place, name))
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("Removed.")
        person.ends(0)
    assert other_primary.server("at two")["state"] == "withdrawn"
    assert tree(place) == {}


def test_staying_after_all_gives_the_move_up(primary: PrimaryProcess, other_primary: PrimaryProcess, place: Path) -> None:
    enrolled(primary, place, "undecided")
    set_up(*flags(other_primary, place, "undecided"))
    with sitting(place) as person:
        person.sees("Moving to")
        chooses(person, STAY)
        person.ends(0)
    assert not (place / "secondary.toml.next").exists()
    assert other_primary.server("undecided")["state"] == "withdrawn"
    assert [path.name for path in (place / "data").iterdir() if path.is_dir()] == ["main"]
    assert status(place)["primary"] == primary.address


def test_repair_shows_every_check_and_mends_what_it_can(primary: PrimaryProcess, place: Path) -> None:
    outcome = enrolled(primary, place, "broken")
    (place / "data" / "main" / "certificate.pem").unlink()
    with sitting(place) as person:
        chooses(person, REPAIR)
        person.sees("SSL port")
        person.answers(JUST_WRITE)
        person.sees("This server is trusted.")
        person.ends(0)
    assert (place / "data" / "main" / "certificate.pem").exists()
    assert status(place)["server_id"] == outcome["server_id"]


def test_repair_asks_again_after_a_no_if_the_person_wants_that(primary: PrimaryProcess, place: Path) -> None:
    outcome = enrolled(primary, place, "removed there", trusted=False)
    primary.do("server", "remove", outcome["server_id"])
    with sitting(place) as person:
        chooses(person, REPAIR)
        person.answers(JUST_WRITE)
        person.sees("! SERVER_REMOVED")
        person.answers("Ask to join again?", "y")
        person.sees("It is not trusted yet.")
        person.sees("Ctrl-C leaves")
        person.presses_ctrl_c()
        person.ends(0)
    assert primary.server("removed there")["state"] == "pending"


def test_removing_leaves_the_primary_and_no_file(primary: PrimaryProcess, place: Path) -> None:
    outcome = enrolled(primary, place, "goodbye")
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("Removed.")
        person.ends(0)
    assert primary.json("server", "show", outcome["server_id"])["state"] == "departed"
    assert tree(place) == {}


def test_removing_asks_what_stays_below(primary: PrimaryProcess, place: Path) -> None:
    """As `enlist-secondary leave` does: who is not asked might lose it."""
    outcome = enrolled(primary, place, "between")
    with (place / "secondary.toml").open("a") as config:
        config.write(f'\n[local_primary]\nsocket = "{place}/upstream.sock"\n')
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("A primary runs on this host.")
        person.sees("Delete them")
        person.types("2")
        person.answers("Keep them unchanged, with their locks", "")
        person.sees("Removed.")
        person.ends(0)
    assert primary.json("server", "show", outcome["server_id"])["state"] == "departed"


def test_removing_is_not_done_by_enter_alone(primary: PrimaryProcess, place: Path) -> None:
    enrolled(primary, place, "staying", trusted=False)
    before = tree(place)
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove")
        person.sees("Nothing was changed.")
        person.ends(0)
    assert "INTERRUPTED" not in person.screen, "a No is an answer, and no refusal"
    assert tree(place) == before


def test_removing_without_the_primary_asks_once_more(primary: PrimaryProcess, place: Path) -> None:
    with in_between.both_ports("127.0.0.8", primary) as address:
        set_up(*flags(primary, place, "cut off"), "--primary", address)
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("! UNREACHABLE")
        person.answers("Remove the files here all the same?", "y")
        person.sees("Removed.")
        person.ends(0)
    assert tree(place) == {}


def test_removing_a_copy_leaves_the_original_where_it_is(primary: PrimaryProcess, place: Path) -> None:
    need_machine_id()
    outcome = enrolled(primary, place, "original")
    before = primary.json("server", "show", outcome["server_id"])["state"]
    (machine,) = (place / "data").glob("*/machine-id")
    machine.write_text("0" * 32 + "\n")
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("! IDENTITY_COPIED")
        person.answers("Remove the files here all the same?", "y")
        person.sees("Removed.")
        person.ends(0)
    assert primary.json("server", "show", outcome["server_id"])["state"] == before == "trusted"
    assert tree(place) == {}


def test_removing_without_the_primary_is_not_done_by_enter_alone(primary: PrimaryProcess, place: Path) -> None:
    with in_between.both_ports("127.0.0.8", primary) as address:
        set_up(*flags(primary, place, "cut off, and staying"), "--primary", address)
    files_before = tree(place).keys()
    with sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("! UNREACHABLE")
        person.answers("Remove the files here all the same?")
        person.sees("The files here stay.")
        person.ends(0)
    assert tree(place).keys() == files_before


def test_removing_a_running_server_ends_its_daemon_first(primary: PrimaryProcess, tmp_path: Path) -> None:
    secondary = SecondaryProcess(tmp_path, "at work")
    secondary.set_up(primary)
    primary.do("server", "authorize", "at work")
    try:
        secondary.start()
        wait_for(lambda: secondary.status()["connected"])
        with sitting(secondary.config.parent) as person:
            chooses(person, REMOVE)
            person.answers("Leave the primary, and remove", "y")
            person.sees("Removed.")
            person.ends(0)
        wait_for(lambda: secondary.returncode is not None, what="the end of the process, which has let go of its files before")
        assert tree(secondary.config.parent) == {}
    finally:
        secondary.close()


def test_a_daemon_that_does_not_end_is_not_robbed_of_its_files(primary: PrimaryProcess, place: Path) -> None:
    enrolled(primary, place, "held")
    before = tree(place)
    with files.lock(place / "data" / "lock", Reason.ALREADY_RUNNING, ""), sitting(place) as person:
        chooses(person, REMOVE)
        person.answers("Leave the primary, and remove", "y")
        person.sees("ALREADY_RUNNING: enlist-secondary is running.")
        person.ends(1)
    assert before.keys() <= tree(place).keys()


@pytest.mark.parametrize("content", ['format = 2\nprimary = "x"\n', "not toml"])
def test_a_malformed_configuration_is_named(place: Path, content: str) -> None:
    place.mkdir(mode=0o700)
    (place / "secondary.toml").write_text(content)
    with sitting(place) as person:
        person.sees("CONFIG_INVALID: ")
        person.ends(1)
    assert f"{place}/secondary.toml" in person.screen.replace("\n", "")
