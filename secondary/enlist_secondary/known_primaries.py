"""The known primaries: the authorities that somebody at this server accepted, in a file made to be read.

To take an authority off the list, delete its entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from enlist import certificates, names
from enlist.certificates import Authority
from enlist.reasons import Reason, Refused
from enlist.runtime import config as toml
from enlist.runtime import files, formats
from enlist.runtime.terminal import moment

FILE = "known-primaries.toml"

_HEADING = f"""\
# The primaries that were accepted at this server: when, how, by whom, and the addresses they were met at.
# An authority that is not in this list gets nothing from this server. To take one off the list, delete its entry.

format = {formats.FORMAT}
"""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    primary_id: str
    fingerprint: str
    addresses: tuple[str, ...]
    accepted_at: str
    way: str
    person: str
    authority: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    primary: tuple[_Entry, ...] = ()


@dataclass(frozen=True)
class KnownPrimaries:
    """The list as it stood when it was loaded; `accept` returns the next one."""

    path: Path
    entries: tuple[_Entry, ...] = ()

    @classmethod
    def load(cls, data: Path) -> KnownPrimaries:
        """Reads the list in a data folder; a missing file is an empty list. Refused as `toml.parse` refuses."""
        path = data / FILE
        try:
            content = files.read(path)
        except FileNotFoundError:
            return cls(path)
        entries = toml.parse(content, _File, str(path), formatted=True).primary
        for entry in entries:
            authority = _authority(path, entry)
            if (authority.primary_id, authority.fingerprint) != (entry.primary_id, entry.fingerprint):
                problem = (
                    f"{entry.primary_id}, {entry.fingerprint} are not the primary id and the fingerprint of the authority below"
                )
                raise Refused(Reason.CONFIG_INVALID, f"{path}: {problem}.")
        return cls(path, entries)

    def accepted(self, address: names.Address) -> Authority | None:
        """The authority accepted for this very address. An entry says nothing about other addresses."""
        for entry in self.entries:
            if _shown(address) in entry.addresses:
                return _authority(self.path, entry)
        return None

    def holds(self, primary_id: str) -> bool:
        """Whether this primary was accepted, at whatever address: its first key is who it is."""
        return any(entry.primary_id == primary_id for entry in self.entries)

    def accept(self, authority: Authority, address: names.Address, way: str, person: str, now: int) -> KnownPrimaries:
        """Writes down that an authority was accepted at an address. One accepted before keeps its date, way and person.

        It is added to the list as it is in the file by now: the daemon, the wizard, or a person may have changed that. `way` is a
        `checks.Way`; `person` is who answered, or empty. The data folder must be there. Raises IDENTITY_CHANGED if the address
        belongs to another authority.
        """
        with files.turn(self.path):
            return KnownPrimaries.load(self.path.parent)._accept(authority, address, _entry(authority, way, person, now))

    def _accept(self, authority: Authority, address: names.Address, new: _Entry) -> KnownPrimaries:
        holder = self.accepted(address)
        if holder is not None and holder.primary_id != authority.primary_id:
            raise Refused(Reason.IDENTITY_CHANGED, f"{self.path}: {address} belongs to another primary; delete that entry first.")
        entry = self._of(authority.primary_id) or new
        grown = msgspec.structs.replace(entry, addresses=tuple(dict.fromkeys((*entry.addresses, _shown(address)))))
        return self._replaced(authority.primary_id, grown)

    def take_back(self, primary_id: str) -> None:
        """What was accepted of one primary since this list was loaded is undone; what others added to the file stays."""
        with files.turn(self.path):
            left = KnownPrimaries.load(self.path.parent)._replaced(primary_id, self._of(primary_id))
            if not left.entries:
                files.remove(self.path)

    def _of(self, primary_id: str) -> _Entry | None:
        return next((entry for entry in self.entries if entry.primary_id == primary_id), None)

    def _replaced(self, primary_id: str, new: _Entry | None) -> KnownPrimaries:
        """Writes the list with this entry in the place of the authority's; None drops it."""
        old = self._of(primary_id)
        replaced = [new if entry is old else entry for entry in self.entries] if old else [*self.entries, new]
        entries = tuple(entry for entry in replaced if entry is not None)
        if entries != self.entries:
            files.write(self.path, _render(entries).encode())
        return KnownPrimaries(self.path, entries)


def _shown(address: names.Address) -> str:
    return str(address).lower()


def _entry(authority: Authority, way: str, person: str, now: int) -> _Entry:
    pem = certificates.pem(authority.certificate).decode()
    return _Entry(authority.primary_id, authority.fingerprint, (), moment(now), str(way), person, pem)


def _authority(path: Path, entry: _Entry) -> Authority:
    try:
        return certificates.read_authority(certificates.der(certificates.load_pem(entry.authority.encode())))
    except Refused:
        raise Refused(Reason.CONFIG_INVALID, f"{path}: the authority {entry.fingerprint} cannot be read.") from None


def _render(entries: tuple[_Entry, ...]) -> str:
    return "\n".join([_HEADING, *map(_render_entry, entries)])


def _render_entry(entry: _Entry) -> str:
    lines = [f"{key} = {toml.quote(getattr(entry, key))}" for key in ("primary_id", "fingerprint", "accepted_at", "way", "person")]
    addresses = f"addresses = [{', '.join(map(toml.quote, entry.addresses))}]"
    return "\n".join(["[[primary]]", *lines[:2], addresses, *lines[2:], f"authority = '''\n{entry.authority}'''\n"])
