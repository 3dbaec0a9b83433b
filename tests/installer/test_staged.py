"""What becomes of an enrolment that waits beside the present one when yet another primary is asked: `enlist_installer.setup`."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enlist import certificates
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist.transport.endpoints import Endpoint
from enlist_installer import removing, setup
from enlist_installer.setup import Answered, Setup
from enlist_primary.authority.signer import Signer, new_authority
from enlist_secondary import api_key, enrol, identity, state
from enlist_secondary import config as configs
from enlist_secondary.checks import Primary, Way
from enlist_secondary.config import SecondaryConfig

NOW = 1_800_000_000


def planned(place: Path, host: str) -> Setup:
    """A server that is to be set up at the primary of this name, whatever it was before."""
    key = certificates.new_key()
    authority = Signer(key, new_authority(key, NOW)).authority
    primary = Primary(Address(host, 13299), Endpoint("192.0.2.1", 13299), authority, b"", host, 13000, "1", b"", NOW)
    config = SecondaryConfig(primary=host, account="acme.example", name="n", data=str(place / "data"))
    return setup.planned(Answered(primary, Way.COMPARED, config, place / "secondary.toml"), "ann")


def waiting_at(place: Path, host: str) -> identity.Identity:
    """A server that has asked at this primary, too, and waits."""
    made = planned(place, host)
    mine = setup.write(made, NOW)
    state.change(made.config.folder, lambda _: state.State(requests=1, state="pending"))
    return mine


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server's files are. No primary has to be met again."""

    async def met_again(as_planned: Setup, *_: Any) -> Setup:
        return as_planned

    monkeypatch.setattr(setup, "_met_again", met_again)
    return tmp_path


async def carried_out(place: Path, host: str, monkeypatch: pytest.MonkeyPatch, said: Refused | None) -> None:
    """The primary of this name is asked, and says this."""

    async def first_word(_dialer: Any, _primary: Any, config: SecondaryConfig, *_: Any) -> None:
        if said is None or said.reason in enrol.PERHAPS_HEARD:
            state.change(config.folder, lambda known: replace(known, requests=1))
        if said is not None:
            raise said

    monkeypatch.setattr(setup, "first_word", first_word)
    await setup.carry_out(planned(place, host), Dialer(), lambda: NOW)


async def test_a_primary_that_refuses_costs_no_request_that_waits_at_another(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting_at(place, "first")
    mine = waiting_at(place, "second")
    with pytest.raises(Refused):
        await carried_out(place, "third", monkeypatch, Refused(Reason.API_KEY_REQUIRED, "No."))
    staged = configs.load(configs.next_path(place / "secondary.toml"))
    kept = identity.load(staged.folder)
    assert staged.primary == "second"
    assert kept is not None
    assert kept.fingerprint == mine.fingerprint


async def test_a_primary_that_takes_over_while_one_goes_back_keeps_its_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's rename comes while the present primary is asked where this server stands."""
    path = place / "secondary.toml"
    first = planned(place, "first")
    setup.write(first, NOW)
    state.change(first.config.folder, lambda _: state.State(requests=1, state="pending"))
    mine = waiting_at(place, "second")
    back = setup.planned(first.answered, "ann", stay=True)
    assert back.plan.drops_staged

    async def first_word(*_: Any, **__: Any) -> None:
        configs.switch(path)

    monkeypatch.setattr(setup, "first_word", first_word)
    await setup.carry_out(back, Dialer(), lambda: NOW)
    stands = configs.load(path)
    kept = identity.load(stands.folder)
    assert stands.primary == "second"
    assert kept is not None
    assert kept.fingerprint == mine.fingerprint


async def test_an_api_key_of_an_enrolment_that_was_left_is_erased(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 44."""
    before = planned(place, "first").config.folder
    waiting_at(place, "first")
    api_key.keep(before, "enl_key")
    state.change(before, lambda known: replace(known, state="denied"))
    await carried_out(place, "second", monkeypatch, None)
    assert configs.load(place / "secondary.toml").primary == "second"
    assert api_key.load(before) == ""


@pytest.mark.parametrize("said", [None, Refused(Reason.TIMED_OUT, "Perhaps.")], ids=["accepted", "perhaps heard"])
async def test_a_request_that_waits_is_given_up_for_one_that_stands(
    place: Path, monkeypatch: pytest.MonkeyPatch, said: Refused | None
) -> None:
    waiting_at(place, "first")
    given_up = waiting_at(place, "second").folder
    with pytest.raises(Refused) if said else nullcontext():
        await carried_out(place, "third", monkeypatch, said)
    staged = configs.load(configs.next_path(place / "secondary.toml"))
    assert staged.primary == "third"
    assert staged.folder.exists()
    assert not given_up.exists()


async def test_a_primary_given_up_while_the_daemon_switches_to_it_does_not_come_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has read what waits, and writes the owner's tables into it: one of the two comes first, as a whole."""
    path = place / "secondary.toml"
    waiting_at(place, "first")
    mine = waiting_at(place, "second")
    reads, given_up = configs.load, threading.Event()

    def give_up() -> None:
        removing.give_up(path)
        given_up.set()

    wizard = threading.Thread(target=give_up)

    def load(which: Path) -> SecondaryConfig:
        found = reads(which)
        if which == configs.next_path(path) and wizard.ident is None:
            wizard.start()
            given_up.wait(0.3)  # unless it has to wait for its turn
        return found

    monkeypatch.setattr(configs, "load", load)
    configs.switch(path)
    wizard.join(20)
    stands = reads(path)
    kept = identity.load(stands.folder)
    assert stands.primary == "second"
    assert kept is not None
    assert kept.fingerprint == mine.fingerprint
