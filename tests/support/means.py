"""What a test needs of the machine beyond Python."""

from __future__ import annotations

import os

import pytest

from enlist_secondary.identity import MACHINE_ID


def need(met: bool, reason: str) -> None:
    """Skip a test whose means this machine lacks; with ENLIST_REQUIRE_ALL=1 that is a failure."""
    if not met and os.environ.get("ENLIST_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    if not met:
        pytest.skip(reason)


def need_machine_id() -> None:
    """For tests that compare this machine with another one."""
    need(MACHINE_ID.is_file() and bool(MACHINE_ID.read_text().strip()), f"{MACHINE_ID} is missing or empty")
