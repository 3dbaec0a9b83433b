"""Which Enlist this is."""

from __future__ import annotations

from importlib import metadata


def installed() -> str:
    """The version of the installed distribution."""
    return metadata.version("enlist")
