"""Whether a journal has what was acknowledged, once. Each function returns its violations, as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.soaking.decisions import Decision

Entry = dict[str, Any]
"""As `journal show --json` has it."""

# A move to where the server is already, and a decision about trust that holds already, change nothing, and have no entry.
_MAY_CHANGE_NOTHING = {"server.move", "server.suspend", "server.resume"}
# These details are different in every decision.
_MARKS = {"server.rename": "name", "server.label": "added", "policy.set": "digest"}


def journalled(entries: Sequence[Entry], head: int, made: Sequence[Decision]) -> list[str]:
    """Every acknowledged decision is in the journal once, every unanswered one at most once, a refused one never.

    `head` is the number of the last entry before the first decision.
    """
    by_number = {entry["number"]: entry for entry in entries}
    by_subject = {(entry["action"], subject(entry)): entry for entry in entries}
    found = []
    for decision in made:
        # A task's answer may name its end already.
        task = by_subject.get((decision.action, decision.subject)) if decision.action == "task.run" else None
        if decision.number and (problem := _differs(task or by_number.get(decision.number), decision)):
            found.append(f"{problem}: {decision}")
    return found + _doubled(entries) + _counted([entry for entry in entries if entry["number"] > head], made)


def subject(entry: Entry) -> str:
    """What an entry is about, as a `Decision` says it: a policy by its kind and group."""
    detail = entry["detail"]
    return f"{detail['kind']} {detail['group']}" if entry["action"] == "policy.set" else str(entry["subject"])


def _differs(entry: Entry | None, decision: Decision) -> str:
    """How the entry differs from the acknowledged decision; empty if it does not."""
    if entry is None:
        return "acknowledged and not in the journal"
    if subject(entry) != decision.subject:
        return f"acknowledged with the number of {entry}"
    if decision.action in _MAY_CHANGE_NOTHING:
        return ""
    # The answer to a policy is read after the commit, and may name the next decision about the same one: then the counts tell.
    marked = "" if decision.action == "policy.set" else _MARKS.get(decision.action, "")
    same = entry["action"] == decision.action and entry["detail"].get(marked, decision.token) == decision.token
    return "" if same else f"acknowledged with the number of {entry}"


def _doubled(entries: Sequence[Entry]) -> list[str]:
    """Details that no two decisions share, and that stand in two entries."""
    marks = Counter((entry["action"], _mark(entry)) for entry in entries if _mark(entry))
    return [f"{count} entries of {action} with {mark}" for (action, mark), count in marks.items() if count > 1]


def _mark(entry: Entry) -> str:
    if entry["action"] == "task.run":
        return str(entry["subject"])
    return str(entry["detail"].get(_MARKS.get(entry["action"], ""), ""))


def _counted(entries: Sequence[Entry], made: Sequence[Decision]) -> list[str]:
    """About each thing there are at least as many entries as were acknowledged, and at most as many as were not refused."""
    there = _tally((entry["action"], subject(entry)) for entry in entries)
    most = _tally(_about(decision) for decision in made if not decision.refused)
    least = _tally(_about(decision) for decision in made if decision.number and decision.action not in _MAY_CHANGE_NOTHING)
    return [
        f"{there[about]} entries of {' '.join(about)}, and {least[about]} to {most[about]} were decided"
        for about in _tally(map(_about, made))
        if not least[about] <= there[about] <= most[about]
    ]


def _about(decision: Decision) -> tuple[str, str]:
    return decision.action, decision.subject


def _tally(about: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """A task that nobody answered has no id that could be counted: tasks are counted together."""
    return Counter((action, "" if action == "task.run" else what) for action, what in about)
