"""How often an address may be refused before it must wait: `rpc.attempts`."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason, Refused
from enlist_primary.rpc import attempts
from enlist_primary.rpc.attempts import ADDRESSES, COUNTED, WINDOW, Attempts

GUESS = Refused(Reason.API_KEY_INVALID, "no")
HERE = "192.0.2.1"


class Clock:
    """Monotonic seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def three(clock: Clock) -> Attempts:
    """Three refusals a minute."""
    return Attempts(3, clock)


def refused(attempts: Attempts, source: str = HERE) -> bool:
    """Whether the address must wait."""
    try:
        attempts.check(source)
    except Refused as refusal:
        return refusal.reason is Reason.TOO_MANY_ATTEMPTS and refusal.retry
    return False


def test_the_third_refusal_closes_the_door_for_the_rest_of_the_minute(three: Attempts, clock: Clock) -> None:
    for second in (0.0, 20.0, 40.0):
        clock.now = 1000.0 + second
        assert not refused(three)
        three.count(HERE, GUESS)
    assert refused(three)
    clock.now = 1000.0 + WINDOW - 0.1
    assert refused(three)
    clock.now = 1000.0 + WINDOW
    assert not refused(three)


def test_the_sentence_says_how_long_to_wait(three: Attempts, clock: Clock) -> None:
    for _ in range(3):
        three.count(HERE, GUESS)
    clock.now += 50
    with pytest.raises(Refused, match=r"Wait 11 s"):
        three.check(HERE)


def test_who_waited_begins_anew(three: Attempts, clock: Clock) -> None:
    for _ in range(3):
        three.count(HERE, GUESS)
    clock.now += WINDOW
    three.count(HERE, GUESS)
    three.count(HERE, GUESS)
    assert not refused(three)
    three.count(HERE, GUESS)
    assert refused(three)


def test_another_address_is_another_s(three: Attempts) -> None:
    for _ in range(5):
        three.count(HERE, GUESS)
    assert refused(three)
    assert not refused(three, "192.0.2.2")


def test_an_ipv6_address_counts_with_its_whole_network(three: Attempts) -> None:
    """Its owner has all 2^64 of it."""
    for n in range(3):
        three.count(f"2001:db8:0:7::{n}", GUESS)
    assert refused(three, "2001:db8:0:7:ffff::1")
    assert not refused(three, "2001:db8:0:8::1")


@pytest.mark.parametrize("source", ["", "unknown", "fe80::1%eth0", "::ffff:192.0.2.1"])
def test_any_source_can_be_counted(three: Attempts, source: str) -> None:
    for _ in range(3):
        three.count(source, GUESS)
    assert refused(three, source)


@pytest.mark.parametrize("reason", sorted(set(Reason) - COUNTED))
def test_what_is_no_guess_is_not_counted(three: Attempts, reason: Reason) -> None:
    """A used-up API key, a pending server that connects too early, the primary's own troubles."""
    for _ in range(10):
        three.count(HERE, Refused(reason, "no"))
    assert not refused(three)


@pytest.mark.parametrize("reason", sorted(COUNTED))
def test_every_kind_of_guess_is_counted(three: Attempts, reason: Reason) -> None:
    for _ in range(3):
        three.count(HERE, Refused(reason, "no"))
    assert refused(three)


def test_a_hundred_thousand_addresses_fill_no_memory_and_the_latest_are_remembered(three: Attempts) -> None:
    """Attacks row 30."""
    for n in range(100_000):
        three.count(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", GUESS)
    assert len(three._counts) == ADDRESSES
    for _ in range(2):
        three.count("10.1.134.159", GUESS)  # the last of them
    assert refused(three, "10.1.134.159")


def test_who_goes_on_guessing_is_not_forgotten_before_who_stopped(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ADDRESSES", 2)
    two = Attempts(2, clock)
    for source in ("busy", "quiet", "busy", "new"):
        two.count(source, GUESS)
    assert refused(two, "busy")
    two.count("quiet", GUESS)
    assert not refused(two, "quiet")
