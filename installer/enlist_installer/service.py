"""The systemd unit that keeps the secondary running: its text, and putting it there. Without systemd, the command to run."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.threads import to_the_end
from enlist_secondary.cli import FINAL_NO

UNIT = "enlist-secondary.service"
FOLDER = Path("/etc/systemd/system")
COMMAND_TIMEOUT = 60.0
"""Seconds within which `systemctl` must be done."""

_BOOTED = Path("/run/systemd/system")  # sd_booted(3): there exactly if systemd runs this machine


def available() -> bool:
    """Whether a unit can be installed here: systemd runs the machine, and we may tell it so."""
    return _BOOTED.is_dir() and os.geteuid() == 0


def command(config: Path) -> list[str]:
    """What keeps this server enrolled, as argv."""
    return [str(Path(sys.executable).with_name("enlist-secondary")), "--config", str(config), "run"]


def shown(config: Path) -> str:
    """The same, to be typed into a shell."""
    return shlex.join(command(config))


def unit(config: Path, data: Path) -> str:
    """The unit's text. A restart mends neither a wrong command nor the primary's final no. Any other failure may pass; what only
    a person can mend (a damaged file, say) stands in the log every ten seconds until somebody does.

    Nothing is confined: the owner's handlers write where the owner says, and their programs run as they would for the owner
    (docs/adr/0009-handlers.md). Of a stop, the daemon hears first, and ends what its handlers run.
    """
    return f"""\
[Unit]
Description=Enlist secondary
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target
RequiresMountsFor={_quoted(str(data))} {_quoted(str(config))}

[Service]
ExecStart={" ".join(_word(each) for each in command(config))}
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2 {FINAL_NO}
KillMode=mixed
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def _word(text: str) -> str:
    """The same in a command, where `$` would begin a variable (systemd.service(5))."""
    return _quoted(text).replace("$", "$$")


def _quoted(text: str) -> str:
    """A word of a unit file in which `%`, spaces and quotes stand for themselves (systemd.syntax(7), systemd.unit(5))."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


async def install(config: Path, data: Path, folder: Path = FOLDER) -> bool:
    """Puts the unit in place and starts it now and at every boot; whether that changed the unit. Does no harm a second time."""
    path, text = folder / UNIT, unit(config, data).encode()
    changed = _current(path, config) != text
    if changed:
        await to_the_end(files.write, path, text, 0o644)
        await _systemctl("daemon-reload")
    await _systemctl("enable", "--now", UNIT)
    return changed


def _current(path: Path, config: Path) -> bytes:
    """The unit that is there; refused if it keeps another server's configuration running."""
    try:
        current = files.read(path)
    except FileNotFoundError:
        return b""
    if _word(str(config)).encode() not in current:
        raise Refused(
            Reason.ALREADY_EXISTS, f"{path} runs another configuration. Remove it first, or run {shown(config)} by yourself."
        )
    return current


async def restart() -> None:
    """Lets a running service read its changed configuration; one that does not run stays as it is."""
    await _systemctl("try-restart", UNIT)


async def remove(config: Path, folder: Path = FOLDER) -> bool:
    """Stops the service and removes its unit; False if there was none for this configuration."""
    path = folder / UNIT
    if not _is_for(path, config):
        return False
    await _systemctl("disable", "--now", UNIT)
    await to_the_end(files.remove, path)
    await _systemctl("daemon-reload")
    return True


def _is_for(path: Path, config: Path) -> bool:
    try:
        return _current(path, config) != b""
    except Refused:
        return False


async def _systemctl(*arguments: str) -> None:
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            process = await asyncio.create_subprocess_exec(
                "systemctl", "--no-ask-password", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )
            _, errors = await process.communicate()
    except (OSError, TimeoutError) as error:
        raise _failed(arguments, str(error)) from error
    if process.returncode != 0:
        raise _failed(arguments, errors.decode(errors="replace"))


def _failed(arguments: tuple[str, ...], why: str) -> Refused:
    said = " ".join(why.split()) or "no answer"
    return Refused(Reason.FILE_FAILED, f"systemctl {' '.join(arguments)} failed: {said}")
