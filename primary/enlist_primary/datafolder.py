"""The primary's data folder: what stands in it, and the lock that lets only one process in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from enlist.reasons import Reason
from enlist.runtime import files


@dataclass(frozen=True)
class DataFolder:
    """The paths of a data folder (0700; every file in it 0600)."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.path / "primary.toml"

    @property
    def database(self) -> Path:
        """The embedded database."""
        return self.path / "enlist.db"

    @property
    def authority_key(self) -> Path:
        """The authority's private key: the primary's identity."""
        return self.path / "authority.key"

    @property
    def authority_certificate(self) -> Path:
        """The authority's certificate; not a secret."""
        return self.path / "authority.pem"

    @property
    def owner_token(self) -> Path:
        """The first owner's token, for the owner to take away."""
        return self.path / "owner.token"

    @property
    def sockets(self) -> Path:
        """The folder of the sockets."""
        return self.path / "run"

    @property
    def admin_socket(self) -> Path:
        """Where the local administrator's commands reach `serve`."""
        return self.sockets / "admin.sock"

    @property
    def upstream_socket(self) -> Path:
        """Where the secondary on this host reaches `serve`, through which this primary stands under another one."""
        return self.sockets / "upstream.sock"

    @property
    def lock_file(self) -> Path:
        """Held by whoever works in the folder."""
        return self.path / "lock"

    def lock(self) -> AbstractContextManager[None]:
        """Holds the folder for this process; refused with FOLDER_IN_USE if another one does."""
        message = f"Another enlist-primary works in {self.path}. Stop it first, or name another folder with --data."
        return files.lock(self.lock_file, Reason.FOLDER_IN_USE, message)
