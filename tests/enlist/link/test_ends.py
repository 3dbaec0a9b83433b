"""How a link opens, and what is refused at either end, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from enlist import certificates, proofs
from enlist.link.ends import SETTLED_AT_ONCE, UNREAD, PrimaryEnd, SecondaryEnd
from enlist.link.phases import Phase
from enlist.link.receiver import WAITING
from enlist.names import PRIMARY_ID_LENGTH
from enlist.reasons import TABLE, Reason, Refused
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from tests.enlist.link.sets import AUTHORITY, KEY, ORIGIN, PARENT_KEY, SERVER

CHALLENGE = b"challenge"


def primary(challenge: bytes = CHALLENGE) -> PrimaryEnd:
    """A primary's end that has said its challenge."""
    end = PrimaryEnd(challenge, SERVER, AUTHORITY)
    end.challenge()
    return end


def hello(challenge: bytes = CHALLENGE, said: pb.Hello | None = None) -> pb.FromSecondary:
    """A hello over a challenge."""
    return SecondaryEnd(KEY, AUTHORITY).on_challenge(pb.FromPrimary(challenge=challenge), said or pb.Hello())


def opened() -> tuple[PrimaryEnd, SecondaryEnd]:
    """Two ends of an open link."""
    end, other = PrimaryEnd(CHALLENGE, SERVER, AUTHORITY), SecondaryEnd(KEY, AUTHORITY)
    end.on_hello(other.on_challenge(end.challenge(), pb.Hello()))
    other.on_welcome(end.welcome(pb.Welcome()))
    return end, other


def signed_by(key: object, rpc: str = "Connect", challenge: bytes = CHALLENGE, authority: bytes = AUTHORITY) -> pb.FromSecondary:
    """A hello with a signature that says something else."""
    said = pb.Hello(protocol=3).SerializeToString()
    signature = proofs.sign(key, rpc, challenge, authority, said)  # type: ignore[arg-type]  # a key, made above
    return pb.FromSecondary(hello=pb.SignedHello(hello=said, signature=signature))


def test_link_opens_at_both_ends() -> None:
    end, other = opened()
    assert (end.phase, other.phase) == (Phase.OPEN, Phase.OPEN)
    end.on_message(pb.FromSecondary(), 0.0)
    other.on_message(pb.FromPrimary())
    end.close()
    assert end.phase is Phase.CLOSING
    end.on_message(pb.FromSecondary(), 0.0)


def test_hello_is_read_as_it_was_signed() -> None:
    assert primary().on_hello(hello(said=pb.Hello(protocol=7))).protocol == 7


PROOFS: dict[str, Callable[[], pb.FromSecondary]] = {
    "another key": lambda: signed_by(certificates.new_key()),
    "an old challenge": lambda: hello(b"an old challenge"),
    "an empty challenge": lambda: signed_by(KEY, challenge=b""),
    "another RPC": lambda: signed_by(KEY, rpc="RenewCertificate"),
    "another primary": lambda: signed_by(KEY, authority=PARENT_KEY),
    "no signature": lambda: pb.FromSecondary(hello=pb.SignedHello(hello=b"")),
    "no key's signature": lambda: pb.FromSecondary(hello=pb.SignedHello(hello=b"", signature=b"x" * 70)),
    "a signature of other words": lambda: pb.FromSecondary(
        hello=pb.SignedHello(hello=pb.Hello(protocol=9).SerializeToString(), signature=hello().hello.signature)
    ),
}


@pytest.mark.parametrize("made", PROOFS.values(), ids=PROOFS.keys())
def test_hello_without_the_key_s_fresh_proof_is_refused(made: Callable[[], pb.FromSecondary]) -> None:
    end = primary()
    with pytest.raises(Refused) as refused:
        end.on_hello(made())
    assert refused.value.reason is Reason.PROOF_INVALID
    assert refused.value.message == "The request is not signed by the key it names."


def test_proof_of_one_link_opens_no_other() -> None:
    greeting = hello()
    primary().on_hello(greeting)
    with pytest.raises(Refused) as refused:
        primary(b"the next challenge").on_hello(greeting)
    assert refused.value.reason is Reason.PROOF_INVALID


def test_outcomes_that_arrived_are_all_said_a_bounded_number_in_a_message() -> None:
    end, _ = opened()
    for number in range(SETTLED_AT_ONCE + 10):
        for _ in range(2):
            end.settle("", f"{number:010}")
    assert end.answers_ready
    said = [len(end.answers().settled) for _ in range(2)]
    assert (said, end.answers_ready) == ([SETTLED_AT_ONCE, 10], False)


def unreadable() -> pb.FromSecondary:
    """A hello that is signed, and is none."""
    said = b"\xff"
    return pb.FromSecondary(hello=pb.SignedHello(hello=said, signature=proofs.sign(KEY, "Connect", CHALLENGE, AUTHORITY, said)))


def ack(sequence: int) -> pb.BodyAck:
    return pb.BodyAck(digest=b"d" * 32, sequence=sequence, received=1)


def say_and_never_read(end: PrimaryEnd) -> None:
    """So many messages are taken, and no answer could be written."""
    for sequence in range(UNREAD + 2):
        end.on_message(pb.FromSecondary(), 0.0)
        end.acknowledge(sequence)


NEVER_SENT = "a body was acknowledged that was never sent"
SET_NEVER_SENT = "a set was answered that was never sent"
AT_PRIMARY: dict[str, tuple[str, Callable[[], object]]] = {
    "no hello first": ("a link begins with a hello", lambda: primary().on_hello(pb.FromSecondary(reports=pb.Reports()))),
    "nothing first": ("a link begins with a hello", lambda: primary().on_hello(pb.FromSecondary())),
    "a hello that is none": ("a hello cannot be read", lambda: primary().on_hello(unreadable())),
    "a hello before the challenge": (
        "a hello came while the link was connecting",
        lambda: PrimaryEnd(CHALLENGE, SERVER, AUTHORITY).on_hello(hello()),
    ),
    "a second hello": ("a hello came while the link was open", lambda: opened()[0].on_message(hello(), 0.0)),
    "a message before the hello": (
        "a message came while the link was challenged",
        lambda: primary().on_message(pb.FromSecondary(), 0.0),
    ),
    "acknowledgements that are not read": (
        "more was said than may wait for an acknowledgement",
        lambda: say_and_never_read(opened()[0]),
    ),
    "a body ack": (NEVER_SENT, lambda: opened()[0].on_message(pb.FromSecondary(body_acks=[ack(1)]), 0.0)),
    "a body ack of a hello": (NEVER_SENT, lambda: opened()[0].on_message(pb.FromSecondary(body_acks=[ack(0)]), 0.0)),
    "thousands of answers": (
        "a message answers more than can have been sent",
        lambda: opened()[0].on_message(pb.FromSecondary(set_refusals=[pb.SetRefused(below=True)] * (WAITING + 1)), 0.0),
    ),
    "a set ack": (
        SET_NEVER_SENT,
        lambda: opened()[0].on_message(pb.FromSecondary(set_acks=[pb.SetAck(origin=ORIGIN, epoch=1, number=1, sequence=1)]), 0.0),
    ),
    "a set refusal": (
        SET_NEVER_SENT,
        lambda: opened()[0].on_message(pb.FromSecondary(set_refusals=[pb.SetRefused(origin=ORIGIN)]), 0.0),
    ),
}
AT_SECONDARY: dict[str, tuple[str, Callable[[], object]]] = {
    "a second challenge": (
        "a challenge came while the link was open",
        lambda: opened()[1].on_message(pb.FromPrimary(challenge=b"c")),
    ),
    "a second welcome": (
        "a welcome came while the link was open",
        lambda: opened()[1].on_message(pb.FromPrimary(welcome=pb.Welcome())),
    ),
    "a welcome before the challenge": (
        "a welcome came while the link was connecting",
        lambda: SecondaryEnd(KEY, AUTHORITY).on_welcome(pb.FromPrimary(welcome=pb.Welcome())),
    ),
    "a message before the welcome": (
        "a message came while the link was connecting",
        lambda: SecondaryEnd(KEY, AUTHORITY).on_message(pb.FromPrimary()),
    ),
}


@pytest.mark.parametrize(("sentence", "attack"), AT_PRIMARY.values(), ids=AT_PRIMARY.keys())
def test_violation_at_the_primary_is_refused_by_name(sentence: str, attack: Callable[[], object]) -> None:
    _refused_by_name(sentence, attack)


@pytest.mark.parametrize(("sentence", "attack"), AT_SECONDARY.values(), ids=AT_SECONDARY.keys())
def test_violation_at_the_secondary_is_refused_by_name(sentence: str, attack: Callable[[], object]) -> None:
    _refused_by_name(sentence, attack)


def _refused_by_name(sentence: str, attack: Callable[[], object]) -> None:
    with pytest.raises(Refused) as refused:
        attack()
    assert refused.value.reason is Reason.LINK_VIOLATION
    assert refused.value.message == f"The link's protocol is broken: {sentence}."


@pytest.mark.parametrize("message", [pb.FromPrimary(), pb.FromPrimary(welcome=pb.Welcome()), pb.FromPrimary(challenge=b"")])
def test_port_that_begins_with_no_challenge_is_not_enlist(message: pb.FromPrimary) -> None:
    with pytest.raises(Refused) as refused:
        SecondaryEnd(KEY, AUTHORITY).on_challenge(message, pb.Hello())
    assert refused.value.reason is Reason.NOT_ENLIST


def test_refusal_of_the_primary_below_answers_no_set_of_this_link() -> None:
    end, _ = opened()
    end.on_message(pb.FromSecondary(set_refusals=[pb.SetRefused(origin=ORIGIN, below=True)]), 0.0)


def test_both_reasons_have_a_status() -> None:
    assert {Reason.LINK_VIOLATION, Reason.PROOF_INVALID} <= TABLE.keys()


def test_hello_leaves_little_in_the_primary_s_memory() -> None:
    """Digests that are none, parts of less than nothing, and endless names are dropped or cut."""
    origins = ["x" * (PRIMARY_ID_LENGTH + 1), *(f"{n:064x}" for n in range(100))]
    held = [document_pb2.Held(origin=each, content=b"c" * 9999, target="t" * 9999, digests=[b"d", b"d" * 32]) for each in origins]
    parts = [pb.BodyAck(digest=b"d" * 9999, received=1), pb.BodyAck(digest=b"d" * 32, received=-1)]
    end = primary()
    end.on_hello(hello(said=pb.Hello(held=held, bodies=parts)))
    assert 0 < len(end.sender.origins) <= 17
    for origin in end.sender.origins:
        kept = end.sender.held(origin)
        assert kept is not None
        assert (len(origin), len(kept.content), len(kept.target), kept.digests) == (64, 32, 64, frozenset([b"d" * 32]))


def test_acknowledgements_are_gathered_until_they_are_said() -> None:
    end, _ = opened()
    assert not end.answers_ready
    end.acknowledge(1)
    end.acknowledge(2, refused=True)
    end.settle("a/b", "run")
    assert end.answers() == pb.FromPrimary(
        acks=[pb.Ack(sequence=1), pb.Ack(sequence=2, refused=True)], settled=[pb.Settled(path="a/b", run="run")]
    )
    assert not end.answers_ready
