"""How every command ends: an exit status, or a refusal that somebody can act on. Nobody is shown a traceback."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from enlist.reasons import Reason, Refused


def run(work: Callable[[], int], refuse: Callable[[Refused], int]) -> int:
    """Runs a command's work and returns its exit status; whatever stopped it goes through `refuse`, which returns another."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what this output's encoding lacks is shown as its code, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return work()
    except Refused as refused:
        return refuse(refused)
    except KeyboardInterrupt:
        return refuse(Refused(Reason.INTERRUPTED, "Interrupted."))
    except BrokenPipeError:
        return unheard()
    except Exception as error:
        return refuse(unforeseen(error))


def unheard() -> int:
    """The exit status where whoever read our output has gone; the interpreter would complain about it again."""
    sys.stderr.close()
    return 1


def unforeseen(error: Exception) -> Refused:
    """The refusal for what nobody foresaw: enough to report it, nothing of what was being worked on."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}"
    return Refused(Reason.INTERNAL, f"Something unforeseen happened ({where}). Please report it.")
