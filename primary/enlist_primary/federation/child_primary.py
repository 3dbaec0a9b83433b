"""The primary on a secondary's host that asks to become a child of this one: whether it may, said over that secondary's link."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from enlist import ancestry, certificates
from enlist.reasons import TABLE, Reason, Refused
from enlist.runtime.controller import Again, Backoff, Controller, each
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

BACKOFF = Backoff(first=1.0, longest=30.0)
DEADLINE = 60.0
"""Seconds after which a decision that has not come back counts as failed."""
AT_ONCE = 8

log = Log("link")

_LEFT: dict[Bequest | None, document_pb2.AncestorState.ValueType] = {
    None: document_pb2.ANCESTOR_STATE_PRESENT,
    **{each: ancestry.left_state(each) for each in Bequest},
}


class Children:
    """Decides about the primaries on secondaries' hosts, each alone: when it asks, and after decisions about its server."""

    def __init__(
        self,
        signer: Signer,
        database: Database,
        ancestors: Upper,
        descendants: Descendants,
        clock: Callable[[], float],
        backoff: Backoff = BACKOFF,
    ) -> None:
        """`clock` is Unix seconds."""
        self._signer = signer
        self._database = database
        self._ancestors = ancestors
        self._descendants = descendants
        self._clock = clock
        self._controller = Controller[Lower](
            "primaries below", each(self._decide), at_once=AT_ONCE, backoff=backoff, deadline=DEADLINE
        )

    def child(self, account: str, id: str, answered: Callable[[], None]) -> Lower:
        """What one link says of the primary on its host; `answered` is called when there is an `answer` to send."""
        return Lower(account, id, answered, self._controller.mark, self._controller.forget)

    async def run(self) -> None:
        """Decides, until cancelled."""
        await self._controller.run()

    async def _decide(self, child: Lower) -> Again:
        """What cannot be written down now is decided later; whatever else is refused is the answer."""
        question = child.question
        if question is None:
            return None
        try:
            answer = pb.LowerAnswer(cross_certificate=await self._certify(child, question.said))
        except Refused as refused:
            if TABLE[refused.reason].retry:
                raise
            answer = await self._refuse(child, question, refused)
        child.decided(question, answer)
        return None

    async def _certify(self, child: Lower, said: pb.LowerPrimary) -> bytes:
        authority = certificates.read_authority(said.authority_certificate)
        consent = ancestry.consented(authority, said.consent, said.consent_signature)
        own_id, present = self._signer.authority.primary_id, document_pb2.ANCESTOR_STATE_PRESENT
        if consent.parent_primary_id != own_id or consent.state != present:
            raise Refused(Reason.SET_INVALID, "That primary's consent does not name this primary as its parent.")
        account, id = child.account, child.id
        make = partial(self._signer.cross_certificate, authority, account, id)
        above, now = self._ancestors.primary_ids, int(self._clock())
        return await self._database.write(account, levels.certify, account, id, authority, above, make, now)

    async def _refuse(self, child: Lower, question: Question, refused: Refused) -> pb.LowerAnswer:
        account, id = child.account, child.id
        left = await self._database.read(rows.bequest, account, id)
        if child.question == question:  # else it was asked anew, or the link has ended and another one may have said what is below
            log.warning("child primary refused", account=account, server=id, reason=refused.reason)
            child.certified = False
            self._descendants.forget(account, id)
        return pb.LowerAnswer(reason=refused.reason, message=refused.message, left=_LEFT[left])


class Question(NamedTuple):
    """What a primary below asks. `number` grows with everything that may change the answer."""

    said: pb.LowerPrimary
    number: int


class Lower:
    """What one link says of the primary on its host. `certified` while that may stand below: only then what it says counts."""

    def __init__(
        self,
        account: str,
        id: str,
        answered: Callable[[], None],
        mark: Callable[[Lower], None],
        forget: Callable[[Lower], None],
    ) -> None:
        """See `Children.child`. `mark` has the question decided, `forget` no longer."""
        self.account = account
        self.id = id
        self.question: Question | None = None
        self.certified = False
        self.answer: pb.LowerAnswer | None = None
        self._answered = answered
        self._mark = mark
        self._forget = forget
        self._decided = 0
        """The number of the question that was answered last."""
        self._last: pb.LowerAnswer | None = None

    def take(self, said: pb.LowerPrimary) -> None:
        """It asks. What was answered to the same a moment ago still holds."""
        if self.question is None or said != self.question.said:
            self._last = None
            self._ask(said)

    def reevaluate(self) -> None:
        """Something was decided about the server: what was refused may be allowed now, or the other way round."""
        if self.question is not None:
            self._ask(self.question.said)

    def on_ancestry_changed(self) -> None:
        """Something above this primary changed: one that was refused because it stands there may do so no more."""
        undecided = self.question is not None and self.question.number != self._decided
        if undecided or (self._last is not None and self._last.reason == Reason.WOULD_LOOP):
            self.reevaluate()

    def _ask(self, said: pb.LowerPrimary) -> None:
        self.question = Question(said, 1 if self.question is None else self.question.number + 1)
        self._mark(self)

    def decided(self, question: Question, answer: pb.LowerAnswer) -> None:
        """That is the answer to this question; it is sent unless it is what was answered before."""
        if self.question is None or question.said != self.question.said:
            return
        self._decided = question.number
        self.certified = not answer.reason
        if answer != self._last:
            self._last = self.answer = answer
            self._answered()

    def answered(self, answer: pb.LowerAnswer) -> None:
        """That answer has been sent."""
        if self.answer is answer:
            self.answer = None

    async def close(self) -> None:
        """The link has ended: nothing is answered."""
        self.question = None
        self._forget(self)
