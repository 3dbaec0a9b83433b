"""Levels with real processes: three primaries one above the other, each joined to the next by the secondary on its host.

    top          corp: m1, whose host runs `middle`
    middle       acme: l1, and m0, whose host runs `low`
    low          low:  k1

The tests follow each other over one set of processes: the last ones take the tree apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PrimaryProcess, SecondaryProcess, primary_process, ran
from tests.support.waiting import wait_for

ACCOUNT = "acme.example"
HANDLERS = """
[handlers.policy.web]
type = "file"
path = "{folder}/web.json"
format = "json"

[handlers.task.note]
type = "exec"
command = ["/bin/sh", "-c", "echo ran >> {folder}/runs; echo done by {name}"]

[handlers.task.slow]
type = "exec"
command = ["/bin/sh", "-c", "until [ -e {folder}/go ]; do sleep 0.1; done; touch {folder}/slow; echo done"]
"""


class Place:
    """A secondary with handlers that leave traces in its own folder."""

    def __init__(
        self, folder: Path, name: str, above: PrimaryProcess, below: PrimaryProcess | None = None, account: str = ACCOUNT
    ) -> None:
        self.daemon = SecondaryProcess(folder, name)
        self.folder = folder / name
        line = above.last_line("join", account, "--name", name)
        (self.folder / "join").write_text(line)
        where = ("--config", str(self.daemon.config), "--data", str(self.daemon.data))
        wait_for(lambda: self._joins(*where), 60, what=f"the enrolment of {name}")
        text = HANDLERS.format(folder=self.folder, name=name)
        if below is not None:
            text += f'\n[local_primary]\nsocket = "{below.data}/run/upstream.sock"\n'
        with self.daemon.config.open("a") as config:
            config.write(text)
        self.daemon.start()

    def _joins(self, *where: str) -> bool:
        """Whether this attempt to join succeeds. A primary whose certificates live for seconds may change its own in the middle of
        it: then the answer says that another attempt is worth it."""
        done = ran("enlist-setup", "--unattended", "--json", "--join-file", str(self.folder / "join"), *where)
        assert done.returncode == 0 or json.loads(done.stdout)["retry"], done.stderr
        return done.returncode == 0

    @property
    def settings(self) -> Any:
        """What the policy put in force here; None if nothing."""
        path = self.folder / "web.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def runs(self) -> int:
        """How often the task ran here, ever."""
        path = self.folder / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def works(self) -> bool:
        """Whether the slow task is at work here."""
        waits_for = f"{self.folder}/go".encode()
        return any(waits_for in _command(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


class Levels:
    """The whole tree."""

    def __init__(self, folder: Path, stack: ExitStack, lifetime: str = "30d") -> None:
        """`lifetime` is that of every certificate."""
        self.folder = folder
        folders = {name: folder / name for name in ("top", "middle", "low")}
        for path in folders.values():
            path.mkdir(mode=0o700)
        self.top, self.middle, self.low = (stack.enter_context(primary_process(path)) for path in folders.values())
        if lifetime != "30d":
            for primary in (self.top, self.middle, self.low):
                primary.configure(f'\n[certificates]\nlifetime = "{lifetime}"\n')
        self.m1 = Place(folder, "m1", self.top, self.middle)
        self.l1 = Place(folder, "l1", self.middle)
        self.m0 = Place(folder, "m0", self.middle, self.low)
        self.k1 = Place(folder, "k1", self.low)
        for place in self.all:
            stack.callback(place.daemon.close)
        self.top.do("server", "authorize", "m1", "--may-have-secondaries")
        self.middle.do("server", "authorize", "m0", "--may-have-secondaries")
        wait_for(lambda: self.names() == {"l1", "m0", "k1"}, what="all three below m1")

    @property
    def all(self) -> list[Place]:
        """Every secondary, from the top down."""
        return [self.m1, self.l1, self.m0, self.k1]

    def below(self) -> dict[str, dict[str, Any]]:
        """What stands below m1 in the top-most primary's tree, by name."""
        found: dict[str, dict[str, Any]] = {}

        def walk(servers: list[dict[str, Any]]) -> None:
            for server in servers:
                found[server["name"]] = server
                walk(server["below"])

        for root in self.top.json("tree", ACCOUNT):
            for server in root["servers"]:
                walk(server["below"])
        return found

    def names(self) -> set[str]:
        """The names of the servers below m1 that are connected."""
        return {name for name, server in self.below().items() if server["connected"]}

    def set_policy(self, primary: PrimaryProcess, settings: object, *locks: str, expect: int = 0) -> str:
        """Sets the policy of the root group; what the command said."""
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))
        where = ("policy", "set", ACCOUNT, "--kind", "web", "--file", str(file))
        return primary.do(*where, *(part for lock in locks for part in ("--lock", lock)), expect=expect).stderr

    def policy(self, primary: PrimaryProcess) -> dict[str, Any]:
        """How that policy fares."""
        (found,) = primary.json("policy", "list", ACCOUNT)
        return dict(found)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits, and shows the logs if it was in vain."""
        try:
            wait_for(condition, 40, what=what)
        except AssertionError as error:
            logs = "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.rglob("*.log")))
            raise AssertionError(f"{error}\n{logs}") from None


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Levels]:
    """Three levels of processes."""
    with ExitStack() as stack:
        yield Levels(tmp_path_factory.mktemp("levels"), stack)


def test_a_policy_of_the_top_is_in_force_at_every_level_and_counted_there(levels: Levels) -> None:
    levels.set_policy(levels.top, {"a": 1, "b": 1, "c": 1}, "/a")
    levels.until(lambda: all(place.settings == {"a": 1, "b": 1, "c": 1} for place in levels.all), "the policy everywhere")
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "four reports")
    assert levels.policy(levels.top)["desired"] == 4


def test_lower_primaries_say_more_but_never_what_is_locked_above(levels: Levels) -> None:
    levels.set_policy(levels.middle, {"b": 2}, "/b")
    levels.set_policy(levels.low, {"c": 3})
    levels.until(lambda: levels.k1.settings == {"a": 1, "b": 2, "c": 3}, "all three layers at the bottom")
    levels.until(lambda: levels.l1.settings == {"a": 1, "b": 2, "c": 1}, "two layers in the middle")
    assert levels.m1.settings == {"a": 1, "b": 1, "c": 1}
    for primary, settings in ((levels.middle, {"a": 9}), (levels.low, {"a": 9}), (levels.low, {"b": 9})):
        assert "SETTING_LOCKED" in levels.set_policy(primary, settings, expect=1)
    explained = levels.low.json("policy", "explain", "k1", "--kind", "web")
    assert explained["effective"] == {"a": 1, "b": 2, "c": 3}
    assert [explained["origin"][pointer]["locked"] for pointer in ("/a", "/b", "/c")] == [True, True, False]
    assert [explained["origin"][pointer]["layer"].count(":") for pointer in ("/a", "/b", "/c")] == [1, 1, 0]


def test_a_task_of_the_top_runs_once_at_every_level(levels: Levels) -> None:
    before = [place.runs for place in levels.all]
    done = levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--wait", "--json")
    results = {each["server"].rpartition(" / ")[2]: each for each in json.loads(done.stdout)}
    assert {name: each["state"] for name, each in results.items()} == dict.fromkeys(["m1", "l1", "m0", "k1"], "succeeded")
    assert results["k1"]["output"] == "done by k1\n"
    assert [place.runs for place in levels.all] == [count + 1 for count in before]


def test_a_task_for_the_middle_server_alone_runs_nowhere_below(levels: Levels) -> None:
    before = [place.runs for place in levels.all]
    levels.top.do("task", "run", "m1", "--kind", "note", "--wait", "--json")
    # What follows is handed down the same way, so what came before it would have begun by then.
    levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--wait", "--json")
    assert [place.runs - count for place, count in zip(levels.all, before, strict=True)] == [2, 1, 1, 1]


def test_a_task_of_the_top_for_one_server_far_below_runs_there_alone(levels: Levels) -> None:
    before = [place.runs for place in levels.all]
    shown = levels.top.json("server", "show", "m1/k1")
    assert (shown["name"], shown["state"], shown["connected"]) == ("k1", "trusted", True)
    for target in ("m1/m0/k1", shown["id"]):
        done = levels.top.do("task", "run", target, "--kind", "note", "--wait", "--json")
        assert [(each["server"], each["state"]) for each in json.loads(done.stdout)] == [("m1 / k1", "succeeded")]
    # What follows is handed down the same way, so what came before it would have begun by then.
    levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--wait", "--json")
    assert [place.runs - count for place, count in zip(levels.all, before, strict=True)] == [1, 1, 1, 3]


def test_what_only_the_primary_above_a_server_knows_or_decides_is_said_to_be_asked_there(levels: Levels) -> None:
    for words in (
        ("policy", "explain", "m1/k1", "--kind", "web"),
        ("server", "suspend", "m1/m0/k1"),
        ("task", "run", "k1", "--kind", "note"),
    ):
        assert "NOT_ALLOWED: k1 stands below m1" in levels.top.do(*words, expect=1).stderr


def test_who_waits_to_be_authorized_below_is_seen_above(levels: Levels) -> None:
    pending = SecondaryProcess(levels.folder, "newcomer")
    pending.set_up(levels.low)
    levels.until(lambda: "newcomer" in levels.below(), "the newcomer in the top-most primary's tree")
    shown = levels.below()["newcomer"]
    assert (shown["state"], shown["connected"]) == ("pending", False)
    assert shown["comparison_code"] == levels.low.server("newcomer")["comparison_code"]
    levels.low.do("server", "deny", "newcomer")
    levels.until(lambda: "newcomer" not in levels.below(), "the newcomer to be gone")


def test_a_loop_is_refused_when_it_is_proposed(levels: Levels) -> None:
    """The top-most primary's host asks to stand under the lowest one."""
    climber = Place(levels.folder, "climber", levels.low, levels.top)
    try:
        levels.low.do("server", "authorize", "climber", "--may-have-secondaries")
        levels.until(lambda: "WOULD_LOOP" in climber.daemon.log, "the refusal")
        assert levels.low.server("climber")["lower_primary"] is None
    finally:
        climber.daemon.end()
        levels.low.do("server", "remove", "climber")
    levels.until(lambda: levels.names() == {"l1", "m0", "k1"}, "the tree as it was")


def test_what_lies_below_a_cut_reads_unknown_and_keeps_its_policy(levels: Levels) -> None:
    """Faults rows 9 and 25."""
    levels.m1.daemon.end(9)
    levels.until(lambda: levels.policy(levels.top)["unreachable"] == 4, "all four unreachable")
    policy = levels.policy(levels.top)
    assert (policy["desired"], policy["applied"]) == (4, 0)
    assert policy["unreachable_since"] is not None
    below = levels.below()
    assert all(below[name]["unknown_since"] is not None for name in ("l1", "m0", "k1"))
    assert levels.k1.settings == {"a": 1, "b": 2, "c": 3}
    levels.m1.daemon.start()
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four again")


def test_what_lies_below_a_cut_further_down_reads_unknown_at_the_top(levels: Levels) -> None:
    """The lowest primary is gone; the host it runs on is not. Nor does it read green when that host starts again without it."""
    levels.low.end(9)
    levels.until(lambda: levels.below()["k1"]["unknown_since"] is not None, "k1 to be unknown at the top")
    levels.until(lambda: levels.policy(levels.top)["unreachable"] == 1, "one unreachable at the top")
    assert levels.below()["m0"]["unknown_since"] is None
    levels.low.start()
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four again")
    levels.m0.daemon.end()
    levels.until(lambda: not levels.below()["m0"]["connected"], "the host to be gone")
    levels.low.end()
    levels.m0.daemon.start()
    levels.until(lambda: levels.below()["m0"]["connected"], "the host, whose primary does not run")
    assert levels.below()["k1"]["unknown_since"] is not None
    assert levels.policy(levels.top)["unreachable"] == 1
    levels.low.start()
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four once more")


def test_a_middle_primary_that_was_lost_for_a_while_loses_and_doubles_no_task(levels: Levels) -> None:
    """Faults rows 25 and 27: it is killed, the task begins above, and it comes back."""
    before = [place.runs for place in levels.all]
    levels.middle.end(9)
    levels.until(lambda: levels.below()["k1"]["unknown_since"] is not None, "what lies below to be unknown")
    levels.top.do("task", "run", ACCOUNT, "--kind", "note", "--deadline", "2m", "--json")
    task = levels.top.json("task", "list", ACCOUNT)[0]
    levels.until(lambda: levels.m1.runs == before[0] + 1, "the run at the middle server itself")
    levels.middle.start()
    levels.until(lambda: levels.top.json("task", "list", ACCOUNT)[0]["state"] == "done", "the end of the run")
    assert {each["state"] for each in levels.top.json("task", "show", task["id"])["results"]} == {"succeeded"}
    assert [place.runs for place in levels.all] == [count + 1 for count in before]


def test_what_a_task_came_to_below_a_cut_is_believed_though_it_was_cancelled_meanwhile(levels: Levels) -> None:
    """Its document is wanted no more when the middle server is back, and nobody above knows how it ended.

    The primary that passes the word on was started anew meanwhile.
    """
    levels.top.do("task", "run", ACCOUNT, "--kind", "slow", "--deadline", "5m", "--json")
    task = levels.top.json("task", "list", ACCOUNT)[0]["id"]

    def states() -> dict[str, str]:
        results = levels.top.json("task", "show", task)["results"]
        return {each["server"].rpartition(" / ")[2]: each["state"] for each in results}

    levels.until(lambda: set(states().values()) == {"running"}, "all four at work")
    levels.m0.daemon.end(9)
    (levels.k1.folder / "go").touch()
    levels.until((levels.k1.folder / "slow").exists, "the end of the work below")
    levels.top.do("task", "cancel", task)
    assert set(states().values()) == {"interrupted"}
    levels.until(lambda: not levels.l1.works, "what is wanted no more to be stopped, so that the primary in between knows")
    levels.middle.end(9)
    levels.middle.start()
    levels.m0.daemon.start()
    levels.until(
        lambda: states() == {"m1": "interrupted", "l1": "interrupted", "m0": "interrupted", "k1": "succeeded"}, "the truth"
    )
    (levels.m0.folder / "go").touch()  # its work outlived the kill


def test_whoever_is_killed_while_a_policy_comes_down_it_is_in_force_everywhere_in_the_end(levels: Levels) -> None:
    """Faults rows 2 and 25: one process of each sort, in the middle of what is handed down."""
    victims = (levels.middle, levels.m0.daemon, levels.low, levels.k1.daemon)
    for number, victim in enumerate(victims, 10):
        levels.set_policy(levels.top, {"a": 1, "b": 1, "c": 1, "n": number}, "/a")
        victim.end(9)
        victim.start()
        levels.until(lambda: {(place.settings or {}).get("n") for place in levels.all} == {number}, f"{number} everywhere")  # noqa: B023  # it is called in here only
        levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "four reports")


def test_a_primary_that_left_and_comes_back_is_in_force_again_at_every_level(levels: Levels) -> None:
    """What it set was deleted below; nobody counts as having it until it has it again."""
    settings = {"a": 1, "b": 2, "c": 3, "n": 13}
    assert levels.k1.settings == settings
    levels.top.do("server", "authorize", "m1", "--no-may-have-secondaries", "--below", "delete")
    levels.until(lambda: levels.k1.settings == {"b": 2, "c": 3}, "nothing of the top at the bottom")
    levels.top.do("server", "authorize", "m1", "--may-have-secondaries")
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four reports again")
    assert levels.k1.settings == settings


def test_what_is_kept_stays_free_to_change_though_the_secondary_in_between_starts_anew(levels: Levels) -> None:
    """With the primary above gone for good, nobody would take its locks away again."""
    levels.top.do("server", "authorize", "m1", "--no-may-have-secondaries", "--below", "keep")
    levels.until(lambda: "leaves: kept" in levels.middle.do("journal", "show", ".").stdout, "the word to arrive below")
    levels.set_policy(levels.middle, {"a": 2, "b": 2})
    levels.top.end(9)
    joined = levels.middle.do("journal", "show", ".").stdout.count("upper.join")
    levels.m1.daemon.end()
    levels.m1.daemon.start()
    levels.until(lambda: levels.middle.do("journal", "show", ".").stdout.count("upper.join") > joined, "the secondary to ask anew")
    levels.set_policy(levels.middle, {"a": 3, "b": 2})
    levels.until(lambda: (levels.l1.settings or {}).get("a") == 3, "what may be changed")
    levels.top.start()
    levels.set_policy(levels.middle, {"b": 2}, "/b")
    levels.top.do("server", "authorize", "m1", "--may-have-secondaries")
    levels.until(lambda: (levels.l1.settings or {}).get("a") == 1, "the top's lock again")
    levels.until(lambda: levels.policy(levels.top)["applied"] == 4, "all four reports again")


def test_removing_a_middle_server_asks_what_becomes_of_what_was_set_below(levels: Levels) -> None:
    refused = levels.middle.do("server", "remove", "m0", expect=1)
    assert "BEQUEST_REQUIRED" in refused.stderr
    levels.middle.do("server", "remove", "m0", "--below", "delete")
    levels.until(lambda: levels.k1.settings == {"c": 3}, "what both primaries above had set to be gone")
    levels.until(lambda: levels.names() == {"l1"}, "two to be gone from the tree")


def test_what_is_frozen_stays_locked_after_the_primary_above_is_gone(levels: Levels) -> None:
    levels.top.do("server", "authorize", "m1", "--no-may-have-secondaries", "--below", "freeze")
    levels.until(lambda: "leaves: frozen" in levels.middle.do("journal", "show", ".").stdout, "the word to arrive below")
    levels.top.do("server", "remove", "m1", "--below", "freeze")
    levels.until(lambda: levels.m1.daemon.returncode is not None, "its secondary to end, though it has nothing new to tell below")
    assert levels.l1.settings == {"a": 1, "b": 2, "c": 1, "n": 13}
    assert "SETTING_LOCKED" in levels.set_policy(levels.middle, {"a": 9}, expect=1)
    levels.set_policy(levels.middle, {"b": 4})
    levels.until(lambda: levels.l1.settings == {"a": 1, "b": 4, "c": 1, "n": 13}, "what may be changed")
