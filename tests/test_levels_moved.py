"""A child primary whose host moves between accounts of one parent; real processes, as in test_levels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import PrimaryProcess, primary_process
from tests.support.waiting import wait_for
from tests.test_levels import ACCOUNT, Place

OTHER = "other.example"


@dataclass
class Moving:
    """Two primaries, and the server whose policies are watched, below the lower one."""

    folder: Path
    parent: PrimaryProcess
    child: PrimaryProcess
    leaf: Place
    stack: ExitStack

    def joins(self, name: str, account: str) -> Place:
        """The child's host enrols in an account of the parent, under a key of its own."""
        host = Place(self.folder, name, self.parent, self.child, account)
        self.stack.callback(host.daemon.close)
        self.parent.do("server", "authorize", name, "--may-have-secondaries")
        return host

    def sets(self, account: str, number: int) -> None:
        """A policy of the parent's account."""
        file = self.folder / "settings.json"
        file.write_text(json.dumps({"account": account, "number": number}))
        self.parent.do("policy", "set", account, "--kind", "web", "--file", str(file))

    def follows(self, account: str, number: int) -> None:
        """Waits until that policy is in force below the child."""
        wait_for(lambda: self.leaf.settings == {"account": account, "number": number}, 40, what=f"{account}, {number} below")


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Moving]:
    """Nobody has joined the two primaries yet."""
    with ExitStack() as stack:
        folders = [tmp_path / "parent", tmp_path / "child"]
        for folder in folders:
            folder.mkdir(mode=0o700)
        parent, child = (stack.enter_context(primary_process(folder)) for folder in folders)
        parent.do("account", "add", OTHER, "--contact", "ops@other.example")
        leaf = Place(tmp_path, "leaf", child)
        stack.callback(leaf.daemon.close)
        yield Moving(tmp_path, parent, child, leaf, stack)


def test_child_moved_to_another_account_of_its_parent_is_followed(moving: Moving) -> None:
    """The other account's journal is shorter, so its set versions are lower than those seen before the move."""
    first = moving.joins("first", ACCOUNT)
    for number in range(8):
        moving.sets(ACCOUNT, number)
    moving.follows(ACCOUNT, 7)
    first.daemon.end()
    second = moving.joins("second", OTHER)
    moving.sets(OTHER, 1)
    moving.follows(OTHER, 1)
    second.daemon.end()
    first.daemon.start()  # its own enrolment still holds: the parent certifies the child for it once more
    moving.follows(ACCOUNT, 7)
    moving.sets(ACCOUNT, 8)
    moving.follows(ACCOUNT, 8)
