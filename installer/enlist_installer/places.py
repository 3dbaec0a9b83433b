"""Where a server's files may be. A data folder belongs to one configuration, or removing one server would remove another's key."""

from __future__ import annotations

import os
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_secondary.known_primaries import FILE as KNOWN_PRIMARIES

CLAIM = "configuration"
"""The file in a data folder that names the configuration it belongs to."""

LOCK = "setup.lock"
"""Locked while enlist-setup writes."""


def check_config(path: Path) -> Path:
    """Refuses a configuration file that stands already or could not be written."""
    if path.exists():
        raise Refused(Reason.ALREADY_EXISTS, f"{path} is there already. To change it, run: enlist-setup --config {path}")
    _check_writable(path.parent)
    return path


def check_data(data: Path, path: Path) -> Path:
    """Refuses a data folder of another configuration's, one that others use (it will be closed to them), or cannot be written."""
    if path in (data, *data.parents):
        raise Refused(Reason.INVALID_ARGUMENT, f"{path} is to be the configuration file, so {data} cannot be a folder.")
    _check_writable(data)
    if data.exists():
        files.check_safe(data, folder=True)
    owner = belongs_to(data)
    if owner is not None and owner != path.resolve():
        raise Refused(Reason.FOLDER_IN_USE, f"{data} belongs to the server of {owner}. Give a folder of its own.")
    shared = data.is_dir() and data.stat().st_mode & 0o077 and any(data.iterdir())
    if shared and not (data / KNOWN_PRIMARIES).exists():
        raise Refused(Reason.FOLDER_IN_USE, f"{data} holds something that others use. Give a folder of its own.")
    return data


def claim(data: Path, path: Path) -> None:
    """Notes that a data folder belongs to this configuration, if it is nobody's."""
    if belongs_to(data) is None:
        files.write(data / CLAIM, f"{path.resolve()}\n".encode())


def belongs_to(data: Path) -> Path | None:
    """The configuration that a data folder belongs to; None if none says so, or that one is gone."""
    try:
        owner = Path(files.read(data / CLAIM).decode(errors="replace").strip())
    except FileNotFoundError:
        return None
    return owner if owner.is_absolute() and _there(owner) else None


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # out of this user's sight, which does not mean that it is gone
        return True


def _check_writable(folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise Refused(Reason.FILE_FAILED, f"{there} is not a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(Reason.FILE_FAILED, f"This user cannot write in {there}. Run enlist-setup with sudo, or give another place.")
