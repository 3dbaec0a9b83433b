"""The link's protocol broken over a real link, at either end: refused by name, or passed over, and nobody else is harmed.

An acknowledgement of what was never sent, pieces out of order, too long, of a body nobody asked for, a second hello, a proof over
an old challenge: the peer learns the reason, there is one line in the log per message, other links and the database are unharmed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from enlist import certificates, documents, proofs
from enlist.channel import PROTOCOL
from enlist.link.ends import CONNECT
from enlist.link.pace import PIECE
from enlist.reasons import Reason
from enlist.v1 import hierarchy_pb2 as pb
from tests.attacks.pair import Pair, paired
from tests.attacks.world import World
from tests.support.inprocess import Asker, refused_by
from tests.support.links import LinkClient, linked
from tests.support.waiting import eventually

STRANGE = b"s" * 32
BROKEN = "The link's protocol is broken: "
SAME_HELLO = pb.Hello(protocol=PROTOCOL, version="0.1.0").SerializeToString()


@pytest.fixture
async def hostile(world: World) -> AsyncIterator[Asker]:
    """A trusted server; afterwards the database is as it was, and its owner may open an honest link."""
    asker, _ = await world.trusted("hostile")
    before = await decided(world)
    yield asker
    assert await decided(world) == before
    async with linked(asker) as link:
        await _heard(link)


async def decided(world: World) -> dict[str, list[dict[str, Any]]]:
    """What the database says, but for the number of the newest change: links that open and close are changes."""
    tables = await world.tables()
    return {name: [{**row, "change": 0} for row in rows] for name, rows in tables.items()}


async def _heard(link: LinkClient) -> None:
    """The primary hears this link: several messages in a row it acknowledges at once, also if one answer went with a set."""
    for sequence in (1, 2, 3):
        await link.send(reports=pb.Reports(sequence=sequence))
    await eventually(partial(_acknowledged, link), what="the acknowledgement of honest messages")


async def _acknowledged(link: LinkClient) -> bool:
    await link.read()
    return [ack.sequence for ack in link.acks] == [1, 2, 3]


def lines(world: World) -> list[dict[str, Any]]:
    """The log's lines on links that were refused or ended for what the server said."""
    found = [getattr(each, "fields", {}) for each in world.logged]
    return [each for each in found if {each.get("why"), each.get("reason")} & {Reason.LINK_VIOLATION, Reason.PROOF_INVALID}]


# --- A hostile secondary --------------------------------------------------------------------------------------------------------

NEVER_SENT = "a body was acknowledged that was never sent"
SET_NEVER_SENT = "a set was answered that was never sent"
AFTER_THE_HELLO: dict[str, tuple[str, dict[str, Any]]] = {
    "a second hello": ("a hello came while the link was open", {"hello": pb.SignedHello()}),
    "an answer to a message that was never sent": (NEVER_SENT, {"body_acks": [pb.BodyAck(sequence=99, digest=STRANGE)]}),
    "an answer to a body that was never sent": (NEVER_SENT, {"body_acks": [pb.BodyAck(sequence=1, digest=STRANGE, whole=True)]}),
    "less than nothing of a body": (NEVER_SENT, {"body_acks": [pb.BodyAck(sequence=1, digest=STRANGE, received=-(2**63))]}),
    "a set that was never sent": (SET_NEVER_SENT, {"set_acks": [pb.SetAck(origin="f" * 64, epoch=1, number=1, sequence=1)]}),
    "a set of the largest numbers": (
        SET_NEVER_SENT,
        {"set_acks": [pb.SetAck(epoch=2**63 - 1, number=2**63 - 1, sequence=2**63 - 1)]},
    ),
    "a refusal of what was never sent": (SET_NEVER_SENT, {"set_refusals": [pb.SetRefused(origin="f" * 64, reason="x" * 9999)]}),
}


@pytest.mark.parametrize(("sentence", "said"), AFTER_THE_HELLO.values(), ids=AFTER_THE_HELLO.keys())
async def test_violation_over_an_open_link_ends_that_link_by_name(
    world: World, hostile: Asker, sentence: str, said: dict[str, Any]
) -> None:
    async with linked(hostile) as link:
        await link.send(**said)
        refused = await refused_by(_to_the_end(link.stream))
    assert (refused.reason, refused.message) == (Reason.LINK_VIOLATION, f"{BROKEN}{sentence}.")
    await eventually(lambda: lines(world), what="the line in the log")
    (line,) = lines(world)
    assert line["problem"] == refused.message


async def _to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


def signed(asker: Asker, challenge: bytes, key: Any = None, said: bytes = SAME_HELLO) -> pb.FromSecondary:
    """A hello over a challenge, by another key if one is given."""
    signature = proofs.sign(key or asker.key, CONNECT, challenge, asker.running.authority.public_key, said)
    return pb.FromSecondary(hello=pb.SignedHello(hello=said, signature=signature))


Greet = Callable[[Asker, bytes], pb.FromSecondary]
NOT_SIGNED = "The request is not signed by the key it names."
GREETINGS: dict[str, tuple[Reason, str, Greet]] = {
    "something else first": (
        Reason.LINK_VIOLATION,
        f"{BROKEN}a link begins with a hello.",
        lambda asker, challenge: pb.FromSecondary(reports=pb.Reports()),
    ),
    "a hello that is none": (
        Reason.LINK_VIOLATION,
        f"{BROKEN}a hello cannot be read.",
        lambda asker, challenge: signed(asker, challenge, said=b"\xff"),
    ),
    "another key": (Reason.PROOF_INVALID, NOT_SIGNED, lambda asker, challenge: signed(asker, challenge, certificates.new_key())),
    "an older challenge": (Reason.PROOF_INVALID, NOT_SIGNED, lambda asker, challenge: signed(asker, bytes(len(challenge)))),
    "no signature": (
        Reason.PROOF_INVALID,
        NOT_SIGNED,
        lambda asker, challenge: pb.FromSecondary(hello=pb.SignedHello(hello=SAME_HELLO)),
    ),
}


@pytest.mark.parametrize(("reason", "message", "greet"), GREETINGS.values(), ids=GREETINGS.keys())
async def test_greeting_that_proves_nothing_opens_no_link(
    world: World, hostile: Asker, reason: Reason, message: str, greet: Greet
) -> None:
    """The link that the server has open, if it is another one that speaks, stays."""
    async with linked(hostile) as honest, hostile.at_ssl_port() as stub:
        stream: Any = stub.hierarchy.Connect()
        challenge = (await stream.read()).challenge
        await stream.write(greet(hostile, challenge))
        refused = await refused_by(_to_the_end(stream))
        assert (refused.reason, refused.message) == (reason, message)
        await _heard(honest)
    assert [line["problem"] for line in lines(world)] == [message]


async def test_challenge_of_one_link_serves_no_other(world: World, hostile: Asker) -> None:
    """Whoever records a hello cannot say it again."""
    async with hostile.at_ssl_port() as stub:
        first: Any = stub.hierarchy.Connect()
        greeting = signed(hostile, (await first.read()).challenge)
        await first.write(greeting)
        assert (await first.read()).HasField("welcome")
        second: Any = stub.hierarchy.Connect()
        await second.read()
        await second.write(greeting)
        assert (await refused_by(_to_the_end(second))).reason is Reason.PROOF_INVALID
        assert not first.done()
        first.cancel()


# --- A hostile primary ----------------------------------------------------------------------------------------------------------


class Hostile:
    """A real secondary under a primary that says whatever the test says."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._numbers = 1000

    async def say(self, **fields: Any) -> None:
        """One message, with a number that is new over this link unless one is given."""
        self._numbers += 1
        await self.pair.say(pb.FromPrimary(**{"sequence": self._numbers, **fields}))

    def problems(self, event: str) -> list[str]:
        """What the secondary's log says of an event since the test began, and it says that of no other one.

        That the primary ends the link over the answer, for it never sent what is answered, is another matter.
        """
        found = [each for each in self.pair.logged() if each.fields.get("reason") == Reason.LINK_VIOLATION]
        own = [each for each in found if NEVER_SENT not in each.fields["problem"]]
        assert {each.getMessage() for each in own} <= {event}
        return [each.fields["problem"] for each in own]


@pytest.fixture
async def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hostile]:
    """Afterwards what was in force still is, and a newer policy comes into force over the next link.

    A pair for each test: a secondary whose links end soon waits longer and longer.
    """
    async with paired(tmp_path, monkeypatch) as pair:
        await pair.set({"text": "first"})
        await pair.comes_into_force({"text": "first"})
        kept = pair.kept()
        yield Hostile(pair)
        assert (pair.in_force(), pair.kept()) == ({"text": "first"}, kept)
        await pair.set({"text": "honest"})
        await eventually(lambda: pair.in_force() == {"text": "honest"}, 20, what="the honest policy")


def piece(offset: int, data: bytes = b"x", size: int = 3 * PIECE, digest: bytes = STRANGE) -> pb.BodyPiece:
    """A piece of a body that no set names."""
    return pb.BodyPiece(digest=digest, offset=offset, data=data, size=size)


def announced(origin: str = "f" * 64, digest: bytes = STRANGE) -> pb.LargeSet:
    """A large set of anybody."""
    return pb.LargeSet(origin=origin, digest=digest)


NOT_TAKEN, ENDED = "a piece of a body was not taken", "attempt failed"
NO_SET_ASKS, OUT_OF_ORDER = "a body came that no set asks for", "the pieces of a body came out of order"
PASSED_OVER: dict[str, tuple[str, dict[str, Any]]] = {
    "a body nobody asked for": (NO_SET_ASKS, {"pieces": [piece(0)]}),
    "many of them": (NO_SET_ASKS, {"pieces": [piece(0, digest=n.to_bytes(32, "big")) for n in range(1, 1000)]}),
    "a huge body nobody asked for": (NO_SET_ASKS, {"pieces": [piece(2**62, size=2**63 - 1)]}),
    "pieces out of order": (OUT_OF_ORDER, {"large_set": announced(), "pieces": [piece(PIECE), piece(2 * PIECE)]}),
    "an offset below zero": (OUT_OF_ORDER, {"large_set": announced(), "pieces": [piece(-1)]}),
}


@pytest.mark.parametrize(("problem", "said"), PASSED_OVER.values(), ids=PASSED_OVER.keys())
async def test_piece_that_does_not_fit_is_passed_over_with_one_line(victim: Hostile, problem: str, said: dict[str, Any]) -> None:
    await victim.say(**said)
    await eventually(lambda: victim.problems(NOT_TAKEN) == [problem], what="the line in the log")


async def test_message_that_came_before_is_passed_over(victim: Hostile) -> None:
    for sequence in (1, 0, -1, -(2**63)):
        await victim.say(sequence=sequence, pieces=[piece(PIECE)], large_set=announced())
    await victim.say(pieces=[piece(0)])
    await eventually(lambda: victim.problems(NOT_TAKEN) == [NO_SET_ASKS], what="the line on the last one")


TOO_LONG = "a piece of a body is too long"
ENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a second challenge": ("a challenge came while the link was open", {"challenge": b"again"}),
    "a second welcome": ("a welcome came while the link was open", {"welcome": pb.Welcome(primary_name="other")}),
    "a long piece": (TOO_LONG, {"large_set": announced(), "pieces": [piece(0, bytes(PIECE + 1))]}),
    "a large set that is too large": (TOO_LONG, {"large_set": announced(), "pieces": [piece(0, size=2**40)]}),
    "a piece behind the end": (TOO_LONG, {"large_set": announced(), "pieces": [piece(2**62)]}),
    "an empty piece": ("a piece of a body is empty", {"large_set": announced(), "pieces": [piece(0, b"")]}),
    "another body": ("a body is not the one that its digest names", {"large_set": announced(), "pieces": [piece(0, size=1)]}),
    "an ack of what was never sent": ("a message was acknowledged that was never sent", {"acks": [pb.Ack(sequence=2**62)]}),
    "an ack below zero": ("a message was acknowledged that was never sent", {"acks": [pb.Ack(sequence=-1, refused=True)]}),
}


@pytest.mark.parametrize(("sentence", "said"), ENDS.values(), ids=ENDS.keys())
async def test_violation_of_the_primary_ends_the_link_by_name(victim: Hostile, sentence: str, said: dict[str, Any]) -> None:
    """What is in force stays; the next link is an honest one."""
    await victim.say(**said)
    await eventually(lambda: victim.problems(ENDED), what="the line in the log")
    assert victim.problems(ENDED) == [f"{BROKEN}{sentence}."]


async def test_large_set_that_cannot_be_read_is_refused_and_answered(victim: Hostile) -> None:
    """The answer names the message that announced it: no set of the primary's own is taken for refused."""
    own, whole = victim.pair.running.authority.primary_id, b"\xff" * 100
    digest = documents.digest(whole)
    await victim.say(large_set=announced(own, digest), pieces=[piece(0, whole, len(whole), digest)])
    await victim.pair.refuses()
    await eventually(lambda: victim.pair.said("link closed"), what="the primary's own line: it never sent that")
