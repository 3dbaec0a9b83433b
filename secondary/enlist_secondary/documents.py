"""The desired sets that this server holds, of its primary and of those above it: verified, and on the disk.

Of an origin there is the set that is complete and, while its bodies are on their way, a newer one. The newer one counts already for
the kinds whose bodies are here: a small policy takes force while a large one is still travelling. For the other kinds what counted
before counts on: the complete set, or one that came between the two. Bodies are written before a set that names them counts, and
each set in one step: a crash leaves what was there before, and bodies that the next sweep removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError

from enlist import documents
from enlist.documents import DesiredSet, Item, ItemVersion, Origin, Place, SetVersion
from enlist.link.phases import violation
from enlist.link.receiver import LARGE_SET_LIMIT, Receiver
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.v1 import document_pb2 as pb
from enlist.v1 import hierarchy_pb2

NOTHING_REMEMBERED = Memory()

_INCOMPLETE = b"incomplete"  # no set has this content either
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
class StoredSet:
    """A set that counts, as it was signed, and what the hello says of it."""

    held: pb.Held
    signed: pb.SignedSet


BETWEEN = 8
"""Sets of an origin, at most, that are newer than its complete one and count."""
_COMING_LIMIT = BETWEEN * LARGE_SET_LIMIT


@dataclass(frozen=True)
class _Coming:
    """A set that was accepted and is not complete."""

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
        self._coming: dict[str, _Coming] = {}
        self._counting: dict[str, tuple[_Coming, ...]] = {}  # newer than the complete one, on the disk, the newest first
        self._fresh: dict[bytes, bytes] = {}  # bodies that came and are not on the disk yet
        self._there: set[bytes] = set()  # digests of bodies on the disk
        self._sizes: dict[bytes, int] = {}  # of these
        self._promised: frozenset[bytes] = frozenset()  # bodies that the primary believes to be here, for a hello said so
        self._introduced: frozenset[bytes] = frozenset()  # those of the last hello
        self._strangers: set[str] = set()  # origins whose files, if there are any, do not count
        self._memory = NOTHING_REMEMBERED
        self.receiver = Receiver(self._accept, self._keeps)
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
        names = {origin.primary_id for origin in origins}
        gone = {name for name, kept in self._sets.items() if kept.place not in places}
        gone |= {name for name, kept in self._damaged.items() if (kept.place not in places if kept else name not in names)}
        gone |= {name for name, coming in self._coming.items() if coming.verified.place not in places}
        for name in gone:
            self._sets.pop(name, None)
            self._damaged.pop(name, None)
            self._coming.pop(name, None)
            self._counting.pop(name, None)
        self._strangers |= gone
        self._expect()

    @property
    def versions(self) -> dict[Place, SetVersion]:
        """The newest version that was verified in each place."""
        newest = [*self._sets.values(), *filter(None, self._damaged.values()), *(each.verified for each in self._coming.values())]
        found: dict[Place, SetVersion] = {}
        for each in newest:
            found[each.place] = max(each.version, found.get(each.place, each.version))
        return found

    # --- What is held ---------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads what is kept. Refused where the folder is not safe.

        A set that is damaged, or made out for an id that this server had before, must not count as one that wants nothing: what is
        in force would be taken back.
        """
        files.make_folder(self._folder)
        files.make_folder(self._bodies)
        on_disk = {bytes.fromhex(path.name) for path in files.entries(self._bodies) if _is_digest(path.name)}
        for origin in self._origins:
            with suppress(FileNotFoundError):
                self._load(origin)
            with suppress(FileNotFoundError):
                self._load_coming(origin, on_disk)
        self._expect()

    def _load(self, origin: Origin) -> None:
        kept: DesiredSet | None = None
        try:
            found = _verified(pb.SignedSet.FromString(files.read(self._path(origin.primary_id))), origin)
            if found.place != origin.place:
                self._replaced(origin)
                return
            kept = found
            for digest in _digests(kept):
                self._sizes[digest] = len(self._read_body(digest))
            self._sets[origin.primary_id] = kept
            self._there |= _digests(kept)
        except (Refused, DecodeError) as error:
            self._damaged[origin.primary_id] = kept
            _LOG.warning("a desired set is damaged, and is asked for again", origin=origin.primary_id, problem=str(error))

    def _replaced(self, origin: Origin) -> None:
        """The kept set is made out for another step from there. For another id of this server, its own primary will send one."""
        if origin.primary_id == self.own:
            self._damaged[self.own] = None  # what is in force stays until that set is here
        else:
            self._strangers.add(origin.primary_id)

    def _load_coming(self, origin: Origin, on_disk: Set[bytes]) -> None:
        """A newer set that was not complete. One that cannot be read is as if it had not come: it comes again."""
        name = origin.primary_id
        complete = self._sets.get(name) or self._damaged.get(name)
        try:
            kept = msgspec.msgpack.decode(files.read(self._path_coming(name), limit=_COMING_LIMIT), type=list[bytes])
            found = [_Coming(documents.verify(pb.SignedSet.FromString(signed), origin), signed) for signed in kept]
            newer = tuple(each for each in found if complete is None or each.verified.version > complete.version)
            if newer:  # else a crash left them behind
                self._coming[name], self._counting[name] = newer[0], newer
                named = frozenset[bytes]().union(*(each.digests for each in newer))
                self._there.update(filter(self._is_whole, named & on_disk - self._there))
        except (Refused, DecodeError, msgspec.DecodeError) as error:
            _LOG.warning("a desired set that was on its way cannot be read", origin=origin.primary_id, problem=str(error))

    def introduce(self, hello: hierarchy_pb2.Hello) -> None:
        """Adds to a hello which sets and bodies are here.

        No body that it names is removed while its link, or the one before it, is open: the primary does not send it again.
        """
        hello.held.extend(self._hello_sets())
        named = frozenset[bytes]().union(*map(_digests, self._sets.values()))
        coming = {digest for each in self._coming.values() for digest in each.digests} - named
        sizes = {digest: size for digest in coming if (size := self._size(digest)) is not None}
        self._introduced = named.union(sizes)
        self._promised |= self._introduced
        hello.bodies.extend(self.receiver.parts())
        hello.bodies.extend(hierarchy_pb2.BodyAck(digest=digest, received=size) for digest, size in sizes.items())

    def linked(self) -> None:
        """The link of the last hello is open: what it says counts, and the promises of the hellos before do not."""
        self.receiver.linked()
        self._promised = self._introduced
        self._expect()

    def _hello_sets(self) -> list[pb.Held]:
        """What a hello says of the sets that are here."""
        found = []
        for name, kept in self._sets.items():
            said = documents.encode_held(kept)
            if name in self._coming:  # whatever is wanted now, it differs from what is here
                said.content = _INCOMPLETE
            found.append(said)
        return [*found, *(pb.Held(origin=origin, content=_DAMAGED) for origin in self._damaged)]

    def _size(self, digest: bytes) -> int | None:
        """The size of a body that is here; None if it is not."""
        if digest in self._fresh:
            return len(self._fresh[digest])
        if digest not in self._there:
            return None
        with suppress(OSError):
            return self._body(digest).stat().st_size
        return None

    def items(self, prefix: str | tuple[str, ...]) -> list[tuple[str, Item]]:
        """The items whose kind begins so (or so), each with its origin: the top-most origin's first, each origin's in their order.

        Refused with FILE_FAILED while it is not known what an origin wants, because its set was damaged, or is for another id.
        """
        if self._damaged:
            raise Refused(Reason.FILE_FAILED, "A desired set that was kept does not count any more; the next link brings another.")
        return [(origin, item) for origin, item in self._items() if item.kind.startswith(prefix)]

    def _items(self) -> Iterator[tuple[str, Item]]:
        for origin in self._origins:
            newer = [each.verified for each in self._counting.get(origin.primary_id, ())]
            for item in counting(newer, self._sets.get(origin.primary_id), self._there):
                yield origin.primary_id, item

    async def all(self, prefix: str | tuple[str, ...], which: Callable[[Item], bool] = lambda _: True) -> list[Document]:
        """The documents whose kind begins so, in the order of `items`; of them those that `which` says yes to.

        Refused as `items` is, and where a body cannot be read.
        """
        async with self._lock:  # or what is being read could be swept away
            found = [(origin, item) for origin, item in self.items(prefix) if which(item)]
            return await to_the_end(self._read, found)

    def _read(self, found: Iterable[tuple[str, Item]]) -> list[Document]:
        unlocked, bodies = self.unlocked, dict[bytes, bytes]()
        read: list[Document] = []
        for origin, item in found:
            if item.digest not in bodies:  # several items may name one body
                bodies[item.digest] = self._read_body(item.digest)
            read.append(Document(origin, item, bodies[item.digest], origin in unlocked))
        return read

    def _read_body(self, digest: bytes) -> bytes:
        path = self._body(digest)
        with suppress(FileNotFoundError):
            body = files.read(path)
            if documents.digest(body) == digest:
                return body
        raise Refused(Reason.FILE_FAILED, f"{path} is gone or damaged; it is asked for again after a restart.")

    def _is_whole(self, digest: bytes) -> bool:
        try:
            self._sizes[digest] = len(self._read_body(digest))
        except Refused:
            return False
        return True

    async def complete(self) -> list[StoredSet]:
        """The sets that count, to be handed down, the top-most origin's first."""
        async with self._lock:
            # Taken now: an ancestry may be heard while the files are read.
            found = [self._sets[each.primary_id] for each in self._origins if each.primary_id in self._sets]
            return [StoredSet(documents.encode_held(each), await to_the_end(self._signed, each.origin)) for each in found]

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

    def take(self, message: hierarchy_pb2.FromPrimary) -> tuple[Refused | None, str]:
        """Takes what came over the link; `save` writes it. Why a set was refused, and what was wrong with the pieces, for the log.

        Refused with LINK_VIOLATION, which ends the link.
        """
        taken = self.receiver.on_message(message)
        if taken is None:
            return None, ""
        self._fresh.update(taken.bodies)
        if sum(map(len, self._fresh.values())) > documents.BODIES_LIMIT * max(1, len(self._coming)):  # each has its own
            raise violation("the bodies that wait for the disk are too much together")
        return taken.refused, taken.problem

    def _accept(self, signed: pb.SignedSet) -> None:
        origin = next((each for each in self._origins if each.primary_id == signed.origin), None)
        if origin is None:
            raise Refused(Reason.SET_INVALID, "A desired set came from a primary that is not above this server; it was not taken.")
        verified = documents.verify(signed, origin)
        self._memory.check(verified)
        documents.supersedes(verified, self._damaged.get(signed.origin))  # the same once more is what is waited for
        coming = self._coming.get(signed.origin)
        if documents.supersedes(verified, coming.verified if coming else self._sets.get(signed.origin)):
            self._coming[signed.origin] = _Coming(verified, signed.SerializeToString())
            self._expect()
        elif coming is None:
            self.receiver.held(verified)

    def _keeps(self, digest: bytes) -> bool:
        """Whether a body is here and named by a set."""
        named = any(digest in _digests(kept) for kept in (*self._sets.values(), *(each.verified for each in self._coming.values())))
        return named and (digest in self._there or digest in self._fresh)

    def _expect(self) -> None:
        """Tells the receiver which bodies are missing, and forgets those that nothing needs."""
        needed = frozenset[bytes]().union(*(each.digests for each in self._coming.values()))
        self._fresh = {digest: body for digest, body in self._fresh.items() if digest in needed | self._promised}
        self.receiver.expect(needed - self._there - self._fresh.keys())

    async def save(self) -> bool:
        """Writes what came; whether something else counts now. Refused where something could not be written: it waits on."""
        async with self._lock:
            changed, refusal = False, None
            steps: list[Callable[[], Awaitable[bool]]] = [self._forget_strangers]
            steps += [partial(self._save_body, digest) for digest in self._fresh]
            steps += [partial(self._save_set, origin) for origin in self._coming]
            for step in steps:
                try:
                    changed |= await step()
                except Refused as refused:
                    refusal = refused
            if changed:
                await self._sweep()
            if refusal is not None:
                raise refusal
            return changed

    async def _forget_strangers(self) -> bool:
        """Removes the sets of origins that are not above any more; whether there were any."""
        strangers = [name for name in self._strangers if name not in self._sets and name not in self._coming]
        for name in strangers:
            await to_the_end(self._remove_set, name)
            self._strangers.discard(name)
        return bool(strangers)

    def _remove_set(self, origin: str) -> None:
        files.remove(self._path(origin))
        files.remove(self._path_coming(origin))

    async def _save_body(self, digest: bytes) -> bool:
        """Writes a body that came, unless nothing needs it any more; whether it was written."""
        body = self._fresh.get(digest)
        if body is None:
            return False
        await to_the_end(files.write, self._body(digest), body)
        self._sizes[digest] = len(body)
        self._there.add(digest)
        self._fresh.pop(digest, None)
        return True

    async def _save_set(self, origin: str) -> bool:
        """Writes the newer set of an origin, if there is one: as the complete one once all its bodies are on the disk."""
        coming = self._coming.get(origin)
        if coming is None:
            return False
        if sum(self._sizes.get(item.digest, 0) for item in coming.verified.items) > documents.BODIES_LIMIT:
            return await self._refuse(origin, coming)
        if coming.digests <= self._there:
            return await self._complete(origin, coming)
        before = self._counting.get(origin, ())
        if coming in before:
            return False
        newer = self._that_count(coming, before)
        content = msgspec.msgpack.encode([each.signed for each in newer])
        await to_the_end(files.write, self._path_coming(origin), content)
        if coming.verified.place in {each.place for each in self._origins}:
            self._counting[origin] = newer
        return True

    async def _refuse(self, origin: str, coming: _Coming) -> bool:
        """A set may name one body as often as it likes: taken together they are what has to be worked on at once.

        The complete set counts again, with none of those that came after it: the next hello names that one.
        """
        await to_the_end(files.remove, self._path_coming(origin))
        self._counting.pop(origin, None)
        if self._coming.get(origin) == coming:
            del self._coming[origin]
        refused = Refused(Reason.DOCUMENT_TOO_LARGE, "The documents of a desired set are too much together; it was not taken.")
        self.receiver.refuse(pb.SignedSet.FromString(coming.signed), refused)
        _LOG.warning("a desired set was refused", reason=refused.reason, problem=refused.message)
        self._expect()
        return True

    def _that_count(self, coming: _Coming, before: Sequence[_Coming]) -> tuple[_Coming, ...]:
        """The newer set, and of those before it the ones that count for what still travels of it."""
        complete = self._sets.get(coming.verified.origin)
        sets = [each.verified for each in (coming, *before)]
        left = waiting(coming.verified, self._there, _subjects([*sets, complete] if complete is not None else sets))
        found = [coming]
        for each in before:
            waits = waiting(each.verified, self._there, left)
            if waits != left:
                found.append(each)
            left = waits
        return tuple(found[:BETWEEN])

    async def _complete(self, origin: str, coming: _Coming) -> bool:
        """The newer set becomes the complete one. An even newer one may have come while it was written."""
        await to_the_end(files.write, self._path(origin), coming.signed)
        if coming.verified.place not in {each.place for each in self._origins}:
            self._strangers.add(origin)
            return False
        self._sets[origin] = coming.verified
        self._damaged.pop(origin, None)
        present = self._coming.get(origin)
        if present is not None and present.verified.version <= coming.verified.version:
            del self._coming[origin]
        self._counting.pop(origin, None)
        self.receiver.held(coming.verified)
        self._expect()
        return True

    async def _sweep(self) -> None:
        """Removes sets that were on their way, and the bodies that no set names and that none will be believed to find here."""
        coming = [each for newer in self._counting.values() for each in newer] + list(self._coming.values())
        self._there &= self._promised.union(*map(_digests, self._sets.values()), *(each.digests for each in coming))
        self._sizes = {digest: size for digest, size in self._sizes.items() if digest in self._there}
        try:
            await to_the_end(self._remove_others, self._sets.keys() - self._counting.keys(), {each.hex() for each in self._there})
        except Refused as refused:
            _LOG.warning("files that are not needed were not removed", reason=refused.reason, problem=refused.message)

    def _remove_others(self, complete: Set[str], there: Set[str]) -> None:
        for origin in complete:
            files.remove(self._path_coming(origin))
        for path in files.entries(self._bodies):
            if path.name not in there:
                files.remove(path)

    def _path(self, origin: str) -> Path:
        return self._folder / f"{origin}.set"

    def _path_coming(self, origin: str) -> Path:
        return self._folder / f"{origin}.coming"

    def _body(self, digest: bytes) -> Path:
        return self._bodies / digest.hex()


Subject = tuple[str, str]
"""What an item is about; see `documents.about`. A kind of policies counts as a whole, a run of a task by itself."""


def waiting(wanted: DesiredSet, there: Set[bytes], subjects: Iterable[Subject]) -> frozenset[Subject]:
    """Of these subjects those for which a set does not count yet, since a body is missing. `there` are the bodies on the disk.

    No policy begins, changes or ends before its maintenance window is here.
    """
    found = {documents.about(item) for item in wanted.items if item.digest not in there}
    windows = any(kind == documents.WINDOW for kind, _ in found)
    return frozenset(each for each in subjects if each in found or (windows and each[0].startswith(documents.POLICY)))


def counting(newer: Sequence[DesiredSet], complete: DesiredSet | None, there: Set[bytes]) -> list[Item]:
    """The items of one origin that count: for each subject those of the newest set that has all bodies for it.

    `newer` are the sets after the complete one, the newest first.
    """
    sets = [*newer, complete] if complete is not None else newer
    left = _subjects(sets)
    found: list[Item] = []
    for each in sets:
        waits = frozenset[Subject]() if each is complete else waiting(each, there, left)
        found += [item for item in each.items if documents.about(item) in left - waits]
        left = waits
    return found


def _subjects(sets: Iterable[DesiredSet]) -> frozenset[Subject]:
    return frozenset(documents.about(item) for each in sets for item in each.items)


def _is_digest(name: str) -> bool:
    return len(name) == 2 * documents.DIGEST_BYTES and not set(name) - set("0123456789abcdef")


def _verified(signed: pb.SignedSet, origin: Origin) -> DesiredSet:
    """A set of this origin, for any server."""
    said = pb.DesiredSet.FromString(signed.desired_set)
    return documents.verify(signed, Origin(origin.public_key, said.account, said.target))


def _digests(kept: DesiredSet) -> frozenset[bytes]:
    return frozenset(item.digest for item in kept.items)


Versions = Mapping[str, tuple[ItemVersion, ...]]
"""Of each origin, its items in their order."""


def versions(found: Iterable[tuple[str, Item]]) -> Versions:
    """What a report on these items names."""
    by_origin: dict[str, tuple[ItemVersion, ...]] = {}
    for origin, item in found:
        by_origin[origin] = (*by_origin.get(origin, ()), item.version)
    return by_origin


def origin_items(by_origin: Versions) -> list[pb.OriginItems]:
    """The same as a report carries it."""
    return [pb.OriginItems(origin=origin, items=map(documents.encode_version, found)) for origin, found in by_origin.items()]
