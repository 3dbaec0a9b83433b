"""Attacks rows 38 and 46: desired sets replayed, rolled back, retargeted, swapped, over the link between two real ends.

Whoever stands between the authority and a server holds what was signed once, for this server and for others; and a primary whose
data went back signs what is old again. Whatever comes so, what was in force stays, and an honest set counts afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from enlist import documents
from enlist.documents import Item, SetVersion
from enlist.layers import Layer, encode
from enlist.reasons import Reason
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer
from enlist_primary.links.publisher import Piece
from tests.attacks.above import KEPT, PRESENT, Above, policy, way_up
from tests.attacks.pair import PIECE_REFUSED, WORD_REFUSED, Pair, paired, piece
from tests.support.inprocess import ACCOUNT
from tests.support.pretender import new_signer
from tests.support.sets import altered, signed_by
from tests.support.waiting import eventually

OTHER = "b" * 10


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Two ends that know each other, with a policy that came into force in two steps."""
    with pytest.MonkeyPatch.context() as patch:
        async with paired(tmp_path_factory.mktemp("pair"), patch) as pair:
            for text in ("first", "second"):
                await pair.set({"text": text})
                await pair.comes_into_force({"text": text})
            yield pair


@pytest.fixture
async def pair(shared: Pair) -> AsyncIterator[Pair]:
    """Afterwards what was in force still is, the link is open, and a newer policy comes into force."""
    shared.mark = len(shared.records.records)
    before, kept, shared.opened = shared.in_force(), shared.kept(), shared.link
    yield shared
    assert shared.in_force() == before
    assert shared.kept() == kept
    assert shared.link is shared.opened
    await shared.set({"text": f"honest {len(shared.told())}"})
    await eventually(lambda: shared.in_force() != before, what="the honest policy")


def newest(pair: Pair) -> document_pb2.DesiredSet:
    """The set that holds."""
    return document_pb2.DesiredSet.FromString(pair.signed[-1].desired_set)


def items(pair: Pair) -> list[Item]:
    """Its items."""
    return [Item(item.kind, item.name, item.revision, item.digest) for item in newest(pair).items]


def lie(pair: Pair, which: str) -> document_pb2.SignedSet:
    """A set that must not count."""
    number, own, stranger = newest(pair).number, items(pair), new_signer()
    encoded = documents.encode(ACCOUNT, pair.id, SetVersion(1, number + 1), documents.encode_items(own))
    true = pair.sign(own, number + 1)
    changed = altered(true, desired_set=true.desired_set.replace(b"motd", b"mot\xc3"))
    made = {
        "one that held before": lambda: pair.signed[0],
        "one that wants nothing, of an older version": lambda: pair.sign([], number - 1),
        "one of an older epoch": lambda: pair.sign(own, 2**40, epoch=0),
        "one of a number below zero": lambda: pair.sign(own, -1, epoch=2),
        "another server's": lambda: pair.sign(own, number + 1, target=OTHER),
        "one for nobody": lambda: pair.sign([], number + 1, target=""),
        "one for a name like it": lambda: pair.sign(own, number + 1, target=pair.id.upper()),
        "another account's": lambda: pair.sign(own, number + 1, account="other.example"),
        "a sibling primary's": lambda: signed_by(stranger, encoded),
        "a sibling primary's under the true name": lambda: _named(stranger, encoded, pair),
        "the true one under a sibling's name": lambda: _renamed(true, stranger),
        "one that was changed": lambda: _renamed(changed, pair.running.primary.context.signer),
        "one that was cut": lambda: altered(true, desired_set=true.desired_set[:-1]),
        "one with more behind it": lambda: altered(true, desired_set=true.desired_set + true.desired_set),
        "none at all": lambda: document_pb2.SignedSet(),
        "the same version and other content": lambda: pair.sign([*own, Item("policy/x", "/", 1, b"d" * 32)], number),
        "the same version and nothing": lambda: pair.sign([], number),
    }
    return made[which]()


def _named(signer: Signer, encoded: bytes, pair: Pair) -> document_pb2.SignedSet:
    signed = signed_by(signer, encoded)
    signed.origin = pair.running.authority.primary_id
    return signed


def _renamed(signed: document_pb2.SignedSet, signer: Signer) -> document_pb2.SignedSet:
    return altered(signed, origin=signer.authority.primary_id)


LIES = {
    **dict.fromkeys(("one that held before", "one that wants nothing, of an older version"), Reason.SET_STALE),
    **dict.fromkeys(
        (
            *(
                "one of an older epoch",
                "one of a number below zero",
                "another server's",
                "one for nobody",
                "one for a name like it",
            ),
            *("another account's", "a sibling primary's", "a sibling primary's under the true name"),
            *("the true one under a sibling's name", "one that was changed", "one that was cut", "one with more behind it"),
            "none at all",
        ),
        Reason.SET_INVALID,
    ),
    **dict.fromkeys(("the same version and other content", "the same version and nothing"), Reason.SET_CONFLICT),
}


@pytest.mark.parametrize("which", LIES)
async def test_a_set_that_is_not_the_newest_of_its_primary_for_this_server_is_refused(pair: Pair, which: str) -> None:
    """And what looks like two primaries with one key is an alarm."""
    await pair.send(lie(pair, which))
    record = await pair.refuses()
    assert record.fields["reason"] == LIES[which]
    assert record.levelno == (logging.CRITICAL if LIES[which] is Reason.SET_CONFLICT else logging.WARNING)


async def test_the_same_set_signed_once_more_is_none_of_these(pair: Pair) -> None:
    """ECDSA signs the same thing differently each time: only what it says counts."""
    times = len(pair.told())
    again = pair.sign(items(pair), newest(pair).number)
    assert again.signature != pair.signed[-1].signature
    await pair.send(again)
    await pair.send(lie(pair, "one for nobody"))  # what comes behind it is refused: so it was heard itself
    assert [record.fields["reason"] for record in [await pair.refuses()]] == [Reason.SET_INVALID]
    assert len(pair.told()) == times


@pytest.mark.parametrize("body", [encode(Layer({"text": "swapped"})), b""])
async def test_body_that_no_set_asks_for_never_counts(pair: Pair, body: bytes) -> None:
    """It is named in the log and dropped."""
    await pair.send(lie(pair, "one for nobody"), body)
    await eventually(lambda: pair.said(PIECE_REFUSED), what="the log's line")
    assert pair.in_force() != {"text": "swapped"}


async def test_body_that_is_not_the_signed_one_ends_the_link(shared: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set waits for the true one, which comes over the next link."""
    shared.mark = len(shared.records.records)

    async def swapped(_account: str, digest: bytes, *_: Any) -> Piece:
        return piece(encode(Layer({"text": "swapped"})), digest)

    with monkeypatch.context() as patch:
        patch.setattr(shared.running.primary.context.desires, "piece", swapped)
        await shared.set({"text": "true"})
        ended = await shared.refuses("attempt failed")
        assert ended.fields["reason"] == Reason.LINK_VIOLATION
        assert shared.in_force() not in ({"text": "swapped"}, {"text": "true"})
    await shared.comes_into_force({"text": "true"})


async def test_older_set_is_not_taken_over_a_new_link_either(pair: Pair) -> None:
    """What is held is on the disk: the hello names it, and nothing older replaces it."""
    number = newest(pair).number
    await pair.open_anew()
    assert [(each.epoch, each.number) for each in pair.hellos[-1].held] == [(1, number)]
    await pair.send(lie(pair, "one that held before"))
    assert (await pair.refuses()).fields["reason"] == Reason.SET_STALE


# --- In the middle --------------------------------------------------------------------------------------------------------------


class Ladder:
    """Two primaries above the secondary's own one, which hands their sets down, and may not hand them down as it likes."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.upper = Above(pair.running.primary.context.signer)
        self.top = Above(self.upper.signer, "top", "holding.example", "t" * 10)

    def set(self, number: int, text: str, **changes: str) -> tuple[document_pb2.SignedSet, bytes]:
        """The top-most primary's set, a policy of its own that is locked, and the body."""
        item, body = policy("motd", number, {"above": text}, "/above")
        return self.top.set(number, item, **changes), body

    async def says(self, *steps: document_pb2.Ancestor) -> None:
        """The middle primary says who stands above."""
        await self.pair.say(pb.FromPrimary(ancestry=way_up(*steps)))

    async def stands(self, number: int = 1, state: Any = PRESENT) -> None:
        """It says that both stand above; the number and the state are of the upper one's word on the top-most one."""
        await self.says(self.upper.step(), self.top.step(number, state))

    async def hands_down(self, signed: document_pb2.SignedSet, body: bytes) -> None:
        """The middle primary hands a set down."""
        self.pair.mark = len(self.pair.records.records)
        await self.pair.send(signed, body)

    async def holds(self, text: str | None) -> None:
        """Waits until this is what the top-most one wants here."""
        await eventually(lambda: self.pair.in_force().get("above") == text, what=f"{text} from above")


@pytest.fixture
async def ladder(pair: Pair) -> AsyncIterator[Ladder]:
    """The top-most primary's second set is in force; in the end nobody stands above any more."""
    made = Ladder(pair)
    await made.stands()
    for number, text in ((5, "five"), (6, "six")):
        await made.hands_down(*made.set(number, text))
        await made.holds(text)
    yield made
    await made.says()
    await made.holds(None)


async def test_a_middle_primary_cannot_replay_redirect_or_forge_what_comes_from_above(pair: Pair, ladder: Ladder) -> None:
    forged, signers = [], (pair.running.primary.context.signer, ladder.upper.signer)
    for signer in signers:  # everybody in between
        signed, body = ladder.set(7, "forged")
        signed.signature = signed_by(signer, signed.desired_set).signature
        forged.append((signed, body))
    for (signed, body), reason in (
        (ladder.set(5, "five"), Reason.SET_STALE),
        (ladder.set(6, "other"), Reason.SET_CONFLICT),
        (ladder.set(7, "seven", target=pair.id), Reason.SET_INVALID),  # the top-most primary's own server of that id
        (ladder.set(7, "seven", target=ladder.upper.server), Reason.SET_INVALID),
        (ladder.set(7, "seven", target=""), Reason.SET_INVALID),
        (ladder.set(7, "seven", account=ACCOUNT), Reason.SET_INVALID),
        *((each, Reason.SET_INVALID) for each in forged),
    ):
        await ladder.hands_down(signed, body)
        assert (await pair.refuses()).fields["reason"] == reason
        assert pair.in_force()["above"] == "six"


async def test_a_middle_primary_that_drops_the_one_above_does_not_bring_back_what_that_wanted_before(
    pair: Pair, ladder: Ladder
) -> None:
    """It may withhold; but that it was silent of the one above for a while makes no older set a new one."""
    await ladder.says(ladder.upper.step())
    await ladder.holds(None)
    await ladder.stands()
    await ladder.hands_down(*ladder.set(5, "five"))
    assert (await pair.refuses()).fields["reason"] == Reason.SET_STALE
    await ladder.hands_down(*ladder.set(7, "seven"))
    await ladder.holds("seven")


@pytest.mark.parametrize("dropped_between", [False, True])
async def test_a_word_on_who_stands_above_is_not_replayed_either(pair: Pair, ladder: Ladder, dropped_between: bool) -> None:
    """Row 38 for the way up: after "what it set stays, unlocked" the upper one's older "it stands above" counts no more."""
    await ladder.stands(3, KEPT)
    if dropped_between:
        await ladder.says(ladder.upper.step())
    pair.mark = len(pair.records.records)
    await ladder.stands(2)
    assert (await pair.refuses(WORD_REFUSED)).fields["reason"] == Reason.SET_STALE


async def test_a_way_up_that_somebody_did_not_sign_is_refused(pair: Pair, ladder: Ladder) -> None:
    """An invented primary above could lock what it likes: both ends of every step have to say so."""
    stranger = Above(ladder.upper.signer, "stranger", "holding.example", "t" * 10)
    middle = pair.running.primary.context.signer
    unasked, uncertified, borrowed = (stranger.step() for _ in range(3))
    other, loop = ladder.upper.step(), Above(ladder.upper.signer, signer=middle).step()
    borrowed.consent, borrowed.consent_signature = ladder.top.step().consent, ladder.top.step().consent_signature
    unasked.consent_signature = middle.sign_consent(unasked.consent)
    uncertified.cross_certificate = ladder.top.step().cross_certificate
    other.cross_certificate = Above(ladder.top.signer, signer=ladder.upper.signer).step().cross_certificate
    for steps, reason in (
        ([ladder.upper.step(), unasked], Reason.SET_INVALID),
        ([ladder.upper.step(), uncertified], Reason.SET_INVALID),
        ([ladder.upper.step(), borrowed], Reason.SET_INVALID),  # a word on the top-most one
        ([ladder.top.step()], Reason.SET_INVALID),  # a step is left out
        ([ladder.top.step(), ladder.upper.step()], Reason.SET_INVALID),
        ([other], Reason.SET_INVALID),  # certified for another one's servers
        ([ladder.upper.step(), loop], Reason.WOULD_LOOP),
    ):
        pair.mark = len(pair.records.records)
        await ladder.says(*steps)
        assert (await pair.refuses(WORD_REFUSED)).fields["reason"] == reason
        assert pair.in_force()["above"] == "six"
