"""`enlist-setup`: reads the command line, runs the wizard or the unattended set-up, prints what came of it."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from enlist.reasons import Reason, Refused
from enlist.runtime import commands

if TYPE_CHECKING:
    from enlist_installer.answers import Answers

# What is heavy, gRPC above all, is imported when there is something to do: `--help` answers at once.

_QUESTIONS = (
    ("--primary", "HOST[:PORT]", "primary server address: IP address or domain name; the port if it is not 13299"),
    ("--primary-fingerprint", "HEX", "the primary's fingerprint, as `enlist-primary status` shows it there"),
    ("--account", "DOMAIN", "account domain name; need not match the address"),
    ("--api-key-file", "FILE", "file that holds the API key, - for standard input (or the variable ENLIST_API_KEY)"),
    ("--name", "NAME", "display name of this server"),
    ("--server-address", "HOST", "address where clients find this server"),
    ("--config", "FILE", "configuration file (default: /etc/enlist/secondary.toml)"),
    ("--data", "DIR", "folder for keys and state (default: /var/lib/enlist/secondary)"),
    ("--join-file", "FILE", "file that holds a join line, - for standard input (or the variable ENLIST_JOIN)"),
    ("--company-ca", "CA", 'who may vouch for the primary: "system", a PEM file, or "none"'),
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="enlist-setup",
        description="Makes this server a secondary of a primary server: asks, checks every answer, writes, and registers.",
        epilog="Every question is a flag and, but for --service, a key of the answers file, spelt with underscores: "
        "--primary-fingerprint is primary_fingerprint there. A flag goes before the file. "
        "Exit status: 0 done, 1 refused (with a reason code), 2 wrong usage.",
        allow_abbrev=False,
    )
    questions = top.add_argument_group("answers")
    for flag, form, words in _QUESTIONS:
        questions.add_argument(flag, metavar=form, help=words)
    questions.add_argument(
        "--confirm-identity", choices=("auto", "always"), help="always compare fingerprints, or not if a CA vouches"
    )
    questions.add_argument("--answers", metavar="FILE", help="TOML file with answers")
    questions.add_argument("--service", action=argparse.BooleanOptionalAction, help="install and start a systemd service")
    alone = top.add_argument_group("without a person")
    alone.add_argument("--unattended", action="store_true", help="ask nothing; refuse where an answer is missing")
    alone.add_argument("--check", action="store_true", help="check everything and write nothing")
    alone.add_argument("--wait", type=_wait, metavar="STATE:SECONDS", help='wait for "trusted" or "connected"')
    alone.add_argument("--ask-again", action="store_true", help="ask again although an administrator said no")
    alone.add_argument("--json", action="store_true", help="print JSON: changed, state, reason, retry, server_id")
    return top


def _wait(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(trusted|connected):([1-9][0-9]{0,6})", text)
    if not found:
        raise argparse.ArgumentTypeError('expected "trusted:SECONDS" or "connected:SECONDS"')
    return found[1], int(found[2])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    top = parser()
    arguments = top.parse_args(argv)
    alone = [flag for flag in ("check", "wait", "ask_again", "json") if getattr(arguments, flag)]
    if alone and not arguments.unattended:
        top.error(f"--{alone[0].replace('_', '-')} needs --unattended")
    if not arguments.unattended and not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _say_no(Refused(Reason.NO_TERMINAL, "There is no terminal to ask at. Use --unattended; --help lists the flags."), 2)
    os.umask(0o077)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines, and our log's, would stand between question and answer
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")  # nor does a serial console say where its cursor is
    logging.getLogger("enlist").addHandler(logging.NullHandler())
    try:
        return _unattended(top, arguments) if arguments.unattended else _wizard(arguments)
    except KeyboardInterrupt:  # so early that what it takes was still being loaded
        return _say_no(Refused(Reason.INTERRUPTED, "Stopped. Nothing was written."), 1)
    except BrokenPipeError:
        return commands.unheard()


def _wizard(arguments: argparse.Namespace) -> int:
    from enlist.transport.dialer import Dialer
    from enlist_installer import menu
    from enlist_installer.wizard import Wizard

    wizard = Wizard(print, Dialer(), time.time, _person(), arguments.service)
    refused = _attempt(lambda: asyncio.run(menu.run(wizard, _answers(arguments))))
    if refused is None:
        return 0
    if refused.reason is Reason.INTERRUPTED:
        refused = _interrupted(wizard.written)
    return _say_no(refused, 1)


def _interrupted(written: bool) -> Refused:
    from enlist_installer import words

    return Refused(Reason.INTERRUPTED, words.stopped(written))


def _unattended(top: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.transport.dialer import Dialer
    from enlist_installer.answers import MissingAnswer
    from enlist_installer.unattended import Request, Unattended, Wait

    def say(text: str) -> None:
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    run = Unattended(say, Dialer(), time.time)

    def work() -> None:
        wait = Wait(*arguments.wait) if arguments.wait else None
        request = Request(_answers(arguments), _person(), arguments.check, wait, bool(arguments.service), arguments.ask_again)
        asyncio.run(run.run(request))

    try:
        refused = _attempt(work)
    except MissingAnswer as missing:
        top.error(str(missing))
    if refused is not None and refused.reason is Reason.INTERRUPTED:
        refused = _interrupted(run.outcome().changed)
    if arguments.json:
        print(json.dumps(asdict(run.outcome(refused)), indent=2))
    return 0 if refused is None else _say_no(refused, 1)


def _attempt(work: Callable[[], None]) -> Refused | None:
    """Why it did not work out, or None. Nobody is shown a traceback; `MissingAnswer`, a matter of usage, and a closed pipe pass."""
    from enlist_installer.answers import MissingAnswer

    try:
        work()
    except Refused as refused:
        return refused
    except KeyboardInterrupt:
        return Refused(Reason.INTERRUPTED, "Stopped.")
    except (MissingAnswer, BrokenPipeError):
        raise
    except Exception as error:
        return commands.unforeseen(error)
    return None


def _answers(arguments: argparse.Namespace) -> Answers:
    from enlist_installer import answers

    flags = answers.Given(**{key: getattr(arguments, key) for key in answers.Given.__struct_fields__})
    secrets = {name: os.environ.pop(name, "") for name in answers.VARIABLES}  # what we start needs to inherit none of them
    return answers.gather(flags, arguments.answers, secrets, answers.read_stdin)


def _person() -> str:
    """Who sits here, for the list of known primaries."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def _say_no(refused: Refused, status: int) -> int:
    from enlist_installer.words import refusal

    print(refusal(refused), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
