"""Meeting the primary: making sure, before anything is told to it, that it is the one that was accepted."""

from __future__ import annotations

from enlist.certificates import Authority
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.transport.dialer import Dialer
from enlist_secondary import checks, identity, state
from enlist_secondary.checks import Clock, Primary
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.known_primaries import KnownPrimaries

_ALARMING = frozenset({Reason.IDENTITY_CHANGED, Reason.TLS_INTERCEPTED})
_LOG = Log("enlist.secondary")


async def meet(dialer: Dialer, config: SecondaryConfig, authority: Authority, now: Clock) -> Primary:
    """Reaches the configured primary; anybody but `authority` there is refused, and an alarm in the state."""
    shown = ""
    try:
        primary = await checks.reach(dialer, config.address, now)
        shown = primary.authority.fingerprint
        checks.check_own(primary, authority)
    except Refused as refused:
        await raise_alarm(config, refused, shown, int(now()))
        raise
    await state.update(config.folder, lambda known: known.met(primary.address, primary.name, primary.ssl_port))
    return primary


async def raise_alarm(
    config: SecondaryConfig, refused: Refused, fingerprint: str, now: int, address: Address | None = None
) -> None:
    """Remembers a stranger met at the primary's API port, or at `address`, for the primary's administrator to hear of.

    A refusal for another reason is none. `fingerprint` is empty if the stranger showed no authority.
    """
    if refused.reason in _ALARMING:
        met_at = str(address or config.address)
        _LOG.alarm("a stranger answered for the primary", address=met_at, reason=refused.reason, fingerprint=fingerprint)
        await state.update(config.folder, lambda known: known.alarmed(met_at, fingerprint, now))


async def prepare(dialer: Dialer, config: SecondaryConfig, now: Clock) -> Identity:
    """This server's identity under a configuration, made if there is none and nobody needs to be asked.

    Refuses with IDENTITY_NOT_CONFIRMED if the primary is not, or no longer, among the known primaries and nothing else vouches for
    it.
    """
    mine = identity.load(config.folder)
    known = KnownPrimaries.load(config.data_folder)
    if mine is not None and known.holds(mine.authority.primary_id):
        return mine
    primary = await checks.reach(dialer, config.address, now)
    way = await checks.vouched(dialer, primary, known, None, config.company_ca, config.confirm_identity)
    if way is None:
        raise not_confirmed(primary)
    await to_the_end(known.accept, primary.authority, config.address, way, "", int(now()))
    return await to_the_end(identity.make, config.folder, primary.authority)


def not_confirmed(primary: Primary) -> Refused:
    """The refusal where a person must compare the fingerprint, and none is there."""
    shown = primary.authority.fingerprint
    message = f"The primary at {primary.address}, with the fingerprint {shown}, has not been accepted at this server."
    return Refused(Reason.IDENTITY_NOT_CONFIRMED, message)
