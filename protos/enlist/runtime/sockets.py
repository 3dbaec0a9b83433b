"""Unix sockets in folders of any depth: `sun_path` holds 108 bytes (unix(7)), a data folder's path may be longer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIMIT = 100


@contextmanager
def target(path: Path) -> Iterator[str]:
    """gRPC's name for the socket at `path`, good while the context lasts.

    A path that is too long is reached through the open folder's entry in `/proc/self/fd`, which Linux resolves at bind and connect.
    """
    absolute = str(path.absolute())
    if len(os.fsencode(absolute)) <= _LIMIT:
        yield f"unix:{absolute}"
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"unix:/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
