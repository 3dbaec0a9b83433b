"""Users, tokens, and who is behind a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from enlist import names
from enlist_primary.model.accounts import PRIMARY

_TOKEN = re.compile(r"enlu_([a-z2-7]{10})_([a-z2-7]{32})")


class Role(StrEnum):
    """What a user may do: read, or decide as well."""

    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True)
class User:
    """A user's row. A user of the account `.` stands over all accounts."""

    id: str
    name: str
    role: Role
    account: str
    token_hash: bytes
    created_at: int

    def sees(self, account: str) -> bool:
        """Whether the account is for this user's eyes."""
        return self.account in (PRIMARY, account)


class Token(NamedTuple):
    """A bearer token, taken apart."""

    user_id: str
    secret: str


def make_token(user_id: str, random_bytes: Callable[[int], bytes]) -> str:
    """A fresh token for a user: 160 random bits."""
    secret = "".join(names.new_id(random_bytes) for _ in range(4))[:32]
    return f"enlu_{user_id}_{secret}"


def parse_token(text: str) -> Token | None:
    """Takes a token apart, or None if it is none."""
    found = _TOKEN.fullmatch(text)
    return Token(found[1], found[2]) if found else None


class Actor(NamedTuple):
    """Who decides, for the journal: `who`, how that one is logged on, and from which address (empty where there is none)."""

    who: str
    method: str
    source: str


PRIMARY_ITSELF = Actor("primary", "itself", "")
