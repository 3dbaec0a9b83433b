"""Proofs of possession: attacks rows 7 (bad proof) and 47 (another server's proof replayed, also into another account)."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from enlist import certificates, proofs
from enlist.reasons import Reason, Refused

SECRET = b"s" * 32
NOW = 1_795_000_000
KEY, OTHER = certificates.new_key(), certificates.new_key()
PUBLIC, OTHER_PUBLIC = certificates.spki(KEY.public_key()), certificates.spki(OTHER.public_key())
AUTHORITY = certificates.spki(certificates.new_key().public_key())
CHALLENGE = proofs.new_challenge(SECRET, NOW, lambda n: b"r" * n)
SIGNATURE = proofs.sign(KEY, "Register", CHALLENGE, AUTHORITY, b"request")


def test_a_proof_holds_for_exactly_what_was_signed() -> None:
    proofs.verify(KEY.public_key(), "Register", CHALLENGE, AUTHORITY, b"request", SIGNATURE)


@pytest.mark.parametrize(
    ("key", "rpc", "challenge", "authority", "request_", "signature"),
    [
        (OTHER, "Register", CHALLENGE, AUTHORITY, b"request", SIGNATURE),
        (KEY, "Leave", CHALLENGE, AUTHORITY, b"request", SIGNATURE),
        (KEY, "Register", CHALLENGE[:-1] + b"x", AUTHORITY, b"request", SIGNATURE),
        (KEY, "Register", CHALLENGE, OTHER_PUBLIC, b"request", SIGNATURE),
        (KEY, "Register", CHALLENGE, AUTHORITY, b"request ", SIGNATURE),
        (KEY, "Register", CHALLENGE, AUTHORITY, b"request", SIGNATURE[:-1]),
        (KEY, "Register", CHALLENGE, AUTHORITY, b"request", b""),
        (KEY, "Register", CHALLENGE, AUTHORITY, b"request", b"\0" * 10_000),
        (KEY, "RegisterX", CHALLENGE[1:], AUTHORITY, b"request", SIGNATURE),
    ],
    ids=["key", "rpc", "challenge", "primary", "request", "cut", "empty", "huge", "shifted"],
)
def test_a_proof_is_good_for_nothing_else(
    key: EllipticCurvePrivateKey, rpc: str, challenge: bytes, authority: bytes, request_: bytes, signature: bytes
) -> None:
    """Attacks row 47: not by another key, for another RPC, again later, at another primary, or for another request."""
    with pytest.raises(Refused) as caught:
        proofs.verify(key.public_key(), rpc, challenge, authority, request_, signature)
    assert caught.value.reason is Reason.PROOF_INVALID


@pytest.mark.parametrize("age", [0, 1, proofs.CHALLENGE_LIFETIME])
def test_a_challenge_is_good_for_two_minutes(age: int) -> None:
    proofs.check_challenge(SECRET, CHALLENGE, NOW + age)


@pytest.mark.parametrize("age", [proofs.CHALLENGE_LIFETIME + 1, 10**9, -1])
def test_a_challenge_from_another_time_is_refused(age: int) -> None:
    with pytest.raises(Refused) as caught:
        proofs.check_challenge(SECRET, CHALLENGE, NOW + age)
    assert caught.value.reason is Reason.CHALLENGE_EXPIRED
    assert caught.value.retry


def test_a_challenge_of_another_primary_is_refused() -> None:
    with pytest.raises(Refused, match="not one of this primary's"):
        proofs.check_challenge(b"t" * 32, CHALLENGE, NOW)


@settings(max_examples=200)
@given(st.integers(0, len(CHALLENGE) - 1), st.integers(1, 255))
def test_no_byte_of_a_challenge_can_be_altered(position: int, flip: int) -> None:
    forged = bytearray(CHALLENGE)
    forged[position] ^= flip
    with pytest.raises(Refused) as caught:
        proofs.check_challenge(SECRET, bytes(forged), NOW)
    assert caught.value.reason is Reason.PROOF_INVALID


@given(st.binary(max_size=100))
def test_bytes_that_are_no_challenge_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        proofs.check_challenge(SECRET, data, NOW)


def test_challenges_differ() -> None:
    assert proofs.new_challenge(SECRET, NOW, lambda n: b"q" * n) != CHALLENGE
