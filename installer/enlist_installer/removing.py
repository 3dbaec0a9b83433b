"""What goes: a different primary that is given up, what a crash or a change left in the data folder, a whole server.

The daemon may let a different primary take over at any moment, by one rename. Whatever goes, the enrolment that stands then stays.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from enlist.runtime import files
from enlist_installer import places
from enlist_secondary import api_key
from enlist_secondary import config as configs
from enlist_secondary.known_primaries import FILE as KNOWN_PRIMARIES


def give_up(path: Path) -> None:
    """Gives up a different primary that has not authorized yet; one that has taken over meanwhile stands."""
    waiting = configs.next_path(path)
    if not waiting.exists():
        return
    folder = configs.load(waiting).folder
    with files.turn(path):  # this, or the daemon's switch: one of them is first
        try:
            waiting.unlink()
        except FileNotFoundError:
            return
    forget(path, folder)


def forget(path: Path, folder: Path) -> None:
    """Removes an enrolment's folder unless it is in use."""
    if folder not in _used(path):
        shutil.rmtree(folder, ignore_errors=True)


def clear(path: Path, data: Path) -> None:
    """Removes what is of no use any more: keys that never asked, left by a set-up that was killed before it wrote a configuration.

    A key that may be registered somewhere stays, but no API key beside it.
    """
    if places.belongs_to(data) != path.resolve():
        return
    for folder in _keys(data) - _used(path):
        if (folder / "state.json").exists() or (folder / "certificate.pem").exists():
            api_key.erase(folder)
        else:
            shutil.rmtree(folder)


def erase(path: Path) -> None:
    """Removes a configuration and all that belongs to it: keys, certificates, states, the list of known primaries."""
    config = configs.load(path)
    data, folders = config.data_folder, _used(path)
    shared: tuple[Path, ...] = ()
    if places.belongs_to(data) in (None, path.resolve()):  # else somebody copied a configuration by hand: the rest is not its own
        folders |= _keys(data)
        shared = (data / KNOWN_PRIMARIES, data / places.CLAIM, data / places.LOCK, config.lock)
    for folder in filter(Path.exists, folders):
        shutil.rmtree(folder)
    waiting = configs.next_path(path)
    for file in (*shared, path, waiting, configs.backup_path(path), configs.backup_path(waiting)):
        files.remove(file)
    with contextlib.suppress(OSError):  # something else is in it
        data.rmdir()


def _keys(data: Path) -> set[Path]:
    return {key.parent for key in data.glob("*/server.key")}


def _used(path: Path) -> set[Path]:
    """The folders of the enrolment that stands, and of one that waits beside it."""
    return {configs.load(each).folder for each in (path, configs.next_path(path)) if each.exists()}
