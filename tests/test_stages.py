"""Staged rollouts with real processes: what is not confirmed goes back by itself, whoever is gone by then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PrimaryProcess, SecondaryProcess, primary_process, run
from tests.support.waiting import wait_for

ACCOUNT = "acme.example"
NAMES = ("a", "b", "c")
# Refuses settings that name it as bad, takes its time for those that name it as slow, and keeps what it last took.
HANDLER = '''
[handlers.policy.prog]
type = "exec"
command = ["/bin/sh", "-c", """
    in=$(cat)
    case $in in *bad-{name}*) exit 1;; *slow-{name}*) sleep 3;; esac
    echo "$in" > {folder}/new
    mv {folder}/new {folder}/in-force
"""]
'''


class Fleet:
    """A primary and three secondaries of one group."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.daemons: dict[str, SecondaryProcess] = {}
        self.primary: PrimaryProcess = stack.enter_context(primary_process(folder))
        for name in NAMES:
            daemon = SecondaryProcess(folder, name)
            line = self.primary.last_line("join", ACCOUNT, "--name", name)
            (folder / name / "join").write_text(line)
            where = ("--config", str(daemon.config), "--data", str(daemon.data))
            run("enlist-setup", "--unattended", "--json", "--join-file", str(folder / name / "join"), *where)
            with daemon.config.open("a") as config:
                config.write(HANDLER.format(name=name, folder=folder / name))
            daemon.start()
            stack.callback(daemon.close)
            self.daemons[name] = daemon
        wait_for(lambda: all(s["connected"] for s in self.primary.json("server", "list")), what="three links")

    def set_policy(self, settings: object, *more: str, expect: int = 0) -> str:
        """Sets the policy of the root group and watches it; what was printed."""
        (self.folder / "settings.json").write_text(json.dumps(settings))
        where = ("--kind", "prog", "--file", str(self.folder / "settings.json"))
        done = self.primary.do("policy", "set", ACCOUNT, *where, *more, expect=expect)
        return done.stdout + done.stderr

    def states(self) -> dict[str, str]:
        """How the policy fares, by server."""
        shown = self.primary.json("policy", "show", ACCOUNT, "--kind", "prog")
        return {each["name"]: each["state"] for each in shown["servers"]}

    @property
    def rollout(self) -> str:
        """Whether its rollout runs, stopped, or is done."""
        return str(self.primary.json("policy", "show", ACCOUNT, "--kind", "prog")["rollout"]["state"])

    def in_force(self) -> list[Any]:
        """What is in force at each server."""
        return [json.loads((self.folder / name / "in-force").read_text()) for name in NAMES]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three secondaries with the first settings in force."""
    with ExitStack() as stack:
        fleet = Fleet(tmp_path_factory.mktemp("stages"), stack)
        fleet.set_policy({"v": 1}, "--watch")
        yield fleet


def test_a_change_that_is_good_passes_all_stages_and_is_final(fleet: Fleet) -> None:
    said = fleet.set_policy({"v": 2}, "--stages", "1,50%,100%", "--confirm", "60s", "--watch")
    assert "all stages done" in said
    assert fleet.in_force() == [{"v": 2}] * 3
    actions = [each["action"] for each in fleet.primary.json("journal", "show", ACCOUNT)]
    assert actions[-3:] == ["rollout.stage", "rollout.stage", "rollout.done"]


def test_a_change_that_fails_in_its_first_stage_reaches_nobody_else(fleet: Fleet) -> None:
    bad = {"v": 3, "x": "bad-a bad-b bad-c"}
    said = fleet.set_policy(bad, "--stages", "1,100%", "--stop-after", "1", "--confirm", "60s", "--watch", expect=1)
    assert "1 server failed in stage 1 of 2" in said
    assert sorted(fleet.states().values()) == ["failed", "pending", "pending"]
    assert fleet.in_force() == [{"v": 2}] * 3


def test_servers_of_a_stage_that_stopped_go_back_by_themselves(fleet: Fleet) -> None:
    fleet.set_policy({"v": 4, "x": "bad-a"}, "--stages", "3,100%", "--confirm", "3s", "--watch", expect=1)
    wait_for(lambda: fleet.states() == {"a": "failed", "b": "rolled_back", "c": "rolled_back"}, what="two to go back")
    assert fleet.in_force() == [{"v": 2}] * 3


def test_a_server_goes_back_by_itself_though_the_primary_is_gone(fleet: Fleet) -> None:
    """Faults row 9: the change may be what cut it off. One that is slow keeps the stage from being confirmed before."""
    settings = {"v": 5, "x": "slow-a"}
    fleet.set_policy(settings, "--stages", "3,100%", "--confirm", "8s")
    wait_for(lambda: settings in fleet.in_force(), what="the first stage")
    fleet.primary.end(9)
    wait_for(lambda: fleet.in_force() == [{"v": 2}] * 3, what="all to be as before, without a primary")
    fleet.primary.start()
    wait_for(lambda: "rolled_back" in fleet.states().values(), what="the primary to hear of it")
    wait_for(lambda: fleet.rollout == "stopped", what="the primary to stop it, whatever it heard before")


def test_a_server_that_the_change_cut_off_stops_the_rollout_though_it_said_applied(fleet: Fleet) -> None:
    """Faults row 9: nor does a primary that comes back believe what it heard before of those who had to go back meanwhile."""
    wait_for(lambda: all(each["connected"] for each in fleet.primary.json("server", "list")), 60, what="three links")
    fleet.set_policy({"v": 6, "x": "slow-a"}, "--stages", "3,100%", "--confirm", "10s")
    wait_for(lambda: fleet.states() == {"a": "received", "b": "applied", "c": "applied"}, what="two to have it")
    fleet.daemons["b"].end(9)
    wait_for(lambda: fleet.rollout == "stopped", 40, what="the stop")
    fleet.daemons["b"].start()
    wait_for(lambda: fleet.in_force() == [{"v": 2}] * 3, 40, what="all to be as before")
