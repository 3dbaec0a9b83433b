"""What is above this primary at one moment: a value, replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from enlist import documents, names
from enlist.ancestry import Above
from enlist.documents import DesiredSet, Origin
from enlist.v1 import document_pb2
from enlist_primary.model.desired import Desired
from enlist_primary.model.levels import Upper


@dataclass(frozen=True)
class StoredSet:
    """A set from above: as it was signed, and as it was verified."""

    signed: document_pb2.SignedSet
    verified: DesiredSet
    desired: Desired


@dataclass(frozen=True)
class AncestrySnapshot:
    """What a reader took fits together, also in another thread and across an await."""

    row: Upper | None = None
    """The primary right above, or the last that was."""
    message: document_pb2.Ancestry = field(default_factory=document_pb2.Ancestry)
    """The ancestry as it is handed down."""
    above: tuple[Above, ...] = ()
    """All primaries above, the nearest first."""
    kept: Mapping[str, StoredSet] = field(default_factory=dict)
    """Their sets, by primary id."""
    version: int = 0

    @cached_property
    def origins(self) -> Mapping[str, Origin]:
        """Whose sets are taken, by primary id."""
        return {each.origin.primary_id: each.origin for each in self.above}

    @cached_property
    def sets(self) -> Sequence[StoredSet]:
        """What is handed down, the top-most primary's first."""
        return [self.kept[each] for each in reversed(list(self.origins)) if each in self.kept]

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The bodies of these sets."""
        return frozenset[bytes]().union(*(kept.desired.digests for kept in self.kept.values()))

    @cached_property
    def items(self) -> frozenset[tuple[str, str]]:
        """What the primaries above want of servers below: (kind, run or nothing)."""
        return frozenset[tuple[str, str]]().union(*(kept.desired.subjects for kept in self.kept.values()))

    def concerns(self, report: document_pb2.Report) -> bool:
        """Whether the primaries above want to hear of this.

        This includes the outcome of a run that has been withdrawn: its deadline may have passed before the server could report.
        """
        if (report.kind, report.name) in self.items:
            return True
        of_a_run = documents.is_outcome(report) and names.is_document_kind(report.kind) and names.is_id(report.name)
        return of_a_run and any(each.origin in self.origins for each in report.observed_items)

    def under(self, row: Upper | None, message: document_pb2.Ancestry, above: Sequence[Above]) -> AncestrySnapshot:
        """Once these are above: of their sets, those stay that are made out for the server their step names now."""
        places = {each.origin.place for each in above}
        kept = {origin: each for origin, each in self.kept.items() if each.verified.place in places}
        return replace(self, row=row, message=message, above=tuple(above), kept=kept, version=self.version + 1)

    def holding(self, kept: StoredSet) -> AncestrySnapshot:
        """Once this set is here."""
        held = {**self.kept, kept.verified.origin: kept}
        return replace(self, kept=held, version=self.version + 1)
