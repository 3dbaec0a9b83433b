"""`doctor`: every check in its turn, going on as far as it can, each with its reason code and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enlist import certificates
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files, standings
from enlist.runtime.terminal import moment
from enlist.transport.dialer import Dialer
from enlist_secondary import api_key, checks, enrol, identity, meeting, state
from enlist_secondary.checks import Clock, Primary
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.known_primaries import KnownPrimaries


@dataclass(frozen=True)
class Stage:
    """One check. `ok` is None where it could not be tried, or has nothing to say; `reason` is empty unless it failed."""

    name: str
    ok: bool | None
    reason: str
    message: str
    advice: str


_REACHING: Mapping[str, frozenset[Reason]] = {
    "name": frozenset({Reason.NAME_NOT_FOUND}),
    "TCP": frozenset({Reason.UNREACHABLE}),
    "TLS": frozenset({Reason.NOT_ENLIST, Reason.TIMED_OUT, Reason.TLS_INTERCEPTED, Reason.CERTIFICATE_INVALID}),
    "version": frozenset({Reason.VERSION_INCOMPATIBLE}),
    "clock": frozenset({Reason.CLOCK_SKEW}),
}
"""The stages of `checks.reach`, and the reasons for which each fails."""

_API_KEY = frozenset(reason for reason in Reason if reason.startswith("API_KEY_"))


async def diagnose(dialer: Dialer, config: SecondaryConfig, now: Clock) -> list[Stage]:
    """All checks of a secondary. Tells the primary nothing before its identity is sure, and raises nothing but damaged files."""
    dialer = dialer.attempt()
    mine = identity.load(config.folder)
    primary, stages = await _reach(dialer, config, now)
    identity_stage = await _identity(dialer, config, mine, primary)
    stages.append(identity_stage)
    stages += await _asking(dialer, config, mine, primary if identity_stage.ok else None)
    stages.append(await _ssl_port(dialer, config, mine, primary, now))
    stages.append(_machine(config, mine))
    stages.append(_certificate(mine, int(now())))
    stages.append(_state(config, mine))
    return stages


async def _reach(dialer: Dialer, config: SecondaryConfig, now: Clock) -> tuple[Primary | None, list[Stage]]:
    try:
        primary = await checks.reach(dialer, config.address, now)
    except Refused as refused:
        return None, list(_stopped_at(refused))
    said = {
        "name": f"{config.address.host} is found.",
        "TCP": f"{config.address} answers.",
        "TLS": "The certificate served is one the primary answers for.",
        "version": f'"{primary.name}" runs Enlist {primary.version}.',
        "clock": "The clocks agree.",
    }
    return primary, [_passed(name, message) for name, message in said.items()]


def _stopped_at(refused: Refused) -> Iterator[Stage]:
    """What came before the failed check passed; what comes after was not tried."""
    before = True
    for name, reasons in _REACHING.items():
        if refused.reason in reasons:
            before = False
            yield _failed(name, refused)
        else:
            yield _passed(name, "") if before else _untried(name)


async def _identity(dialer: Dialer, config: SecondaryConfig, mine: Identity | None, primary: Primary | None) -> Stage:
    if primary is None:
        return _untried("identity")
    try:
        known = KnownPrimaries.load(config.data_folder)
        if mine:
            checks.check_own(primary, mine.authority)
        way = await checks.vouched(dialer, primary, known, None, config.company_ca, config.confirm_identity)
        if way is None:
            raise meeting.not_confirmed(primary)
    except Refused as refused:
        return _failed("identity", refused)
    return _passed("identity", f"The primary's fingerprint is {primary.authority.fingerprint} ({way}).")


async def _asking(dialer: Dialer, config: SecondaryConfig, mine: Identity | None, primary: Primary | None) -> list[Stage]:
    """The account and the API key, which is no fault once this server has asked: its own request may have used it up."""
    if primary is None:
        return [_untried("account"), _untried("API key")]
    account = _passed("account", f"The primary has the account {config.account}.")
    told, secret = state.load(config.folder), api_key.load(config.folder)
    needed = told.state == state.NEW and (mine is None or mine.certificate is None)
    try:
        await checks.validate(dialer, primary, config.account, secret)
    except Refused as refused:
        if refused.reason not in _API_KEY:
            return [_failed("account", refused), _untried("API key")]
        if not needed:
            return [account, _untried("API key", "Not needed any more.")]
        if told.asked:
            return [account, _untried("API key", "This server has asked with it; nobody knows yet what came of that.")]
        return [account, _failed("API key", refused)]
    return [account, _passed("API key", "It is good." if secret else "None is kept.")]


async def _ssl_port(dialer: Dialer, config: SecondaryConfig, mine: Identity | None, primary: Primary | None, now: Clock) -> Stage:
    kept = state.load(config.folder).ssl_port
    authority = mine.authority if mine else primary.authority if primary else None
    port = primary.ssl_port if primary else kept
    if authority is None or not port:
        return _untried("SSL port")
    address = Address(config.address.host, port)
    try:
        await checks.reach_ssl_port(dialer, address, authority, now)
    except Refused as refused:
        return _failed("SSL port", refused)
    return _passed("SSL port", f"{address} answers with the primary's own certificate.")


def _machine(config: SecondaryConfig, mine: Identity | None) -> Stage:
    if mine is None:
        return _untried("machine", "This server has no key yet.")
    try:
        identity.check_machine(config.folder)
    except Refused as refused:
        return _failed("machine", refused)
    return _passed("machine", "Nothing shows that this server's key was copied from another machine.")


def _certificate(mine: Identity | None, now: int) -> Stage:
    if mine is None or mine.certificate is None:
        return _untried("certificate", "This server holds none yet.")
    ends = moment(certificates.ends_at(mine.certificate))
    if mine.usable(now):
        return _passed("certificate", f"This server's certificate is good until {ends}.")
    return _failed("certificate", Refused(Reason.CERTIFICATE_EXPIRED, f"This server's certificate was good until {ends}."))


def _state(config: SecondaryConfig, mine: Identity | None) -> Stage:
    told = state.load(config.folder)
    problem = told.last_problem
    running = files.locked(config.lock)
    if problem is not None and (running or problem.reason in enrol.FINAL):
        return Stage("state", False, problem.reason, problem.message, checks.advice(problem.reason))
    if told.state not in (state.NEW, state.PENDING, state.TRUSTED):
        return _failed("state", standings.not_trusted(told.state, told.since or 0, told.reason))
    if not running:
        return _failed("state", Refused(Reason.NOT_RUNNING, f"{_where(told)}, but enlist-secondary does not run."))
    if told.state == state.PENDING:
        return Stage("state", True, "", f"{_where(told)}.", _awaited(config, told, mine))
    return _passed("state", f"{_where(told)}, and {'connected' if told.connected else 'not connected'}.")


def _where(told: state.State) -> str:
    if told.since is None:
        return "This server has not been told where it stands"
    if told.state == state.PENDING:
        return f"{standings.SENTENCES[told.state]} since {moment(told.since)}"
    return f"This server is {told.state} since {moment(told.since)}"


def _awaited(config: SecondaryConfig, told: state.State, mine: Identity | None) -> str:
    """Who is to do what, so that a pending server becomes trusted."""
    code = f", who compares the code {mine.comparison_code(config.account)}" if mine else ""
    return f"Nothing is to be mended here: ask {told.contact or 'an administrator of the account'} to decide{code}."


def _passed(name: str, message: str) -> Stage:
    return Stage(name, True, "", message, "")


def _untried(name: str, message: str = "Not tried.") -> Stage:
    return Stage(name, None, "", message, "")


def _failed(name: str, refused: Refused) -> Stage:
    return Stage(name, False, refused.reason.value, refused.message, checks.advice(refused.reason))
