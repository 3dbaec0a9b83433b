"""How a test expects a no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import pytest

from enlist.reasons import Reason, Refused

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def refused(reason: Reason) -> Iterator[pytest.ExceptionInfo[Refused]]:
    """What stands inside must be refused for exactly this reason, with a sentence for people."""
    with pytest.raises(Refused) as caught:
        yield caught
    assert caught.value.reason is reason, f"{caught.value.reason}: {caught.value.message}"


def attempt(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Refused:
    """What came of it: a result or a refusal, and nothing else."""
    try:
        return call(*args, **kwargs)
    except Refused as no:
        return no
