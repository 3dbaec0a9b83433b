"""Merkle trees: every leaf leads to the root, and nothing else does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from enlist import merkle


def hashed(entries: Sequence[bytes]) -> bytes:
    """The root as RFC 9162, section 2.1.1, defines it."""
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    half = 1
    while half * 2 < len(entries):
        half *= 2
    return hashlib.sha256(b"\1" + hashed(entries[:half]) + hashed(entries[half:])).digest()


def grown(count: int) -> tuple[list[bytes], merkle.Tree]:
    """Leaves, and the tree over them."""
    leaves = [merkle.leaf(b"%d" % number) for number in range(count)]
    return leaves, merkle.Tree(leaves)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=70))
def test_root_is_that_of_the_rfc_and_every_leaf_leads_there(entries: list[bytes]) -> None:
    leaves = list(map(merkle.leaf, entries))
    tree = merkle.Tree(leaves)
    assert (tree.root, tree.size) == (hashed(entries), len(entries))
    for index, each in enumerate(leaves):
        assert merkle.root(each, index, tree.size, tree.path(index)) == tree.root


@given(st.integers(1, 40), st.data())
def test_no_other_leaf_leads_to_the_root_from_anywhere(count: int, data: st.DataObject) -> None:
    """Also none that is the hash of two others: a leaf and a node are hashed with different prefixes."""
    leaves, tree = grown(count)
    path = tree.path(data.draw(st.integers(0, count - 1)))
    strangers = [merkle.leaf(b"stranger"), tree.root, *path]
    stranger = data.draw(st.sampled_from([each for each in strangers if each not in leaves] or strangers[:1]))
    index, size = data.draw(st.integers(0, 70)), data.draw(st.integers(0, 70))
    if stranger != tree.root:
        assert merkle.root(merkle.leaf(stranger), index, size, path) != tree.root


@given(st.integers(2, 40), st.data())
def test_path_that_was_changed_leads_elsewhere(count: int, data: st.DataObject) -> None:
    leaves, tree = grown(count)
    index = data.draw(st.integers(0, count - 1))
    path = tree.path(index)
    place = data.draw(st.integers(0, len(path) - 1))
    changed = [*path]
    changed[place] = bytes(32)
    for wrong in (changed, path[:-1], [*path, path[-1]]):
        assert merkle.root(leaves[index], index, count, wrong) != tree.root


@given(st.integers(-2, 2**17), st.integers(-2, 2**17), st.lists(st.binary(min_size=31, max_size=33), max_size=20))
def test_whatever_is_said_a_root_is_found_or_not(index: int, size: int, path: list[bytes]) -> None:
    found = merkle.root(merkle.leaf(b""), index, size, path)
    if not 0 <= index < size or any(len(each) != 32 for each in path) or len(path) > merkle.LEVELS:
        assert found is None
