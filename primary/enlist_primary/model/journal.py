"""The journal's entry, its exact bytes, and the rule that chains one entry to the one before.

The body is JSON in one form only: keys sorted, no spaces, UTF-8 (much like RFC 8785, without floating-point numbers).
What is hashed is the body as it is stored, so a verifier needs no JSON at all to check the chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Detail = str | int | bool | None

_GENESIS = b"enlist journal v1\x00"
_TEXTS = frozenset({"account", "actor", "method", "source", "action", "subject", "evidence"})
_NUMBERS = frozenset({"number", "time"})
_FIELDS = _TEXTS | _NUMBERS | {"detail"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One decision: who made it, how that person was logged on, from where, when, about what, and on what evidence.

    `number` is its place in the account's journal, from 1; it is 0 until `store.journal.append` gives it one. `time` is
    in unix seconds. `subject` is what changed, relative to the account (`servers/abc`), empty for the account itself.
    `detail` holds what else a reader needs, and never a secret.
    """

    account: str
    number: int = 0
    time: int
    actor: str
    method: str
    source: str
    action: str
    subject: str
    evidence: str = "none"
    detail: Mapping[str, Detail] = field(default_factory=dict)

    def body(self) -> bytes:
        """The entry's canonical bytes."""
        values = {name: getattr(self, name) for name in _FIELDS} | {"detail": dict(self.detail)}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_body(cls, body: bytes) -> JournalEntry:
        """The entry whose canonical bytes these are; `ValueError` if they are anything else."""
        fields = json.loads(body)
        if not _well_formed(fields):
            raise ValueError("not a journal entry")
        entry = cls(**fields)
        if entry.body() != body:
            raise ValueError("not in canonical form")
        return entry


def genesis(account: str) -> bytes:
    """What stands before entry 1, and the head's hash of an account without entries (32 bytes).

    It covers the account's domain, so that even a verifier that reads no bodies never takes one account's chain for
    another's.
    """
    return hashlib.sha256(_GENESIS + account.encode()).digest()


def chained(previous: bytes, body: bytes) -> bytes:
    """The hash of an entry: SHA-256 of the previous entry's hash (32 bytes, so nothing can shift) and this body."""
    return hashlib.sha256(previous + body).digest()


def _well_formed(fields: Any) -> bool:
    """Whether what came out of the JSON has exactly an entry's fields, each of its type (a bool is no number here)."""
    return (
        isinstance(fields, dict)
        and fields.keys() == _FIELDS
        and all(type(fields[name]) is str for name in _TEXTS)
        and all(type(fields[name]) is int for name in _NUMBERS)
        and isinstance(fields["detail"], dict)
        and all(value is None or type(value) in (str, int, bool) for value in fields["detail"].values())
    )
