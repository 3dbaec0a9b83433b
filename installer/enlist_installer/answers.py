"""What was answered before anybody asked: flags, an answers file, a join line, the environment.

Each question has one name everywhere: the flag `--server-address` is the key `server_address` of the answers file. A flag goes
before the answers file. A join line must agree with both: where it does not, nobody can tell which was meant, and it is refused.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from enlist import joinline, names
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import config, files
from enlist_secondary.config import DEFAULT_DATA, SecondaryConfig

T = TypeVar("T")

API_KEY_VARIABLE = "ENLIST_API_KEY"
JOIN_VARIABLE = "ENLIST_JOIN"
VARIABLES = (API_KEY_VARIABLE, JOIN_VARIABLE)
STDIN = "-"
_INPUT_LIMIT = 64 * 1024


class MissingAnswer(Exception):
    """An answer that cannot be done without, and nobody to ask for it."""


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answers as they were typed, by flags or in an answers file; None is "not given"."""

    join_file: str | None = None
    primary: str | None = None
    primary_fingerprint: str | None = None
    account: str | None = None
    api_key_file: str | None = None
    name: str | None = None
    server_address: str | None = None
    config: str | None = None
    data: str | None = None
    confirm_identity: Literal["auto", "always"] | None = None
    company_ca: str | None = None

    def over(self, other: Given) -> Given:
        """These answers, and the other's where there is none."""
        given = {key: value for key, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **given)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers in their normal forms. None is "not given", which an empty answer is not. The API key stays out of the repr."""

    config: Path | None = None
    primary: Address | None = None
    primary_fingerprint: str | None = None
    account: str | None = None
    api_key: str | None = field(default=None, repr=False)
    name: str | None = None
    server_address: str | None = None
    data: Path | None = None
    confirm_identity: Literal["auto", "always"] | None = None
    company_ca: str | None = None
    joined: bool = False
    """Whether a join line is among them."""


def gather(flags: Given, answers_file: str | None, environment: Mapping[str, str], stdin: Callable[[], str]) -> Answers:
    """All answers given beforehand. `stdin` reads standard input, which one secret at most can come from."""
    given = flags.over(read_file(Path(answers_file))) if answers_file else flags
    if given.join_file == given.api_key_file == STDIN:
        raise _refuse("Standard input can hold the join line or the API key, not both.")
    line = _secret(given.join_file, environment.get(JOIN_VARIABLE), stdin)
    api_key = _secret(given.api_key_file, environment.get(API_KEY_VARIABLE), stdin)
    answers = normal(given, api_key)
    return answers if line is None else joined(answers, joinline.parse(line))


def read_file(path: Path) -> Given:
    """Reads an answers file: TOML, its keys the flags with underscores. What does not fit, key or value, is named with its line."""
    return config.parse(_read(path), Given, str(path))


def _secret(source: str | None, variable: str | None, stdin: Callable[[], str]) -> str | None:
    """A secret from a file (`-` for standard input), else from the environment; never from an argument, which others can see."""
    if source is None:
        return variable.strip() if variable else None
    return (stdin() if source == STDIN else _read(Path(source)).decode(errors="replace")).strip()


def _read(path: Path) -> bytes:
    """A file that a person named: theirs to choose, so that `<(command)` and links to mounted secrets are good as well."""
    try:
        with path.open("rb") as file:
            return file.read(_INPUT_LIMIT)
    except OSError as error:
        raise files.failed(path, error) from error


def read_stdin() -> str:
    """Standard input, to its end, or as much as any answer of ours may have."""
    return sys.stdin.read(_INPUT_LIMIT)


def normal(given: Given, api_key: str | None) -> Answers:
    """The answers in their normal forms; one that has none is refused under its flag's name."""
    return Answers(
        config=_form("config", given.config, path),
        primary=_form("primary", given.primary, names.address),
        primary_fingerprint=_form("primary-fingerprint", given.primary_fingerprint, names.fingerprint),
        account=_form("account", given.account, names.account_domain),
        api_key=api_key,
        name=_form("name", given.name, names.display_name),
        server_address=_form("server-address", given.server_address, optional_host),
        data=_form("data", given.data, path),
        confirm_identity=given.confirm_identity,
        company_ca=_form("company-ca", given.company_ca, _company_ca),
    )


def _form(flag: str, value: str | None, check: Callable[[str], T]) -> T | None:
    try:
        return None if value is None else check(value)
    except Refused as refused:
        raise Refused(refused.reason, f"--{flag}: {refused.message}") from None


def optional_host(text: str) -> str:
    """A name or an IP address, or nothing."""
    return names.host(text) if text else ""


def path(text: str) -> Path:
    """An absolute path; `~` is one's home."""
    if not text or not names.printable(text):
        raise _refuse("A path was expected.")
    return Path(text).expanduser().absolute()


def _company_ca(text: str) -> str:
    return text if text in ("system", "none") else str(path(text))


def of(config: SecondaryConfig) -> Answers:
    """What a configuration answers."""
    return Answers(
        primary=config.address,
        account=config.account,
        name=config.name,
        server_address=config.server_address,
        data=config.data_folder,
        confirm_identity=config.confirm_identity,
        company_ca=config.company_ca,
    )


def filled(given: Answers, standing: SecondaryConfig) -> Answers:
    """The answers, and those of the configuration that stands where there is none."""
    return _filled(given, standing, [each.name for each in fields(Answers)])


def with_policy(given: Answers, standing: SecondaryConfig) -> Answers:
    """The answers, and what the configuration that stands says about matters that no question is about."""
    return _filled(given, standing, ["data", "confirm_identity", "company_ca"])


def _filled(given: Answers, standing: SecondaryConfig, keys: Iterable[str]) -> Answers:
    before = of(standing)
    return replace(given, **{key: getattr(before, key) for key in keys if getattr(given, key) is None})


def wanted(given: Answers) -> SecondaryConfig:
    """The configuration these answers lead to; address and account must be among them. Its enrolment is for the plan to say."""
    if given.primary is None or given.account is None:
        raise MissingAnswer("The primary's address and the account are needed: --primary and --account, or a join line.")
    return SecondaryConfig(
        primary=given.primary.shown(),
        account=given.account,
        name=given.name or own_name() or given.account,
        server_address=given.server_address or "",
        data=str(given.data or DEFAULT_DATA),
        confirm_identity=given.confirm_identity or "auto",
        company_ca=given.company_ca or "system",
    )


def own_name() -> str:
    """This machine's short name, if it can be a display name; else nothing."""
    try:
        return names.display_name(socket.gethostname().partition(".")[0])
    except Refused:
        return ""


def joined(answers: Answers, line: joinline.JoinLine) -> Answers:
    """The answers with the join line's among them; refused where the two contradict each other."""
    if answers.api_key not in (None, line.api_key):
        raise _refuse("--api-key-file and the join line hold different API keys. Give one of them.")
    return replace(
        answers,
        primary=_agreed("primary", answers.primary, line.address),
        primary_fingerprint=_agreed("primary-fingerprint", answers.primary_fingerprint, line.primary_fingerprint),
        account=_agreed("account", answers.account, line.account),
        api_key=line.api_key,
        joined=True,
    )


def _agreed(flag: str, given: T | None, line: T) -> T:
    if given in (None, line):
        return line
    raise _refuse(f"--{flag} says {given}, but the join line says {line}. Leave the flag out, or ask for another join line.")


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, message)
