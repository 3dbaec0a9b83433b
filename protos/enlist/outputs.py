"""What a task wrote, as it travels and is kept: at most so many bytes, and where some were left out it says so itself."""

from __future__ import annotations

import re

LIMIT = 64 * 1024
"""Bytes that are kept at most, with the line that says how many are not."""
MARK_LIMIT = 64
"""Bytes that this line ever takes."""

_MARK = re.compile(rb"\n\[([1-9][0-9]{0,18}) bytes left out\]\n")


def mark(count: int) -> bytes:
    """The line that stands where so many bytes were left out."""
    return f"\n[{count} bytes left out]\n".encode()


def cut(output: bytes, limit: int = LIMIT) -> bytes:
    """All of it, or as much of its beginning as fits with the mark."""
    if len(output) <= limit:
        return output
    kept, before = max(0, limit - MARK_LIMIT), left_out(output)
    whole = _MARK.sub(b"", output, count=1)
    return whole[:kept] + mark(len(whole) - kept + before)


def left_out(output: bytes) -> int:
    """How many bytes are left out, as its first mark says; 0 if there is none."""
    found = _MARK.search(output)
    return int(found[1]) if found else 0
