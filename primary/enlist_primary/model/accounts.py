"""An account: a tenant, named by a DNS domain."""

from __future__ import annotations

from dataclasses import dataclass

from enlist import names
from enlist.reasons import Reason, Refused

PRIMARY = "."
"""The reserved account of the primary's own decisions; the vendor's API keys stand in it too."""


@dataclass(frozen=True)
class Account:
    """An account's row; `head` is the newest number of its journal, `desired` the last one that changed what its servers shall get.

    `landing_group` is the id of the group where servers land that nobody has given another place, None for the root group; its path
    is `landing_path`.
    """

    domain: str
    head: int
    contact: str | None
    default_api_key: bool
    created_at: int
    desired: int = 0
    landing_group: str | None = None
    landing_path: str = names.ROOT_GROUP


def unknown(domain: str) -> Refused:
    """The answer for an account that is not there, or not for the asker's eyes: one and the same."""
    return Refused(Reason.ACCOUNT_UNKNOWN, f'There is no account "{domain}".')


def from_resource(name: str) -> str:
    """The account domain in a resource name `accounts/{domain}`; `.` passes."""
    (domain,) = names.parse_resource(name, "accounts")
    return domain if domain == PRIMARY else names.account_domain(domain)
