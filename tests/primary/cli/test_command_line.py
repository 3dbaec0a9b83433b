"""The command line as a whole: every command explains itself, knows wrong usage, and can print JSON."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator

import pytest

from enlist_primary.cli.main import parser
from tests.primary.cli.conftest import Run


def leaves(of: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with its words."""
    verbs = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not verbs:
        yield path, of
    for action in verbs:
        for word, child in action.choices.items():
            yield from leaves(child, (*path, word))


LEAVES = dict(leaves(parser()))
NOUNS = sorted({path[:1] for path in LEAVES if len(path) == 2})
BY_NAME = {" ".join(path): command for path, command in LEAVES.items()}

# The commands of the issue, and what else design section 10 lists of this landing.
WANTED = {
    "init": {"--name", "--listen", "--advertise", "--ssl-port", "--api-port", "--json"},
    "serve": set(),
    "status": {"--json"},
    "account add": {"DOMAIN", "--contact", "--json"},
    "account list": {"--json"},
    "account show": {"DOMAIN", "--json"},
    "account set": {"DOMAIN", "--contact", "--default-api-key", "--landing-group", "--json"},
    "api-key add": {"DOMAIN", "--full", "--uses", "--expires", "--network", "--group", "--json"},
    "api-key list": {"DOMAIN", "--json"},
    "api-key revoke": {"DOMAIN", "ID", "--json"},
    "join": {"DOMAIN", "--name", "--group", "--from", "--out", "--json"},
    "tree": {"DOMAIN", "--json"},
    "server list": {"DOMAIN", "--json"},
    "server show": {"NAME_OR_ID", "--account", "--json"},
    "server rename": {"NAME_OR_ID", "NEW_NAME", "--account", "--json"},
    "server authorize": {
        *("NAME_OR_ID", "--code", "--group", "--may-have-secondaries", "--no-may-have-secondaries", "--below", "--account"),
        "--json",
    },
    "server move": {"NAME_OR_ID", "DOMAIN/PATH", "--json"},
    "server label": {"NAME_OR_ID", "--add", "--remove", "--account", "--json"},
    "server resume": {"NAME_OR_ID", "--account", "--json"},
    **{f"server {verb}": {"NAME_OR_ID", "--reason", "--account", "--json"} for verb in ("deny", "suspend", "withdraw")},
    **{f"server {verb}": {"NAME_OR_ID", "--reason", "--below", "--account", "--json"} for verb in ("revoke", "remove")},
    "group add": {"DOMAIN/PATH", "--json"},
    "group remove": {"DOMAIN/PATH", "--json"},
    "group move": {"DOMAIN/PATH", "NEW_DOMAIN/PATH", "--json"},
    "group set": {"DOMAIN/PATH", "--window", "--no-window", "--for", "--zone", "--json"},
    "group list": {"DOMAIN", "--json"},
    **{f"policy {verb}": {"DOMAIN/PATH", "--kind", "--json"} for verb in ("remove", "show", "history")},
    "policy set": {
        *("DOMAIN/PATH", "--kind", "--file", "--lock", "--put-back", "--stages", "--stop-after", "--confirm", "--watch", "--json")
    },
    "policy plan": {
        *("DOMAIN/PATH", "--kind", "--file", "--lock", "--put-back", "--stages", "--stop-after", "--confirm", "--watch", "--json")
    },
    "policy rollback": {"DOMAIN/PATH", "--kind", "--revision", "--stages", "--stop-after", "--confirm", "--watch", "--json"},
    "policy list": {"DOMAIN", "--json"},
    "policy explain": {"NAME_OR_ID", "--kind", "--account", "--json"},
    "task run": {
        *("DOMAIN/PATH|SERVER", "--account", "--label", "--kind", "--args", "--args-file", "--deadline", "--at", "--schedule"),
        *("--zone", "--stages", "--stop-after", "--wait", "--json"),
    },
    "task list": {"DOMAIN", "--json"},
    "task show": {"ID", "--run", "--json"},
    "task cancel": {"ID", "--json"},
    "journal show": {"DOMAIN", "--json"},
    "journal verify": {"DOMAIN", "--json"},
    "origins list": {"--json"},
    "origins clear": {"ID", "--all", "--json"},
}


def words(command: argparse.ArgumentParser) -> set[str]:
    """A command's options by all their names, and its arguments by their metavars."""
    named = (action for action in command._actions if not isinstance(action, argparse._HelpAction))
    return {word for action in named for word in action.option_strings or [str(action.metavar)]}


def test_the_commands_are_those_of_the_issue() -> None:
    assert {name: words(command) for name, command in BY_NAME.items()} == WANTED


@pytest.mark.parametrize("name", BY_NAME)
def test_help_names_every_option_and_argument(run: Run, name: str) -> None:
    ran = run(*name.split(), "--help")
    assert (ran.status, ran.err) == (0, "")
    assert f"enlist-primary {name}" in ran.out.replace("--data DIR ", "")
    for word in WANTED[name] | {"--help"}:
        assert word in ran.out


@pytest.mark.parametrize("name", BY_NAME)
def test_every_option_is_explained(name: str) -> None:
    for action in BY_NAME[name]._actions:
        assert action.help or not action.option_strings, action.option_strings


@pytest.mark.parametrize("path", [(), *NOUNS], ids=lambda path: path[0] if path else "enlist-primary")
def test_help_lists_what_there_is(run: Run, path: tuple[str, ...]) -> None:
    ran = run(*path, "--help")
    assert (ran.status, ran.err) == (0, "")
    for leaf in LEAVES:
        if leaf[: len(path)] == path:
            assert re.search(rf"^    {leaf[len(path)]}\b", ran.out, re.MULTILINE)


@pytest.mark.parametrize("path", [(), *NOUNS], ids=lambda path: path[0] if path else "enlist-primary")
@pytest.mark.parametrize("word", [None, "nonsense", "--nonsense", ""])
def test_half_a_command_is_wrong_usage(run: Run, path: tuple[str, ...], word: str | None) -> None:
    ran = run(*path, *([] if word is None else [word]))
    assert (ran.status, ran.out) == (2, "")
    assert "usage:" in ran.err


@pytest.mark.parametrize("name", BY_NAME)
def test_every_command_that_prints_data_can_print_json(name: str) -> None:
    assert ("--json" in words(BY_NAME[name])) == (name != "serve"), "only serve prints nothing but its log"


# A right command line of each, with which nothing is wrong but that there is no primary.
RIGHT = {
    "serve": "",
    "status": "",
    "account add": "acme.example",
    "account list": "",
    "account show": "acme.example",
    "account set": "acme.example --default-api-key off --landing-group A/B",
    "api-key add": "acme.example --full --uses 3 --expires 7d --network 10.0.0.0/8 --network ::/0 --group A/B",
    "api-key list": "acme.example",
    "api-key revoke": "acme.example aaaaaaaaaa",
    "join": "acme.example --name x --group A/B",
    "tree": "acme.example",
    "server list": "acme.example",
    "server show": "x --account acme.example",
    "server rename": "x y",
    "server authorize": "x --code 12345-12345-12345-12345 --group A/B --may-have-secondaries",
    "server move": "x acme.example/A/B",
    "server label": "x --add a --add b --remove c",
    "server resume": "x",
    **{f"server {verb}": "x --reason because" for verb in ("deny", "suspend", "withdraw")},
    **{f"server {verb}": "x --reason because --below keep" for verb in ("revoke", "remove")},
    "group add": "acme.example/A/B",
    "group remove": "acme.example/A/B",
    "group move": "acme.example/A/B acme.example/C",
    "group set": "acme.example/A/B --no-window",
    "group list": "acme.example",
    **{f"policy {verb}": "acme.example/A --kind chrony" for verb in ("remove", "show", "history")},
    **{f"policy {verb}": "acme.example/A --kind chrony --file /dev/null --stages 1,100% --confirm 10m" for verb in ("set", "plan")},
    "policy rollback": "acme.example/A --kind chrony --revision 7",
    "policy list": "acme.example",
    "policy explain": "x --kind chrony",
    "task run": "acme.example/A --kind restart --deadline 30s",
    "task list": "acme.example",
    "task show": "aaaaaaaaaa",
    "task cancel": "aaaaaaaaaa",
    "journal show": "acme.example",
    "journal verify": ".",
    "origins list": "",
    "origins clear": "ab" * 32,
}
OF_A_CLIENT = [name for name in RIGHT if name != "serve"]  # serve is a process of its own: it sets umask and logging


def test_every_command_has_its_right_line_here() -> None:
    assert set(RIGHT) == set(BY_NAME) - {"init"}


@pytest.mark.parametrize("name", OF_A_CLIENT)
def test_without_a_primary_a_command_says_so(run: Run, name: str) -> None:
    """No traceback, exit 1, a reason code, and what to do."""
    ran = run(*name.split(), *RIGHT[name].split())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("CONFIG_MISSING: ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", OF_A_CLIENT)
def test_without_a_primary_json_says_so_too(run: Run, name: str) -> None:
    ran = run(*name.split(), *RIGHT[name].split(), "--json")
    refusal = json.loads(ran.out)
    assert (ran.status, set(refusal)) == (1, {"reason", "message", "retry"})
    assert (refusal["reason"], refusal["retry"]) == ("CONFIG_MISSING", False)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("extra", [["--nonsense"], ["one", "too", "many", "words"], ["--json=yes"]], ids=lambda extra: extra[0])
def test_what_a_command_does_not_know_is_wrong_usage(run: Run, name: str, extra: list[str]) -> None:
    ran = run(*name.split(), *RIGHT[name].split(), *extra)
    assert (ran.status, ran.out) == (2, "")
    assert "usage:" in ran.err


@pytest.mark.parametrize("name", [name for name in BY_NAME if any(w.isupper() for w in WANTED[name]) or name == "init"])
def test_what_a_command_needs_and_does_not_get_is_wrong_usage(run: Run, name: str) -> None:
    optional = {"tree", "server list", "policy list", "task list", "journal show", "journal verify"}
    assert run(*name.split()).status == (1 if name in optional else 2)


@pytest.mark.parametrize(
    "line",
    [
        "init --name x --ssl-port abc",
        "init --name x --api-port 1.5",
        "account set acme.example --default-api-key maybe",
        "account set acme.example --default-api-key",
        "api-key add acme.example --uses many",
        "api-key add acme.example --network",
        "join acme.example --from list.csv",
        "join acme.example --out folder",
        "join acme.example --from list.csv --out folder --name x",
        "join acme.example --from list.csv --out folder --group x",
        "server authorize x --reason because",
        "server resume x --reason because",
        "server deny x --code 12345",
        "server deny x --below keep",
        "server deny x --may-have-secondaries",
        "server remove x --below",
        "server remove x --below everything",
        "server revoke x --below everything",
        "server authorize x --may-have-secondaries yes",
        "server frobnicate x",
        "server move x",
        "server move x acme.example/A --account acme.example",
        "server label x",
        "group set acme.example/A",
        "group set acme.example/A --window @daily",
        "group set acme.example/A --for 2h",
        "group set acme.example/A --window @daily --for 2h --no-window",
        "group set acme.example/A --no-window --for 2h",
        "group set acme.example/A --no-window --zone Europe/Paris",
        "group move acme.example/A",
        "task run acme.example/A",
        "task run --kind restart",
        "task run acme.example/A --kind restart --args {} --args-file x",
        "task run acme.example/A --kind restart --schedule @daily --at 2026-11-22T02:00:00Z",
        "task run acme.example/A --kind restart --zone Europe/Paris",
        "task run acme.example/A --kind restart --stop-after many",
        "task run acme.example/A --kind restart --stop-after 1",
        "policy set acme.example/A --kind chrony",
        "policy set acme.example/A --file x",
        "policy set acme.example/A --kind chrony --file /dev/null --stop-after 1",
        "policy set acme.example/A --kind chrony --file /dev/null --confirm 10m",
        "policy rollback acme.example/A --kind chrony --revision new",
        "policy explain x",
        "origins clear",
        f"origins clear {'ab' * 32} --all",
    ],
)
def test_values_and_options_that_do_not_go_together_are_wrong_usage(run: Run, line: str) -> None:
    ran = run(*line.split())
    assert (ran.status, ran.out) == (2, "")


@pytest.mark.parametrize("expires", ["7", "d", "0d", "-1d", "7 d", "7w", "1.5h", "99999999d"])
def test_a_duration_that_is_none_is_refused_before_anybody_is_asked(run: Run, expires: str) -> None:
    ran = run("api-key", "add", "acme.example", f"--expires={expires}")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("INVALID_ARGUMENT: ")
