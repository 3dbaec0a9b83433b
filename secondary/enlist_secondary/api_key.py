"""The API key between the wizard and the authorization: a 0600 file beside the server's key, erased when it has done its work."""

from __future__ import annotations

from pathlib import Path

from enlist.runtime import files


def keep(folder: Path, api_key: str) -> None:
    """Keeps the API key in an enrolment's folder; an empty one stands for the account's default restricted API key."""
    if api_key:
        files.write(_path(folder), api_key.encode() + b"\n")
    else:
        erase(folder)


def load(folder: Path) -> str:
    """The API key kept, or nothing."""
    try:
        return files.read(_path(folder), secret=True).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def erase(folder: Path) -> None:
    """Erases the API key, if there is one."""
    files.remove(_path(folder))


def _path(folder: Path) -> Path:
    return folder / "api-key"
