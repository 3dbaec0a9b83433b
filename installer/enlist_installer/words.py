"""What the wizard says, apart from its questions: pure functions from values to lines that fit a terminal of 80 columns."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from enlist.names import Address
from enlist.reasons import Refused
from enlist.runtime.terminal import escape, moment, width
from enlist.v1 import registration_pb2 as pb
from enlist_installer.clients_address import Finding
from enlist_installer.plan import Change, Standing
from enlist_installer.setup import Answered
from enlist_installer.waiting import InVain
from enlist_secondary.checks import ADVICE, Primary, Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.doctor import Stage
from enlist_secondary.state import State

Say = Callable[[str], None]
"""Where sentences for people go."""

WIDTH = 78
INDENT = "  "

WELCOME = """\
Enlist setup: makes this server a secondary of a primary server.
Nothing is written before you have seen a summary. Ctrl-C stops at any time.
"""

HAS_ASKED = """\
This server has asked already. Leave the API key blank unless you have another one.
"""

DIFFERENT = """\
The present primary stays in charge until the new one has authorized it.
"""

NOTHING_CHANGED = f"{INDENT}Nothing was changed."
FILES_STAY = f"{INDENT}The files here stay."  # what the primary heard of it, nobody knows

_WAYS = {
    Way.JOIN_LINE: "the join line vouches for it",
    Way.FINGERPRINT: "the fingerprint you gave",
    Way.COMPANY_CA: "your company's certificate authority vouches for it",
    Way.COMPARED: "you compared it",
    Way.KNOWN: "accepted here before",
}


def refusal(refused: Refused) -> str:
    """A refusal in one line: reason code, what is wrong, what to do."""
    return f"{refused.reason}: {advised(refused)}"


def advised(refused: Refused) -> str:
    """What is wrong and what to do."""
    advice = "" if isinstance(refused, InVain) else ADVICE.get(refused.reason)
    return escape(" ".join(filter(None, [refused.message, advice])))


def told(refused: Refused) -> str:
    """A refusal on the screen, before its question comes again."""
    return f"\n! {refused.reason}\n{wrapped(advised(refused))}\n"


def wrapped(text: str) -> str:
    """Text in lines that fit; a word longer than a line, such as a fingerprint, stays whole so that it can be copied."""
    lines = textwrap.wrap(text, WIDTH - len(INDENT), break_long_words=False, break_on_hyphens=False)
    return "\n".join(INDENT + line for line in lines)


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    rows = list(rows)
    column = max(width(name) for name, _ in rows) + 2
    return "\n".join(f"{INDENT}{name}{' ' * (column - width(name))}{escape(value)}" for name, value in rows)


def looking(address: Address) -> str:
    """What takes a moment."""
    return f"{INDENT}Looking for {escape(str(address))} ..."


def found(primary: Primary) -> str:
    """What was reached."""
    return f'{INDENT}Found "{primary.name}". Its SSL port, {primary.ssl_port}, answers too.\n'


def fingerprint(primary: Primary) -> str:
    """What a person has to compare, and with what."""
    return f"""\
  Is it really that primary? Its fingerprint, as seen from here:

    {primary.authority.fingerprint}

  At the primary, `enlist-primary status` shows it. Have it read to you.
"""


def finding(found: Finding) -> str:
    """What clients will find in the DNS, and the record to ask for."""
    lines = [wrapped(("Note: " if found.warning else "") + escape(found.message))]
    if found.record:
        lines += [f"{INDENT}Ask for this DNS record:", INDENT * 2 + escape(found.record)]
    return "\n".join(lines) + "\n"


def summary(answered: Answered) -> str:
    """Everything that was answered, before it is written."""
    config, primary = answered.wanted, answered.primary
    rows = [
        ("Primary server", f'{config.primary} ("{primary.name}")'),
        ("Its identity", _WAYS[answered.way]),
        ("Account", config.account),
        ("Trust", _trust(answered.admission) if answered.admission else ""),
        ("Display name", config.name),
        ("Clients use", config.server_address or "(no address)"),
        ("Configuration", str(answered.path)),
        ("Data folder", config.data),
    ]
    return "Summary\n" + pairs((name, value) for name, value in rows if value) + "\n"


def _trust(admission: pb.ValidateResponse) -> str:
    if admission.admission == pb.ADMISSION_TRUSTED:
        return "at once, by the API key"
    return "when an administrator authorizes it"


def pending(stands: State, code: str) -> str:
    """Where a server stands that waits to be authorized, and what happens next."""
    rows = [("Comparison code", code)]
    if stands.contact:
        rows.append(("Whom to ask", stands.contact))
    if stands.expires_at is not None:
        rows.append(("Expires", moment(stands.expires_at)))
    return f"""
This server has asked to join. It is not trusted yet.
{pairs(rows)}

  An administrator compares the code and authorizes it, at the primary:
    enlist-primary server authorize {escape(stands.server_id)} --code {code}
"""


def waiting(runs: bool) -> str:
    """What happens now, and what Ctrl-C does."""
    after = "the service waits on" if runs else "the request stands"
    return f"{INDENT}Waiting until it is authorized. Ctrl-C leaves; {after}."


def in_vain(seconds: int, stands: State, path: Path) -> str:
    """Why a wait took too long, and what to do."""
    if stands.state == "trusted":
        return f"After {seconds} s this server is trusted, but not connected to its primary. {to_see_why(path)}"
    decision = {"pending": ": an administrator has to authorize it", "suspended": ": an administrator has to resume it"}
    whom = f" Ask {stands.contact}." if stands.contact else ""
    return f"After {seconds} s this server is still {stands.state}{decision.get(stands.state, '')}.{whom}"


def to_see_why(path: Path) -> str:
    """What to look at where there is no link."""
    return f"To see why: enlist-secondary --config {shlex.quote(str(path))} doctor"


def standing(path: Path, now: Standing, staged: Standing | None) -> str:
    """What there is already."""
    rows = [
        ("Configuration", str(path)),
        ("Primary server", now.config.primary),
        ("Account", now.config.account),
        ("State", now.state),
    ]
    if staged is not None:
        rows.append(("Moving to", f"{staged.config.primary}, account {staged.config.account} ({staged.state})"))
    return "This server is set up already.\n" + pairs(rows) + "\n"


def diagnosis(stages: Iterable[Stage]) -> str:
    """What every check found, the lines of one check below its mark."""
    marks = {True: "ok", False: "FAILED", None: "-"}
    lines = []
    for stage in stages:
        found = escape(" ".join(filter(None, [stage.reason, stage.message, stage.advice])))
        head = f"{INDENT}{stage.name:<13}{marks[stage.ok]:<8}"
        lines.append(textwrap.fill(head + found, WIDTH, subsequent_indent=" " * len(head), break_long_words=False))
    return "\n".join(lines) + "\n"


def stopped(written: bool) -> str:
    """The last line after Ctrl-C."""
    return "Stopped. What was written stays; run enlist-setup again to go on." if written else "Stopped. Nothing was written."


def renamed(name: str, server_id: str) -> str:
    """What a new display name means for a server that has registered."""
    command = f"enlist-primary server rename {server_id} {shlex.quote(name)}"
    return f"{INDENT}The primary keeps the name it knows until an administrator changes it there:\n{INDENT * 2}{escape(command)}\n"


def left_behind(config: SecondaryConfig, stands: State) -> str:
    """After a different primary took over: what may be done at the one before, which has not been told."""
    name = stands.display_name or config.name
    what = f"{config.primary} still lists this server: {name}, {stands.state}. Its administrator may remove it there:"
    return f"{wrapped(escape(what))}\n{INDENT * 2}{escape(f'enlist-primary server remove {stands.server_id}')}\n"


def run_by_hand(command: str) -> str:
    """How the secondary is started where no service is installed."""
    return f"{INDENT}Keep this running; it holds the connection to the primary:\n{INDENT * 2}{command}\n"


def would(change: Change, asks: bool, gives_up: bool) -> str:
    """What a run without `--check` would do."""
    rest = {"give up the move to a different primary": gives_up, "ask the primary": asks}
    what = _WOULD[change] if change is not Change.NOTHING else " and ".join(each for each, done in rest.items() if done)
    return (
        f"Everything was checked, nothing was written. It would {what}."
        if what
        else "Everything was checked. Nothing would change."
    )


_WOULD = {
    Change.NEW: "set this server up",
    Change.SETTINGS: "change settings",
    Change.ADDRESS: "write down the primary's new address",
    Change.PRIMARY: "ask a different primary, which takes over when it has authorized this server",
}


def unchanged(config: SecondaryConfig, state: str) -> str:
    """After a run that found everything as wanted."""
    return f"Nothing to change: this server is {escape(state)} in {config.account} at {config.primary}."


def now_is(config: SecondaryConfig, state: str) -> str:
    """After a run that ended in a decision."""
    return f"Done: this server is {escape(state)} in {config.account} at {config.primary}."
