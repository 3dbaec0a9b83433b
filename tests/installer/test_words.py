"""What the wizard says fits a terminal, and nothing from outside can play with it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import width
from enlist.transport.endpoints import Endpoint
from enlist.v1 import registration_pb2 as pb
from enlist_installer import questions, words
from enlist_installer.clients_address import Finding
from enlist_installer.plan import Standing
from enlist_installer.setup import Answered
from enlist_installer.waiting import InVain
from enlist_secondary.checks import Primary, Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.doctor import Stage
from enlist_secondary.state import State
from tests.installer.in_between import new_signer

CONFIG = SecondaryConfig(primary="primary.example", account="acme.example", name="gw1", data="/var/lib/enlist/secondary")
AUTHORITY = new_signer().authority
PRIMARY = Primary(
    Address("primary.example", 13299), Endpoint("192.0.2.1", 13299), AUTHORITY, b"", "Head office", 13000, "0.1.0", b"", 0
)
PENDING = State(state="pending", server_id="abcdefghij", contact="ops@acme.example", expires_at=1_800_000_000)
EVIL = "\x1b[2J\u202etxt.exe"

SAID = [
    words.WELCOME,
    words.DIFFERENT,
    words.told(Refused(Reason.UNREACHABLE, "primary.example:13299 does not answer: nothing came back within 10 s.")),
    words.looking(Address("primary.example", 13299)),
    words.found(PRIMARY),
    words.fingerprint(PRIMARY),
    words.finding(Finding(True, "The DNS does not know it. " * 5, "gw1.acme.example. IN A 192.0.2.1")),
    words.pending(PENDING, "12345-12345-12345-12345"),
    words.waiting(True),
    words.waiting(False),
    words.standing(Path("/etc/enlist/secondary.toml"), Standing(CONFIG, None, "trusted"), Standing(CONFIG, None, "pending")),
    words.renamed("gw2", "abcdefghij"),
    words.left_behind(CONFIG, replace(PENDING, display_name="a name as long as one may be, which is sixty-three letters or so")),
    words.stopped(True),
    words.stopped(False),
    *(
        words.summary(Answered(PRIMARY, way, CONFIG, Path("/etc/enlist/secondary.toml"), pb.ValidateResponse(admission=admission)))
        for way in Way
        for admission in (pb.ADMISSION_ASK, pb.ADMISSION_TRUSTED)
    ),
]


@pytest.mark.parametrize("text", SAID, ids=lambda text: " ".join(text.split())[:40])
def test_every_line_fits_80_columns_and_none_is_coloured(text: str) -> None:
    assert all(width(line) <= 80 for line in text.split("\n")), text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "text",
    [
        words.told(Refused(Reason.SERVER_DENIED, EVIL)),
        words.refusal(Refused(Reason.SERVER_DENIED, EVIL)),
        words.pending(State(state="pending", contact=EVIL), "1"),
        words.finding(Finding(True, EVIL, EVIL)),
        words.diagnosis([Stage("name", False, "UNREACHABLE", EVIL, EVIL)]),
        words.renamed(EVIL, "abcdefghij"),
        words.left_behind(CONFIG, State(state="trusted", display_name=EVIL)),
        words.pending(State(state="pending", server_id=EVIL), "1"),
        questions.NAME.shown(EVIL),
    ],
)
def test_controls_and_bidi_marks_from_outside_are_shown_as_codes(text: str) -> None:
    """attacks row 41"""
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert "\\x1b" in text


def test_a_refusal_says_reason_sentence_and_what_to_do() -> None:
    said = words.refusal(Refused(Reason.SSL_PORT_UNREACHABLE, "It does not answer."))
    assert said.startswith("SSL_PORT_UNREACHABLE: It does not answer. ")
    assert "firewalls" in said


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        (PENDING, "still pending: an administrator has to authorize it. Ask ops@acme.example."),
        (State(state="pending"), "still pending: an administrator has to authorize it."),
        (State(state="suspended", contact="ops"), "still suspended: an administrator has to resume it. Ask ops."),
        (State(state="expired"), "still expired."),
        (State(state="trusted"), "trusted, but not connected to its primary. To see why: enlist-secondary --config '/a b' doctor"),
    ],
)
def test_a_wait_in_vain_says_what_it_waited_for_and_nothing_about_slow_answers(stands: State, said: str) -> None:
    refused = InVain(words.in_vain(5, stands, Path("/a b")))
    assert words.refusal(refused) == f"TIMED_OUT: After 5 s this server is {said}"
    assert refused.retry


def test_the_fingerprint_stands_whole_in_one_line() -> None:
    assert AUTHORITY.fingerprint in words.fingerprint(PRIMARY)


def test_the_summary_shows_no_api_key() -> None:
    """attacks row 44"""
    answered = Answered(PRIMARY, Way.COMPARED, CONFIG, Path("/x"), pb.ValidateResponse(), api_key="enl_secret")
    assert "secret" not in words.summary(answered) + repr(answered)
