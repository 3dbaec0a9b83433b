"""What several commands ask for in one way."""

from __future__ import annotations

import argparse
import sys

from enlist.reasons import Reason, Refused

STAGES = (
    "how many servers have it after each stage, such as 1,10%%,100%%; a middle server counts as one, with all below it "
    "(default: all at once)"
)


def given(text: str) -> str:
    """A value that says something: an empty one is most often a variable that was never set, and would mean *all* or *none*."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave the option out instead")
    return text


def read_document(name: str, whose: str) -> bytes:
    """What the file holds, or standard input for `-`; refused with DOCUMENT_TOO_LARGE before more is read than may be sent.

    `whose` begins the sentence about that: "a policy has".
    """
    from enlist.documents import BODY_LIMIT

    try:
        if name == "-":
            text = sys.stdin.buffer.read(BODY_LIMIT + 1)
        else:
            with open(name, "rb") as file:
                text = file.read(BODY_LIMIT + 1)
    except FileNotFoundError:
        raise Refused(Reason.INVALID_ARGUMENT, f"There is no file {name}.") from None
    except OSError as error:
        raise Refused(Reason.FILE_FAILED, f"{name} cannot be read: {error.strerror}.") from None
    if len(text) > BODY_LIMIT:
        raise Refused(Reason.DOCUMENT_TOO_LARGE, f"{name} holds more than {BODY_LIMIT} bytes: {whose} at most 1 MiB.")
    return text
