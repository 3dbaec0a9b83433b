"""The half that takes sets and bodies, alone: what it answers, and what a hostile sender can do to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enlist import documents
from enlist.ancestry import LEVELS
from enlist.documents import DesiredSet, Item, SetVersion
from enlist.link import receiver
from enlist.link.pace import PIECE
from enlist.link.receiver import Receiver, Replies, Taken
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from tests.enlist.link.sets import ORIGIN, PARENT_ORIGIN, signing, verified
from tests.support.sets import altered

NO_SET_ASKS = "a body came that no set asks for"
OUT_OF_ORDER = "the pieces of a body came out of order"
WHOLE = bytes(range(256)) * 160
"""A body of five pieces."""
DIGEST = documents.digest(WHOLE)


class Host:
    """A receiver, and what it was given."""

    def __init__(self, *expected: bytes) -> None:
        self.sets: list[DesiredSet] = []
        self.has: set[bytes] = set()
        self.receiver = Receiver(self._accept, self.has.__contains__)
        self.receiver.linked()
        self.receiver.expect(expected)
        self.number = 0

    def _accept(self, signed: document_pb2.SignedSet) -> None:
        self.sets.append(verified(signed))

    def hears(self, *pieces: pb.BodyPiece) -> Taken:
        """A message with pieces."""
        self.number += 1
        assert self.receiver.is_new(self.number)
        return self.receiver.on_pieces(pieces)

    def announces(self, digest: bytes, origin: str = ORIGIN) -> None:
        """A message that announces a large set."""
        self.number += 1
        assert self.receiver.is_new(self.number)
        self.receiver.on_large_set(pb.LargeSet(origin=origin, digest=digest))

    def wants(self, signed: document_pb2.SignedSet) -> Refused | None:
        """A message with a set."""
        self.number += 1
        assert self.receiver.is_new(self.number)
        return self.receiver.on_set(signed)

    def answers(self) -> list[pb.BodyAck]:
        """What it says of bodies."""
        return self.receiver.replies().body_acks


def piece(offset: int, data: bytes = b"", size: int = len(WHOLE), digest: bytes = DIGEST) -> pb.BodyPiece:
    """A piece of a body, this one's unless said otherwise."""
    return pb.BodyPiece(digest=digest, offset=offset, data=data or WHOLE[offset : offset + PIECE], size=size)


def signed(number: int = 1, origin: str = ORIGIN, items: int = 1) -> document_pb2.SignedSet:
    """A set; with 200 items a large one."""
    named = tuple(Item("policy/x", f"layer {n}", 1, documents.digest(bytes([n]))) for n in range(items))
    return signing(origin, SetVersion(1, number), named)()


def pieces_of(body: bytes) -> list[pb.BodyPiece]:
    """All of a body."""
    found = documents.digest(body)
    return [piece(offset, body[offset : offset + PIECE], len(body), found) for offset in range(0, len(body), PIECE)]


# --- What comes as it should ----------------------------------------------------------------------------------------------------


def test_pieces_in_order_make_a_body_whole() -> None:
    host = Host(DIGEST)
    *before, last = pieces_of(WHOLE)
    assert host.hears(*before) == Taken()
    assert host.answers() == [pb.BodyAck(digest=DIGEST, received=4 * PIECE, sequence=1)]
    assert host.hears(last).bodies == {DIGEST: WHOLE}
    assert host.answers() == [pb.BodyAck(digest=DIGEST, received=len(WHOLE), whole=True, sequence=2)]
    assert host.receiver.parts() == []


def test_empty_body_is_whole_at_once() -> None:
    empty = documents.digest(b"")
    host = Host(empty)
    assert host.hears(pb.BodyPiece(digest=empty)).bodies == {empty: b""}


def test_piece_that_came_before_is_answered_and_not_taken_twice() -> None:
    host = Host(DIGEST)
    host.hears(piece(0))
    host.hears(piece(0))
    assert [each.received for each in host.answers()] == [PIECE, PIECE]


def test_message_that_came_before_is_passed_over() -> None:
    host = Host(DIGEST)
    host.hears(piece(0))
    assert not host.receiver.is_new(1)
    assert not host.receiver.is_new(0)
    assert not host.receiver.is_new(-1)


def test_body_that_is_here_is_answered_as_whole() -> None:
    host = Host()
    host.has.add(DIGEST)
    assert host.hears(piece(0)).problem == ""
    assert [each.whole for each in host.answers()] == [True]


def test_body_goes_on_over_the_next_link() -> None:
    host = Host(DIGEST)
    host.hears(piece(0), piece(PIECE))
    assert host.receiver.parts() == [pb.BodyAck(digest=DIGEST, received=2 * PIECE)]
    host.receiver.linked()
    assert not host.receiver.ready, "what the link before did not carry"
    host.number = 0
    assert host.hears(*pieces_of(WHOLE)[2:]).bodies == {DIGEST: WHOLE}


def test_part_that_nothing_asks_for_until_the_next_link_is_forgotten() -> None:
    host = Host(DIGEST)
    host.hears(piece(0))
    for expected in ([PIECE], [PIECE], []):
        assert [each.received for each in host.receiver.parts()] == expected
        host.receiver.linked()
        host.receiver.expect([])


def test_part_of_a_body_that_is_not_wanted_any_more_is_forgotten() -> None:
    host = Host(DIGEST)
    host.hears(piece(0))
    host.receiver.expect([])
    assert host.receiver.parts() == []


def test_set_is_answered_once_by_the_number_of_its_message() -> None:
    host = Host()
    host.hears()
    assert host.wants(signed(7)) is None
    for _ in range(2):
        host.receiver.held(host.sets[-1])
    assert host.receiver.replies().set_acks == [pb.SetAck(origin=ORIGIN, epoch=1, number=7, sequence=2)]


def test_set_that_comes_again_and_again_is_answered_once() -> None:
    host = Host()
    for _ in range(1000):
        host.wants(signed(7))
        host.receiver.held(host.sets[-1])
    assert host.receiver.replies().set_acks == [pb.SetAck(origin=ORIGIN, epoch=1, number=7, sequence=1000)]


def test_set_of_an_earlier_link_is_not_answered_over_this_one() -> None:
    host = Host()
    host.wants(signed())
    host.receiver.linked()
    host.receiver.held(host.sets[-1])
    host.receiver.refuse(signed(), Refused(Reason.SET_INVALID, "no"))
    assert host.receiver.replies() == Replies([], [], [])


def test_refused_set_is_answered_with_its_reason_and_a_bounded_sentence() -> None:
    host = Host()
    refused = host.wants(altered(signed(3), signature=b"no"))
    assert refused is not None
    host.wants(signed(4))
    host.receiver.refuse(signed(4), Refused(Reason.SET_STALE, "m" * 5000))
    first, second = host.receiver.replies().set_refusals
    assert (first.reason, first.number, first.sequence) == (Reason.SET_INVALID, 3, 1)
    assert (second.reason, second.number, second.sequence) == (Reason.SET_STALE, 4, 2)
    assert len(second.message) == receiver.MESSAGE_LIMIT


def test_large_set_is_taken_once_it_is_whole() -> None:
    host, large = Host(), signed(items=200)
    whole = large.SerializeToString()
    host.announces(documents.digest(whole))
    host.hears(*pieces_of(whole))
    host.receiver.held(host.sets[-1])
    told = host.receiver.replies()
    assert [each.sequence for each in told.set_acks] == [1], "the message that announced it"
    assert [each.whole for each in told.body_acks] == [True]


# --- What is passed over, and answered ------------------------------------------------------------------------------------------

PASSED_OVER: dict[str, tuple[list[pb.BodyPiece], str, int]] = {
    "a gap": ([piece(PIECE)], OUT_OF_ORDER, 0),
    "a gap after the beginning": ([piece(0), piece(2 * PIECE)], OUT_OF_ORDER, PIECE),
    "an offset below zero": ([piece(-1, b"x")], OUT_OF_ORDER, 0),
    "the least offset there is": ([piece(-(2**63), b"x")], OUT_OF_ORDER, 0),
    "a body nobody asked for": ([piece(0, b"x", 1, b"s" * 32)], NO_SET_ASKS, 0),
    "a thousand bodies nobody asked for": ([piece(0, b"x", 1, n.to_bytes(32, "big")) for n in range(1000)], NO_SET_ASKS, 0),
    "a huge body nobody asked for": ([piece(2**62, b"x", 2**63 - 1, b"s" * 32)], NO_SET_ASKS, 0),
}


@pytest.mark.parametrize(("given", "problem", "received"), PASSED_OVER.values(), ids=PASSED_OVER.keys())
def test_piece_that_does_not_fit_is_answered_and_told_once(given: list[pb.BodyPiece], problem: str, received: int) -> None:
    """The body is asked for from where it goes on, and the message has one line in the log."""
    host = Host(DIGEST)
    taken = host.hears(*given)
    assert (taken.bodies, taken.problem, taken.refused) == ({}, problem, None)
    answers = host.answers()
    assert answers[-1] == pb.BodyAck(sequence=1, digest=given[-1].digest, received=received, again=True)
    assert len(answers) == len({each.digest for each in given}), "one answer to each body of a message"
    assert sum(each.received for each in host.receiver.parts()) == received
    assert host.hears(*pieces_of(WHOLE)).bodies == {DIGEST: WHOLE}, "what is honest still counts"


# --- A hostile sender -----------------------------------------------------------------------------------------------------------

Attack = Callable[[Host], object]


def announce_many(host: Host) -> None:
    for n in range(LEVELS + 2):
        host.announces(bytes([n]) * 32, f"{n:064x}")


TOO_LONG, EMPTY = "a piece of a body is too long", "a piece of a body is empty"
ANOTHER, MANY = "a body is not the one that its digest names", "sets of too many origins were announced"
BODIES = "a message has too many pieces, or one of no body"
LIMIT = documents.BODY_LIMIT
ENDS: dict[str, tuple[str, Attack]] = {
    "a long piece": (TOO_LONG, lambda h: h.hears(piece(0, bytes(PIECE + 1)))),
    "a large body": (TOO_LONG, lambda h: h.hears(piece(0, size=LIMIT + 1))),
    "the largest body there is": (TOO_LONG, lambda h: h.hears(piece(0, size=2**63 - 1))),
    "a size below zero": (TOO_LONG, lambda h: h.hears(piece(0, b"x", -1))),
    "more than its size": (TOO_LONG, lambda h: h.hears(piece(0, b"xx", 1))),
    "an offset behind its size": (TOO_LONG, lambda h: h.hears(piece(2**62, b"x"))),
    "an empty piece": (EMPTY, lambda h: h.hears(pb.BodyPiece(digest=DIGEST, size=1))),
    "an empty piece that goes on": (EMPTY, lambda h: h.hears(piece(0), pb.BodyPiece(digest=DIGEST, offset=PIECE, size=len(WHOLE)))),
    "a body without bytes": (ANOTHER, lambda h: h.hears(pb.BodyPiece(digest=DIGEST))),
    "another body": (ANOTHER, lambda h: h.hears(piece(0, b"x", 1))),
    "a size that shrinks": (ANOTHER, lambda h: h.hears(piece(0), piece(PIECE, b"x", PIECE + 1))),
    "a digest that is none": (BODIES, lambda h: h.hears(piece(0, b"x", 1, b"s" * 33))),
    "thousands of pieces": (BODIES, lambda h: h.hears(*[pb.BodyPiece(digest=b"s" * 32)] * 2000)),
    "an origin that is none": ("a set names no primary", lambda h: h.wants(signed(origin="o" * 65))),
    "a large set of an origin that is none": ("a set names no primary", lambda h: h.announces(DIGEST, "o" * 65)),
    "thousands of large sets": (MANY, lambda h: announce_many(h)),
}


@pytest.mark.parametrize(("sentence", "attack"), ENDS.values(), ids=ENDS.keys())
def test_violation_ends_the_link_with_a_sentence_of_its_own(sentence: str, attack: Attack) -> None:
    host = Host(DIGEST)
    with pytest.raises(Refused) as refused:
        attack(host)
    assert refused.value.reason is Reason.LINK_VIOLATION
    assert refused.value.message == f"The link's protocol is broken: {sentence}."
    assert host.sets == []


def test_size_that_grows_between_pieces_brings_nothing_else() -> None:
    host = Host(DIGEST)
    host.hears(piece(0, size=LIMIT))
    assert host.hears(*pieces_of(WHOLE)[1:]).bodies == {DIGEST: WHOLE}


def test_large_sets_of_one_origin_without_end_leave_nothing_behind() -> None:
    """Each announcement takes the place of the one before, with what came of it."""
    host = Host()
    for n in range(200):
        digest = n.to_bytes(32, "big")
        host.announces(digest)
        host.hears(*(piece(offset * PIECE, bytes(PIECE), receiver.LARGE_SET_LIMIT, digest) for offset in range(20)))
        host.receiver.replies()
    assert [each.received for each in host.receiver.parts()] == [20 * PIECE]


def test_large_set_over_its_limit_is_too_long() -> None:
    host = Host()
    host.announces(DIGEST)
    with pytest.raises(Refused, match="too long"):
        host.hears(piece(0, size=receiver.LARGE_SET_LIMIT + 1))


@pytest.mark.parametrize("whole", [b"\xff" * 100, signed(origin=PARENT_ORIGIN).SerializeToString(), b"\n\x01x"])
def test_large_set_that_is_not_what_was_announced_is_refused(whole: bytes) -> None:
    """What cannot be read, and another origin's set, is answered by the number of the announcement."""
    host = Host()
    host.announces(documents.digest(whole))
    taken = host.hears(*pieces_of(whole))
    assert taken.refused is not None
    assert taken.refused.reason is Reason.SET_INVALID
    (told,) = host.receiver.replies().set_refusals
    assert (told.origin, told.sequence, told.reason) == (ORIGIN, 1, Reason.SET_INVALID)
    assert host.sets == []


def test_large_set_comes_once() -> None:
    host, whole = Host(), signed(items=200).SerializeToString()
    host.announces(documents.digest(whole))
    host.hears(*pieces_of(whole))
    assert host.hears(*pieces_of(whole)).problem == NO_SET_ASKS
    assert len(host.sets) == 1


def test_sender_that_reads_no_answers_ends_its_link() -> None:
    host = Host(DIGEST)
    for _ in range(receiver.WAITING):
        host.hears(piece(0))
    with pytest.raises(Refused) as refused:
        host.hears(piece(0))
    assert refused.value.message == "The link's protocol is broken: the answers are not read."


def test_refused_sets_without_end_end_the_link_too() -> None:
    host, bad = Host(), document_pb2.SignedSet(origin=ORIGIN)
    for _ in range(receiver.WAITING):
        host.wants(bad)
    with pytest.raises(Refused, match="the answers are not read"):
        host.wants(bad)


def test_bodies_that_are_never_whole_are_bounded_together() -> None:
    names = [n.to_bytes(32, "big") for n in range(65)]
    host = Host(*names)

    def almost(name: bytes) -> list[pb.BodyPiece]:
        last = piece(LIMIT - PIECE, bytes(PIECE - 1), LIMIT, name)
        return [*(piece(offset, bytes(PIECE), LIMIT, name) for offset in range(0, LIMIT - PIECE, PIECE)), last]

    for name in names[:-1]:
        host.hears(*almost(name))
        host.receiver.replies()
    with pytest.raises(Refused) as refused:
        host.hears(*almost(names[-1]))
    assert refused.value.message == "The link's protocol is broken: the bodies that are not whole are too much together."


def test_body_of_two_sets_is_taken_for_both() -> None:
    host = Host(DIGEST, DIGEST)
    assert host.hears(*pieces_of(WHOLE)).bodies == {DIGEST: WHOLE}
    assert host.hears(*pieces_of(WHOLE)).bodies == {}
