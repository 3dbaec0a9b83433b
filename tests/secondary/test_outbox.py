"""What waits for the link: the last word on each thing, once over each link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from enlist.v1 import hierarchy_pb2
from enlist.v1.document_pb2 import Report
from enlist_secondary import outbox as outboxes
from enlist_secondary.outbox import Outbox, Outlet


def word(kind: str, message: str, name: str = "") -> Report:
    return Report(kind=kind, name=name, message=message)


def said(messages: Iterable[hierarchy_pb2.FromSecondary]) -> list[tuple[str, str]]:
    return [(report.kind + report.name, report.message) for message in messages for report in message.reports.reports]


async def waits(outlet: Outlet) -> bool:
    """Whether there is nothing to say."""
    waiting = asyncio.ensure_future(outlet.news())
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    return not done


async def test_a_link_is_told_everything_and_then_what_changes() -> None:
    outbox = Outbox()
    outbox.put(word("policy/motd", "one"))
    outbox.put(word("task/update", "two", "a"))
    outlet = outbox.open()
    assert not await waits(outlet)
    assert said(outlet.take()) == [("policy/motd", "one"), ("task/updatea", "two")]
    assert await waits(outlet)
    outbox.put(word("policy/motd", "three"))
    assert said(outlet.take()) == [("policy/motd", "three")]
    assert said(outlet.take()) == []


async def test_with_nothing_to_say_a_link_waits() -> None:
    outlet = Outbox().open()
    assert await waits(outlet)
    assert outlet.take() == []


async def test_the_same_word_is_not_said_again_but_over_a_new_link() -> None:
    outbox = Outbox()
    first = outbox.open()
    outbox.put(word("policy/motd", "one"))
    first.take()
    outbox.put(word("policy/motd", "one"))
    assert await waits(first)
    assert said(outbox.open().take()) == [("policy/motd", "one")]


async def test_of_several_words_on_one_thing_the_last_is_said() -> None:
    outbox = Outbox()
    outlet = outbox.open()
    for message in ("one", "two", "three"):
        outbox.put(word("policy/motd", message))
    assert said(outlet.take()) == [("policy/motd", "three")]


async def test_what_is_forgotten_is_not_said() -> None:
    outbox = Outbox()
    outlet = outbox.open()
    outbox.put(word("policy/motd", "one"))
    outbox.put(word("task/update", "two", "a"))
    outbox.forget("policy/motd")
    outbox.forget("task/update", "a")
    outbox.forget("nothing")
    assert outlet.take() == []
    assert outbox.open().take() == []
    outbox.put(word("policy/motd", "one"))
    assert said(outbox.open().take()) == [("policy/motd", "one")], "it is news again"


async def test_the_link_before_takes_nothing_from_the_new_one() -> None:
    """While a certificate is renewed there are two; what the old one took with it would be lost."""
    outbox = Outbox()
    old = outbox.open()
    outbox.put(word("policy/motd", "one"))
    new = outbox.open()
    old.take()
    outbox.put(word("policy/ntp", "two"))
    assert await waits(old)
    assert said(new.take()) == [("policy/motd", "one"), ("policy/ntp", "two")]


async def test_a_nudge_wakes_the_link_for_something_else() -> None:
    outlet = Outbox().open()
    outlet.nudge()
    assert not await waits(outlet)
    assert outlet.take() == []
    assert await waits(outlet)


async def test_what_comes_while_a_message_is_on_its_way_is_said_next() -> None:
    outbox = Outbox()
    outlet = outbox.open()
    outbox.put(word("policy/motd", "one"))
    messages = outlet.take()
    outbox.put(word("policy/motd", "two"))
    assert said(messages) == [("policy/motd", "one")]
    assert not await waits(outlet)
    assert said(outlet.take()) == [("policy/motd", "two")]


def test_messages_are_of_a_bounded_size() -> None:
    outbox = Outbox()
    for number in range(40):
        outbox.put(Report(kind="task/update", name=str(number), output=bytes(60 * 1024)))
    messages = outbox.open().take()
    assert len(said(messages)) == 40
    assert len(messages) > 1
    assert all(message.ByteSize() < outboxes.MESSAGE_BYTES + 70 * 1024 for message in messages)


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
    st.tuples(st.just("forget"), st.sampled_from("abc"), st.just(0)),
    st.tuples(st.just("take"), st.just(""), st.just(0)),
    st.tuples(st.just("open"), st.just(""), st.just(0)),
)


@given(st.lists(steps))
def test_who_took_everything_knows_the_last_word_on_each_thing(story: list[tuple[str, str, int]]) -> None:
    outbox, last = Outbox(), dict[str, str]()
    outlet, heard = outbox.open(), dict[str, str]()
    for step, kind, number in story:
        if step == "put":
            outbox.put(word(kind, str(number)))
            last[kind] = str(number)
        elif step == "forget":
            outbox.forget(kind)
            last.pop(kind, None)
        elif step == "take":
            heard.update(said(outlet.take()))
        else:
            outlet, heard = outbox.open(), {}
    heard.update(said(outlet.take()))
    assert {kind: heard[kind] for kind in last} == last
