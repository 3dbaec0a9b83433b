"""Gives memory back that a daemon needed only to get going.

Loading gRPC, two TLS libraries and Python's own touches tens of megabytes of program code once. The kernel keeps those pages mapped
into an idle daemon for as long as it lives; unmapped, they cost nothing, and what is needed again returns from the page cache.
"""

from __future__ import annotations

import re
from pathlib import Path

_MADV_DONTNEED = 4  # madvise(2)
# Program code mapped from a file: readable, executable, never written, so that every page of it can be read again. Nothing else
# may be dropped like this: relocated data and the heap would lose what was written.
_CODE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [1-9][0-9]* +/", re.ASCII)


def give_back() -> None:
    """Unmaps the pages of program code; where the system does not offer that, nothing happens."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    import ctypes  # half a megabyte of its own, where it is used alone

    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in maps.read_text().splitlines():
        if found := _CODE.match(line):
            begin, end = (int(address, 16) for address in found.groups())
            madvise(begin, end - begin, _MADV_DONTNEED)
