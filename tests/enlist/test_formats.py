"""The format of the files that Enlist keeps: those of another release are refused, with what to do."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import formats


def test_the_format_of_this_release_is_read() -> None:
    formats.check(formats.FORMAT, "primary.toml")


@pytest.mark.parametrize(
    ("found", "reason", "said"),
    [
        (None, Reason.FORMAT_OLD, "was written by Enlist 0.1"),
        (formats.FORMAT + 1, Reason.VERSION_INCOMPATIBLE, "by a newer release of Enlist (format 3)"),
        (1, Reason.CONFIG_INVALID, "format: expected 2"),
        (True, Reason.CONFIG_INVALID, "format: expected 2"),
        ("2", Reason.CONFIG_INVALID, "format: expected 2"),
        (2.0, Reason.CONFIG_INVALID, "format: expected 2"),
        ([], Reason.CONFIG_INVALID, "format: expected 2"),
    ],
)
def test_any_other_format_is_refused(found: object, reason: Reason, said: str) -> None:
    with pytest.raises(Refused) as caught:
        formats.check(found, "primary.toml")
    assert caught.value.reason is reason
    assert caught.value.message.startswith("primary.toml")
    assert said in caught.value.message
