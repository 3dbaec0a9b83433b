"""The format of what Enlist keeps on this machine: one number in each file, so that a release refuses what it would misread.

The files of Enlist 0.1 hold no number.
"""

from __future__ import annotations

from pathlib import Path

from enlist.reasons import Reason, Refused

FORMAT = 2
"""The format that this release writes and reads."""


def check(found: object, source: Path | str) -> None:
    """Checks the `format` of a file, None where the file has none.

    Refuses with FORMAT_OLD, with VERSION_INCOMPATIBLE if a newer release wrote the file, or with CONFIG_INVALID.
    """
    if found is None:
        raise old(f"{source} (it has no format = {FORMAT})")
    if type(found) is not int or found < FORMAT:
        raise Refused(Reason.CONFIG_INVALID, f"{source}: format: expected {FORMAT}.")
    if found > FORMAT:
        sentence = f"{source} was written by a newer release of Enlist (format {found}). Install that release."
        raise Refused(Reason.VERSION_INCOMPATIBLE, sentence)


def old(what: str) -> Refused:
    """The refusal of what Enlist 0.1 wrote."""
    remedy = "move it and its data folder away and begin anew, with enlist-primary init or enlist-setup"
    return Refused(Reason.FORMAT_OLD, f"{what} was written by Enlist 0.1, which this release cannot read: {remedy}.")
