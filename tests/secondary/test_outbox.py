"""What a server has to report: the last report on each thing, said over each link until the primary has acknowledged it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from enlist.link.pace import PIECE
from enlist.runtime.link_outbox import WINDOW
from enlist.v1 import hierarchy_pb2
from enlist.v1.document_pb2 import Report
from enlist_secondary.outbox import Outbox, ReportCursor, message


def report(kind: str, message: str, name: str = "") -> Report:
    return Report(kind=kind, name=name, message=message)


def silent(changed: Callable[[], None] = lambda: None) -> Outbox:
    """An outbox of which nobody hears what is acknowledged."""
    return Outbox(changed)


def due(cursor: ReportCursor) -> list[hierarchy_pb2.Reports]:
    """The messages that are due now."""
    found = []
    while (said := message(cursor, PIECE)) is not None:
        found.append(said)
    return found


def texts(messages: list[hierarchy_pb2.Reports]) -> list[tuple[str, str]]:
    return [(each.kind + each.name, each.message) for said in messages for each in said.reports]


def take(cursor: ReportCursor) -> list[tuple[str, str]]:
    """What is said now; the primary acknowledges it."""
    found = due(cursor)
    for said in found:
        assert cursor.ack(said.sequence)
    return texts(found)


def test_link_is_told_everything_and_then_what_changes() -> None:
    outbox = silent()
    outbox.put(report("policy/motd", "one"))
    outbox.put(report("task/update", "two", "a"))
    cursor = outbox.open()
    assert take(cursor) == [("policy/motd", "one"), ("task/updatea", "two")]
    assert not cursor.ready
    outbox.put(report("policy/motd", "three"))
    assert take(cursor) == [("policy/motd", "three")]
    assert take(cursor) == []


def test_with_nothing_to_say_there_is_no_message() -> None:
    cursor = silent().open()
    assert not cursor.ready
    assert message(cursor, PIECE) is None


def test_same_report_is_not_said_again_but_over_a_new_link() -> None:
    outbox = silent()
    first = outbox.open()
    outbox.put(report("policy/motd", "one"))
    assert take(first) == [("policy/motd", "one")]
    outbox.put(report("policy/motd", "one"))
    assert not first.ready
    assert take(outbox.open()) == [("policy/motd", "one")]


def test_last_of_several_reports_on_one_thing_is_said() -> None:
    outbox = silent()
    cursor = outbox.open()
    for text in ("one", "two", "three"):
        outbox.put(report("policy/motd", text))
    assert take(cursor) == [("policy/motd", "three")]


def test_report_that_there_was_no_room_for_is_said_again() -> None:
    outbox = silent()
    outbox.put(report("policy/motd", "one"))
    cursor = outbox.open()
    (refused,) = due(cursor)
    assert cursor.nack(refused.sequence)
    assert cursor.ready
    assert take(cursor) == [("policy/motd", "one")]


def test_forgotten_reports_are_not_said_over_the_next_link() -> None:
    outbox = silent()
    outbox.put(report("policy/motd", "one"))
    outbox.put(report("task/update", "two", "a"))
    outbox.forget("policy/motd")
    outbox.forget("task/update", "a")
    outbox.forget("nothing")
    assert take(outbox.open()) == []
    assert outbox.last("policy/motd") is None
    outbox.put(report("policy/motd", "one"))
    assert take(outbox.open()) == [("policy/motd", "one")]


def test_older_link_takes_nothing_from_the_newer_one() -> None:
    """While a certificate is renewed there are two; what the older one took with it would be lost."""
    outbox = silent()
    older = outbox.open()
    outbox.put(report("policy/motd", "one"))
    newer = outbox.open()
    take(older)
    outbox.put(report("policy/ntp", "two"))
    assert not older.ready
    assert take(newer) == [("policy/motd", "one"), ("policy/ntp", "two")]


def test_report_put_while_an_older_one_is_on_its_way_is_said_at_once() -> None:
    outbox = silent()
    cursor = outbox.open()
    outbox.put(report("policy/motd", "one"))
    (said,) = due(cursor)
    outbox.put(report("policy/motd", "two"))
    assert texts([said]) == [("policy/motd", "one")]
    assert take(cursor) == [("policy/motd", "two")]
    assert cursor.ack(said.sequence)


def test_whoever_writes_hears_of_each_change() -> None:
    changes: list[None] = []
    outbox = silent(lambda: changes.append(None))
    for text in ("one", "one", "two"):
        outbox.put(report("policy/motd", text))
    assert len(changes) == 2


def test_acknowledged_reports_are_told_as_they_were_said() -> None:
    """Not as they are now: an outcome that came meanwhile has not arrived."""
    heard: list[Report] = []
    outbox = Outbox(lambda: None, heard.append)
    cursor = outbox.open()
    outbox.put(report("task/update", "running", "a"))
    (said,) = due(cursor)
    outbox.put(report("task/update", "succeeded", "a"))
    cursor.ack(said.sequence)
    assert heard == [report("task/update", "running", "a")]
    (said,) = due(cursor)
    cursor.ack(said.sequence)
    assert heard[1:] == [report("task/update", "succeeded", "a")]


def test_messages_are_of_a_bounded_size_and_few_are_on_their_way() -> None:
    outbox = silent()
    for number in range(40):
        outbox.put(Report(kind="task/update", name=str(number), output=bytes(3 * 1024)))
    cursor = outbox.open()
    found: list[hierarchy_pb2.Reports] = []
    while messages := due(cursor):
        assert len(messages) <= WINDOW
        found += messages
        for said in messages:
            cursor.ack(said.sequence)
    assert len(texts(found)) == 40
    assert all(said.ByteSize() < PIECE for said in found)


def test_report_that_is_longer_than_a_message_goes_alone() -> None:
    outbox = silent()
    for number in range(3):
        outbox.put(Report(kind="task/update", name=str(number), output=bytes(60 * 1024)))
    assert [len(said.reports) for said in due(outbox.open())] == [1, 1, 1]


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
    st.tuples(st.just("forget"), st.sampled_from("abc"), st.just(0)),
    st.tuples(st.sampled_from(["say", "refuse", "lose", "open"]), st.just(""), st.just(0)),
)


@given(st.lists(steps))
def test_primary_knows_the_last_report_on_each_thing(story: list[tuple[str, str, int]]) -> None:
    """Whatever was refused, or lost with its link."""
    outbox, last = silent(), dict[str, str]()
    cursor, heard = outbox.open(), dict[str, str]()
    for step, kind, number in story:
        if step == "put":
            outbox.put(report(kind, str(number)))
            last[kind] = str(number)
        elif step == "forget":
            outbox.forget(kind)
            last.pop(kind, None)
        elif step == "say":
            heard.update(take(cursor))
        elif step == "refuse":
            for said in due(cursor):
                assert cursor.nack(said.sequence)
        else:
            if step == "lose":
                due(cursor)
            cursor, heard = outbox.open(), {}
    heard.update(take(cursor))
    assert {kind: heard[kind] for kind in last} == last
