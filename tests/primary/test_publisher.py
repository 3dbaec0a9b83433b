"""The one publisher: who is told what, in which order, and how to wait for the next change of an account."""

from __future__ import annotations

import asyncio

from enlist_primary.changes.publisher import AncestorChange, ChangePublisher, Changes, PresenceChange
from enlist_primary.store.changes import Position

ACME, BETA = "acme.example", "beta.example"


def test_subscribers_get_events_of_their_kind_in_the_order_they_came() -> None:
    publisher, told = ChangePublisher(), []
    publisher.subscribe(PresenceChange, lambda change: told.append(("first", change.ids)))
    publisher.subscribe(PresenceChange, lambda change: told.append(("second", change.ids)))
    publisher.subscribe(AncestorChange, lambda change: told.append(("above", [str(change.version)])))
    publisher.publish(PresenceChange(ACME, ["one"]))
    publisher.publish(AncestorChange(3))
    publisher.publish(Changes(ACME, 1, Position(1, 0, 0)))
    assert told == [("first", ["one"]), ("second", ["one"]), ("above", ["3"])]


async def test_rows_and_presence_of_an_account_wake_what_waits_for_it() -> None:
    publisher = ChangePublisher()
    for event in (PresenceChange(ACME, ["one"]), Changes(ACME, 1, Position(1, 0, 0))):
        first = asyncio.ensure_future(publisher.changed(ACME))
        second = asyncio.ensure_future(publisher.changed(ACME))
        other = asyncio.ensure_future(publisher.changed(BETA))
        first.cancel()
        publisher.publish(event)
        await second
        assert not other.done()
        other.cancel()


def test_changes_name_each_server_once_and_those_without_descendants() -> None:
    subjects = ("servers/one", "reports", "servers/two", "servers/one", "descendants/two", "account")
    changes = Changes(ACME, 6, Position(7, 0, 0), subjects)
    assert changes.ids == ["one", "two"]
    assert changes.without_descendants == ["two"]
    assert changes.more
