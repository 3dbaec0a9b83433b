"""Tasks: what may be asked for, and where a server's word leads, pair by pair."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from enlist import documents, values
from enlist.ancestry import LEVELS
from enlist.reasons import Reason
from enlist_primary.model import rollouts, tasks
from enlist_primary.model.rollouts import RolloutState, Stages
from enlist_primary.model.tasks import ENDED, GRACE, OPEN, PRESUMED, TRANSITIONS, Run, TaskState, Wanted, before, checked, takes
from tests.primary.refusals import refused

NOW = 1_800_000_000
DAY = 86400

# state           sent running succeeded failed timed_out interrupted unsupported: what a server's word leads to, `.` for nothing
_LINES = """
queued            x    x       x         x      x         x           x
sent              .    x       x         x      x         x           x
running           .    .       x         x      x         x           x
succeeded         .    .       .         .      .         .           .
failed            .    .       .         .      .         .           .
timed_out         .    .       .         .      .         .           .
interrupted       .    .       .         .      .         .           .
unsupported       .    .       .         .      .         .           .
"""
WORDS = [TaskState(word) for word in ["sent", "running", "succeeded", "failed", "timed_out", "interrupted", "unsupported"]]
CELLS = {
    (TaskState(line.split()[0]), word): cell == "x"
    for line in _LINES.strip().splitlines()
    for word, cell in zip(WORDS, line.split()[1:], strict=True)
}


# --- Where a word leads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "word"), CELLS)
def test_a_word_leads_where_the_table_says(state: TaskState, word: TaskState) -> None:
    assert takes(state, False, word) is CELLS[state, word]
    assert (state in before(word)) is CELLS[state, word]


def test_no_word_leads_to_queued() -> None:
    assert before(TaskState.QUEUED) == ()
    assert not any(takes(state, presumed, TaskState.QUEUED) for state in TaskState for presumed in (False, True))


def test_what_has_ended_never_changes() -> None:
    assert all(TRANSITIONS[state] == frozenset() for state in ENDED)
    assert set(OPEN) | ENDED == set(TaskState)


def test_no_sequence_of_words_goes_backwards() -> None:
    order = [TaskState.QUEUED, TaskState.SENT, TaskState.RUNNING]
    for words in itertools.product(WORDS, repeat=3):
        state = TaskState.QUEUED
        for word in words:
            if takes(state, False, word):
                assert word in ENDED or order.index(word) > order.index(state)
                state = word


@pytest.mark.parametrize(("state", "word"), CELLS)
def test_the_server_s_own_end_replaces_one_that_was_presumed(state: TaskState, word: TaskState) -> None:
    """It was there; the primary only did not hear of it in time."""
    own_end = state in PRESUMED and word in ENDED
    assert takes(state, True, word) is (CELLS[state, word] or own_end)


# --- What may be asked for ----------------------------------------------------------------------------------------------------


def wanted(**fields: Any) -> Wanted:
    """A task somebody asks for: `restart` for the root group."""
    return Wanted(**{"kind": "restart", "group": "/", **fields})


def test_what_is_asked_for_gets_its_defaults_and_one_form() -> None:
    assert checked(wanted(), NOW) == wanted(args=b"{}", deadline_seconds=600)
    assert checked(wanted(args=b' {"b": 1e0, "a": [true]}'), NOW).args == b'{"a":[true],"b":1.0}'


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": ""},
        {"kind": "Restart"},
        {"kind": "../restart"},
        {"kind": "restart; reboot"},
        {"group": "", "server_id": ""},
        {"server_id": "aaaaaaaaaa"},
        {"group": "", "server_id": "aaaaaaaaaa", "label": "printer"},
        {"label": "Printer!"},
        {"deadline_seconds": -1},
        {"deadline_seconds": 7 * DAY + 1},
        {"deadline_seconds": 2**62},
        {"time": NOW - 1},
        {"time": -(2**62)},
        {"time": NOW + 11 * 365 * DAY},
        {"time": 2**62},
        {"time": NOW + 60, "schedule": "0 2 * * *"},
        {"zone": "Europe/Paris"},
        {"stages": Stages(("1", "100%"), 1, 600)},
    ],
)
def test_what_could_never_be_done_is_refused(fields: dict[str, Any]) -> None:
    with refused(Reason.INVALID_ARGUMENT):
        checked(wanted(**fields), NOW)


@pytest.mark.parametrize(("schedule", "zone"), [("0 0 30 2 *", ""), ("0 2 * * *", "Nowhere/City"), ("@daily", "")])
def test_a_schedule_that_never_fires_is_refused(schedule: str, zone: str) -> None:
    with refused(Reason.SCHEDULE_INVALID):
        checked(wanted(schedule=schedule, zone=zone), NOW)


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"null", "JSON object"),
        (b"{", "line 1"),
        (b'{"a": NaN}', '"/a"'),
        (b'{"a": {"b": 1, "b": 2}}', '"/a/b"'),
        (b'{"a": "\\ud800"}', '"/a"'),
        (b'{"a": 9007199254740993}', '"/a"'),
        (b"\xff", "UTF-8"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "32"),
    ],
)
def test_arguments_that_are_no_plain_json_object_are_refused_with_the_place(args: bytes, part: str) -> None:
    with refused(Reason.INVALID_ARGUMENT) as no:
        checked(wanted(args=args), NOW)
    assert part in no.value.message
    assert "arguments" in no.value.message
    assert "settings" not in no.value.message


@pytest.mark.parametrize("args", [b'{"a":"' + b"x" * 1024 * 1024 + b'"}', b'{"a":[' + b",".join([b"1e9"] * 100_000) + b"]}"])
def test_arguments_too_large_for_a_document_are_refused(args: bytes) -> None:
    """The second are too large only in the form in which they travel."""
    with refused(Reason.DOCUMENT_TOO_LARGE):
        checked(wanted(args=args), NOW)


FARTHEST_DOWN = "/".join(["a" * 10] * (LEVELS + 1))


def test_the_largest_arguments_make_a_document_that_may_be() -> None:
    args = b'{"a":"' + b"x" * (tasks.ARGUMENTS_LIMIT - 8) + b'"}'
    whole = tasks.body("a" * 10, "k" * 32, checked(wanted(args=args), NOW).args.decode(), 253402300799, False, FARTHEST_DOWN)
    assert len(args) <= len(whole) <= documents.BODY_LIMIT


def test_the_body_is_what_both_ends_agreed_on() -> None:
    body = tasks.body("aaaaaaaaaa", "restart", '{"unit":"nginx"}', NOW, True)
    assert body == b'{"args":{"unit":"nginx"},"below":true,"deadline":1800000000,"kind":"restart","only":"","run":"aaaaaaaaaa"}'
    assert values.dumps(json.loads(body)) == body


# --- When a run is over -------------------------------------------------------------------------------------------------------

RUN = Run("acme.example", "aaaaaaaaaa", "bbbbbbbbbb", 7, "0" * 64, NOW, NOW + 600)
BEGUN = rollouts.begin("acme.example", 7, 0, Stages(("1", "100%")), ["one", "two"], NOW)
FIRST, SECOND = sorted(("one", "two"), key=lambda id: rollouts.place(7, id))


def test_a_run_is_over_when_all_have_ended_or_its_time_is_up() -> None:
    assert tasks.over(RUN, frozenset(), None, NOW)
    assert not tasks.over(RUN, frozenset({"one"}), None, NOW + 600 + GRACE - 1)
    assert tasks.over(RUN, frozenset({"one"}), None, NOW + 600 + GRACE)


def test_a_run_whose_stages_go_on_is_not_over_while_anybody_waits() -> None:
    assert not tasks.over(RUN, frozenset({SECOND}), BEGUN, NOW)
    assert not tasks.over(RUN, frozenset({FIRST, SECOND}), BEGUN, NOW)


def test_a_run_whose_stages_stopped_is_over_when_those_it_reached_have_ended() -> None:
    stopped = replace(BEGUN, state=RolloutState.STOPPED)
    assert tasks.reached(BEGUN, FIRST)
    assert not tasks.reached(BEGUN, SECOND)
    assert not tasks.over(RUN, frozenset({FIRST, SECOND}), stopped, NOW)
    assert tasks.over(RUN, frozenset({SECOND}), stopped, NOW)


def test_a_task_whose_zone_is_not_known_any_more_runs_no_further() -> None:
    task = tasks.Task(
        "acme.example", "a", "k", "{}", "g", "/", None, "", 600, "0 2 * * *", "Gone/City", None, NOW, tasks.Progress.PLANNED, NOW, 1
    )
    assert task.following(NOW) is None
    assert replace(task, zone="").following(NOW) is not None
