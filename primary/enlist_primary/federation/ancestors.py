"""The primaries above: what came from them, verified here too, kept, and handed down unchanged to every link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from enlist import ancestry, certificates, documents
from enlist.ancestry import Above
from enlist.documents import DesiredSet, Origin
from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer
from enlist_primary.changes.publisher import AncestorChange
from enlist_primary.model import levels as model
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import Desired
from enlist_primary.model.levels import UpperState
from enlist_primary.operations import levels
from enlist_primary.store import desired as bodies_of
from enlist_primary.store import levels as rows
from enlist_primary.store.database import Database, Transaction

LATE_RUNS = 200
"""Runs wanted from above no more of which a late word is still said upward, at most: as many as an account there has at once."""

log = Log("upper")


@dataclass(frozen=True)
class Kept:
    """A set from above: as it was signed, and as it was verified."""

    signed: document_pb2.SignedSet
    verified: DesiredSet
    desired: Desired


class Upper:
    """What stands above this primary. Links compare `version` with what they handed down last."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        publish: Callable[[AncestorChange], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is Unix seconds."""
        self._database = database
        self._signer = signer
        self._publish = publish
        self._clock = clock
        self._row: model.Upper | None = None
        self._above: list[Above] = []
        self._sets: dict[str, Kept] = {}
        self._late: dict[tuple[str, str], None] = {}
        self._subjects: frozenset[tuple[str, str]] | None = None
        self._lock = asyncio.Lock()
        self.message = document_pb2.Ancestry()
        """The ancestry as it is handed down."""
        self.connected = False
        self.connected_at: int | None = None
        """Whether the link to the primary above is open, and when it last opened or closed, as the secondary on this host says."""
        self.refusal = ""
        """Why the primary above refuses this one, for people; empty if it does not."""
        self.version = 0

    async def load(self) -> None:
        """Reads what is kept. What cannot be verified any more is as if it had never come."""
        self._row, sets = await self._database.read(_load)
        try:
            self._take_row(self._row)
        except (Refused, DecodeError) as error:
            log.warning("the primaries above cannot be read; the secondary on this host tells them again", problem=str(error))
        for signed in sets.values():
            try:
                kept = document_pb2.SignedSet.FromString(signed)
                self._keep(kept, self._verified(kept))
            except (Refused, DecodeError) as error:
                log.warning("a set from above cannot be read", problem=str(error))

    def _take_row(self, row: model.Upper | None) -> None:
        self._row = row
        self.message = document_pb2.Ancestry.FromString(row.ancestry) if row is not None else document_pb2.Ancestry()
        self._above = ancestry.verify(self.message, self._signer.authority)
        origins = self.origins
        self._sets = {origin: kept for origin, kept in self._sets.items() if origin in origins}
        self._subjects = None

    def _verified(self, signed: document_pb2.SignedSet) -> DesiredSet:
        origin = self.origins.get(signed.origin)
        if origin is None:
            raise Refused(Reason.SET_INVALID, "A set came of a primary that does not stand above this one.")
        return documents.verify(signed, origin)

    def _keep(self, signed: document_pb2.SignedSet, verified: DesiredSet) -> None:
        if (before := self._sets.get(signed.origin)) is not None:
            self._late |= dict.fromkeys(each for each in before.desired.subjects if each[0].startswith(documents.TASK))
            self._late = dict(list(self._late.items())[-LATE_RUNS:])
        self._sets[signed.origin], self._subjects = Kept(signed, verified, Desired(verified.items)), None

    # --- What is known ------------------------------------------------------------------------------------------------------------

    @property
    def row(self) -> model.Upper | None:
        """The primary right above, or the last that was."""
        return self._row

    @property
    def above(self) -> Sequence[Above]:
        """All primaries above, the nearest first."""
        return self._above

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Whose sets are taken, by fingerprint."""
        return {each.authority.fingerprint: each.origin for each in self._above}

    @property
    def fingerprints(self) -> frozenset[str]:
        """This primary and all above it: none of them can stand below."""
        return frozenset({self._signer.authority.fingerprint, *self.origins})

    @property
    def sets(self) -> Sequence[Kept]:
        """What is handed down, the top-most primary's first."""
        return [self._sets[each] for each in reversed(list(self.origins)) if each in self._sets]

    @property
    def items(self) -> frozenset[tuple[str, str]]:
        """What servers below may speak of because of the primaries above: (kind, run or nothing).

        Of runs wanted no more as well: while this primary was cut off from those above, their time may have ended there.
        """
        if self._subjects is None:
            self._subjects = frozenset(self._late).union(*(kept.desired.subjects for kept in self._sets.values()))
        return self._subjects

    def held(self) -> Iterator[document_pb2.Held]:
        """Which sets are here, for the secondary on this host to send only others."""
        for origin, kept in self._sets.items():
            stamp = kept.verified.stamp
            digests = sorted(kept.desired.digests)
            content = kept.verified.content
            yield document_pb2.Held(origin=origin, epoch=stamp.epoch, number=stamp.number, content=content, digests=digests)

    # --- What comes -------------------------------------------------------------------------------------------------------------

    async def join(self, upper_authority: bytes, name: str, state: UpperState, now: int) -> pb.LowerPrimary | None:
        """Consents to stand under a primary, or notes that it is above no more; the consent, if there is one."""
        authority = certificates.read_authority(upper_authority)
        if authority.fingerprint == self._signer.authority.fingerprint:
            raise Refused(Reason.WOULD_LOOP, "A primary cannot stand above itself.")
        row = await self._database.write(
            PRIMARY,
            levels.stand_under,
            upper_authority,
            authority.public_key,
            authority.fingerprint,
            name,
            state,
            self._signer.sign_consent,
            now,
        )
        if row != self._row:
            self._take_row(row)
            self._renew()
        if not row.consent:
            return None
        own = certificates.der(self._signer.authority.certificate)
        return pb.LowerPrimary(authority_certificate=own, consent=row.consent, consent_signature=row.signature)

    async def ascend(self, said: document_pb2.Ancestry) -> None:
        """Takes who stands above. Refused: SET_INVALID, WOULD_LOOP, SET_STALE."""
        async with self._lock:
            if self._row is None:
                return
            found = ancestry.verify(said, self._signer.authority)
            held = {origin: kept.verified.stamp for origin, kept in self._sets.items()}
            memory = self._row.memory.after(found, self._signer.authority, held)
            origins = [each.authority.fingerprint for each in found]
            row = await self._database.write(PRIMARY, levels.ascend, said.SerializeToString(), origins, memory, self._now())
            if row is not None and row != self._row:
                self._take_row(row)
                self._renew()

    def seen(self, connected: bool, at: int | None, refusal: str) -> None:
        """How the secondary on this host fares with the primary above."""
        self.connected, self.connected_at, self.refusal = connected, at, refusal
        self._publish(AncestorChange(self.version))

    def disconnected(self, now: int) -> None:
        """The secondary on this host has gone."""
        self.connected, self.connected_at = False, now
        self._publish(AncestorChange(self.version))

    async def complete(self, signed: document_pb2.SignedSet, bodies: Mapping[bytes, bytes]) -> bool:
        """Whether all bodies of a set are here, or among these. One that is not to be trusted is refused by `take`."""
        try:
            digests = {item.digest for item in document_pb2.DesiredSet.FromString(signed.desired_set).items}
        except DecodeError:
            return True
        missing = [digest for digest in digests if digest not in bodies]
        return await self._database.read(bodies_of.has_bodies, PRIMARY, missing)

    async def take(self, signed: document_pb2.SignedSet, bodies: Mapping[bytes, bytes]) -> None:
        """Takes a complete set of a primary above: bodies by their digests. Refused as `documents.verify` and `supersedes` do."""
        async with self._lock:
            verified = self._verified(signed)
            if self._row is not None:
                self._row.memory.check(verified)
            known = self._sets.get(signed.origin)
            if not documents.supersedes(verified, known.verified if known else None):
                return
            wanted = [(item.digest.hex(), bodies[item.digest]) for item in verified.items if item.digest in bodies]
            await self._database.write(PRIMARY, levels.hand_down, signed.origin, signed.SerializeToString(), wanted, self._now())
            self._keep(signed, verified)
            self._renew()

    def _now(self) -> int:
        return int(self._clock())

    def _renew(self) -> None:
        """What is handed down is another from now on."""
        self.version += 1
        self._publish(AncestorChange(self.version))


def _load(tx: Transaction) -> tuple[model.Upper | None, dict[str, bytes]]:
    return rows.upper(tx), rows.upper_sets(tx)
