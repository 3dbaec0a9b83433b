"""What servers take, and how that is shared out: what may be set, may be sent."""

from __future__ import annotations

import pytest

from enlist import documents
from enlist.documents import Item
from enlist.reasons import Reason, Refused
from enlist_primary.model import desired, tasks
from enlist_primary.model.desired import NAMES_BYTES, POLICIES, POLICIES_BYTES, RUNS, Size

PATH = "Sites/Paris"


def test_as_much_as_may_be_set_is_taken_and_no_more() -> None:
    desired.check_way(PATH, [Size("web", PATH, 1)] * POLICIES)
    desired.check_way(PATH, [Size("web", PATH, POLICIES_BYTES - 1), Size("ntp", PATH, 1)])
    for sizes in ([Size("web", PATH, 1)] * (POLICIES + 1), [Size("web", PATH, POLICIES_BYTES), Size("ntp", PATH, 1)]):
        with pytest.raises(Refused) as refused:
            desired.check_way(PATH, sizes)
        assert refused.value.reason is Reason.DOCUMENT_TOO_LARGE
        assert PATH in refused.value.message


def test_a_set_of_all_that_may_be_set_is_one_that_servers_take() -> None:
    """Long paths of groups, all runs and a window: the set stays below the limit at which a server refuses it."""
    path = "/".join(["ä" * 32] * 16)
    sizes = [Size("k" * 64, path, 1)]
    while len(sizes) < POLICIES:
        try:
            desired.check_way(path, [*sizes, sizes[0]])
        except Refused:
            break
        sizes.append(sizes[0])
    policies = [Item(documents.POLICY + each.kind, each.group, 2**62, bytes(32), 7 * 86400) for each in sizes]
    runs = [Item(documents.TASK + "k" * 64, "r" * 26, 2**62, bytes(32), 0)] * RUNS
    window = Item(documents.WINDOW, path, 2**62, bytes(32))
    encoded = documents.encode(
        "a" * 253, "i" * 26, documents.SetVersion(2**61, 2**61), documents.encode_items([*policies, window, *runs])
    )
    assert NAMES_BYTES < len(encoded) <= documents.SET_LIMIT


def test_one_run_with_the_largest_arguments_always_finds_room() -> None:
    assert tasks.ARGUMENTS_LIMIT <= desired.RUNS_BYTES
