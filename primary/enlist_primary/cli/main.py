"""`enlist-primary`: reads the command line, runs one command, prints what came of it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import commands
from enlist_primary.cli import (
    accounts,
    api_keys,
    daemon,
    groups,
    join,
    journal,
    origins,
    output,
    policies,
    servers,
    status,
    tasks,
    tree,
)

DEFAULT_DATA = "/var/lib/enlist/primary"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="enlist-primary",
        description="Takes charge of many servers: holds their accounts, decides whom to trust, keeps their links.",
        epilog="Every command but init and serve talks to the running primary through its data folder's socket. "
        "Exit status: 0 done, 1 refused (with a reason code), 2 wrong usage.",
    )
    top.add_argument("--data", type=Path, default=Path(DEFAULT_DATA), metavar="DIR", help="data folder (default: %(default)s)")
    nouns = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for noun in (daemon, status, accounts, api_keys, join, servers, groups, policies, tasks, tree, journal, origins):
        noun.add_commands(nouns)
    return top


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core would write to standard error past our logs
    arguments = parser().parse_args(_values_joined(sys.argv[1:] if argv is None else argv))
    as_json = getattr(arguments, "json", False)

    def work() -> int:
        _check_text(arguments)
        status: int = arguments.run(arguments)
        return status

    return commands.run(work, lambda refused: output.refused(refused, as_json))


def _values_joined(argv: Sequence[str]) -> list[str]:
    """The same with `--deadline -5s` as `--deadline=-5s`: argparse takes that value for a flag, and no flag of ours is a number."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-\d", word) and joined and re.fullmatch(r"--[a-z-]*[a-z]", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _check_text(arguments: argparse.Namespace) -> None:
    """Refuses arguments that are not text: only a path may hold bytes that are no UTF-8."""
    for value in vars(arguments).values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise Refused(Reason.INVALID_ARGUMENT, f"The argument {text} is not UTF-8 text.")


if __name__ == "__main__":
    sys.exit(main())
