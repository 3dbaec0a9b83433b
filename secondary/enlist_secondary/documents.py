"""The desired sets that this server holds, of its primary and of those above it: verified, complete, and on the disk.

What comes over the link is verified and gathered in memory. A set counts once all of its bodies are here and have been written:
bodies first, then the set in one step. A crash in between leaves the set before, and bodies that the next sweep removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from google.protobuf.message import DecodeError

from enlist import documents
from enlist.documents import DesiredSet, Item, Origin, Place, SetVersion
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.v1 import document_pb2 as pb
from enlist_secondary.handlers.workers import to_the_end

NOTHING_REMEMBERED = Memory()

_DAMAGED = b"damaged"  # no set has this content, so the primary sends what it wants here, even if that is nothing
_LOG = Log("enlist.secondary")


@dataclass(frozen=True)
class Document:
    """An item of a set with its body."""

    origin: str
    item: Item
    body: bytes
    unlocked: bool = False
    """Whether its origin stands above no more and left what it set to be changed: its locks do not hold."""


@dataclass(frozen=True)
class Kept:
    """A set that counts, as it was signed, and what the hello says of it."""

    held: pb.Held
    signed: pb.SignedSet


@dataclass(frozen=True)
class _Incoming:
    """A set that was accepted and does not count yet."""

    verified: DesiredSet
    signed: bytes

    @cached_property
    def digests(self) -> frozenset[bytes]:
        return _digests(self.verified)


class Documents:
    """The sets of one enrolment, by origin. `origins` are those whose sets are accepted, the top-most first."""

    def __init__(self, folder: Path, origins: Sequence[Origin]) -> None:
        self._folder = folder
        self._bodies = folder / "bodies"
        self._origins = list(origins)
        self._sets: dict[str, DesiredSet] = {}
        self._damaged: dict[str, DesiredSet | None] = {}
        self._incoming: dict[str, _Incoming] = {}
        self._loose: dict[bytes, bytes] = {}  # bodies of incoming sets, by digest
        self._there: set[bytes] = set()  # digests of bodies on the disk
        self._promised: frozenset[bytes] = frozenset()  # bodies that the primary believes to be here, for the hello said so
        self._strangers: set[str] = set()  # origins whose file, if there is one, does not count
        self._memory = NOTHING_REMEMBERED
        self.unlocked: frozenset[str] = frozenset()
        """Origins whose locks do not hold."""
        self._lock = asyncio.Lock()  # holds while files are read or written

    @property
    def own(self) -> str:
        """The origin that is this server's own primary."""
        return self._origins[-1].primary_id

    def way(self, origin: str) -> str:
        """What an origin calls this server: the ids of the servers on the way down from there, joined by slashes."""
        names = [each.primary_id for each in self._origins]
        return "/".join(each.target for each in self._origins[names.index(origin) :])

    def stand(self, origins: Sequence[Origin], unlocked: frozenset[str] = frozenset(), memory: Memory = NOTHING_REMEMBERED) -> None:
        """From now on the sets of these origins count, the top-most first. What others signed is forgotten with the next `save`.

        Of an origin that comes back, no set counts that is older than the one that `memory` knows.
        """
        self._origins, self.unlocked, self._memory = list(origins), unlocked, memory
        places = {origin.place for origin in origins}
        for name in [name for name, kept in self._sets.items() if kept.place not in places]:
            self._drop(name)
        names = {origin.primary_id for origin in origins}
        for name in [name for name, kept in self._damaged.items() if (kept.place not in places if kept else name not in names)]:
            self._drop(name)
        for name in [name for name, coming in self._incoming.items() if coming.verified.place not in places]:
            del self._incoming[name]

    def _drop(self, name: str) -> None:
        self._sets.pop(name, None)
        self._damaged.pop(name, None)
        self._strangers.add(name)

    @property
    def versions(self) -> dict[Place, SetVersion]:
        """The newest version that was verified in each place."""
        newest = [*self._sets.values(), *filter(None, self._damaged.values()), *(each.verified for each in self._incoming.values())]
        found: dict[Place, SetVersion] = {}
        for each in newest:
            found[each.place] = max(each.version, found.get(each.place, each.version))
        return found

    # --- What is held ---------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads what is kept. Refused where the folder is not safe.

        A set that is damaged must not count as one that wants nothing: what is in force would be taken back.
        """
        files.make_folder(self._folder)
        files.make_folder(self._bodies)
        for origin in self._origins:
            with suppress(FileNotFoundError):
                self._load(origin)

    def _load(self, origin: Origin) -> None:
        kept: DesiredSet | None = None
        try:
            found = _verified(pb.SignedSet.FromString(files.read(self._path(origin.primary_id))), origin)
            if found.place != origin.place:  # of a step, or of an own id, that was replaced before this file was
                self._strangers.add(found.origin)
                return
            kept = found
            for digest in _digests(kept):
                self._read_body(digest)
            self._sets[origin.primary_id] = kept
            self._there |= _digests(kept)
        except (Refused, DecodeError) as error:
            self._damaged[origin.primary_id] = kept
            _LOG.warning("a desired set is damaged, and is asked for again", origin=origin.primary_id, problem=str(error))

    def held(self) -> list[pb.Held]:
        """What the hello says of the sets that are here. Until the next hello, no body named in it is removed."""
        self._promised = frozenset().union(*map(_digests, self._sets.values()))
        return [*map(_held, self._sets.values()), *(pb.Held(origin=origin, content=_DAMAGED) for origin in self._damaged)]

    def items(self, prefix: str | tuple[str, ...]) -> list[tuple[str, Item]]:
        """The items whose kind begins so (or so), each with its origin: the top-most origin's first, each origin's in their order.

        Refused with FILE_FAILED while it is not known what an origin wants, because its set was damaged.
        """
        if self._damaged:
            raise Refused(Reason.FILE_FAILED, "A desired set that was kept is damaged; the next link brings it again.")
        return list(self._items(prefix))

    def _items(self, prefix: str | tuple[str, ...]) -> Iterator[tuple[str, Item]]:
        for origin in self._origins:
            kept = self._sets.get(origin.primary_id)
            for item in kept.items if kept else ():
                if item.kind.startswith(prefix):
                    yield origin.primary_id, item

    async def all(self, prefix: str | tuple[str, ...], which: Callable[[Item], bool] = lambda _: True) -> list[Document]:
        """The documents whose kind begins so, in the order of `items`; of them those that `which` says yes to.

        Refused as `items` is, and where a body cannot be read.
        """
        async with self._lock:  # or what is being read could be swept away
            found = [(origin, item) for origin, item in self.items(prefix) if which(item)]
            return await to_the_end(self._read, found)

    def _read(self, found: Iterable[tuple[str, Item]]) -> list[Document]:
        unlocked = self.unlocked
        return [Document(origin, item, self._read_body(item.digest), origin in unlocked) for origin, item in found]

    def _read_body(self, digest: bytes) -> bytes:
        path = self._body(digest)
        with suppress(FileNotFoundError):
            body = files.read(path)
            if documents.digest(body) == digest:
                return body
        raise Refused(Reason.FILE_FAILED, f"{path} is gone or damaged; it is asked for again after a restart.")

    async def complete(self) -> list[Kept]:
        """The sets that count, to be handed down, the top-most origin's first."""
        async with self._lock:
            names = [origin.primary_id for origin in self._origins if origin.primary_id in self._sets]
            return [Kept(_held(self._sets[name]), await to_the_end(self._signed, name)) for name in names]

    def _signed(self, origin: str) -> pb.SignedSet:
        return pb.SignedSet.FromString(files.read(self._path(origin)))

    async def body(self, digest: bytes) -> bytes | None:
        """A body of a set that counts; None once no set names it. Refused with FILE_FAILED if it is gone all the same."""
        async with self._lock:
            try:
                return await to_the_end(self._read_body, digest)
            except Refused:
                if any(digest in _digests(kept) for kept in self._sets.values()):
                    raise
                return None

    # --- What comes -----------------------------------------------------------------------------------------------------------

    def receive(self, signed: pb.SignedSet | None, bodies: Sequence[bytes]) -> None:
        """Takes what came over the link; `save` makes it count. Refused: SET_INVALID, SET_STALE, SET_CONFLICT.

        The bodies are taken all the same: they may be another set's.
        """
        try:
            if signed is not None:
                self._accept(signed)
        finally:
            for body in bodies:
                self._take(body)

    def _accept(self, signed: pb.SignedSet) -> None:
        origin = next((each for each in self._origins if each.primary_id == signed.origin), None)
        if origin is None:
            raise Refused(Reason.SET_INVALID, "A desired set came from a primary that is not above this server; it was not taken.")
        verified = documents.verify(signed, origin)
        if verified.origin != self.own:  # that comes first-hand, and is ordered by what is held alone
            self._memory.check(verified)
        documents.supersedes(verified, self._damaged.get(signed.origin))  # the same once more is what is waited for
        coming = self._incoming.get(signed.origin)
        if documents.supersedes(verified, coming.verified if coming else self._sets.get(signed.origin)):
            self._incoming[signed.origin] = _Incoming(verified, signed.SerializeToString())
            self._drop_bodies()

    def _take(self, body: bytes) -> None:
        digest = documents.digest(body)
        if digest in self._there or digest in self._loose:
            return
        if len(body) > documents.BODY_LIMIT or not any(digest in each.digests for each in self._incoming.values()):
            _LOG.warning("a body came that nobody asked for", digest=digest.hex())
        elif sum(map(len, self._loose.values())) + len(body) > len(self._incoming) * documents.BODIES_LIMIT:
            _LOG.warning("the bodies of a desired set are too much together", digest=digest.hex())
        else:
            self._loose[digest] = body

    def _drop_bodies(self) -> None:
        """Forgets the bodies that no incoming set needs; those that came for one which was replaced may be the next one's."""
        needed = frozenset().union(*(each.digests for each in self._incoming.values())) - self._there
        self._loose = {digest: body for digest, body in self._loose.items() if digest in needed}

    def forget_incoming(self) -> None:
        """The link ended: what does not count yet is sent anew over the next one."""
        self._incoming.clear()
        self._loose.clear()

    async def save(self) -> bool:
        """Writes the sets that are complete; whether other ones count now. Refused where one could not be written: it waits on."""
        async with self._lock:
            saved, refusal = False, None
            steps: list[Callable[[], Awaitable[bool]]] = [partial(self._complete, origin) for origin in self._incoming]
            for step in (self._forget_strangers, *steps):
                try:
                    saved |= await step()
                except Refused as refused:
                    refusal = refused
            if saved:
                await self._sweep()
            if refusal is not None:
                raise refusal
            return saved

    async def _forget_strangers(self) -> bool:
        """Removes the sets of origins, or of steps, that are not above any more; whether there were any."""
        strangers = list(self._strangers)
        for name in strangers:
            await to_the_end(files.remove, self._path(name))
            self._strangers.discard(name)
        return bool(strangers)

    async def _complete(self, origin: str) -> bool:
        """Lets the incoming set of an origin count, if there is one and it is complete. Others may come while it is written."""
        incoming = self._incoming.get(origin)
        if incoming is None or not incoming.digests <= self._there | self._loose.keys():
            return False
        new = {digest: self._loose[digest] for digest in incoming.digests - self._there}
        await to_the_end(self._write, origin, incoming, new)
        if incoming.verified.place not in {each.place for each in self._origins}:
            self._strangers.add(origin)
            return False
        self._strangers.discard(origin)  # its file is this one now
        self._sets[origin] = incoming.verified
        self._damaged.pop(origin, None)
        self._there |= incoming.digests
        coming = self._incoming.get(origin)
        if coming is not None and coming.verified.version <= incoming.verified.version:
            del self._incoming[origin]
        self._drop_bodies()
        return True

    def _write(self, origin: str, incoming: _Incoming, bodies: Mapping[bytes, bytes]) -> None:
        for digest, body in bodies.items():
            files.write(self._body(digest), body)
        files.write(self._path(origin), incoming.signed)

    async def _sweep(self) -> None:
        """Removes the bodies that no set names and that none will be believed to find here."""
        coming = (each.digests for each in self._incoming.values())
        self._there &= self._promised.union(*map(_digests, self._sets.values()), *coming)
        try:
            await to_the_end(self._remove_others, {digest.hex() for digest in self._there})
        except Refused as refused:
            _LOG.warning("bodies that are not needed were not removed", reason=refused.reason, problem=refused.message)

    def _remove_others(self, there: set[str]) -> None:
        for path in files.entries(self._bodies):
            if path.name not in there:
                files.remove(path)

    def _path(self, origin: str) -> Path:
        return self._folder / f"{origin}.set"

    def _body(self, digest: bytes) -> Path:
        return self._bodies / digest.hex()


def _held(kept: DesiredSet) -> pb.Held:
    return pb.Held(
        origin=kept.origin,
        epoch=kept.version.epoch,
        number=kept.version.number,
        content=kept.content,
        digests=sorted(_digests(kept)),
        target=kept.target,
    )


def _verified(signed: pb.SignedSet, origin: Origin) -> DesiredSet:
    """A set of this origin, for any server."""
    said = pb.DesiredSet.FromString(signed.desired_set)
    return documents.verify(signed, Origin(origin.public_key, said.account, said.target))


def _digests(kept: DesiredSet) -> frozenset[bytes]:
    return frozenset(item.digest for item in kept.items)


Revisions = Mapping[str, tuple[int, ...]]
"""Of each origin, revisions of its items, in their order."""


def meant(found: Iterable[tuple[str, Item]]) -> Revisions:
    """What a report on these items is about."""
    revisions: dict[str, tuple[int, ...]] = {}
    for origin, item in found:
        revisions[origin] = (*revisions.get(origin, ()), item.revision)
    return revisions


def told(revisions: Revisions) -> list[pb.Meant]:
    """The same as it stands in a report."""
    return [pb.Meant(origin=origin, revisions=numbers) for origin, numbers in revisions.items()]
