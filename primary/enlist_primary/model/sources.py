"""Where requests come from, as far as it is counted."""

from __future__ import annotations

import ipaddress


def block(source: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: its owner has all of that."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
