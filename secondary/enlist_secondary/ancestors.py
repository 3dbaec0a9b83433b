"""The primaries above this server's own, as that one says and as both ends of each step have signed: whose sets count here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from enlist import ancestry
from enlist.ancestry import Above
from enlist.certificates import Authority
from enlist.documents import Origin, Place, SetVersion
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2 as pb
from enlist_secondary import identity
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity

_LOG = Log("enlist.secondary")


class _Kept(msgspec.Struct):
    ancestry: bytes
    memory: str


@dataclass(frozen=True)
class Ascent:
    """The way up at one moment: a value, replaced as a whole, so that what is written down fits together."""

    message: pb.Ancestry = field(default_factory=pb.Ancestry)
    """As it was said."""
    above: tuple[Above, ...] = ()
    memory: Memory = field(default_factory=Memory)


def of(folder: Path, mine: Identity, account: str) -> Ancestors:
    """The way up of the enrolment in this folder, not loaded yet."""
    origin = Origin(mine.authority.public_key, account, mine.server_id)
    return Ancestors(folder / "ancestry", mine.authority, origin)


def kept(config: SecondaryConfig) -> Ancestors:
    """The way up as the enrolment of a configuration keeps it. Refused with SERVER_UNKNOWN where there is no enrolment."""
    mine = identity.load(config.folder)
    if mine is None:
        raise Refused(Reason.SERVER_UNKNOWN, "This server has not asked to join yet; no primary is above it.")
    found = of(config.folder, mine, config.account)
    found.load()
    return found


class Ancestors:
    """The way up from this server's own primary, kept in one file."""

    def __init__(self, path: Path, own: Authority, origin: Origin) -> None:
        """`origin` is the own primary, whose sets come first-hand."""
        self._path = path
        self._own = own
        self.origin = origin
        self.ascent = Ascent()

    def load(self) -> None:
        """Reads what is kept. A way up that cannot be verified is as if nothing had been said.

        A file that cannot be read is not taken for none: without the memory in it, older sets would count again.
        """
        try:
            kept = msgspec.json.decode(files.read(self._path), type=_Kept)
        except FileNotFoundError:
            return
        except (Refused, msgspec.DecodeError, UnicodeDecodeError) as error:
            kept, memory = _Kept(b"", ""), Memory(damaged=str(error))
        else:
            memory = Memory.from_json(kept.memory)
        if memory.damaged:
            _LOG.alarm("what is remembered of the primaries above cannot be read", path=self._path, problem=memory.damaged)
        self.ascent = Ascent(*self._verified(kept.ancestry), memory)

    def _verified(self, kept: bytes) -> tuple[pb.Ancestry, tuple[Above, ...]]:
        try:
            said = pb.Ancestry.FromString(kept)
            return said, tuple(ancestry.verify(said, self._own))
        except (Refused, DecodeError) as error:
            _LOG.warning("the primaries above cannot be read; the next link tells them again", path=self._path, problem=str(error))
            return pb.Ancestry(), ()

    def take(self, said: pb.Ancestry, held: Mapping[Place, SetVersion]) -> bool:
        """Takes what the own primary says; whether it is anything new. `held` are the versions of the sets held.

        Refused as `ancestry.verify` and `Memory.after` do. Neither a consent nor a step goes back to an older one.
        """
        found = tuple(ancestry.verify(said, self._own))
        theirs = {place: version for place, version in held.items() if place.origin != self._own.primary_id}
        ascent = Ascent(said, found, self.ascent.memory.after(found, self._own, theirs))
        if ascent == self.ascent:
            return False
        self.ascent = ascent
        return True

    def clear(self, primary_id: str) -> None:
        """Forgets what is remembered of a primary that is not above, or, without an id, of all of those; see `Memory.cleared`."""
        ascent = self.ascent
        self.ascent = Ascent(ascent.message, ascent.above, ascent.memory.cleared(primary_id, self.present))

    def save(self, ascent: Ascent) -> None:
        """Writes down what held at one moment."""
        files.write(self._path, msgspec.json.encode(_Kept(ascent.message.SerializeToString(), ascent.memory.to_json())))

    @property
    def present(self) -> frozenset[str]:
        """The ids of the own primary and of all above it."""
        return frozenset(each.primary_id for each in self.origins)

    @property
    def origins(self) -> Sequence[Origin]:
        """Whose sets count, the top-most first, the own primary last."""
        return [*(each.origin for each in reversed(self.ascent.above)), self.origin]

    @property
    def unlocked(self) -> frozenset[str]:
        """The origins whose locks do not hold any more: of a step that was left so, and of all above it."""
        above = self.ascent.above
        left = next((place for place, each in enumerate(above) if each.state == pb.ANCESTOR_STATE_KEPT), len(above))
        return frozenset(each.origin.primary_id for each in above[left:])
