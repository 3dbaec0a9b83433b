"""The journal entry's one form, and its chain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from enlist_primary.model.journal import JournalEntry, chained, genesis

ENTRY = JournalEntry(
    account="acme.example",
    number=7,
    time=1_800_000_000,
    actor="ann",
    method="token",
    source="192.0.2.7",
    action="authorize",
    subject="servers/abcdefghij",
    evidence="code compared",
    detail=MappingProxyType({"name": "Kö\n", "until": None, "uses": 3, "full": True}),
)
BODY = (
    b'{"account":"acme.example","action":"authorize","actor":"ann",'
    b'"detail":{"full":true,"name":"K\xc3\xb6\\n","until":null,"uses":3},'
    b'"evidence":"code compared","method":"token","number":7,"source":"192.0.2.7",'
    b'"subject":"servers/abcdefghij","time":1800000000}'
)


def test_the_bytes_of_an_entry_are_fixed() -> None:
    """Written out here: an entry hashed by this version must still verify in every later one."""
    assert ENTRY.body() == BODY


def test_an_entry_survives_its_bytes() -> None:
    assert JournalEntry.from_body(BODY) == replace(ENTRY, detail=dict(ENTRY.detail))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        BODY.replace(b'"number":7', b'"number":"7"'),
        BODY.replace(b'"number":7', b'"number":true'),
        BODY.replace(b'"actor":"ann"', b'"actor":null'),
        BODY.replace(b'"uses":3', b'"uses":3.5'),
        BODY.replace(b'"uses":3', b'"uses":[]'),
        BODY.replace(b'"actor":"ann",', b""),
        BODY.replace(b'"actor":"ann"', b'"actor":"ann","also":"bob"'),
        BODY.replace(b'"actor":"ann"', b'"actor":"bob","actor":"ann"'),
        BODY.replace(b":7", b": 7"),
        BODY.replace(b"\xc3\xb6", b"\\u00f6"),
        json.dumps(json.loads(BODY), sort_keys=False, separators=(",", ":")).encode() + b" ",
    ],
)
def test_bytes_in_any_other_form_are_no_entry(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json and unicode errors are ValueErrors of their own wording
        JournalEntry.from_body(body)


def test_an_entry_s_hash_covers_the_entry_before_and_the_body() -> None:
    previous = genesis("acme.example")
    assert chained(previous, BODY) == hashlib.sha256(previous + BODY).digest()
    assert chained(previous, BODY) != chained(previous, BODY + b" ")
    assert chained(previous, BODY) != chained(chained(previous, BODY), BODY)


def test_each_account_s_chain_begins_elsewhere() -> None:
    assert genesis("acme.example") == hashlib.sha256(b"enlist journal v1\x00acme.example").digest()
    assert genesis("acme.example") != genesis("beta.example")
