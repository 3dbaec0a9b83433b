"""What a primary says to one server that enrols: recorded once, so that the floor says the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from enlist.v1 import hierarchy_pb2, registration_pb2, server_pb2

_ONCE = ("described", "validated", "registered", "authorized", "challenge", "welcome")


@dataclass
class Said:
    """A primary's answers, in the order of an enrolment. `awaited` holds one word per `AwaitAuthorization` message."""

    described: registration_pb2.DescribePrimaryResponse = field(default_factory=registration_pb2.DescribePrimaryResponse)
    validated: registration_pb2.ValidateResponse = field(default_factory=registration_pb2.ValidateResponse)
    registered: registration_pb2.Enrolment = field(default_factory=registration_pb2.Enrolment)
    awaited: list[registration_pb2.Enrolment] = field(default_factory=list)
    authorized: server_pb2.Server = field(default_factory=server_pb2.Server)
    challenge: hierarchy_pb2.FromPrimary = field(default_factory=hierarchy_pb2.FromPrimary)
    welcome: hierarchy_pb2.FromPrimary = field(default_factory=hierarchy_pb2.FromPrimary)

    def save(self, folder: Path) -> None:
        """Writes each answer, serialised, to a file of its own."""
        for name in _ONCE:
            (folder / name).write_bytes(getattr(self, name).SerializeToString())
        for number, awaited in enumerate(self.awaited):
            (folder / f"awaited-{number}").write_bytes(awaited.SerializeToString())

    @classmethod
    def load(cls, folder: Path) -> Said:
        """What `save` wrote."""
        said = cls()
        for name in _ONCE:
            getattr(said, name).ParseFromString((folder / name).read_bytes())
        said.awaited = [registration_pb2.Enrolment.FromString(file.read_bytes()) for file in sorted(folder.glob("awaited-*"))]
        return said
