"""Accounts: the resource name of one, and the one answer for all that are not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist_primary.model.accounts import PRIMARY, from_resource, unknown
from tests.primary.refusals import attempt, refused


@pytest.mark.parametrize("domain", ["acme.example", "a", "xn--bcher-kva.example", "10-0.example", PRIMARY])
def test_a_resource_name_gives_its_domain(domain: str) -> None:
    assert from_resource(f"accounts/{domain}") == domain


@pytest.mark.parametrize(
    "name",
    [
        "",
        "acme.example",
        "accounts/",
        "accounts//",
        "/accounts/acme.example",
        "accounts/acme.example/",
        "accounts/acme.example/servers/x",
        "account/acme.example",
        "Accounts/acme.example",
        "accounts/ACME.example",
        "accounts/acme.example.",
        "accounts/acme..example",
        "accounts/..",
        "accounts/-",
        "accounts/acme\x00.example",
        "accounts/аcme.example",  # a Cyrillic letter is the attack
        "accounts/10.0.0.1",
    ],
)
def test_near_misses_are_refused(name: str) -> None:
    """Attacks row 5."""
    with refused(Reason.INVALID_ARGUMENT):
        from_resource(name)


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    outcome = attempt(from_resource, f"accounts/{text}")
    assert outcome == text or (isinstance(outcome, Refused) and outcome.reason is Reason.INVALID_ARGUMENT)


def test_an_account_that_is_not_there_is_named_as_it_was_asked_for() -> None:
    assert (unknown("x.example").reason, unknown("x.example").message) == (
        Reason.ACCOUNT_UNKNOWN,
        'There is no account "x.example".',
    )
