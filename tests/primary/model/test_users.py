"""Users and their tokens."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist import names
from enlist_primary.model import api_keys
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.users import PRIMARY_ITSELF, Role, User, make_token, parse_token

ID, SECRET = "abcdefghij", "234567" + "a" * 26
TOKEN = f"enlu_{ID}_{SECRET}"


def test_a_token_comes_apart_into_user_and_secret() -> None:
    assert parse_token(TOKEN) == (ID, SECRET)


@given(st.binary(min_size=40, max_size=40))
def test_a_made_token_comes_apart_again(random: bytes) -> None:
    token = parse_token(make_token(ID, lambda count: random[:count]))
    assert token is not None
    assert token.user_id == ID
    assert len(token.secret) == 32


def test_a_token_holds_160_random_bits() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return secrets.token_bytes(count)

    made = {make_token(ID, random) for _ in range(100)}
    assert len(made) == 100
    assert sum(asked) / 100 * 5 >= 160  # five bits of each byte are used


WRONG = [
    "",
    "enlu_",
    TOKEN[:-1],
    TOKEN + "a",
    TOKEN + "\n",
    " " + TOKEN,
    TOKEN.upper(),
    TOKEN.replace("enlu_", "enl_"),
    TOKEN.replace("2", "1"),
    TOKEN.replace("2", "٢"),  # an Arabic-Indic digit two
    TOKEN.replace("a", "а"),  # the Cyrillic letter is the attack (attacks row 5)
    f"Bearer {TOKEN}",
]


@pytest.mark.parametrize("text", WRONG)
def test_any_other_form_is_no_token(text: str) -> None:
    assert parse_token(text) is None


@given(st.text())
def test_no_text_upsets_the_parser(text: str) -> None:
    parse_token(text)


def test_an_api_key_is_no_token_and_a_token_no_api_key() -> None:
    assert parse_token(api_keys.make(ID, secrets.token_bytes)) is None
    assert make_token(ID, secrets.token_bytes).partition("_")[0] != api_keys.make(ID, secrets.token_bytes).partition("_")[0]


def user(account: str) -> User:
    return User(names.new_id(secrets.token_bytes), "ann", Role.VIEWER, account, b"", 0)


@pytest.mark.parametrize("account", ["acme.example", "beta.example", PRIMARY])
def test_a_user_of_the_primary_sees_every_account(account: str) -> None:
    assert user(PRIMARY).sees(account)


@pytest.mark.parametrize("account", ["beta.example", PRIMARY, "", "ACME.example", "acme.example.", "xacme.example", "acme.exampl"])
def test_a_user_of_an_account_sees_no_other_however_near_its_name(account: str) -> None:
    """Attacks rows 5 and 15."""
    assert not user("acme.example").sees(account)
    assert user("acme.example").sees("acme.example")


def test_the_primary_itself_comes_from_nowhere() -> None:
    assert PRIMARY_ITSELF == ("primary", "itself", "")
