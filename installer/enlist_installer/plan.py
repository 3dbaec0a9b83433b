"""What a run of the installer changes, given what stands and what is wanted. Pure: reads nothing, writes nothing.

An enrolment is a key with one primary in one account. Wanting another primary or another account is therefore a new enrolment with
a key of its own; while the old one is good for something it goes on, and the new one is staged until it has been authorized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from enlist.reasons import Reason, Refused
from enlist_secondary.config import SecondaryConfig

_LINKED = frozenset({"trusted", "suspended"})
"""Where a server stands whose host's primary may stand under the present one."""
_WORTH_KEEPING = frozenset({"pending", "trusted", "suspended"})


class Change(StrEnum):
    """What is different afterwards."""

    NEW = "new"
    NOTHING = "nothing"
    SETTINGS = "settings"
    ADDRESS = "address"
    PRIMARY = "primary"


@dataclass(frozen=True)
class Standing:
    """An enrolment that is there: its configuration, its primary's id if that is known, its last known state."""

    config: SecondaryConfig
    primary_id: str | None
    state: str


@dataclass(frozen=True)
class Wanted:
    """What is wanted: a configuration, whose `enrolment` does not count, and the id of the primary that was reached."""

    config: SecondaryConfig
    primary_id: str
    ask_again: bool = False
    """Whether to ask again after a no; where a key was revoked, only another one may."""
    stay: bool = False
    """Whether a move to a different primary that is under way is given up, if this is the present one."""


@dataclass(frozen=True)
class Plan:
    """What to write: a configuration, and whether beside the present one instead of in its place."""

    change: Change
    config: SecondaryConfig
    staged: bool = False
    drops_staged: bool = False

    @property
    def new_enrolment(self) -> bool:
        """Whether a key is made and the primary asked; otherwise the enrolment that stands goes on."""
        return self.change in (Change.NEW, Change.PRIMARY)

    @property
    def changes(self) -> bool:
        """Whether anything is written at all."""
        return self.change is not Change.NOTHING or self.drops_staged


def plan(wanted: Wanted, current: Standing | None, staged: Standing | None, new_enrolment: str) -> Plan:
    """How to get from what stands to what is wanted; `new_enrolment` names the folder of an enrolment yet to be made."""
    if current is not None:
        wanted = replace(wanted, config=wanted.config.with_owners_tables(current.config))
    fresh = msgspec.structs.replace(wanted.config, enrolment=new_enrolment)
    if current is None:
        return Plan(Change.NEW, fresh)
    if _is_it(current, wanted):
        return replace(_onward(current, wanted.config), drops_staged=wanted.stay and staged is not None)
    if staged is not None and _is_it(staged, wanted):
        return replace(_onward(staged, wanted.config), staged=True)
    if current.config.local_primary is not None and current.state in _LINKED:
        raise Refused(
            Reason.BEQUEST_REQUIRED,
            "A primary on this host stands under the present one. Leave that first, and say what stays of what it set for the "
            "servers below: enlist-secondary leave --below keep, freeze or delete.",
        )
    if current.state in _WORTH_KEEPING:
        return Plan(Change.PRIMARY, fresh, staged=True, drops_staged=staged is not None)
    return Plan(Change.NEW, fresh, drops_staged=staged is not None)


def _is_it(standing: Standing, wanted: Wanted) -> bool:
    """Whether this is already an enrolment in the wanted account of the wanted primary: the key says so, not the address."""
    if standing.primary_id is None:
        same_primary = standing.config.primary == wanted.config.primary
    else:
        same_primary = standing.primary_id == wanted.primary_id
    used_up = wanted.ask_again and standing.state == "revoked"
    return same_primary and standing.config.account == wanted.config.account and not used_up


def _onward(standing: Standing, wanted: SecondaryConfig) -> Plan:
    config = msgspec.structs.replace(wanted, enrolment=standing.config.enrolment)
    if config == standing.config:
        return Plan(Change.NOTHING, config)
    return Plan(Change.SETTINGS if config.primary == standing.config.primary else Change.ADDRESS, config)
