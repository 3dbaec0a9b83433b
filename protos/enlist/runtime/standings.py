"""Why a server holds no link, in the same words at both ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape, moment

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "invited": "This server is invited and has not registered yet",
        "pending": "This server waits for an administrator to authorize it",
        "denied": "An administrator denied this server's request",
        "suspended": "An administrator suspended this server",
        "revoked": "An administrator revoked this server, and its key with it",
        "expired": "The request was left undecided too long and expired",
        "withdrawn": "The request was taken back",
        "departed": "This server left the account",
        "removed": "An administrator removed this server",
    }
)
"""What happened to a server, by the name of its state; of a trusted one there is nothing to explain."""

_ASK_AGAIN = "Run enlist-setup to ask again."
_WISHED = "(unattended: --ask-again)"
_WAY_BACK: Mapping[str, str] = MappingProxyType(
    {
        "denied": f"Ask the account's contact. To ask again, run enlist-setup {_WISHED} with an API key, or wait for seven days.",
        "revoked": "Only a new key may ask again: run enlist-secondary reset-identity, then enlist-setup.",
        "withdrawn": _ASK_AGAIN,
        "departed": _ASK_AGAIN,
        "removed": f"Run enlist-setup {_WISHED} to ask again.",
    }
)


def not_trusted(state: str, since: int, given: str = "") -> Refused:
    """The refusal for a server in this state: what happened and when, the reason that was given, and the way back if there is one.

    A state that this version does not know is refused with VERSION_INCOMPATIBLE.
    """
    if state not in SENTENCES:
        return Refused(Reason.VERSION_INCOMPATIBLE, "The primary told a state that this version of Enlist does not know.")
    reason = Reason.SERVER_PENDING if state == "invited" else Reason(f"SERVER_{state.upper()}")
    why = f': "{escape(given)}"' if given else ""
    what = f"{SENTENCES[state]} (since {moment(since)}){why}."
    return Refused(reason, f"{what} {_WAY_BACK.get(state, '')}".rstrip())
