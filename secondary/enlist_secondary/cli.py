"""`enlist-secondary`: reads the command line, runs one command, prints what came of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from enlist.reasons import Reason, Refused
from enlist.runtime import commands
from enlist.runtime.terminal import escape, table
from enlist_secondary.config import DEFAULT_PATH

FINAL_NO = 3
"""Exit status of `run` where asking again is a person's decision, so that whatever restarts the daemon knows to let it rest."""

# What is heavy, gRPC above all, is imported inside the commands: `--help` answers at once.

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="enlist-secondary",
        description="Keeps this server enrolled under its primary. enlist-setup sets it up.",
        epilog="Exit status: 0 done, 1 refused (with a reason code), 2 wrong usage, 3 (run) the primary has said a final no.",
    )
    top.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="configuration (default: %(default)s)")
    known = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(known, "run", _run, "run the daemon: ask, wait, keep the link to the primary")
    status = _add(known, "status", _status, "say where this server stands, as last heard")
    doctor = _add(known, "doctor", _doctor, "check everything between this server and its primary")
    leave = _add(known, "leave", _leave, "leave the account, or take the request to join back")
    leave.add_argument(
        "--below",
        choices=("keep", "freeze", "delete"),
        help="with a primary on this host, what becomes of what was set for the servers below it: it stays and may be changed "
        "there, it stays locked, or it ends",
    )
    reset = _add(known, "reset-identity", _reset_identity, "forget this server's key, and ask anew under another")
    listing, clear = _add_origins(known)
    for command in (status, doctor, leave, reset, listing, clear):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (leave, reset, clear):
        command.add_argument(
            "--yes", action="store_true", help="do not ask whether this is meant (nor is it asked where there is no terminal)"
        )
    return top


def _add_origins(known: _Commands) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    noun = known.add_parser("origins", help="show and clear what is remembered of the primaries above")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    listing = _add(verbs, "list", _origins_list, "list the primaries that are, or were, above this server's own")
    clear = _add(verbs, "clear", _origins_clear, "forget primaries that are not above now; what they replaced may count again")
    which = clear.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", default="", metavar="ID", help="the primary id, as `origins list` shows it")
    which.add_argument("--all", action="store_true", help="all that are not above now; also where what is remembered is damaged")
    return listing, clear


def _add(known: _Commands, name: str, run: Callable[[argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
    command = known.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    command.set_defaults(run=run, json=False)
    return command


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines would stand between ours, in a form of their own
    return commands.run(lambda: int(arguments.run(arguments)), lambda refused: _refuse(refused, arguments.json))


def _refuse(refused: Refused, as_json: bool) -> int:
    if as_json:
        _print_json({"reason": refused.reason, "message": refused.message, "retry": refused.retry})
    print(f"{refused.reason}: {escape(refused.message)}", file=sys.stderr)
    return 1


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _run(arguments: argparse.Namespace) -> int:
    from enlist.runtime import logs
    from enlist_secondary import daemon
    from enlist_secondary.enrol import FINAL

    logs.set_up()
    try:
        daemon.run(arguments.config)
    except Refused as refused:
        if refused.reason not in FINAL:
            raise
        _refuse(refused, as_json=False)
        return FINAL_NO
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from enlist_secondary import report

    status = report.status(arguments.config)
    if arguments.json:
        _print_json(asdict(status))
    else:
        print(_beside(report.lines(status)))
    return 0


def _beside(lines: list[tuple[str, str]]) -> str:
    """Headings, and beside them what stands there, all of it in one column; never narrower than for a usual status."""
    width = max(22, *(len(heading) for heading, _ in lines)) + 2
    return "\n".join(f"{heading + ':':<{width}}{escape(text)}" for heading, text in lines)


def _doctor(arguments: argparse.Namespace) -> int:
    import asyncio
    import time
    from dataclasses import asdict

    from enlist.transport.dialer import Dialer
    from enlist_secondary import config, doctor

    stages = asyncio.run(doctor.diagnose(Dialer(), config.load(arguments.config), time.time))
    if arguments.json:
        _print_json([asdict(stage) for stage in stages])
    else:
        marks = {True: "ok", False: "FAILED", None: "-"}
        rows = [(s.name, marks[s.ok], s.reason, f"{s.message} {s.advice}".strip()) for s in stages]
        print(table(("check", "", "reason", "what it found"), rows))
    return 1 if any(stage.ok is False for stage in stages) else 0


def _leave(arguments: argparse.Namespace) -> int:
    import asyncio
    import time
    from dataclasses import replace

    from enlist.transport.dialer import Dialer
    from enlist_secondary import config, enrol, identity, meeting, state

    configured = config.load(arguments.config)
    mine = identity.load(configured.folder)
    if mine is None:
        raise Refused(Reason.SERVER_UNKNOWN, "This server has not asked to join yet; there is nothing to leave.")
    identity.check_machine(configured.folder)  # a copy would take the original out of the account
    if configured.local_primary is not None and arguments.below is None:
        raise Refused(
            Reason.BEQUEST_REQUIRED,
            "A primary on this host stands below. Say what becomes of what was set for its servers: --below keep (it stays, and "
            "may be changed there), freeze (it stays, with its locks), or delete.",
        )
    _confirm(arguments, f"Leave the account {configured.account} at {configured.primary}?")
    state.change(configured.folder, lambda known: replace(known, on_leave=arguments.below or ""), strict=True)

    async def leave() -> str:
        dialer = Dialer()
        primary = await meeting.meet(dialer, configured, mine.authority, time.time)
        return state.state_name((await enrol.leave(dialer, primary, configured, mine, time.time)).state)

    now = asyncio.run(leave())
    _tell(arguments, {"state": now}, f"This server is now {now}.")
    return 0


def _reset_identity(arguments: argparse.Namespace) -> int:
    from enlist.runtime import files
    from enlist_secondary import config, identity

    configured = config.load(arguments.config)
    with files.lock(configured.lock, Reason.ALREADY_RUNNING, "Stop enlist-secondary first."):
        _confirm(arguments, f"Forget this server's key and certificate in {configured.folder}?")
        identity.reset(configured.folder)
    _tell(arguments, {"state": "new"}, "Done. Start enlist-secondary: it asks to join under a new key.")
    return 0


def _origins_list(arguments: argparse.Namespace) -> int:
    from enlist_secondary import ancestors, config

    known = ancestors.kept(config.load(arguments.config))
    names = {each.origin.primary_id: each.name for each in known.ascent.above}
    found = [each for each in known.ascent.memory.primaries if each not in known.present or each in names]
    if arguments.json:
        _print_json([{"primary_id": each, "primary_name": names.get(each, ""), "above": each in names} for each in found])
    else:
        rows = [(each, "yes" if each in names else "no", names.get(each, "")) for each in found]
        print(table(("primary id", "above now", "name"), rows) if rows else "No primary was ever above this server's own.")
    return 0


def _origins_clear(arguments: argparse.Namespace) -> int:
    from enlist.names import fingerprint
    from enlist.runtime import files
    from enlist_secondary import ancestors, config

    configured = config.load(arguments.config)
    primary_id = "" if arguments.all else fingerprint(arguments.id)
    with files.lock(configured.lock, Reason.ALREADY_RUNNING, "Stop enlist-secondary first."):
        known = ancestors.kept(configured)
        _confirm(arguments, "Forget this? What of theirs was replaced may count again.")
        known.clear(primary_id)
        known.save(known.ascent)
    _tell(arguments, {"cleared": primary_id or "all"}, "Done. What is remembered of primaries that are above now stays.")
    return 0


def _confirm(arguments: argparse.Namespace, question: str) -> None:
    """Asks a person, if there is one; a script has said what it wants by calling the command."""
    if arguments.yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print(f"{escape(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused(Reason.INTERRUPTED, "Nothing was changed.")


def _tell(arguments: argparse.Namespace, value: dict[str, object], sentence: str) -> None:
    if arguments.json:
        _print_json(value)
    else:
        print(escape(sentence))


if __name__ == "__main__":
    sys.exit(main())
