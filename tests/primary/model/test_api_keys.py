"""API keys: their one form, and what is told about one - and to whom."""

from __future__ import annotations

import hmac
import ipaddress
import itertools
import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist_primary.model.api_keys import (
    ApiKey,
    Kind,
    check,
    hash_of,
    in_networks,
    invalid,
    make,
    matches,
    network,
    parse,
    required,
    same_secret,
)
from tests.primary.refusals import attempt, refused

T = 1_800_000_000
ID, SECRET = "abcdefghij", "234567" + "a" * 26
TEXT = f"enl_{ID}_{SECRET}"
KEY = ApiKey("acme.example", ID, hash_of(SECRET), Kind.RESTRICTED, T)
HOME, AWAY = "192.0.2.7", "198.51.100.7"


# --- The form -------------------------------------------------------------------------------------------------------------------


def test_an_api_key_comes_apart_into_id_and_secret() -> None:
    assert parse(TEXT) == (ID, SECRET)


@given(st.binary(min_size=40, max_size=40))
def test_a_made_api_key_comes_apart_again(random: bytes) -> None:
    presented = parse(make(ID, lambda count: random[:count]))
    assert presented.id == ID
    assert len(presented.secret) == 32


def test_api_keys_differ_and_hold_160_random_bits() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return secrets.token_bytes(count)

    assert len({make(ID, random) for _ in range(200)}) == 200
    assert sum(asked) / 200 * 5 >= 160


def test_every_letter_of_the_secret_is_random() -> None:
    made = [parse(make(ID, secrets.token_bytes)).secret for _ in range(200)]
    assert min(len({secret[place] for secret in made}) for place in range(32)) > 10


EDITS: list[Callable[[str], str]] = [
    lambda t: "",
    lambda t: t[:-1],
    lambda t: t + "a",
    lambda t: t + "\n",
    lambda t: "\n" + t,
    lambda t: t + " ",
    lambda t: " " + t,
    lambda t: t + "\x00",
    lambda t: t.upper(),
    lambda t: t.replace("_", "-"),
    lambda t: t.replace("enl_", "enlu_"),
    lambda t: t.replace("enl_", "ENL_"),
    lambda t: t.replace("enl_", ""),
    lambda t: t.replace("2", "1"),
    lambda t: t.replace("2", "8"),
    lambda t: t.replace("2", "٢"),
    lambda t: t.replace("a", "а"),  # the Cyrillic letter is the attack (attacks row 5)
    lambda t: t.replace("a", "ａ"),  # so is the full-width one
    lambda t: t + t,
    lambda t: f"enl_{ID}",
    lambda t: f"enl_{ID}_",
    lambda t: f"enl__{SECRET}",
    lambda t: f"enl_{SECRET}_{ID}",
    lambda t: f"enl_{ID}_{SECRET}_{SECRET}",
    lambda t: "x" * 100_000,
]


@pytest.mark.parametrize("edit", EDITS)
def test_every_other_form_is_refused_as_a_wrong_secret_is(edit: Callable[[str], str]) -> None:
    """Attacks row 28: whoever guesses learns nothing from the answer."""
    with refused(Reason.API_KEY_INVALID) as no:
        parse(edit(TEXT))
    assert no.value.message == invalid().message


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with refused(Reason.API_KEY_INVALID) as no:
        parse(text)
    assert no.value.message == invalid().message


def test_the_refusals_hold_no_secret_and_say_what_to_do() -> None:
    for each in (invalid(), required()):
        assert SECRET not in each.message
        assert ID not in each.message


# --- The secret -----------------------------------------------------------------------------------------------------------------


def test_only_a_hash_is_kept() -> None:
    assert len(hash_of(SECRET)) == 32
    assert SECRET.encode() not in KEY.secret_hash
    assert SECRET not in repr(KEY)


def test_the_right_secret_matches_and_only_that() -> None:
    assert matches(KEY, SECRET)
    for place in range(32):
        letter = "b" if SECRET[place] == "a" else "a"
        assert not matches(KEY, SECRET[:place] + letter + SECRET[place + 1 :])


@pytest.mark.parametrize("secret", ["", SECRET, "\x00" * 32])
def test_nothing_matches_a_key_that_is_not_there(secret: str) -> None:
    assert not matches(None, secret)


def test_a_key_that_is_not_there_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 28: the same work, so the same time, whether or not there is an API key of that id."""
    compared: list[tuple[int, int]] = []

    def watched(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert matches(KEY, SECRET)
    assert not matches(None, SECRET)
    assert not same_secret(hash_of("x"), SECRET)
    assert compared == [(32, 32)] * 3


# --- What it is good for --------------------------------------------------------------------------------------------------------

FAULTS = [  # in the order in which they are told
    ("revoked", {"revoked_at": T - 1}, Reason.API_KEY_EXPIRED),
    ("expired", {"expires_at": T}, Reason.API_KEY_EXPIRED),
    ("used up", {"max_uses": 1, "uses": 1}, Reason.API_KEY_USED_UP),
    ("network", {"networks": ("10.0.0.0/8",)}, Reason.API_KEY_NETWORK),
]
WORDS = {"revoked": "revoked on", "expired": "expired on", "used up": "as often as", "network": "not good from"}
COMBINATIONS = [each for count in range(1, 5) for each in itertools.combinations(FAULTS, count)]


@pytest.mark.parametrize("faults", COMBINATIONS, ids=lambda faults: ", ".join(name for name, _, _ in faults))
def test_the_first_fault_is_told(faults: tuple[tuple[str, dict[str, object], Reason], ...]) -> None:
    key = KEY
    for _, fields, _ in faults:
        key = replace(key, **fields)  # type: ignore[arg-type]  # each is the type of its field
    name, _, reason = faults[0]
    with refused(reason) as no:
        check(key, HOME, T)
    assert WORDS[name] in no.value.message


def test_one_without_limits_is_good_from_anywhere_for_ever() -> None:
    check(replace(KEY, uses=10**9), AWAY, 2**62)


@pytest.mark.parametrize(("later", "good"), [(-1, True), (0, False), (1, False)])
def test_it_ends_in_the_very_second(later: int, good: bool) -> None:
    """Attacks row 13: at expiry + 1 s none."""
    key = replace(KEY, expires_at=T)
    if good:
        check(key, HOME, T + later)
        return
    with refused(Reason.API_KEY_EXPIRED):
        check(key, HOME, T + later)


@given(uses=st.integers(0, 1000), max_uses=st.integers(1, 1000))
def test_it_is_used_up_by_its_last_use(uses: int, max_uses: int) -> None:
    key = replace(KEY, uses=uses, max_uses=max_uses)
    if uses < max_uses:
        check(key, HOME, T)
        return
    with refused(Reason.API_KEY_USED_UP):
        check(key, HOME, T)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("source", [HOME, AWAY])
def test_networks_hold_for_every_kind(kind: Kind, source: str) -> None:
    key = replace(KEY, kind=kind, networks=("192.0.2.0/24",))
    if source == HOME:
        check(key, source, T)
        return
    with refused(Reason.API_KEY_NETWORK) as no:
        check(key, source, T)
    assert source in no.value.message


# --- Networks -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 10.1.2.3/8\n", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("2001:DB8:0::", "2001:db8::/128"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_a_network_has_one_form(text: str, form: str) -> None:
    assert network(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "10.0.0.0/33",
        "10.0.0/8",
        "10.0.0.0/-1",
        "10.0.0.256",
        "1e1",
        "10.0.0.0/8,::/0",
        "::/129",
        "fe80::%eth0/64",
        "10.0.0.0/8/8",
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with refused(Reason.INVALID_ARGUMENT):
        network(text)


@given(st.text())
def test_no_text_does_more_than_be_refused_as_a_network(text: str) -> None:
    outcome = attempt(network, text)
    if isinstance(outcome, Refused):
        assert outcome.reason is Reason.INVALID_ARGUMENT
    else:
        assert "," not in outcome, "networks are stored separated by commas"


@given(st.one_of(st.ip_addresses(v=4, network="10.0.0.0/8"), st.ip_addresses(v=6, network="2001:db8::/32")))
def test_an_address_in_a_network_is_found_there(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert in_networks(str(address), ("10.0.0.0/8", "2001:db8::/32"))


@given(st.ip_addresses(), st.integers(0, 32))
def test_membership_is_what_the_bits_say(address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> None:
    form = network(f"192.0.2.7/{length}")
    bits = 32 - length
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else address
    same = plain is not None and int(plain) >> bits == int(ipaddress.ip_address("192.0.2.7")) >> bits
    assert in_networks(str(address), (form,)) == same


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_seen_through_ipv6_counts_as_ipv4(address: ipaddress.IPv4Address) -> None:
    inside = in_networks(str(address), ("10.0.0.0/8",))
    assert in_networks(f"::ffff:{address}", ("10.0.0.0/8",)) == inside
    assert not in_networks(f"::ffff:{address}", ("::/0",))


@pytest.mark.parametrize("source", ["", "x", "10.0.0.1 ", "10.0.0.1/8", "unix:", "10.0.0.1:4711", "[::1]", "010.0.0.1"])
def test_what_is_no_address_is_in_no_network(source: str) -> None:
    """A source that cannot be judged is not let in."""
    assert not in_networks(source, ("0.0.0.0/0", "::/0"))


def test_nothing_is_in_no_networks() -> None:
    assert not in_networks(HOME, ())
