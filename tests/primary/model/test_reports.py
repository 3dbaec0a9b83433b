"""A server's word as the primary takes it: bounded, printable, and only on what it was asked about."""

from __future__ import annotations

from typing import Any

import pytest

from enlist import outputs
from enlist.v1 import document_pb2 as pb
from enlist_primary.model import reports
from enlist_primary.model.reports import MESSAGE_LIMIT, REVISIONS, Asked, Word

NOW, OWN, RUN = 1_800_000_000, "f" * 64, "run1234567"


def failed(**fields: Any) -> pb.Report:
    """A report on a run that failed."""
    return pb.Report(**{"kind": "task/restart", "name": RUN, "task_state": pb.TASK_STATE_FAILED, "exit_code": 3, **fields})


def read(report: pb.Report) -> Word:
    word = reports.read(report, "paris", OWN, NOW)
    assert word is not None
    return word


def test_what_is_said_is_bounded_and_printable() -> None:
    """Attacks rows 37 and 41."""
    word = read(failed(message="\x1b[2J\u202e" + "x" * 5000, output=b"\xff" * 200_000))
    assert word.message.startswith("\\x1b[2J\\u202exxx")
    assert (len(word.message), word.output) == (MESSAGE_LIMIT, outputs.cut(b"\xff" * 200_000))
    meant = [pb.Meant(origin=OWN, revisions=range(1000))]
    applied = pb.Report(kind="policy/chrony", state=pb.DOCUMENT_STATE_APPLIED, meant=meant)
    assert read(applied).revisions == tuple(range(REVISIONS))


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


def test_a_word_counts_on_what_was_asked_about_and_on_runs_that_are_over() -> None:
    asked = Asked(frozenset({("policy/chrony", ""), ("task/restart", RUN)}), frozenset({"over"}))
    policy = Word("paris", "policy/chrony", "", "applied", NOW)
    assert asked.about(policy)
    assert asked.about(read(failed()))
    assert asked.about(read(failed(name="over")))
    assert not asked.about(read(failed(name="another")))
    assert not asked.about(Word("paris", "policy/nginx", "", "applied", NOW))
    assert not asked.about(Word("paris", "policy/chrony", "over", "applied", NOW))
