"""Tells systemd (sd_notify(3), `Type=notify`) that a daemon is ready, or stopping; without systemd it does nothing."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends `READY=1` or `STOPPING=1` to the socket that systemd named in the environment."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(state.encode())
