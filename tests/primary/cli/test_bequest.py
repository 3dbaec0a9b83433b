"""Removing a middle server: a person who has not said what becomes of what was set below is asked."""

from __future__ import annotations

import io
from typing import Any

import pytest

from enlist.v1 import trust_pb2
from enlist.v1.hierarchy_pb2 import ListServersResponse
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import FakePrimary, server

MIDDLE = server("aaaaaaaaaa", "middle", lower_primary="0" * 64)
PLAIN = server("bbbbbbbbbb", "plain")


class Terminal(io.StringIO):
    """Somebody types."""

    def isatty(self) -> bool:
        return True


def primary() -> FakePrimary:
    return FakePrimary(ListServers=ListServersResponse(servers=[MIDDLE, PLAIN]), RemoveServer=MIDDLE)


def asked(primary: FakePrimary) -> list[int]:
    """The bequests that reached the primary."""
    return [request.bequest for rpc, request in primary.asked if isinstance(request, trust_pb2.RemoveServerRequest)]


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a person at the terminal who types this."""

    def types(text: str) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(text))
        monkeypatch.setattr("sys.stderr", Terminal())

    return types


@pytest.mark.parametrize(
    ("word", "bequest"),
    [("keep", trust_pb2.BEQUEST_KEEP), ("freeze", trust_pb2.BEQUEST_FREEZE), ("delete", trust_pb2.BEQUEST_DELETE)],
)
def test_what_a_person_answers_or_gives_as_a_flag_is_what_the_primary_hears(
    run: Run, types: Any, word: str, bequest: trust_pb2.Bequest.ValueType
) -> None:
    flagged = primary()
    assert run("server", "remove", "middle", "--below", word, primary=flagged).status == 0
    types(f"{word}\n")
    typed = primary()
    assert run("server", "remove", "middle", primary=typed).status == 0
    assert asked(flagged) == asked(typed) == [bequest]


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "everything\n"])
def test_any_other_answer_changes_nothing(run: Run, types: Any, answer: str) -> None:
    types(answer)
    nobody = primary()
    assert run("server", "remove", "middle", primary=nobody).status == 1
    assert asked(nobody) == []


def test_of_a_server_without_a_primary_below_nothing_is_asked(run: Run, types: Any) -> None:
    types("")
    plain = primary()
    assert run("server", "remove", "plain", primary=plain).status == 0
    assert asked(plain) == [trust_pb2.BEQUEST_UNSPECIFIED]


def test_without_a_terminal_the_primary_itself_says_what_is_missing(run: Run) -> None:
    silent = primary()
    assert run("server", "remove", "middle", primary=silent).status == 0
    assert asked(silent) == [trust_pb2.BEQUEST_UNSPECIFIED]
