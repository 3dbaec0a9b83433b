"""What a server remembers of the primaries above it, so that nothing older of theirs counts again. Takes values, does no I/O.

Nothing is evicted: an intermediate that invents primaries above can fill the memory, but not make it forget. A full memory refuses
further primaries with an alarm, and a person clears those that are not above any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from enlist.ancestry import Above
from enlist.certificates import Authority
from enlist.documents import DesiredSet, Place, SetVersion
from enlist.reasons import Reason, Refused

T = TypeVar("T", int, SetVersion)

REMEMBERED = 256
"""Entries of each kind, at most: consents, steps, sets."""
ALARMS = frozenset({Reason.ORIGINS_FULL, Reason.ORIGINS_UNREADABLE})
"""Refusals that last until a person acts."""

_NEVER = SetVersion(0, 0)
_COMMANDS = "`enlist-secondary origins clear {0}`, on a primary `enlist-primary origins clear {0}`"


@dataclass(frozen=True)
class Memory:
    """The newest of each kind that was ever taken. Keys are joined by slashes."""

    consents: Mapping[str, SetVersion] = field(default_factory=dict)
    """Of each child, by primary id: its newest consent to its parent."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """By origin and fingerprint of the child's key: when the newest cross-certificate begins, Unix seconds."""
    sets: Mapping[str, SetVersion] = field(default_factory=dict)
    """By origin, account and server: the newest set that was held before its origin, or its step, was gone."""
    damaged: str = ""
    """What was kept, if that cannot be read: then nothing from above is taken."""

    def after(self, found: Sequence[Above], own: Authority, held: Mapping[Place, SetVersion]) -> Memory:
        """Once these are above `own`; `held` are the versions of the sets held so far.

        Refused: SET_STALE for an older consent or an older step, ORIGINS_FULL, ORIGINS_UNREADABLE.
        """
        self._check_readable()
        consents, steps, sets = dict(self.consents), dict(self.steps), dict(self.sets)
        child = own
        for above in found:
            _advance(consents, child.primary_id, above.version, f"The consent of {child.primary_id} to its parent")
            step = _key(above.origin.primary_id, child.fingerprint)
            _advance(steps, step, above.step, f"The step from {child.primary_id} up to {above.origin.primary_id}")
            sets.setdefault(_key(*above.origin.place), _NEVER)
            child = above.authority
        return self._bounded(Memory(consents, steps, sets)).leaving(held, {above.origin.place for above in found})

    def leaving(self, held: Mapping[Place, SetVersion], staying: Iterable[Place] = ()) -> Memory:
        """Once the sets in other places than these are not held any more."""
        gone = {_key(*place): version for place, version in held.items() if place not in staying}
        newest = {key: max(version, self.sets.get(key, _NEVER)) for key, version in gone.items()}
        return Memory(self.consents, self.steps, {**self.sets, **newest}, self.damaged)

    def check(self, new: DesiredSet) -> None:
        """Refused: SET_STALE for a set older than one held before its origin was gone for a while, ORIGINS_UNREADABLE."""
        self._check_readable()
        newest = self.sets.get(_key(*new.place), _NEVER)
        if new.version < newest:
            raise Refused(Reason.SET_STALE, f"A desired set of {new.version} came after that of {newest}.")

    @property
    def primaries(self) -> Sequence[str]:
        """The ids of all primaries that are remembered. Refused: ORIGINS_UNREADABLE."""
        self._check_readable()
        found = {part for key in self.steps for part in key.split("/")} | {key.split("/")[0] for key in self.sets}
        return sorted(found | set(self.consents))

    def cleared(self, primary_id: str, present: Iterable[str]) -> Memory:
        """Without what is remembered of a primary, or, if the id is empty, of all but those `present`.

        Refused: STATE_FORBIDS for one of those, NOT_FOUND for one that is not remembered, ORIGINS_UNREADABLE.
        """
        there = set(present)
        if not primary_id:
            return Memory() if self.damaged else self._without(set(self.primaries) - there)
        self._check_readable()
        if primary_id in there:
            raise Refused(
                Reason.STATE_FORBIDS, f"{primary_id} is above now: what is remembered of it is what protects from replays."
            )
        if primary_id not in self.primaries:
            raise Refused(Reason.NOT_FOUND, f"Nothing is remembered of {primary_id}.")
        return self._without({primary_id})

    def _without(self, gone: set[str]) -> Memory:
        return Memory(_kept(self.consents, gone), _kept(self.steps, gone), _kept(self.sets, gone))

    def _bounded(self, grown: Memory) -> Memory:
        pairs = ((grown.consents, self.consents), (grown.steps, self.steps), (grown.sets, self.sets))
        if any(len(after) > max(REMEMBERED, len(before)) for after, before in pairs):
            raise Refused(
                Reason.ORIGINS_FULL,
                f"More than {REMEMBERED} primaries have been above: no further one is taken. Clear those that are not above any "
                f"more: {_COMMANDS.format('ID')}.",
            )
        return grown

    def _check_readable(self) -> None:
        if self.damaged:
            raise Refused(
                Reason.ORIGINS_UNREADABLE,
                "What is remembered of the primaries above cannot be read, so nothing of theirs is taken: older sets would count "
                f"again. Restore it from a backup, or begin anew with {_COMMANDS.format('--all')}.",
            )

    def to_json(self) -> str:
        """As it is kept."""
        return self.damaged or json.dumps({"consents": self.consents, "steps": self.steps, "sets": self.sets})

    @classmethod
    def from_json(cls, text: str) -> Memory:
        """As it was kept. What cannot be read remembers that: it is never taken for an empty one."""
        try:
            kept = json.loads(text)
            consents, sets = ({str(k): SetVersion(*map(int, v)) for k, v in kept[each].items()} for each in ("consents", "sets"))
            return cls(consents, {str(key): int(begin) for key, begin in kept["steps"].items()}, sets)
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls(damaged=text or "nothing")


def _key(*parts: str) -> str:
    return "/".join(parts)


def _advance(newest: dict[str, T], key: str, value: T, what: str) -> None:
    if value < newest.get(key, value):
        raise Refused(Reason.SET_STALE, f"{what} is older than one seen before; it was not taken.")
    newest[key] = value


def _kept(entries: Mapping[str, T], gone: set[str]) -> Mapping[str, T]:
    return {key: value for key, value in entries.items() if gone.isdisjoint(key.split("/"))}
