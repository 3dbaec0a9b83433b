"""What happens in the primary, told to whatever keeps something in memory because of it.

Rows come from the change log, through its tail. What is no row (presence, the state of the link to the parent) comes from where it
happens. All of it goes through one publisher, so that code which makes a change need not know what reacts to it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from enlist_primary.store.changes import Position, about_descendants, about_server
from enlist_primary.store.servers import Standing

_SERVER = about_server("")
_DESCENDANTS = about_descendants("")


@dataclass(frozen=True)
class Changes:
    """A page of one account's change log. `number` is the last change in it, `view` how far the account is where it was read.

    `records` are the trust records of those servers among the subjects that hold a key. With `reload`, changes were trimmed before
    they were read: the subjects are then all that the account has.
    """

    account: str
    number: int
    view: Position
    subjects: Sequence[str] = ()
    records: Sequence[Standing] = ()
    reload: bool = False

    @property
    def more(self) -> bool:
        """Whether other changes follow that were there already."""
        return self.number < self.view.change

    def concerns(self, *prefixes: str) -> bool:
        """Whether a subject begins with one of these; after a reload, anything may have changed."""
        return self.reload or any(subject.startswith(prefixes) for subject in self.subjects)

    @property
    def ids(self) -> Sequence[str]:
        """The servers among the subjects."""
        return server_ids(self.subjects)

    @property
    def without_descendants(self) -> Sequence[str]:
        """Servers below which no primary stands any longer."""
        return [each.removeprefix(_DESCENDANTS) for each in self.subjects if each.startswith(_DESCENDANTS)]


@dataclass(frozen=True)
class PresenceChange:
    """These servers of an account opened or closed their link, or something else is known of those below a server (`via/path`)."""

    account: str
    ids: Sequence[str]


@dataclass(frozen=True)
class AncestorChange:
    """Something about the primaries above this one changed: what comes from them, or whether they can be reached.

    `version` grows with everything that is handed down to links.
    """

    version: int


Event = Changes | PresenceChange | AncestorChange
E = TypeVar("E", Changes, PresenceChange, AncestorChange)


class ChangePublisher:
    """The one publisher of a primary. Subscribers are called at once, in the order in which they subscribed, and must not wait."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Event], list[Callable[[Any], None]]] = defaultdict(list)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def subscribe(self, kind: type[E], subscriber: Callable[[E], None]) -> None:
        """Calls the subscriber with every event of this kind from now on."""
        self._subscribers[kind].append(subscriber)

    def publish(self, event: Event) -> None:
        """Tells all subscribers, then everything that waits for a change of the account."""
        for subscriber in self._subscribers[type(event)]:
            subscriber(event)
        if not isinstance(event, AncestorChange):
            self._notify(event.account)

    def changed(self, account: str) -> Awaitable[None]:
        """Waits for the next change of an account: of its rows, or of who is connected.

        It counts from the call: call, read, then await, and none is missed.
        """
        change = self._waiting.get(account)
        if change is None:
            change = self._waiting[account] = asyncio.get_running_loop().create_future()
        return asyncio.shield(change)

    def _notify(self, account: str) -> None:
        change = self._waiting.pop(account, None)
        if change is not None and not change.done():
            change.set_result(None)


def server_ids(subjects: Sequence[str]) -> Sequence[str]:
    """The ids of the servers among subjects, each once."""
    return list(dict.fromkeys(each.removeprefix(_SERVER) for each in subjects if each.startswith(_SERVER)))
