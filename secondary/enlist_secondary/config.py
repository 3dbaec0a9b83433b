"""The secondary's configuration: what an administrator answered to the wizard, one TOML file made to be read and edited."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import config as toml
from enlist.runtime import files, formats
from enlist.runtime.terminal import escape
from enlist_secondary.handlers import tables

DEFAULT_PATH = Path("/etc/enlist/secondary.toml")
DEFAULT_DATA = Path("/var/lib/enlist/secondary")

_ENROLMENT = re.compile(r"[a-z0-9]{1,32}")


class LocalPrimary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The primary on this machine whose secondaries shall be seen, and reached, from above."""

    socket: str


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
    handlers: dict[str, Any] = {}  # msgspec gives every structure one of its own
    """The owner's tables as they stand in the file; `handlers.tables.parse` reads them."""
    local_primary: LocalPrimary | None = None

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

    @property
    def handler_files(self) -> Path:
        """What stood where policies write files; the hyphen keeps it apart from enrolments' folders."""
        return self.data_folder / "handler-files"

    def with_owners_tables(self, standing: SecondaryConfig) -> SecondaryConfig:
        """This with what the owner of the machine wrote into another: no question of the wizard is about it."""
        return msgspec.structs.replace(self, handlers=standing.handlers, local_primary=standing.local_primary)


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
    """Reads and checks a configuration.

    Refuses with CONFIG_MISSING, FILE_UNSAFE, FORMAT_OLD, VERSION_INCOMPATIBLE, or CONFIG_INVALID naming file, line and key.
    """
    config = toml.load(path, SecondaryConfig)
    for key, check in _CHECKS.items():
        try:
            check(getattr(config, key))
        except Refused as refused:
            wrong = refused.key if isinstance(refused, tables.Misconfigured) else key
            raise Refused(Reason.CONFIG_INVALID, f"{path}: {_where(path, wrong)}: {refused.message}") from None
    return config


def _where(path: Path, key: str) -> str:
    """A dotted key and the line on which it stands; if it is missing, on which its table begins."""
    text = files.read(path).decode()
    line = toml.line_of(text, key) or toml.line_of(text, key.rpartition(".")[0])
    return f"line {line}: {escape(key)}" if line else escape(key)


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


def _local_primary(given: LocalPrimary | None) -> None:
    if given is not None:
        tables.check("local_primary.socket", tables.file_path, given.socket)


_CHECKS: dict[str, Callable[[Any], object]] = {
    "primary": names.address,
    "account": names.account_domain,
    "name": names.display_name,
    "server_address": _server_address,
    "data": _absolute,
    "enrolment": _enrolment,
    "company_ca": _company_ca,
    "handlers": tables.parse,
    "local_primary": _local_primary,
}


def render(config: SecondaryConfig) -> str:
    """The configuration as TOML, each key under the comment that explains it; then the owner's tables."""
    parts = [f"# {comment}\n{key} = {toml.quote(getattr(config, key))}\n" for key, comment in COMMENTS.items()]
    parts += [_HANDLERS, *_handler_tables(config.handlers)]
    if config.local_primary is not None:
        parts += [_LOCAL_PRIMARY, _table("local_primary", {"socket": config.local_primary.socket})]
    return "\n".join([_HEADING, *parts])


_HEADING = f"""\
# The configuration of an Enlist secondary. `enlist-setup` changes it; so may you.

# The format of this file; every release says which it reads.
format = {formats.FORMAT}
"""
_HANDLERS = """\
# What policies and tasks of a kind do here stands in tables [handlers.policy.KIND] and [handlers.task.KIND]. A primary can name
# a kind, and never a file or a program. `enlist-setup` keeps these tables, but not the comments in them.
"""
_LOCAL_PRIMARY = "# The primary on this machine: its secondaries are seen from above.\n"


def _handler_tables(handlers: dict[str, Any]) -> list[str]:
    return [_table(f"handlers.{purpose}.{kind}", table) for purpose, kinds in handlers.items() for kind, table in kinds.items()]


def _table(name: str, table: dict[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items()), ""])


def _value(value: str | list[str]) -> str:
    return toml.quote(value) if isinstance(value, str) else f"[{', '.join(map(toml.quote, value))}]"


def next_path(path: Path) -> Path:
    """Where the configuration of a different primary waits until that one has authorized this server."""
    return path.with_name(path.name + ".next")


def backup_path(path: Path) -> Path:
    """Where the configuration before the last change is kept."""
    return path.with_name(path.name + ".bak")


def switch(path: Path) -> SecondaryConfig:
    """Lets the waiting configuration take over: the old one is kept as the backup, then one rename. Returns what now holds.

    If somebody else switched meanwhile, theirs holds. Whoever writes the configuration holds its `files.turn` as this does.
    """
    with files.turn(path):
        if next_path(path).exists():
            _take_over(path)
        return load(path)


def _take_over(path: Path) -> None:
    waiting = next_path(path)
    staged = load(waiting)  # never replace a good configuration by one that cannot be read
    _keep_owners_tables(staged, path)
    files.write(backup_path(path), files.read(path))
    try:
        waiting.replace(path)
    except FileNotFoundError:  # a person took it away, who takes no turns
        pass
    except OSError as error:
        raise files.failed(path, error) from error


def _keep_owners_tables(staged: SecondaryConfig, path: Path) -> None:
    """Into the waiting configuration goes what the owner wrote into the other one since it waits."""
    with contextlib.suppress(Refused):  # the one that stands is damaged: what waits has them as they were
        if (kept := staged.with_owners_tables(load(path))) != staged:
            files.write(next_path(path), render(kept).encode())
