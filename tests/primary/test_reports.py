"""What servers say, on its way into the database: `links.reports`."""

from __future__ import annotations

from typing import Any

import pytest

from enlist_primary.links.reports import Reports
from enlist_primary.model.reports import Word

ACCOUNT = "acme.example"


class Kept:
    """Takes the place of a database, and keeps the words that would be written."""

    def __init__(self) -> None:
        self.words: list[Word] = []

    async def write(self, account: str, operation: object, *arguments: Any) -> None:
        """One batch."""
        self.words += arguments[-1]


def word(state: str, name: str = "aaaaaaaaaa", kind: str = "task/restart") -> Word:
    return Word("bbbbbbbbbb", kind, name, state, 1_800_000_000)


async def written(*words: Word) -> list[str]:
    """The states that are written of these words, which came one right behind the other."""
    kept: Any = Kept()
    reports = Reports(kept)
    for each in words:
        reports.take(ACCOUNT, each)
    await reports.flush()
    return [each.state for each in kept.words]


async def test_of_words_on_the_same_thing_the_newest_is_written() -> None:
    assert await written(word("sent"), word("running"), word("succeeded")) == ["succeeded"]
    assert await written(word("running"), word("succeeded", "cccccccccc")) == ["running", "succeeded"]
    assert await written(word("failed", "", "policy/chrony"), word("applied", "", "policy/chrony")) == ["applied"]


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "interrupted"])
async def test_a_word_that_waits_is_not_lost_because_the_run_was_sent_once_more(state: str) -> None:
    """Every set names the runs that are open: one that goes out for another reason says "sent" of each again."""
    assert await written(word(state), word("sent")) == [state]
