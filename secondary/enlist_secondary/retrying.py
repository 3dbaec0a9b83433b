"""When work on this server is tried again."""

from __future__ import annotations

AGAIN_SECONDS = 10.0
"""Seconds from a fault, or from what the disk or the primary had no room for, to the next attempt."""
