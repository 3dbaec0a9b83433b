"""The primaries above: what came from them, verified here too, kept, and handed down unchanged to every link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import DecodeError

from enlist import ancestry, certificates, documents, origins
from enlist.ancestry import Above
from enlist.documents import DesiredSet, Origin
from enlist.reasons import Reason, Refused
from enlist.runtime.controller import Backoff, Controller, Outcome
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer
from enlist_primary.changes.publisher import AncestorChange, Changes
from enlist_primary.federation.snapshot import AncestrySnapshot, StoredSet
from enlist_primary.model import levels as model
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.desired import Desired
from enlist_primary.model.levels import UpperState
from enlist_primary.model.users import Actor
from enlist_primary.operations import levels
from enlist_primary.store import levels as rows
from enlist_primary.store.changes import Coarse
from enlist_primary.store.database import Database, Transaction

log = Log("upper")

BACKOFF = Backoff(first=0.5, longest=10.0)
"""Pauses after rows that could not be read: until then, links are not told of what has come."""
DEADLINE = 10.0
"""Seconds after which a reading of the rows begins anew."""

_ROWS = "rows"
_CLEARED = "cleared"


class Upper:
    """The ancestors of this primary. Links compare `version` with what they handed down last.

    Who writes puts what was written in the memory here before anybody is told of it. Everybody else hears of it from the change
    log: `run` then reads the rows again, takes over what another writer left there, and publishes.
    """

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
        self.snapshot = AncestrySnapshot()
        """What is above now. A reader of several of its parts takes it once."""
        self._lock = asyncio.Lock()  # held by who changes that, from the decision until it is known here
        self._controller = Controller[str]("primaries above", self._read_again, batch=2, backoff=BACKOFF, deadline=DEADLINE)
        self.cleared = asyncio.Event()
        """Set once somebody cleared what is remembered, and then replaced: what was refused before has to be said again."""
        self.connected = False
        self.connected_at: int | None = None
        """Whether the link to the primary above is open, and when it last opened or closed, as the secondary on this host says."""
        self.refusal = ""
        """Why the primary above refuses this one, for people; empty if it does not."""

    async def load(self) -> None:
        """Reads what is kept. What cannot be verified any more is as if it had never come."""
        async with self._lock:
            row, sets = await self._database.read(_load)
            if row != self.snapshot.row:
                self._load_row(row)
            for signed in sets.values():
                self._load_set(signed)

    def _load_row(self, row: model.Upper | None) -> None:
        if row is not None and row.memory.damaged:
            log.alarm("what is remembered of the primaries above cannot be read", reason=Reason.ORIGINS_UNREADABLE)
        try:
            self._take_row(row)
        except (Refused, DecodeError) as error:
            self.snapshot = self.snapshot.under(row, document_pb2.Ancestry(), ())
            log.warning("the primaries above cannot be read; the secondary on this host tells them again", problem=str(error))

    def _load_set(self, signed: bytes) -> None:
        try:
            said = document_pb2.SignedSet.FromString(signed)
            known = self.snapshot.kept.get(said.origin)
            if known is None or known.signed != said:
                self._keep(said, self._verified(said))
        except (Refused, DecodeError) as error:
            log.warning("a set from above cannot be read", problem=str(error))

    def on_changes(self, changes: Changes) -> None:
        """A page of the change log."""
        if changes.account != PRIMARY:
            return
        if Coarse.ANCESTORS in changes.subjects:
            self._controller.mark(_ROWS)
        if Coarse.ORIGINS in changes.subjects:
            self._controller.mark(_CLEARED)

    async def run(self) -> None:
        """Follows the rows until cancelled."""
        await self._controller.run()

    async def _read_again(self, keys: Sequence[str]) -> Mapping[str, Outcome]:
        await self.load()
        self._publish(AncestorChange(self.version))
        if _CLEARED in keys:
            self.cleared.set()
            self.cleared = asyncio.Event()
        return {}

    def _take_row(self, row: model.Upper | None) -> None:
        message = document_pb2.Ancestry.FromString(row.ancestry) if row is not None else document_pb2.Ancestry()
        self.snapshot = self.snapshot.under(row, message, ancestry.verify(message, self._signer.authority))

    def _verified(self, signed: document_pb2.SignedSet) -> DesiredSet:
        origin = self.snapshot.origins.get(signed.origin)
        if origin is None:
            raise Refused(Reason.SET_INVALID, "The set's origin is not an ancestor of this primary.")
        return documents.verify(signed, origin)

    def _keep(self, signed: document_pb2.SignedSet, verified: DesiredSet) -> None:
        self.snapshot = self.snapshot.holding(StoredSet(signed, verified, Desired(verified.items)))

    # --- What is known ------------------------------------------------------------------------------------------------------------

    @property
    def row(self) -> model.Upper | None:
        """The primary right above, or the last that was."""
        return self.snapshot.row

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self.snapshot.version

    @property
    def above(self) -> Sequence[Above]:
        """All primaries above, the nearest first."""
        return self.snapshot.above

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Whose sets are taken, by primary id."""
        return self.snapshot.origins

    @property
    def own_id(self) -> str:
        """The id of this primary."""
        return self._signer.authority.primary_id

    @property
    def primary_ids(self) -> frozenset[str]:
        """This primary and all above it: none of them can stand below."""
        return frozenset({self.own_id, *self.snapshot.origins})

    def held(self) -> Sequence[document_pb2.Held]:
        """Which sets are here, for the secondary on this host to send only others."""
        return [documents.encode_held(kept.verified) for kept in self.snapshot.kept.values()]

    # --- What comes -------------------------------------------------------------------------------------------------------------

    async def join(self, upper_authority: bytes, name: str, state: UpperState, now: int) -> pb.LowerPrimary | None:
        """Consents to stand under a primary, or notes that it is above no more; the consent, if there is one."""
        authority = certificates.read_authority(upper_authority)
        own = self._signer.authority
        if authority.primary_id == own.primary_id:
            raise Refused(Reason.WOULD_LOOP, "A primary cannot be its own ancestor.")
        sign = self._signer.sign_consent
        async with self._lock:
            row = await self._database.write(
                PRIMARY, levels.stand_under, upper_authority, authority.primary_id, name, state, sign, now
            )
            self._replace_row(row)
        if not row.consent:
            return None
        return pb.LowerPrimary(authority_certificate=own.certificate_der, consent=row.consent, consent_signature=row.signature)

    async def ascend(self, said: document_pb2.Ancestry) -> None:
        """Accepts an ancestry. Refused: SET_INVALID, WOULD_LOOP, SET_STALE, ORIGINS_FULL, ORIGINS_UNREADABLE."""
        async with self._lock:
            if self.snapshot.row is None:
                return
            own = self._signer.authority
            found = ancestry.verify(said, own)
            try:
                row = await self._database.write(PRIMARY, levels.ascend, said.SerializeToString(), found, own, self._now())
            except Refused as refused:
                _alarm(refused)
                raise
            if row is not None:
                self._replace_row(row)

    async def clear_origin(self, primary_id: str, by: Actor, now: int) -> None:
        """Forgets what is remembered of a primary that is not above, or, without an id, of all of those."""
        async with self._lock:
            row = await self._database.write(PRIMARY, levels.clear_origin, primary_id, self.primary_ids, by, now)
            self._replace_row(row)

    def _replace_row(self, row: model.Upper) -> None:
        if row != self.snapshot.row:
            self._take_row(row)

    def seen(self, connected: bool, at: int | None, refusal: str) -> None:
        """State of the link to the parent, as the secondary on this host reports it."""
        self.connected, self.connected_at, self.refusal = connected, at, refusal
        self._publish(AncestorChange(self.version))

    def disconnected(self, now: int) -> None:
        """The secondary on this host has gone."""
        self.connected, self.connected_at = False, now
        self._publish(AncestorChange(self.version))

    def check(self, signed: document_pb2.SignedSet) -> DesiredSet:
        """A set from above, verified and not older than what is held. Refused: SET_INVALID, SET_STALE, SET_CONFLICT."""
        verified = self._verified(signed)
        if self.snapshot.row is not None:
            self.snapshot.row.memory.check(verified)
        known = self.snapshot.kept.get(verified.origin)
        documents.supersedes(verified, known.verified if known else None)
        return verified

    @property
    def digests(self) -> frozenset[bytes]:
        """The bodies of the sets that are here."""
        return self.snapshot.digests

    async def take(self, signed: document_pb2.SignedSet, bodies: Mapping[bytes, bytes]) -> None:
        """Takes a complete set of a primary above: bodies by their digests. Refused as `documents.verify`, `supersedes` and
        `Memory.check` do."""
        async with self._lock:
            verified = self._verified(signed)
            known = self.snapshot.kept.get(signed.origin)
            if not documents.supersedes(verified, known.verified if known else None):
                return
            named = dict.fromkeys(item.digest for item in verified.items if item.digest in bodies)  # several may name one
            wanted = [(digest.hex(), bodies[digest]) for digest in named]
            await self._database.write(PRIMARY, levels.hand_down, verified, signed.SerializeToString(), wanted, self._now())
            self._keep(signed, verified)

    def _now(self) -> int:
        return int(self._clock())


def _alarm(refused: Refused) -> None:
    """What only a person can end is said louder than in the log's line on each refusal."""
    if refused.reason in origins.ALARMS:
        log.alarm("primaries above are not taken", reason=refused.reason, problem=refused.message)


def _load(tx: Transaction) -> tuple[model.Upper | None, dict[str, bytes]]:
    return rows.upper(tx), rows.upper_sets(tx)
