"""What several commands ask for in one way."""

from __future__ import annotations

import argparse

STAGES = (
    "how many servers have it after each stage, such as 1,10%%,100%%; a middle server counts as one, with all below it "
    "(default: all at once)"
)


def given(text: str) -> str:
    """A value that says something: an empty one is most often a variable that was never set, and would mean *all* or *none*."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave the option out instead")
    return text
