"""What this server has to say of its documents: the last word on each thing, waiting for the link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from enlist.v1 import document_pb2, hierarchy_pb2

MESSAGE_BYTES = 512 * 1024
"""Bytes of reports after which a further message begins."""

Key = tuple[str, str]


class Outlet:
    """What one link has still to say. Only `Outbox.open` makes one."""

    def __init__(self, last: Mapping[Key, document_pb2.Report]) -> None:
        self._last = last
        self._waiting = dict.fromkeys(last)
        self._news = asyncio.Event()
        if self._waiting:
            self._news.set()

    def add(self, key: Key) -> None:
        """There is another word on this."""
        self._waiting[key] = None
        self._news.set()

    def nudge(self) -> None:
        """There is something else to say."""
        self._news.set()

    async def news(self) -> None:
        """Waits until there is something to say."""
        await self._news.wait()

    def take(self) -> list[hierarchy_pb2.FromSecondary]:
        """What is to be said now, in messages of a bounded size."""
        self._news.clear()
        waiting, self._waiting = self._waiting, {}
        messages: list[hierarchy_pb2.FromSecondary] = []
        size = MESSAGE_BYTES
        for report in (self._last[key] for key in waiting if key in self._last):
            if size >= MESSAGE_BYTES:
                messages.append(hierarchy_pb2.FromSecondary(reports=hierarchy_pb2.Reports()))
                size = 0
            messages[-1].reports.reports.append(report)
            size += report.ByteSize()
        return messages


class Outbox:
    """The last word by (kind, name). A new link is told all of them, from then on what changes; the link before, nothing more:
    what it took with it would be lost."""

    def __init__(self) -> None:
        self._last: dict[Key, document_pb2.Report] = {}
        self._outlet = Outlet(self._last)

    def put(self, report: document_pb2.Report) -> None:
        """The last word on its kind and name; one like the word before is not said again."""
        key = (report.kind, report.name)
        if self._last.get(key) != report:
            self._last[key] = report
            self._outlet.add(key)

    def forget(self, kind: str, name: str = "") -> None:
        """Nobody wants to know of this any more."""
        self._last.pop((kind, name), None)

    def open(self) -> Outlet:
        """A link has opened: it is told everything."""
        self._outlet = Outlet(self._last)
        return self._outlet
