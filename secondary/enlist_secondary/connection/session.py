"""What is said over one open link: reports, what stands below, and which sets and bodies have arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from enlist.link.ends import SecondaryEnd
from enlist.link.pace import MessagePace
from enlist.link.phases import violation
from enlist.link.receiver import Receiver
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary import outbox
from enlist_secondary.federation.local_primary import LocalPrimary, UpwardCursor
from enlist_secondary.outbox import Outbox
from enlist_secondary.retrying import AGAIN_SECONDS


class Session:
    """One link's share of what this server has to say. The newest one speaks; those before it say nothing more."""

    def __init__(self, end: SecondaryEnd, reports: Outbox, receiver: Receiver, local: LocalPrimary | None) -> None:
        self.news = asyncio.Event()
        """Set when there is something to say."""
        self.news.set()
        self._numbers = 0
        self._pace = MessagePace()
        self._end = end
        self.over = False
        """Whether the link has ended, or another one speaks."""
        self._again: asyncio.TimerHandle | None = None
        self._reports = reports.open(self._number)
        self._receiver = receiver
        self._upward: UpwardCursor | None = local.open(self._number) if local is not None else None

    def _number(self) -> int:
        self._numbers = self._end.number()
        return self._numbers

    def close(self) -> None:
        """The link has ended, or another one speaks from now on."""
        self.over = True
        if self._again is not None:
            self._again.cancel()

    def say(self) -> Iterator[pb.FromSecondary]:
        """The messages that are due. The first one also says what has arrived, so that a small set is answered by one message."""
        self.news.clear()
        if self.over:
            return
        for message in self._due():
            if sequence := message.reports.sequence or message.below.sequence:
                self._pace.sent(sequence, message.ByteSize(), asyncio.get_running_loop().time())
            yield message

    def _due(self) -> Iterator[pb.FromSecondary]:
        first = self._arrived()
        while (said := outbox.message(self._reports, self._pace.bytes)) is not None:
            first.reports.CopyFrom(said)
            yield first
            first = pb.FromSecondary()
        if first.ByteSize():
            yield first
        if self._upward is not None:
            yield from self._upward.say(self._pace.bytes)

    def _arrived(self) -> pb.FromSecondary:
        told = self._receiver.replies()
        return pb.FromSecondary(set_acks=told.set_acks, set_refusals=told.set_refusals, body_acks=told.body_acks)

    def on_ack(self, ack: pb.Ack) -> None:
        """A message is taken for good, or there was no room for it. Refused with LINK_VIOLATION: one that was never sent."""
        if not 0 < ack.sequence <= self._numbers:
            raise violation("a message was acknowledged that was never sent")
        cursors = [cursor for cursor in (self._reports, self._upward) if cursor is not None]
        waited_for = any(cursor.full for cursor in cursors)
        self._pace.answered(ack.sequence, not ack.refused, waited_for, asyncio.get_running_loop().time())
        for cursor in cursors:
            if ack.refused:
                cursor.nack(ack.sequence)
            else:
                cursor.ack(ack.sequence)
        if not ack.refused:
            self.news.set()
        elif self._again is None and not self.over:  # not at once: there must be room first
            self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._say_again)

    def _say_again(self) -> None:
        self._again = None
        self.news.set()
