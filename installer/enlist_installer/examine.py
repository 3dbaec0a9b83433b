"""The checks of answers against the primary, in their order; the same for a person's answers and for unattended ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.transport.dialer import Dialer
from enlist_installer.answers import Answers
from enlist_secondary import checks, meeting
from enlist_secondary.checks import Clock, Primary, Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.known_primaries import KnownPrimaries


@dataclass(frozen=True)
class Met:
    """A primary that was reached at both its ports, and how it is vouched for: None if a person must compare its fingerprint."""

    primary: Primary
    way: Way | None


async def meet(
    dialer: Dialer, address: Address, answers: Answers, data: Path, now: Clock, alarmed: SecondaryConfig | None = None
) -> Met:
    """Reaches a primary and looks who it is, before anything is told to it.

    A stranger at the address of the enrolment that stands, `alarmed`, is an alarm there.
    """
    dialer = dialer.attempt()
    primary = await checks.reach(dialer, address, now)
    try:
        way = await checks.vouched(
            dialer,
            primary,
            KnownPrimaries.load(data),
            answers.primary_fingerprint,
            answers.company_ca or "system",
            answers.confirm_identity or "auto",
        )
    except Refused as refused:
        if alarmed is not None and alarmed.address == address:
            await meeting.raise_alarm(alarmed, refused, primary.authority.fingerprint, int(now()))
        raise
    await checks.reach_ssl_port(dialer, primary.ssl_address, primary.authority, now)
    return Met(primary, Way.JOIN_LINE if way is Way.FINGERPRINT and answers.joined else way)


async def account(dialer: Dialer, primary: Primary, domain: str) -> None:
    """Refuses an account domain that the primary does not have. That it wants an API key is a question of its own."""
    try:
        await checks.validate(dialer, primary, domain, "")
    except Refused as refused:
        if refused.reason is not Reason.API_KEY_REQUIRED:
            raise
