"""The primaries above this server's own, as that one says and as both ends of each step have signed: whose sets count here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from enlist import ancestry
from enlist.ancestry import Above, Memory
from enlist.certificates import Authority
from enlist.documents import Origin, SetVersion
from enlist.reasons import Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2 as pb

_LOG = Log("enlist.secondary")


class _Kept(msgspec.Struct):
    ancestry: bytes
    memory: str


class Ancestors:
    """The way up from this server's own primary, kept in one file."""

    def __init__(self, path: Path, own: Authority, origin: Origin) -> None:
        """`origin` is the own primary, whose sets come first-hand."""
        self._path = path
        self._own = own
        self._origin = origin
        self._above: list[Above] = []
        self.memory = Memory()
        self.message = pb.Ancestry()
        """The way up as it was said."""

    def load(self) -> None:
        """Reads what is kept; what cannot be verified is as if nothing had been said."""
        try:
            kept = msgspec.json.decode(files.read(self._path), type=_Kept)
            self.memory = Memory.from_json(kept.memory)
            said = pb.Ancestry.FromString(kept.ancestry)
            self._above, self.message = ancestry.verify(said, self._own), said
        except FileNotFoundError:
            return
        except (Refused, DecodeError, msgspec.DecodeError, ValueError) as error:
            _LOG.warning("the primaries above cannot be read; the next link tells them again", path=self._path, problem=str(error))

    def take(self, said: pb.Ancestry, held: Mapping[str, SetVersion]) -> bool:
        """Takes what the own primary says; whether it is anything new. `held` are the versions of the sets held, by origin.

        Refused: SET_INVALID, WOULD_LOOP, SET_STALE. A primary's word on whom it stands under never goes back to an older one.
        """
        found = ancestry.verify(said, self._own)
        memory = self.memory.after(found, self._own, held)
        if (said, memory) == (self.message, self.memory):
            return False
        self._above, self.message, self.memory = found, said, memory
        return True

    def save(self) -> None:
        """Writes down what holds."""
        files.write(self._path, msgspec.json.encode(_Kept(self.message.SerializeToString(), self.memory.to_json())))

    @property
    def origins(self) -> Sequence[Origin]:
        """Whose sets count, the top-most first, the own primary last."""
        return [*(each.origin for each in reversed(self._above)), self._origin]

    @property
    def unlocked(self) -> frozenset[str]:
        """The origins whose locks do not hold any more: of a step that was left so, and of all above it."""
        left = next((place for place, each in enumerate(self._above) if each.state == pb.ANCESTOR_STATE_KEPT), len(self._above))
        return frozenset(each.authority.fingerprint for each in self._above[left:])
