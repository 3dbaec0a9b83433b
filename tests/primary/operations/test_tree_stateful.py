"""Long random histories of a tree of groups with servers in it, against a model that is a dictionary of paths.

The model knows no SQL: a move renames every path that begins with the old one.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from enlist import names
from enlist.reasons import Reason, Refused
from enlist_primary.model.servers import Event, Server
from enlist_primary.store import groups
from enlist_primary.store.sqlite import SqliteEngine
from tests.primary.operations.desk import ACME, BETA, Desk
from tests.primary.refusals import attempt

Path = tuple[str, ...]
PATHS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(tuple)
KEYS = st.sampled_from(["one", "two", "three"])


def shown(path: Path) -> str:
    return "/".join(path) or "/"


class Tree(RuleBasedStateMachine):
    """Every operation on groups, and servers that stand in them."""

    engine: SqliteEngine

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.engine.begin())
        self.ids: dict[Path, str] = {(): groups.root(self.desk.tx, ACME)}
        self.places: dict[str, Path] = {}
        self.landing: Path = ()
        self.rows: dict[str, Server] = {}
        self.theirs = self.desk.rows(ACME)

    def teardown(self) -> None:
        self.desk.check()
        self.engine.rollback()

    # --- What is done -------------------------------------------------------------------------------------------------------

    @rule(path=PATHS)
    def add(self, path: Path) -> None:
        made = self.desk.add_group(shown(path))
        for end in range(1, len(path) + 1):
            group = groups.find(self.desk.tx, ACME, shown(path[:end]))
            assert self.ids.setdefault(path[:end], group.id) == group.id
        assert made.id == self.ids[path]

    @rule(path=PATHS)
    def remove(self, path: Path) -> None:
        outcome = attempt(self.desk.remove_group, shown(path))
        held = [other for other in (*self.ids, *self.places.values(), self.landing) if other[: len(path)] == path]
        if not path:
            self._refused(outcome, Reason.INVALID_ARGUMENT)
        elif path not in self.ids:
            self._refused(outcome, Reason.NOT_FOUND)
        elif held != [path]:
            self._refused(outcome, Reason.GROUP_NOT_EMPTY)
        else:
            assert outcome is None
            del self.ids[path]

    @rule(path=PATHS, new=PATHS)
    def move(self, path: Path, new: Path) -> None:
        outcome = attempt(self.desk.move_group, shown(path), shown(new))
        if path and path not in self.ids:
            return self._refused(outcome, Reason.NOT_FOUND)
        if path == new and path:
            assert not isinstance(outcome, Refused)
            return None
        if not path or not new:
            return self._refused(outcome, Reason.INVALID_ARGUMENT)
        if new[: len(path)] == path:
            return self._refused(outcome, Reason.WOULD_LOOP)
        if new[:-1] not in self.ids:
            return self._refused(outcome, Reason.NOT_FOUND)
        if new in self.ids:
            return self._refused(outcome, Reason.ALREADY_EXISTS)
        if len(new) + max(len(other) - len(path) for other in self.ids if other[: len(path)] == path) > names.GROUP_DEPTH:
            return self._refused(outcome, Reason.INVALID_ARGUMENT)
        assert not isinstance(outcome, Refused), outcome

        def renamed(other: Path) -> Path:
            return new + other[len(path) :] if other[: len(path)] == path else other

        self.ids = {renamed(other): id for other, id in self.ids.items()}
        self.places = {key: renamed(other) for key, other in self.places.items()}
        self.landing = renamed(self.landing)
        return None

    @rule(key=KEYS)
    def ask(self, key: str) -> None:
        """A server asks to join and is trusted, unless it is there."""
        self.rows[key] = self.desk.authorize(self.desk.ask(key))
        self.places.setdefault(key, self.landing)

    @rule(key=KEYS, path=PATHS)
    def move_server(self, key: str, path: Path) -> None:
        if key not in self.rows:
            return
        outcome = attempt(self.desk.move, self.rows[key], shown(path))
        if key not in self.places:
            self._refused(outcome, Reason.STATE_FORBIDS)
        elif path not in self.ids:
            self._refused(outcome, Reason.NOT_FOUND)
        else:
            assert not isinstance(outcome, Refused)
            self.places[key] = path

    @rule(key=KEYS)
    def end(self, key: str) -> None:
        """A server is removed: it holds its group no longer."""
        if self.places.pop(key, None) is not None:
            self.desk.decide(self.rows[key], Event.REMOVE)

    @rule(path=PATHS)
    def land(self, path: Path) -> None:
        outcome = attempt(self.desk.set_account, landing_group=shown(path))
        if path in self.ids:
            assert not isinstance(outcome, Refused)
            self.landing = path
        else:
            self._refused(outcome, Reason.NOT_FOUND)

    def _refused(self, outcome: object, reason: Reason) -> None:
        assert isinstance(outcome, Refused), outcome
        assert outcome.reason is reason

    # --- What must hold -----------------------------------------------------------------------------------------------------

    @invariant()
    def the_tree_is_the_model_s(self) -> None:
        listed = groups.listed(self.desk.tx, ACME)
        assert {group.path: group.id for group in listed} == {shown(path): id for path, id in self.ids.items()}
        assert [group.path for group in listed] == [shown(path) for path in sorted(self.ids)]

    @invariant()
    def servers_stand_where_the_model_has_them(self) -> None:
        for key, path in self.places.items():
            assert self.desk.load(self.rows[key]).group == shown(path)

    @invariant()
    def what_stands_below_is_what_begins_with_the_path(self) -> None:
        for path, id in self.ids.items():
            below = {other for where, other in self.ids.items() if where[: len(path)] == path}
            assert set(groups.below(self.desk.tx, ACME, id)) == below

    @invariant()
    def the_other_account_notices_nothing(self) -> None:
        assert self.desk.rows(ACME) == self.theirs
        assert self.desk.desired(BETA) == 0


def test_no_history_of_a_tree_leads_anywhere_but_where_its_paths_say(engine: SqliteEngine) -> None:
    machine = type("OnThisFile", (Tree,), {"engine": engine})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40))
