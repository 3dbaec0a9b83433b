"""The primary's configuration: `primary.toml` in the data folder, raw TOML into one frozen structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import config as toml
from enlist.runtime import formats

LONGEST = 10 * 365 * 86400
"""Seconds that a certificate may be good for at most: as long as the authority's own."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What strangers may use up."""

    pending_per_account: int = 500
    pending_per_address: int = 50
    attempts_per_minute: int = 30


class Certificates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long certificates last, and the company's own for the API port."""

    lifetime: str = "30d"
    api_certificate: str = ""
    api_key_file: str = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The validated configuration of a primary."""

    name: str
    listen: str = "::"
    advertise: tuple[str, ...] = ()
    ssl_port: int = names.SSL_PORT
    api_port: int = names.API_PORT
    reflection: bool = False
    limits: Limits = Limits()
    certificates: Certificates = Certificates()


def load(path: Path) -> Config:
    """Reads and checks the configuration of a data folder."""
    return check(toml.load(path, Config), path)


_PORT = "a port number, 1 to 65535 (0 lets the system choose), and another one than the other port's"
_POSITIVE = "a number above 0"

_RULES: tuple[tuple[str, str, Callable[[Config], object]], ...] = (
    ("name", "a name", lambda c: names.display_name(c.name)),
    ("listen", "an address of this machine", lambda c: names.host(c.listen)),
    ("advertise", "a list of names and addresses", lambda c: [names.host(each) for each in c.advertise] or True),
    ("ssl_port", _PORT, lambda c: 0 <= c.ssl_port < 65536),
    ("api_port", _PORT, lambda c: 0 <= c.api_port < 65536 and (c.api_port != c.ssl_port or c.api_port == 0)),
    ("limits.pending_per_account", _POSITIVE, lambda c: c.limits.pending_per_account > 0),
    ("limits.pending_per_address", _POSITIVE, lambda c: c.limits.pending_per_address > 0),
    ("limits.attempts_per_minute", _POSITIVE, lambda c: c.limits.attempts_per_minute > 0),
    ("certificates.lifetime", "at most ten years", lambda c: toml.duration(c.certificates.lifetime) <= LONGEST),
    (
        "certificates.api_key_file",
        "a file where api_certificate names one, and none where it does not",
        lambda c: bool(c.certificates.api_key_file) == bool(c.certificates.api_certificate),
    ),
)


def check(config: Config, source: Path | str) -> Config:
    """Refuses values that have the right type and still make no sense; names file, line and key."""
    for key, expected, rule in _RULES:
        try:
            problem = "" if rule(config) else f"expected {expected}."
        except Refused as refused:
            problem = refused.message
        if problem:
            line = _line(source, key)
            raise Refused(Reason.CONFIG_INVALID, f"{source}: {f'line {line}: ' if line else ''}{key}: {problem}")
    return config


def _line(source: Path | str, key: str) -> int | None:
    try:
        return toml.line_of(Path(source).read_text(), key)
    except (OSError, UnicodeDecodeError):
        return None


def render(config: Config) -> str:
    """The file as `init` writes it."""
    advertise = ", ".join(toml.quote(each) for each in config.advertise)
    return f"""# Configuration of an Enlist primary. `enlist-primary serve` reads it when it starts.

# The format of this file; every release says which it reads.
format = {formats.FORMAT}

# The primary's own name, shown to whoever connects.
name = {toml.quote(config.name)}

# The address to listen at; "::" is every address of this machine, IPv4 and IPv6.
listen = {toml.quote(config.listen)}

# The addresses it goes by, as DNS names or IP addresses. The first one stands in join lines.
advertise = [{advertise}]

# Where trusted servers stay connected.
ssl_port = {config.ssl_port}

# Where servers ask to join, and people and tools log on.
api_port = {config.api_port}

# More keys, with their defaults:
#
# reflection = false              # let tools list the services (gRPC reflection)
#
# [limits]
# pending_per_account = 500       # requests of an account that wait, or were taken back within 7 days
# pending_per_address = 50        # of them, from one address and without an API key
# attempts_per_minute = 30        # refused attempts from one address before it must wait
#
# [certificates]
# lifetime = "30d"                # of the secondaries' certificates, and of the primary's own
# api_certificate = ""            # PEM file of a certificate of the company's CA, for the API port
# api_key_file = ""               # PEM file of its private key
"""
