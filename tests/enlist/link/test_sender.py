"""The half that sends sets and bodies, alone: what it sends and when, and what a hostile receiver can do to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enlist import documents
from enlist.documents import Item, SetVersion
from enlist.link import transfers
from enlist.link.pace import LARGEST, PIECE, SMALLEST
from enlist.link.receiver import MESSAGE_LIMIT
from enlist.link.sender import REASON_LIMIT, Held, Offer, Out, Sender
from enlist.link.transfers import PieceOut
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2 as pb
from tests.enlist.link.sets import ORIGIN, OWN, PARENT_ORIGIN, offer

NEVER_SENT_BODY = "The link's protocol is broken: a body was acknowledged that was never sent."
NEVER_SENT_SET = "The link's protocol is broken: a set was answered that was never sent."
STRANGE = b"s" * 32


class Primary:
    """A sender with the bodies that it sends, and a clock."""

    def __init__(self, *parts: tuple[bytes, int], held: Held | None = None) -> None:
        self.sender = Sender([(ORIGIN, held)] if held is not None else [], parts)
        self.bodies: dict[bytes, bytes] = {}
        self.now = 0.0

    def items(self, *bodies: bytes) -> tuple[Item, ...]:
        """An item for each body."""
        self.bodies.update((documents.digest(body), body) for body in bodies)
        return tuple(Item("policy/x", f"layer {n}", 1, documents.digest(body)) for n, body in enumerate(bodies))

    def want(self, number: int, *bodies: bytes, origin: str = ORIGIN, target: str = "") -> Offer:
        """From now on a set of these bodies is wanted."""
        made = offer(origin, SetVersion(1, number), self.items(*bodies), target)
        self.sender.offer(origin, made)
        return made

    def send(self) -> tuple[Out, list[PieceOut]] | None:
        """One message: it, and the pieces that were put into it."""
        out = self.sender.next()
        if out is None:
            return None
        put = []
        for piece in out.pieces:
            body = self.sender.large_set(piece.digest) or self.bodies[piece.digest]
            length = len(body[piece.offset : piece.offset + PIECE])
            self.sender.piece_sent(out, piece, length, len(body), self.now)
            put += [piece] if length or not body else []
        return out, put

    def send_all(self) -> list[tuple[Out, list[PieceOut]]]:
        """Messages until there is nothing to send."""
        found = []
        while (sent := self.send()) is not None:
            found.append(sent)
        return found

    def takes(self, out: Out, digest: bytes, received: int, **fields: bool) -> None:
        """The receiver answers the piece of a body in a message."""
        self.sender.on_body_ack(pb.BodyAck(sequence=out.sequence, digest=digest, received=received, **fields), self.now)

    def holds(self, out: Out, number: int, origin: str = ORIGIN) -> None:
        """The receiver answers a set."""
        self.sender.on_set_ack(pb.SetAck(origin=origin, epoch=1, number=number, sequence=out.sequence))

    def refuses(self, out: Out, number: int, origin: str = ORIGIN) -> None:
        """The receiver refuses a set."""
        said = pb.SetRefused(origin=origin, epoch=1, number=number, sequence=out.sequence, reason="SET_INVALID", message="no")
        self.sender.on_set_refused(said)


def sent(primary: Primary) -> tuple[Out, list[PieceOut]]:
    """One message, of which there is one."""
    found = primary.send()
    assert found is not None
    return found


def digest(body: bytes) -> bytes:
    return documents.digest(body)


# --- Sets -----------------------------------------------------------------------------------------------------------------------


def test_set_counts_as_held_once_it_is_acknowledged() -> None:
    primary = Primary()
    made = primary.want(1)
    out, _ = sent(primary)
    assert (out.desired is not None, primary.sender.behind(ORIGIN), primary.sender.held(ORIGIN)) == (True, True, None)
    primary.holds(out, 1)
    held = primary.sender.held(ORIGIN)
    assert held is not None
    assert (held.content, held.target, primary.sender.behind(ORIGIN)) == (made.content, OWN.target, False)
    assert primary.send() is None


def test_set_whose_content_is_held_is_not_sent() -> None:
    content = documents.content(())
    primary = Primary(held=Held(SetVersion(1, 1), content, frozenset(), OWN.target))
    primary.want(7)
    assert primary.send() is None


def test_set_held_for_another_server_is_sent() -> None:
    primary = Primary(held=Held(SetVersion(1, 1), documents.content(()), frozenset(), "somebodyel"))
    primary.want(7)
    assert primary.send() is not None


def test_exact_set_is_sent_though_its_content_is_held() -> None:
    primary = Primary()
    primary.want(1, origin=PARENT_ORIGIN)
    primary.holds(sent(primary)[0], 1, PARENT_ORIGIN)
    primary.want(2, origin=PARENT_ORIGIN)
    assert sent(primary)[0].desired is not None


def test_refused_set_is_sent_again_only_as_another_one() -> None:
    primary = Primary()
    made = primary.want(1, b"a")
    primary.refuses(sent(primary)[0], 1)
    primary.sender.offer(ORIGIN, made)
    refusal = primary.sender.refusal(ORIGIN)
    assert refusal is not None
    assert (refusal.reason, refusal.message, primary.sender.behind(ORIGIN)) == ("SET_INVALID", "no", True)
    assert primary.send() is None
    primary.want(2, b"b")
    assert primary.sender.refusal(ORIGIN) is None
    assert sent(primary)[0].desired is not None


def test_of_a_refusal_no_more_is_kept_than_a_receiver_says() -> None:
    primary = Primary()
    primary.want(1, b"a")
    out, _ = sent(primary)
    primary.sender.on_set_refused(
        pb.SetRefused(origin=ORIGIN, epoch=1, number=1, sequence=out.sequence, reason="R" * 9999, message="m" * 9999)
    )
    refusal = primary.sender.refusal(ORIGIN)
    assert refusal is not None
    assert (len(refusal.reason), len(refusal.message)) == (REASON_LIMIT, MESSAGE_LIMIT)


def test_what_was_wanted_before_a_refused_set_is_sent_anew() -> None:
    """The bodies of the first one are not sent any more once the second is on its way: it must come again."""
    primary = Primary()
    primary.want(1, bytes(10 * PIECE))
    primary.send_all()
    primary.want(2, b"b")
    second, _ = sent(primary)
    primary.refuses(second, 2)
    primary.want(3, bytes(10 * PIECE))
    out, pieces = sent(primary)
    assert out.desired is not None
    assert pieces


def test_newest_set_is_sent_at_once_and_its_bodies_alone() -> None:
    primary = Primary()
    primary.want(1, bytes(10 * PIECE))
    primary.send_all()
    primary.want(2, b"small")
    out, pieces = sent(primary)
    assert out.desired is not None
    assert [each.digest for each in pieces] == [digest(b"small")]


def test_set_that_was_replaced_may_still_be_answered() -> None:
    primary = Primary()
    primary.want(1)
    first, _ = sent(primary)
    primary.want(2, b"b")
    second, _ = sent(primary)
    primary.holds(second, 2)
    primary.holds(first, 1)
    held = primary.sender.held(ORIGIN)
    assert held is not None
    assert held.version == SetVersion(1, 2)


def test_withdrawn_origin_is_forgotten_with_its_bodies() -> None:
    primary = Primary()
    primary.want(1, bytes(10 * PIECE), origin=PARENT_ORIGIN)
    out, _ = sent(primary)
    primary.sender.withdraw(PARENT_ORIGIN)
    assert (primary.sender.origins, primary.send()) == (frozenset(), None)
    primary.holds(out, 1, PARENT_ORIGIN)  # said before the receiver knew
    assert primary.sender.held(PARENT_ORIGIN) is None


def test_late_answer_to_a_withdrawn_set_does_not_answer_it_anew() -> None:
    """The same version comes again: what the receiver held before the withdrawal it does not hold now."""
    primary = Primary()
    made = primary.want(1, b"a", origin=PARENT_ORIGIN)
    first, _ = sent(primary)
    primary.sender.withdraw(PARENT_ORIGIN)
    primary.sender.offer(PARENT_ORIGIN, made)
    again, pieces = sent(primary)
    assert (again.desired is not None, len(pieces)) == (True, 1)
    primary.holds(first, 1, PARENT_ORIGIN)
    assert primary.sender.held(PARENT_ORIGIN) is None
    primary.holds(again, 1, PARENT_ORIGIN)
    assert primary.sender.held(PARENT_ORIGIN) is not None


@pytest.mark.parametrize("answered", [True, False])
def test_offer_for_another_server_is_sent_whatever_was_before(answered: bool) -> None:
    primary = Primary()
    primary.want(1, b"a", origin=PARENT_ORIGIN)
    first, _ = sent(primary)
    if answered:
        primary.holds(first, 1, PARENT_ORIGIN)
    made = primary.want(1, b"a", origin=PARENT_ORIGIN, target="anotherone")
    assert primary.sender.held(PARENT_ORIGIN) is None
    out, pieces = sent(primary)
    assert out.sent == (PARENT_ORIGIN, made)
    assert [each.digest for each in pieces] == [digest(b"a")]


def test_bodies_of_a_refused_set_are_sent_again_for_newer_ones() -> None:
    """The receiver refuses a set when it is complete, and forgets its bodies; the newer sets of any origin count on them."""
    primary = Primary()
    primary.want(1, b"shared", b"other")
    first, pieces = sent(primary)
    for piece in pieces:
        primary.takes(first, piece.digest, len(primary.bodies[piece.digest]), whole=True)
    primary.want(2, b"shared")
    assert sent(primary)[1] == [], "it is there, as far as is known"
    primary.refuses(first, 1)
    _, pieces = sent(primary)
    assert [each.digest for each in pieces] == [digest(b"shared")]


def test_body_that_came_for_another_set_is_confirmed_for_a_later_one() -> None:
    """Between the two the receiver may have refused, or forgotten, the set that the body came for."""
    primary, body = Primary(), bytes(PIECE + 1)
    primary.want(1, body)
    first, _ = sent(primary)
    second, _ = sent(primary)
    primary.want(1, body, origin=PARENT_ORIGIN)
    assert sent(primary)[1] == []
    primary.takes(first, digest(body), PIECE)
    primary.takes(second, digest(body), PIECE + 1, whole=True)
    third, (last,) = sent(primary)
    assert last.offset == PIECE
    primary.takes(third, digest(body), PIECE + 1, whole=True)
    assert primary.send() is None


# --- Bodies ---------------------------------------------------------------------------------------------------------------------


def test_no_more_than_the_window_is_on_its_way() -> None:
    primary = Primary()
    primary.want(1, bytes(100 * PIECE))
    pieces = [piece for _, each in primary.send_all() for piece in each]
    assert len(pieces) * PIECE == SMALLEST


def test_window_grows_with_quick_answers_and_falls_with_slow_ones() -> None:
    primary = Primary()
    body = bytes(documents.BODY_LIMIT)
    primary.want(1, body)
    flying = primary.send_all()
    most = 0
    while flying and most < LARGEST:
        out, pieces = flying.pop(0)
        primary.takes(out, digest(body), pieces[-1].offset + PIECE)
        flying += primary.send_all()
        most = sum(len(each) for _, each in flying) * PIECE
    assert most == LARGEST
    primary.now += 3.0
    out, pieces = flying.pop(0)
    primary.takes(out, digest(body), pieces[-1].offset + PIECE)
    assert primary.send() is None, "the window has fallen, and more than it holds is on its way"


def test_small_body_passes_a_large_one() -> None:
    """Both wait behind it; the one that is soonest whole goes first as soon as there is room."""
    primary = Primary()
    large, small = bytes(50 * PIECE), b"s" * (PIECE + 1)
    primary.want(1, large)
    (first, _), (second, _) = primary.send_all()
    primary.want(2, large, small, b"tiny")
    assert [each[1] for each in primary.send_all()] == [[]], "the window is full"
    primary.takes(first, digest(large), PIECE)
    primary.takes(second, digest(large), 2 * PIECE)
    order = [piece.digest for _, each in primary.send_all() for piece in each]
    assert order.index(digest(large)) > max(order.index(digest(small)), order.index(digest(b"tiny")))
    assert order.count(digest(small)) == 2, "all of it"
    assert order[-1] == digest(large)


def test_body_goes_on_where_an_earlier_link_stopped() -> None:
    body = bytes(10 * PIECE)
    primary = Primary((digest(body), 4 * PIECE + 5))
    primary.want(1, body)
    _, pieces = sent(primary)
    assert pieces[0].offset == 4 * PIECE


@pytest.mark.parametrize("size", [3, PIECE, 2 * PIECE, 2 * PIECE + 1])
@pytest.mark.parametrize("claimed", [None, 2**62])
def test_body_that_is_there_is_confirmed_by_its_last_piece(size: int, claimed: int | None) -> None:
    """That a hello says so is not enough: the receiver may have forgotten it since, and would wait for ever."""
    body = bytes(size)
    primary = Primary((digest(body), claimed or size))
    primary.want(1, body)
    found = primary.send_all()
    ((out, (piece,)),) = [each for each in found if each[1]]
    assert piece.offset == (size - 1) - (size - 1) % PIECE
    primary.takes(out, digest(body), size, whole=True)
    assert primary.send() is None


def test_empty_body_is_sent_and_waits_for_its_answer() -> None:
    primary = Primary()
    primary.want(1, b"")
    out, pieces = sent(primary)
    assert [each.digest for each in pieces] == [digest(b"")]
    assert primary.send() is None
    primary.takes(out, digest(b""), 0, again=True)
    out, pieces = sent(primary)
    assert len(pieces) == 1
    primary.takes(out, digest(b""), 0, whole=True)
    assert primary.send() is None


def test_piece_that_did_not_fit_takes_those_behind_it_along() -> None:
    """One answer is enough: the others say nothing new, and start nothing again."""
    primary = Primary()
    body = bytes(10 * PIECE)
    primary.want(1, body)
    first, _ = sent(primary)
    second, _ = sent(primary)
    primary.takes(first, digest(body), 0, again=True)
    primary.takes(second, digest(body), 0, again=True)
    offsets = [piece.offset for _, each in primary.send_all() for piece in each]
    assert offsets == [0, PIECE]


def test_receiver_that_has_more_of_a_body_is_believed() -> None:
    primary = Primary()
    body = bytes(10 * PIECE)
    primary.want(1, body)
    out, _ = sent(primary)
    primary.takes(out, digest(body), 5 * PIECE)
    _, pieces = sent(primary)
    assert pieces[0].offset == 5 * PIECE


def test_large_set_travels_in_pieces_and_its_bodies_after_it() -> None:
    primary = Primary()
    bodies = [bytes([n % 256, n // 256]) for n in range(300)]
    primary.want(1, *bodies)
    flying = primary.send_all()
    large = flying[0][0].large_set
    assert large is not None
    whole = primary.sender.large_set(large.digest)
    assert whole is not None
    assert digest(whole) == large.digest
    seen = set[bytes]()
    while flying:
        out, pieces = flying.pop(0)
        seen |= {piece.digest for piece in pieces}
        for piece in pieces:
            body = primary.sender.large_set(piece.digest) or primary.bodies[piece.digest]
            end = min(piece.offset + PIECE, len(body))
            assert piece.digest == large.digest or primary.sender.large_set(large.digest) is None
            primary.takes(out, piece.digest, end, whole=end == len(body))
        flying += primary.send_all()
    assert seen == {large.digest, *map(digest, bodies)}


def test_bodies_of_a_large_set_wait_though_an_earlier_set_named_them() -> None:
    """That one may be refused: then nothing asks for them, and they would take the large set's place in the window for ever."""
    primary = Primary()
    bodies = [bytes([n % 256, n // 256]) for n in range(300)]
    primary.want(1, *bodies[:2])
    first, pieces = sent(primary)
    primary.want(2, *bodies)
    second, _ = sent(primary)
    for piece in pieces:
        primary.takes(first, piece.digest, 0, again=True)
    primary.refuses(first, 1)
    assert second.large_set is not None
    assert {each.digest for _, found in primary.send_all() for each in found} == {second.large_set.digest}


def test_body_of_two_sets_travels_once() -> None:
    primary = Primary()
    primary.want(1, bytes(2 * PIECE))
    primary.want(1, bytes(2 * PIECE), origin=PARENT_ORIGIN)
    pieces = [piece for _, each in primary.send_all() for piece in each]
    assert [each.offset for each in pieces] == [0, PIECE]


def test_body_that_is_gone_is_passed_over() -> None:
    primary = Primary()
    primary.want(1, bytes(2 * PIECE))
    out = primary.sender.next()
    assert out is not None
    primary.sender.body_gone(out.pieces[0].digest, [ORIGIN])
    assert primary.sender.next() is None


def test_body_that_one_origin_has_no_more_is_sent_for_another() -> None:
    primary = Primary()
    primary.want(1, bytes(2 * PIECE))
    primary.want(1, bytes(2 * PIECE), origin=PARENT_ORIGIN)
    out = primary.sender.next()
    assert out is not None
    primary.sender.body_gone(out.pieces[0].digest, [ORIGIN])
    pieces = [piece for _, each in primary.send_all() for piece in each]
    assert [(each.offset, each.origins) for each in pieces] == [(0, (PARENT_ORIGIN,)), (PIECE, (PARENT_ORIGIN,))]


def test_receiver_that_lost_what_it_held_gets_all_bodies_of_the_set_on_its_way() -> None:
    """It had said that it holds one of them, so that only the other travelled."""
    kept, new = b"k" * 10, b"n" * 10
    held = Primary().want(1, kept)
    primary = Primary(held=Held(held.version, held.content, held.digests, held.target))
    primary.want(2, kept, new)
    _, before = sent(primary)
    assert [each.digest for each in before] == [digest(new)]
    primary.sender.restate([])
    assert [each.digest for _, found in primary.send_all() for each in found] == [digest(kept)]


# --- A hostile receiver ---------------------------------------------------------------------------------------------------------

Attack = Callable[[Primary, Out, bytes], None]
BODY_ATTACKS: dict[str, Attack] = {
    "a message that was never sent": lambda p, o, d: p.takes(Out(o.sequence + 1), d, 1),
    "message 0": lambda p, o, d: p.takes(Out(0), d, 1),
    "a message below zero": lambda p, o, d: p.takes(Out(-(2**63)), d, 1),
    "a huge message": lambda p, o, d: p.takes(Out(2**63 - 1), d, 1),
    "a body that was in no message": lambda p, o, d: p.takes(o, STRANGE, 1, whole=True),
    "a digest that is none": lambda p, o, d: p.takes(o, b"", 1),
    "less than nothing": lambda p, o, d: p.takes(o, d, -1),
    "the least there is": lambda p, o, d: p.takes(o, d, -(2**63), again=True),
}
SET_ATTACKS: dict[str, Attack] = {
    "a message that was never sent": lambda p, o, d: p.holds(Out(o.sequence + 1), 1),
    "message 0": lambda p, o, d: p.holds(Out(0), 1),
    "another version": lambda p, o, d: p.holds(o, 2),
    "a version below zero": lambda p, o, d: p.holds(o, -1),
    "another origin": lambda p, o, d: p.holds(o, 1, PARENT_ORIGIN),
    "a refusal of what was never sent": lambda p, o, d: p.refuses(Out(2**62), 1),
    "a refusal of another origin": lambda p, o, d: p.refuses(o, 1, PARENT_ORIGIN),
}


@pytest.mark.parametrize("attack", BODY_ATTACKS.values(), ids=BODY_ATTACKS.keys())
def test_answer_to_a_body_that_was_never_sent_is_refused(attack: Attack) -> None:
    primary, body = Primary(), bytes(10 * PIECE)
    primary.want(1, body)
    out, _ = sent(primary)
    with pytest.raises(Refused) as refused:
        attack(primary, out, digest(body))
    assert (refused.value.reason, refused.value.message) == (Reason.LINK_VIOLATION, NEVER_SENT_BODY)


@pytest.mark.parametrize("attack", SET_ATTACKS.values(), ids=SET_ATTACKS.keys())
def test_answer_to_a_set_that_was_never_sent_is_refused(attack: Attack) -> None:
    primary = Primary()
    primary.want(1, b"a")
    out, _ = sent(primary)
    with pytest.raises(Refused) as refused:
        attack(primary, out, digest(b"a"))
    assert (refused.value.reason, refused.value.message) == (Reason.LINK_VIOLATION, NEVER_SENT_SET)
    assert primary.sender.held(ORIGIN) is None


@pytest.mark.parametrize("received", [PIECE + 1, 2 * PIECE, 10 * PIECE, 2**62])
def test_claim_to_have_more_than_was_sent_never_makes_a_body_whole(received: int) -> None:
    primary, body = Primary(), bytes(10 * PIECE)
    primary.want(1, body)
    out, _ = sent(primary)
    primary.takes(out, digest(body), received)
    assert primary.sender.ready, "its last pieces are still to be confirmed"


def test_body_asked_for_again_and_again_ends_the_link() -> None:
    """Each answer of a few bytes would cost a window of pieces, for ever."""
    primary, body = Primary(), bytes(10 * PIECE)
    primary.want(1, body)
    for _ in range(transfers.REPEATS):
        primary.takes(sent(primary)[0], digest(body), 0, again=True)
    out, _ = sent(primary)
    with pytest.raises(Refused) as refused:
        primary.takes(out, digest(body), 0, again=True)
    assert refused.value.message == "The link's protocol is broken: a body was asked for again and again."


def test_storm_of_answers_said_before_changes_nothing() -> None:
    primary, body = Primary(), bytes(10 * PIECE)
    primary.want(1, body)
    out, _ = sent(primary)
    primary.takes(out, digest(body), PIECE)
    primary.send_all()
    for _ in range(10_000):
        primary.takes(out, digest(body), 0, again=True)
        primary.takes(out, digest(body), 2**62, whole=True)
    assert primary.send() is None


def test_receiver_that_answers_nothing_lets_no_more_pieces_pass() -> None:
    """One-byte bodies count as well: what waits for an answer is bounded by the window."""
    primary = Primary()
    primary.want(1, *(n.to_bytes(2, "big") for n in range(documents.ITEM_LIMIT)))
    (out, _), *_ = flying = primary.send_all()
    large = out.large_set
    assert large is not None
    while primary.sender.large_set(large.digest) is not None:
        out, pieces = flying.pop(0)
        whole = primary.sender.large_set(large.digest) or b""
        end = min(pieces[-1].offset + PIECE, len(whole))
        primary.takes(out, large.digest, end, whole=end == len(whole))
        flying += primary.send_all()
    in_flight = sum(len(pieces) for _, pieces in flying)
    assert 0 < in_flight < transfers.FLIGHTS
    assert primary.send() is None
