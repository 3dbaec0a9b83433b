"""Desired sets: what a server accepts of them. Attacks rows 24, 38 and 46."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist import certificates, documents
from enlist.documents import DesiredSet, Item, Origin, SetVersion
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2 as pb
from tests.support.sets import altered, signed_alone

KEY = certificates.new_key()
SIGN = partial(documents.sign, KEY)
ORIGIN = Origin(certificates.spki(KEY.public_key()), "acme.example", "aaaaaaaaaa")
BODY = documents.digest(b"body")
ITEM = Item("policy/motd", "Sites/Paris", 5, BODY, 60)
VERSION = SetVersion(1, 7)


def signed(*items: Item, origin: Origin = ORIGIN, version: SetVersion = VERSION) -> pb.SignedSet:
    encoded = documents.encode(origin.account, origin.target, version, documents.encode_items(items))
    return signed_alone(SIGN, origin.primary_id, encoded)


def refused(each: pb.SignedSet, origin: Origin = ORIGIN) -> str:
    with pytest.raises(Refused) as caught:
        documents.verify(each, origin)
    assert caught.value.reason is Reason.SET_INVALID
    return caught.value.message


def test_a_set_comes_out_as_it_was_signed() -> None:
    items = (ITEM, Item("task/update", "bbbbbbbbbb", 6, BODY), Item("window", "/", 3, BODY))
    verified = documents.verify(signed(*items), ORIGIN)
    assert verified == DesiredSet(ORIGIN.primary_id, "acme.example", "aaaaaaaaaa", VERSION, items)
    assert documents.verify(signed(), ORIGIN).items == ()


@pytest.mark.parametrize(
    "origin",
    [
        ORIGIN._replace(target="bbbbbbbbbb"),
        ORIGIN._replace(target=""),
        ORIGIN._replace(account="other.example"),
        ORIGIN._replace(account="", target=""),
    ],
)
def test_a_set_for_another_server_or_for_none_is_refused(origin: Origin) -> None:
    """Attacks rows 38 and 46."""
    assert "another server" in refused(signed(ITEM, origin=origin))


def test_a_server_without_a_name_is_nobodys_target() -> None:
    """Attacks row 38: empty means none."""
    nameless = ORIGIN._replace(target="")
    assert "another server" in refused(signed(ITEM, origin=nameless), nameless)


def test_a_set_of_another_authority_is_refused() -> None:
    """Attacks row 24: a sibling's set under our primary's name."""
    stranger = ORIGIN._replace(public_key=certificates.spki(certificates.new_key().public_key()))
    assert "not signed" in refused(signed(ITEM), stranger)


def test_a_set_with_much_beside_it_is_refused() -> None:
    """Attacks row 56: fields that nobody knows travel with a message, and no signature covers them."""
    whole = signed(ITEM)
    padded = pb.SignedSet.FromString(whole.SerializeToString() + b"\xfa\x3e\x80\x80\x40" + bytes(1024 * 1024))
    assert (padded.desired_set, padded.signature) == (whole.desired_set, whole.signature)
    assert "too large" in refused(padded)


@given(st.data())
def test_a_set_changed_in_any_byte_is_refused(data: st.DataObject) -> None:
    """Attacks row 38."""
    whole = signed(ITEM)
    place = data.draw(st.integers(0, len(whole.desired_set) - 1))
    changed = bytearray(whole.desired_set)
    changed[place] ^= data.draw(st.integers(1, 255))
    refused(altered(whole, desired_set=bytes(changed)))


@given(st.binary(max_size=200))
def test_a_set_with_more_behind_it_is_refused(more: bytes) -> None:
    """Serialised messages one behind the other are their merger: the signature must cover the exact bytes."""
    whole = signed(ITEM)
    if more:
        refused(altered(whole, desired_set=whole.desired_set + more))


@pytest.mark.parametrize("moved", [1, -1])
def test_where_the_salt_ends_cannot_be_moved(moved: int) -> None:
    """The signature covers both in a row."""
    whole = signed(ITEM)
    row, end = whole.salt + whole.desired_set, documents.SALT_BYTES + moved
    assert "is not in the tree" in refused(altered(whole, salt=row[:end], desired_set=row[end:]))


def test_the_signature_of_something_else_is_none() -> None:
    """Attacks row 24: what the authority signs for other purposes stands under other labels."""
    whole = signed(ITEM)
    for bare in (whole.desired_set, documents.leaf(whole.salt, whole.desired_set)):
        refused(altered(whole, signature=KEY.sign(bare, documents._SIGNATURE)))
    whole.ClearField("signature")
    refused(whole)


def test_signed_again_it_is_the_same_set() -> None:
    one, other = signed(ITEM), signed(ITEM)
    assert one.signature != other.signature
    assert documents.verify(one, ORIGIN) == documents.verify(other, ORIGIN)


@pytest.mark.parametrize(
    "version",
    [SetVersion(0, 7), SetVersion(1, 0), SetVersion(-1, 7), SetVersion(1, -7), SetVersion(2**62, 7), SetVersion(1, 2**62)],
)
def test_versions_that_no_primary_gives_are_refused(version: SetVersion) -> None:
    assert "version" in refused(signed(ITEM, version=version))


@pytest.mark.parametrize(
    "item",
    [
        replace(ITEM, digest=b""),
        replace(ITEM, digest=BODY[1:]),
        replace(ITEM, revision=0),
        replace(ITEM, revision=-1),
        replace(ITEM, revision=2**62),
        replace(ITEM, confirm_seconds=-1),
        replace(ITEM, name="x" * 1201),
        replace(ITEM, kind=""),
        replace(ITEM, kind="x" * 65),
        replace(ITEM, kind="policy/"),
        replace(ITEM, kind="policy/../../server"),
        replace(ITEM, kind="policy/Motd"),
        replace(ITEM, kind="policy/" + "x" * 33),
        replace(ITEM, kind="task/update", name="../../server.key"),
        replace(ITEM, kind="task/update", name=""),
        replace(ITEM, kind="task/../x", name="bbbbbbbbbb"),
    ],
    ids=str,
)
def test_items_that_no_primary_makes_are_refused(item: Item) -> None:
    """Attacks row 36: the names of policies and runs become names of files."""
    assert "item" in refused(signed(item))


def test_items_of_newer_kinds_are_none_of_ours_and_no_harm() -> None:
    item = Item("password/admin", "anything at all", 5, BODY)
    assert documents.verify(signed(item), ORIGIN).items == (item,)


def test_sets_have_bounds() -> None:
    """Attacks row 37: whoever sends decides how much."""
    most = [replace(ITEM, name=str(number)) for number in range(documents.ITEM_LIMIT + 1)]
    assert len(documents.verify(signed(*most[1:]), ORIGIN).items) == documents.ITEM_LIMIT
    assert "length" in refused(signed(*most))
    long = [replace(ITEM, name="x" * 1200, revision=number) for number in range(1, 500)]
    assert "too large" in refused(signed(*long))


@given(st.binary(max_size=300))
def test_whatever_the_authority_signs_is_read_or_refused(content: bytes) -> None:
    """Attacks row 37: a primary that has gone mad ends no daemon."""
    refused(signed_alone(SIGN, ORIGIN.primary_id, content))


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_whatever_is_no_signature_is_refused(content: bytes, signature: bytes) -> None:
    refused(pb.SignedSet(desired_set=content, signature=signature, origin=ORIGIN.primary_id, size=1))


# --- Which of two counts ------------------------------------------------------------------------------------------------------


def verified(version: SetVersion, *items: Item) -> DesiredSet:
    return DesiredSet(ORIGIN.primary_id, ORIGIN.account, ORIGIN.target, version, items)


def test_the_first_set_counts() -> None:
    assert documents.supersedes(verified(SetVersion(1, 1)), None)


small = st.builds(SetVersion, st.integers(1, 3), st.integers(1, 3))


@given(small, small, st.booleans())
def test_the_newer_version_counts_the_older_is_refused_the_same_says_the_same(
    new: SetVersion, held: SetVersion, same: bool
) -> None:
    """Attacks rows 38 and 46. The epoch counts before the number: a restored primary's few decisions replace the many before."""
    one, other = verified(new, ITEM), verified(held, ITEM if same else replace(ITEM, revision=6))
    older = (new.epoch, new.number) < (held.epoch, held.number)
    if older or (new == held and not same):
        with pytest.raises(Refused) as caught:
            documents.supersedes(one, other)
        assert caught.value.reason is (Reason.SET_STALE if older else Reason.SET_CONFLICT)
    else:
        assert documents.supersedes(one, other) is (new != held)


items = st.builds(
    Item,
    st.text("ab", max_size=3),
    st.text("ab", max_size=3),
    st.integers(1, 12),
    st.sampled_from([documents.digest(b"1"), documents.digest(b"2")]),
    st.integers(0, 12),
)


@given(st.lists(items, max_size=4), st.lists(items, max_size=4))
def test_contents_are_equal_exactly_if_the_items_are(one: list[Item], other: list[Item]) -> None:
    assert (documents.content(one) == documents.content(other)) is (one == other)


@given(st.lists(items, max_size=4))
def test_the_order_of_items_is_content(some: list[Item]) -> None:
    """Of the layers of a policy the upper stands before the lower."""
    assert (documents.content(some) == documents.content(some[::-1])) is (some == some[::-1])


def test_what_many_servers_get_is_encoded_once() -> None:
    encoded = documents.encode_items([ITEM])
    for target in ("aaaaaaaaaa", "bbbbbbbbbb"):
        read = pb.DesiredSet.FromString(documents.encode("acme.example", target, VERSION, encoded))
        assert (read.target, len(read.items), read.epoch, read.number) == (target, 1, 1, 7)
