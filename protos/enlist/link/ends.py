"""The two ends of a link: how it opens, and what each end does with the messages of the other.

The primary speaks first, with a challenge. The hello proves the server's key over it: a TLS session that is resumed shows the
certificate of an earlier handshake, and proves nothing about who holds its key now.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from enlist import certificates, documents, proofs
from enlist.ancestry import ORIGINS
from enlist.link import phases
from enlist.link.phases import Event, Phase, violation
from enlist.link.sender import Sender, decode_held
from enlist.names import PRIMARY_ID_LENGTH
from enlist.v1 import hierarchy_pb2 as pb

CONNECT = "Connect"
"""The RPC that the proof in a hello names."""

UNREAD = 256
"""Messages of the secondary that were taken and of which it has not read that, at most: many more than may be on their way."""
SETTLED_AT_ONCE = 1000
"""Outcomes that arrived, in one message, at most."""


class End:
    """What both ends have in common: the phase."""

    def __init__(self) -> None:
        self.phase = Phase.CONNECTING

    def _on(self, event: Event) -> None:
        self.phase = phases.after(self.phase, event)

    def close(self) -> None:
        """Either side ends the link: what comes after that counts for nothing."""
        self._on(Event.END)


class PrimaryEnd(End):
    """The primary's end of one link."""

    def __init__(self, challenge: bytes, server_key: bytes, authority_key: bytes) -> None:
        """`server_key` is the key of the certificate that the caller showed, both keys SubjectPublicKeyInfo, DER."""
        super().__init__()
        self._challenge = challenge
        self._server_key = server_key
        self._authority_key = authority_key
        self.sender = Sender()
        self._acks: list[pb.Ack] = []
        self._settled: dict[tuple[str, str], None] = {}

    def challenge(self) -> pb.FromPrimary:
        """The first message."""
        self._on(Event.CHALLENGE)
        return pb.FromPrimary(challenge=self._challenge)

    def on_hello(self, message: pb.FromSecondary) -> pb.Hello:
        """The answer to the challenge. Refused: LINK_VIOLATION, PROOF_INVALID."""
        if not message.HasField("hello"):
            raise violation("a link begins with a hello")
        self._on(Event.HELLO)
        key = certificates.load_public_key(self._server_key)
        said = message.hello
        proofs.verify(key, CONNECT, self._challenge, self._authority_key, said.hello, said.signature)
        try:
            hello = pb.Hello.FromString(said.hello)
        except DecodeError:
            raise violation("a hello cannot be read") from None
        held = [(each.origin, decode_held(each)) for each in hello.held[:ORIGINS] if len(each.origin) <= PRIMARY_ID_LENGTH]
        parts = [(each.digest, each.received) for each in hello.bodies[: documents.ITEM_LIMIT]]
        self.sender = Sender(held, [each for each in parts if documents.is_digest(each[0]) and each[1] > 0])
        return hello

    def welcome(self, welcome: pb.Welcome) -> pb.FromPrimary:
        """The answer to the hello: the link is open."""
        self._on(Event.WELCOME)
        return pb.FromPrimary(welcome=welcome)

    def on_message(self, message: pb.FromSecondary, now: float) -> None:
        """Takes what a message acknowledges; the rest is its host's. Refused with LINK_VIOLATION."""
        if message.HasField("hello"):
            self._on(Event.HELLO)
        self._on(Event.TRAFFIC)
        if len(self._acks) > UNREAD:
            raise violation("more was said than may wait for an acknowledgement")
        self.sender.on_message(message, now)

    def acknowledge(self, sequence: int, refused: bool = False) -> None:
        """A message of the secondary is taken for good; or there was no room for it."""
        self._acks.append(pb.Ack(sequence=sequence, refused=refused))

    def settle(self, path: str, run: str) -> None:
        """The outcome of a run has arrived at the primary that ordered it: one of those that the secondary said."""
        self._settled[path, run] = None

    @property
    def answers_ready(self) -> bool:
        """Whether `answers` has something to say."""
        return bool(self._acks or self._settled)

    def answers(self) -> pb.FromPrimary:
        """The acknowledgements that are due. What a link that breaks does not carry, the secondary says again over the next."""
        settled = list(self._settled)[:SETTLED_AT_ONCE]
        for each in settled:
            del self._settled[each]
        said = pb.FromPrimary(acks=self._acks, settled=[pb.Settled(path=path, run=run) for path, run in settled])
        self._acks = []
        return said


class SecondaryEnd(End):
    """The secondary's end of one link."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, authority_key: bytes) -> None:
        super().__init__()
        self._key = key
        self._authority_key = authority_key
        self.number: Callable[[], int] = count(1).__next__
        """Counts the messages that are to be acknowledged."""

    def on_challenge(self, message: pb.FromPrimary, hello: pb.Hello) -> pb.FromSecondary:
        """The answer to the first message. Refused: NOT_ENLIST, VERSION_INCOMPATIBLE."""
        if not message.challenge:
            raise phases.not_a_primary()
        self._on(Event.CHALLENGE)
        said = hello.SerializeToString()
        signature = proofs.sign(self._key, CONNECT, message.challenge, self._authority_key, said)
        self._on(Event.HELLO)
        return pb.FromSecondary(hello=pb.SignedHello(hello=said, signature=signature))

    def on_welcome(self, message: pb.FromPrimary) -> pb.Welcome:
        """The link is open. Refused with NOT_ENLIST."""
        if not message.HasField("welcome"):
            raise phases.not_a_primary()
        self._on(Event.WELCOME)
        return message.welcome

    def on_message(self, message: pb.FromPrimary) -> None:
        """Whether a message has its place here; refused with LINK_VIOLATION if not. What it says is its host's."""
        if message.challenge:
            self._on(Event.CHALLENGE)
        if message.HasField("welcome"):
            self._on(Event.WELCOME)
        self._on(Event.TRAFFIC)
