"""Servers below middle servers, as plain values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enlist.ancestry import LEVELS
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.model.levels import BelowServer, called, read_refusals
from enlist_primary.model.servers import State


def below(via: str, path: str, name: str) -> BelowServer:
    """A trusted server below."""
    return BelowServer("acme.example", via, path, name, "low.example", State.TRUSTED, True, None, None, "", ())


HOST = below("m1", "h", "host")
DEEP = below("m1", "h/k", "deep")
DEEPER = below("m1", "h/k/x", "twin")
OTHER = below("m2", "h", "twin")
EVERYONE = [HOST, DEEP, DEEPER, OTHER]


@pytest.mark.parametrize(
    ("name_or_id", "expected"),
    [
        ("", EVERYONE),
        ("host", [HOST]),
        ("h", [HOST, OTHER]),
        ("deep", [HOST, DEEP]),
        ("k", [HOST, DEEP]),
        ("twin", EVERYONE),
        ("h/k", []),
        ("m1", []),
        ("nobody", []),
    ],
)
def test_servers_below_are_found_by_name_or_id_with_the_way_to_them(name_or_id: str, expected: list[BelowServer]) -> None:
    assert called(iter(EVERYONE), name_or_id) == expected


def test_of_refusals_without_end_only_so_many_are_read_as_there_are_origins() -> None:
    read = []

    def said() -> Iterator[pb.SetRefused]:
        for number in range(100_000):
            read.append(number)
            yield pb.SetRefused(origin=f"{number:064x}", reason="SET_INVALID", message="m" * 5000)

    found = read_refusals(said())
    assert len(found) == len(read) == LEVELS + 1
    assert all(len(each.message) < 1000 for each in found)
