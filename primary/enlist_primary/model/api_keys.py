"""API keys: their form, and what one that is presented is good for."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import moment

_FORM = re.compile(r"enl_([a-z2-7]{10})_([a-z2-7]{32})")
DEFAULT = "default"
"""What a server asked with when it had no API key: the account's default restricted API key."""


class Kind(StrEnum):
    """What an API key lets a server do: ask to join, or join already trusted."""

    RESTRICTED = "restricted"
    FULL = "full"


class Presented(NamedTuple):
    """An API key as a server gives it, taken apart."""

    id: str
    secret: str


@dataclass(frozen=True)
class ApiKey:
    """An API key's row; the secret itself is never stored. Times are Unix seconds, None for none or never."""

    account: str
    id: str
    secret_hash: bytes
    kind: Kind
    created_at: int
    group_id: str | None = None
    group: str = names.ROOT_GROUP
    server_id: str | None = None
    uses: int = 0
    max_uses: int | None = None
    networks: tuple[str, ...] = ()
    expires_at: int | None = None
    revoked_at: int | None = None


def parse(text: str) -> Presented:
    """Takes an API key apart; refused as any wrong one is."""
    found = _FORM.fullmatch(text)
    if not found:
        raise invalid()
    return Presented(found[1], found[2])


def make(id: str, random_bytes: Callable[[int], bytes]) -> str:
    """A fresh API key with this id: 160 random bits."""
    secret = "".join(names.new_id(random_bytes) for _ in range(4))[:32]
    return f"enl_{id}_{secret}"


def hash_of(secret: str) -> bytes:
    """What is stored of a secret: its SHA-256. Secrets of 160 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def invalid() -> Refused:
    """The one answer to every API key whose secret is not right, so that nobody learns which ids there are."""
    return Refused(Reason.API_KEY_INVALID, "The API key is not valid for this account. Check it, or leave it blank to ask.")


def required() -> Refused:
    """The answer to a server without an API key where the account's default restricted API key is switched off."""
    return Refused(Reason.API_KEY_REQUIRED, "This account wants an API key. Ask the account's administrator for one.")


def same_secret(stored: bytes, secret: str) -> bool:
    """Whether this is the secret whose hash is stored; takes as long whether it is or not."""
    return hmac.compare_digest(stored, hash_of(secret))


def matches(key: ApiKey | None, secret: str) -> bool:
    """Whether this is the key's secret; takes as long for a key that is not there."""
    return same_secret(key.secret_hash if key is not None else bytes(32), secret) and key is not None


def check(key: ApiKey, source: str, now: int) -> None:
    """Refuses an API key whose secret matches but which is not good here and now."""
    if key.revoked_at is not None:
        raise Refused(Reason.API_KEY_EXPIRED, f"The API key was revoked on {moment(key.revoked_at)}. Ask for another.")
    if key.expires_at is not None and now >= key.expires_at:
        raise Refused(Reason.API_KEY_EXPIRED, f"The API key expired on {moment(key.expires_at)}. Ask for another.")
    if key.max_uses is not None and key.uses >= key.max_uses:
        raise Refused(Reason.API_KEY_USED_UP, "The API key has been used as often as it may be. Ask for another.")
    if key.networks and not in_networks(source, key.networks):
        raise Refused(Reason.API_KEY_NETWORK, f"The API key is not good from {source}. Use it from one of its networks.")


def network(text: str) -> str:
    """A source network in its one form, CIDR; one of IPv4 addresses seen through IPv6 as what it is, for so are sources."""
    with suppress(ValueError):
        if "%" not in text:  # an IPv6 zone names one machine's interface, and may hold any character
            given = ipaddress.ip_network(text.strip(), strict=False)
            mapped = getattr(given.network_address, "ipv4_mapped", None)
            return str(ipaddress.ip_network((mapped, given.prefixlen - 96)) if mapped and given.prefixlen >= 96 else given)
    raise Refused(Reason.INVALID_ARGUMENT, 'A network is written as CIDR, such as "10.0.0.0/8".')


def in_networks(source: str, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the networks; an IPv4 address seen through IPv6 counts as IPv4."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ipaddress.ip_network(each) for each in networks)
