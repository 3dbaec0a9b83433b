"""A server's word as the primary takes it: bounded, printable, and only on what it was asked about."""

from __future__ import annotations

from typing import Any

import pytest

from enlist import outputs
from enlist.documents import ItemVersion
from enlist.v1 import document_pb2 as pb
from enlist_primary.model import reports
from enlist_primary.model.reports import LAYERS, MESSAGE_LIMIT, REMNANTS, Asked, Word

NOW, OWN, RUN = 1_800_000_000, "f" * 64, "run1234567"
BODY = b"d" * 32


def failed(**fields: Any) -> pb.Report:
    """A report on a run that failed."""
    return pb.Report(**{"kind": "task/restart", "name": RUN, "task_state": pb.TASK_STATE_FAILED, "exit_code": 3, **fields})


def applied(**fields: Any) -> pb.Report:
    """A report on a policy that is in force."""
    return pb.Report(kind="policy/chrony", state=pb.DOCUMENT_STATE_APPLIED, **fields)


def items(*revisions: int, origin: str = OWN, body: bytes = BODY) -> list[pb.OriginItems]:
    """Items as a report names them; `body` is their digest."""
    return [pb.OriginItems(origin=origin, items=[pb.ItemVersion(revision=each, digest=body) for each in revisions])]


def read(report: pb.Report) -> Word:
    word = reports.read(report, "paris", OWN, NOW)
    assert word is not None
    return word


def test_what_is_said_is_bounded_and_printable() -> None:
    """Attacks rows 37 and 41."""
    word = read(failed(message="\x1b[2J\u202e" + "x" * 5000, output=b"\xff" * 200_000))
    assert word.message.startswith("\\x1b[2J\\u202exxx")
    assert (len(word.message), word.output) == (MESSAGE_LIMIT, outputs.cut(b"\xff" * 200_000))
    word = read(applied(observed_items=items(*range(1, 1000))))
    assert (word.observed, word.applied) == (tuple(ItemVersion(each, BODY.hex()) for each in range(1, LAYERS + 1)), ())


def test_of_a_report_the_items_of_this_primary_alone_are_read() -> None:
    others = [*items(4, origin="a" * 64), *items(5), *items(6)]
    word = read(applied(observed_items=others, applied_items=items(3)))
    assert (word.observed, word.applied) == ((ItemVersion(5, BODY.hex()),), (ItemVersion(3, BODY.hex()),))
    assert read(applied(observed_items=items(4, origin="a" * 64))).observed == ()


@pytest.mark.parametrize("field", ["observed_items", "applied_items"])
@pytest.mark.parametrize(("revision", "body"), [(0, BODY), (-1, BODY), (2**62, BODY), (5, b""), (5, BODY[1:]), (5, BODY + b"x")])
def test_a_report_that_names_what_no_item_can_be_is_no_word(field: str, revision: int, body: bytes) -> None:
    said = applied(**{field: [*items(9, origin="a" * 64), *items(revision, body=body)]})
    assert reports.read(said, "paris", OWN, NOW) is None


@pytest.mark.parametrize(
    "report",
    [
        failed(name=""),
        failed(kind="policy/restart"),
        failed(kind="window"),
        failed(task_state=99),
        failed(task_state=pb.TASK_STATE_QUEUED),
        pb.Report(kind="policy/chrony", name="x", state=pb.DOCUMENT_STATE_APPLIED),
        pb.Report(kind="policy/chrony", state=pb.DOCUMENT_STATE_PENDING),
    ],
)
def test_what_makes_no_sense_is_no_word(report: pb.Report) -> None:
    assert reports.read(report, "paris", OWN, NOW) is None


def test_nothing_came_to_be_later_than_now() -> None:
    """A server's clock may be wrong."""
    later, before = failed(), failed()
    later.time.seconds, before.time.seconds = NOW + 1, -5
    assert (read(later).at, read(before).at) == (NOW, NOW)


def test_a_report_counts_on_what_was_asked_about_and_on_runs_that_are_over() -> None:
    asked = Asked(frozenset({("policy/chrony", ""), ("task/restart", RUN)}), frozenset({"over"}))
    for about in (("policy/chrony", ""), ("task/restart", RUN), ("task/restart", "over"), ("task/other", "over")):
        assert asked.about(*about)
    for about in (("task/restart", "another"), ("policy/nginx", ""), ("policy/chrony", "over")):
        assert not asked.about(*about)


def test_of_a_message_the_last_report_on_each_thing_is_heard() -> None:
    """Whoever repeats itself a thousand times takes up no more time than who says it once (attacks row 37)."""
    asked = Asked(frozenset({("policy/chrony", "")}), frozenset({RUN}))
    applied = [pb.Report(kind="policy/chrony", state=pb.DOCUMENT_STATE_APPLIED, message=str(each)) for each in range(100)]
    unasked = [pb.Report(kind="policy/nginx", state=pb.DOCUMENT_STATE_APPLIED)] * 100
    words = reports.heard([*applied, *unasked, failed()], "paris", asked, OWN, NOW)
    assert [(word.kind, word.message) for word in words] == [("policy/chrony", "99"), ("task/restart", "")]


def test_a_word_on_a_policy_brings_no_output() -> None:
    assert read(pb.Report(kind="policy/chrony", state=pb.DOCUMENT_STATE_APPLIED, output=b"x")).output == b""


def remains(kind: str, state: Any = pb.DOCUMENT_STATE_FAILED, **fields: Any) -> pb.Report:
    """A server's word on a policy that it could not end."""
    return pb.Report(kind=kind, state=state, **{"message": "It could not be ended: No.", **fields})


def left(*said: pb.Report, before: Any = None, wanted: Any = ()) -> set[str]:
    return set(reports.remnants(before or {}, said, "paris", wanted, NOW))


def test_what_a_server_could_not_end_is_heard_though_it_was_not_asked_about() -> None:
    found = reports.remnants({}, [remains("policy/motd")], "paris", [frozenset()], NOW)
    assert found["policy/motd"].message == "It could not be ended: No."
    assert reports.remnants(found, [], "paris", [frozenset()], NOW) == found
    assert left(pb.Report(kind="policy/motd"), before=found) == set()
    assert left(before=found, wanted=[frozenset(), frozenset({("policy/motd", "")})]) == set()


@pytest.mark.parametrize(
    "report",
    [
        remains("policy/motd", pb.DOCUMENT_STATE_APPLIED),
        remains("policy/motd", observed_items=items(5)),
        remains("policy/motd", name="x"),
        remains("policy/" + "x" * 1000),
        remains("policy/"),
        remains("window"),
        remains("task/restart"),
    ],
)
def test_nothing_else_is_heard_that_was_not_asked_about(report: pb.Report) -> None:
    """Attacks row 37."""
    assert left(report) == set()
    assert left(remains("policy/asked"), wanted=[frozenset({("policy/asked", "")})]) == set()


def test_of_endless_kinds_few_are_remembered() -> None:
    """Attacks row 37."""
    assert len(left(*[remains(f"policy/k{number}") for number in range(1000)])) == REMNANTS
