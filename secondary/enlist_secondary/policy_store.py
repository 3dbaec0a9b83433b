"""The record of each kind of policy: in memory, on the disk, and in the outbox; and until when what waits must be confirmed."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from enlist import documents
from enlist.reasons import Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.v1 import document_pb2 as pb
from enlist_secondary import policy_records
from enlist_secondary.checks import Clock
from enlist_secondary.outbox import Outbox
from enlist_secondary.policy_records import Provisional, Record

RECORD_LIMIT = 256 * 1024 * 1024

_LOG = Log("enlist.secondary")


class PolicyStore:
    """The records of one enrolment. What has come to be so is known and told at once, also while the disk refuses it."""

    def __init__(self, folder: Path, outbox: Outbox, now: Clock, elapsed: Clock) -> None:
        """`now` is the clock, which may be set; `elapsed` counts seconds that went by, whatever is done to the clock."""
        self._folder = folder
        self._outbox = outbox
        self._now = now
        self._elapsed = elapsed
        self._records: dict[str, Record] = {}
        self._waits: dict[str, tuple[Provisional, float]] = {}
        self.unwritten: set[str] = set()
        """Kinds whose record on the disk is not the one that is known here."""

    def load(self) -> None:
        """Reads what is kept. Refused where the folder is not safe."""
        files.make_folder(self._folder)
        for path in files.entries(self._folder):
            if path.suffix == ".json":
                self._records[path.stem] = record = _read(path)
                self._time(path.stem, record)

    def all(self) -> dict[str, Record]:
        """The records by kind."""
        return dict(self._records)

    def get(self, kind: str) -> Record:
        """What is known of a kind; of most, nothing."""
        return self._records.get(kind, Record())

    def say_all(self) -> None:
        """Puts the word on every kind in the outbox: after a start, before the first link."""
        for kind, record in self._records.items():
            if record.versions or record.remains:
                self._outbox.put(policy_records.report(kind, record))

    def know(self, kind: str, record: Record) -> None:
        """Keeps a record in memory and tells it, unless it says what is known already."""
        known = self.get(kind)
        if replace(record, at=known.at) != known:
            self._records[kind] = record
            self._time(kind, record)
            self._outbox.put(policy_records.report(kind, record))

    async def write(self, kind: str, record: Record) -> None:
        """Keeps a record on the disk alone: what is about to be done. Refused where the disk does not let us."""
        await to_the_end(self._write, kind, record)
        self.unwritten.discard(kind)

    async def write_if_possible(self, kind: str, record: Record) -> None:
        """The same where nothing may be held up by a disk."""
        try:
            await self.write(kind, record)
        except Refused as refused:
            self.unwritten.add(kind)
            _LOG.warning("the record of a policy was not kept", kind=kind, reason=refused.reason, problem=refused.message)

    async def note(self, kind: str, record: Record) -> None:
        """Keeps and tells what has come to be so, even where it cannot be written yet."""
        self.know(kind, record)
        await self.write_if_possible(kind, record)

    async def forget(self, kind: str) -> None:
        """Nobody wants to know of this kind any more. Refused where the disk does not let us."""
        await to_the_end(files.remove, self._path(kind))
        record = self._records.pop(kind, None)
        self._waits.pop(kind, None)
        self.unwritten.discard(kind)
        if record is not None and record.remains:  # whoever heard of that hears that it is over
            self._outbox.put(pb.Report(kind=documents.POLICY + kind))
        else:
            self._outbox.forget(documents.POLICY + kind)

    # --- What waits to be confirmed -------------------------------------------------------------------------------------------

    def expires(self, kind: str) -> float:
        """When what is in force must be confirmed, by `elapsed`; never, if nothing waits for that."""
        return self._waits[kind][1] if kind in self._waits else math.inf

    def left(self, kind: str) -> float:
        """Seconds until then."""
        return self.expires(kind) - self._elapsed()

    def postpone(self, kind: str, until: float) -> None:
        """Lets it expire not before `until`: going back met a fault."""
        if kind in self._waits:
            waits, expires = self._waits[kind]
            self._waits[kind] = waits, max(expires, until)

    def _time(self, kind: str, record: Record) -> None:
        """The clock counts across restarts only, and never for more than was given."""
        waits = record.provisional
        if waits is None:
            self._waits.pop(kind, None)
        elif kind not in self._waits or self._waits[kind][0] is not waits:
            left = min(max(waits.since + waits.seconds - self._now(), 0.0), waits.seconds)
            self._waits[kind] = waits, self._elapsed() + left

    # --- Files ----------------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, record: Record) -> None:
        files.write(self._path(kind), msgspec.json.encode(record))

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}.json"


def read_all(folder: Path) -> dict[str, Record]:
    """The records in a folder by kind, for whoever only looks."""
    found: dict[str, Record] = {}
    for path in files.entries(folder):
        with suppress(FileNotFoundError):  # the daemon may have removed it meanwhile
            if path.suffix == ".json":
                found[path.stem] = _read(path)
    return found


def _read(path: Path) -> Record:
    """A record; of one that cannot be read nobody knows what is in force."""
    try:
        return msgspec.json.decode(files.read(path, limit=RECORD_LIMIT), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        _LOG.warning("the record of a policy cannot be read", path=path, problem=str(error))
        return Record(uncertain=True)
