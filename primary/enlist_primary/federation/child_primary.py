"""The primary on a secondary's host that wants to stand under this one: whether it may, said over that secondary's link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from enlist import ancestry, certificates
from enlist.reasons import TABLE, Reason, Refused
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.descendants import Descendants
from enlist_primary.model.levels import Bequest
from enlist_primary.operations import levels
from enlist_primary.store import levels as rows
from enlist_primary.store.database import Database

RETRY_SECONDS = 1.0

log = Log("link")

_LEFT = {
    None: document_pb2.ANCESTOR_STATE_PRESENT,
    Bequest.KEEP: document_pb2.ANCESTOR_STATE_KEPT,
    Bequest.FREEZE: document_pb2.ANCESTOR_STATE_FROZEN,
    Bequest.DELETE: document_pb2.ANCESTOR_STATE_UNSPECIFIED,
}


@dataclass(frozen=True)
class Children:
    """What it takes to decide about the primaries on secondaries' hosts. `clock` is Unix seconds."""

    signer: Signer
    database: Database
    ancestors: Upper
    descendants: Descendants
    clock: Callable[[], float]

    def child(self, account: str, id: str, answered: Callable[[], None]) -> Lower:
        """What one link says of the primary on its host; `answered` is called when there is an `answer` to send."""
        return Lower(self, account, id, answered)

    def now(self) -> int:
        """Unix seconds, whole."""
        return int(self.clock())


class Lower:
    """What one link says of the primary on its host. `certified` while that may stand below: only then what it says counts."""

    def __init__(self, own: Children, account: str, id: str, answered: Callable[[], None]) -> None:
        """See `Children.child`."""
        self._own = own
        self._account = account
        self._id = id
        self._answered = answered
        self._said: pb.LowerPrimary | None = None
        self._last: pb.LowerAnswer | None = None
        self._undecided = False
        self._deciding: asyncio.Task[None] | None = None
        self.certified = False
        self.answer: pb.LowerAnswer | None = None

    def take(self, said: pb.LowerPrimary) -> None:
        """It asks. What was answered to the same a moment ago still holds."""
        if said != self._said:
            self._said, self._last = said, None
            self.reconsider()

    def reconsider(self) -> None:
        """Something was decided about the server: what was refused may be allowed now, or the other way round."""
        if self._said is not None:
            self._undecided = True
            if self._deciding is None:
                self._deciding = asyncio.create_task(self._decide())

    def look_up(self) -> None:
        """Something above this primary changed: one that was refused because it stands there may do so no more."""
        if self._deciding is not None or (self._last is not None and self._last.reason == Reason.WOULD_LOOP):
            self.reconsider()

    def answered(self, answer: pb.LowerAnswer) -> None:
        """That answer has been sent."""
        if self.answer is answer:
            self.answer = None

    async def close(self) -> None:
        """The link has ended."""
        if self._deciding is not None:
            self._deciding.cancel()
            await asyncio.wait([self._deciding])

    async def _decide(self) -> None:
        try:
            while self._undecided and self._said is not None:
                self._undecided = False
                try:
                    answer = await self._certify(self._said)
                except Refused as refused:  # not about the request: it is decided when that can be written down again
                    log.warning(
                        "a primary below is not answered yet", account=self._account, server=self._id, reason=refused.reason
                    )
                    self._undecided = True
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if answer != self._last:
                    self._last = self.answer = answer
                    self._answered()
        except Exception as error:
            log.fault("a primary below was not answered", error, account=self._account, server=self._id)
        finally:
            self._deciding = None

    async def _certify(self, said: pb.LowerPrimary) -> pb.LowerAnswer:
        own, account, id = self._own, self._account, self._id
        try:
            authority = certificates.read_authority(said.authority_certificate)
            consent = ancestry.consented(authority, said.consent, said.consent_signature)
            if consent.parent_primary_id != own.signer.authority.primary_id or consent.state != document_pb2.ANCESTOR_STATE_PRESENT:
                raise Refused(Reason.SET_INVALID, "That primary does not consent to stand under this one.")
            make = partial(own.signer.cross_certificate, authority, account, id)
            above = own.ancestors.primary_ids
            made = await own.database.write(account, levels.certify, account, id, authority, above, make, own.now())
        except Refused as refused:
            if TABLE[refused.reason].retry:
                raise
            log.warning("a primary may not stand below", account=account, server=id, reason=refused.reason)
            self.certified = False
            own.descendants.forget(account, id)
            left = await own.database.read(rows.bequest, account, id)
            return pb.LowerAnswer(reason=refused.reason, message=refused.message, left=_LEFT[left])
        self.certified = True
        return pb.LowerAnswer(cross_certificate=made)
