"""The secondary's configuration: what an administrator answered to the wizard, one TOML file made to be read and edited."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import config as toml
from enlist.runtime import files

DEFAULT_PATH = Path("/etc/enlist/secondary.toml")
DEFAULT_DATA = Path("/var/lib/enlist/secondary")

_ENROLMENT = re.compile(r"[a-z0-9]{1,32}")


class SecondaryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `secondary.toml` says; `load` has checked every value. `COMMENTS` says what each key means."""

    primary: str
    account: str
    name: str
    server_address: str = ""
    data: str
    enrolment: str = "main"
    confirm_identity: Literal["auto", "always"] = "auto"
    company_ca: str = "system"

    @property
    def address(self) -> names.Address:
        """The primary's API port."""
        return names.address(self.primary)

    @property
    def data_folder(self) -> Path:
        """Holds the known primaries, the daemon's lock and one folder per enrolment; 0700."""
        return Path(self.data)

    @property
    def folder(self) -> Path:
        """This enrolment's own folder: its key, its certificate, its state."""
        return self.data_folder / self.enrolment

    @property
    def lock(self) -> Path:
        """Locked for as long as the daemon runs."""
        return self.data_folder / "lock"


COMMENTS = {
    "primary": "The primary server's address: a name or an IP address; a port behind a colon if it is not 13299.",
    "account": "The account's domain, as the primary's administrator gave it.",
    "name": "This server's name for people.",
    "server_address": "The address where clients find this server; may be empty.",
    "data": "The folder of keys, certificates and state.",
    "enrolment": "Which folder in there is this enrolment's; the wizard chooses it.",
    "confirm_identity": '"auto": a company certificate may vouch for the primary. "always": a person compares the fingerprint.',
    "company_ca": 'Who may vouch: "system" (the operating system\'s authorities), the path of a PEM file, or "none".',
}


def load(path: Path) -> SecondaryConfig:
    """Reads and checks a configuration; refuses with CONFIG_MISSING, FILE_UNSAFE, or CONFIG_INVALID naming file, line and key."""
    config = toml.load(path, SecondaryConfig)
    for key, check in _CHECKS.items():
        try:
            check(getattr(config, key))
        except Refused as refused:
            line = toml.line_of(files.read(path).decode(), key)
            where = f"line {line}: {key}" if line else key
            raise Refused(Reason.CONFIG_INVALID, f"{path}: {where}: {refused.message}") from None
    return config


def _absolute(text: str) -> None:
    if not Path(text).is_absolute() or "\0" in text:
        raise Refused(Reason.INVALID_ARGUMENT, "The path of a folder, beginning with a slash, was expected.")


def _enrolment(text: str) -> None:
    if not _ENROLMENT.fullmatch(text):
        raise Refused(Reason.INVALID_ARGUMENT, "1 to 32 lower-case letters and digits were expected.")


def _server_address(text: str) -> None:
    if text:
        names.host(text)


def _company_ca(text: str) -> None:
    if text not in ("system", "none"):
        _absolute(text)


_CHECKS: dict[str, Callable[[str], object]] = {
    "primary": names.address,
    "account": names.account_domain,
    "name": names.display_name,
    "server_address": _server_address,
    "data": _absolute,
    "enrolment": _enrolment,
    "company_ca": _company_ca,
}


def render(config: SecondaryConfig) -> str:
    """The configuration as TOML, each key under the comment that explains it."""
    parts = [f"# {comment}\n{key} = {toml.quote(getattr(config, key))}\n" for key, comment in COMMENTS.items()]
    return "\n".join(["# The configuration of an Enlist secondary. `enlist-setup` changes it; so may you.\n", *parts])


def next_path(path: Path) -> Path:
    """Where the configuration of a different primary waits until that one has authorized this server."""
    return path.with_name(path.name + ".next")


def backup_path(path: Path) -> Path:
    """Where the configuration before the last change is kept."""
    return path.with_name(path.name + ".bak")


def switch(path: Path) -> SecondaryConfig:
    """Lets the waiting configuration take over: the old one is kept as the backup, then one rename. Returns what now holds.

    If somebody else switched meanwhile, theirs holds.
    """
    waiting = next_path(path)
    if waiting.exists():
        load(waiting)  # never replace a good configuration by one that cannot be read
        files.write(backup_path(path), files.read(path))
        try:
            waiting.replace(path)
        except FileNotFoundError:  # the wizard, waiting on screen, was quicker
            pass
        except OSError as error:
            raise files.failed(path, error) from error
    return load(path)
