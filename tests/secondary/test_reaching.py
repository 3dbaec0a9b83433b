"""Faults row 29: dead addresses and a dead DNS delay neither set-up nor link, in a network namespace of the test's own."""

import json
from pathlib import Path

import pytest

from tests.support.isolated import DEAD_IPV4, DEAD_IPV6, HERE, HERE_LINK_LOCAL, run_isolated

NETWORKS = {
    "a dead AAAA": (f"{DEAD_IPV6} primary.example\n{HERE} primary.example", "primary.example", DEAD_IPV6),
    "two dead addresses": (
        f"{DEAD_IPV4} primary.example\n{DEAD_IPV6} primary.example\n{HERE} primary.example",
        "primary.example",
        DEAD_IPV6,
    ),
    "a dead DNS beside a hosts entry": (f"{HERE} primary.example", "primary.example", HERE),
    "an IDNA name with a dot at its end": (f"{HERE} xn--bcher-kva.example", "Bücher.example.", HERE),
    "a link-local address": ("", f"[{HERE_LINK_LOCAL}]:13299", HERE_LINK_LOCAL.partition("%")[0]),
}
"""What the hosts file says beside a DNS that never answers, what is typed, and the address that the resolver puts first."""

IN_FLIGHT = 6.0
"""Seconds: an attempt that began before the primary served again may wait for a dead address (`SILENCE`), then asks anew."""

LONGEST_PAUSE = 2.0
"""Seconds: the third pause of the backoff."""


@pytest.mark.parametrize("network", NETWORKS)
def test_set_up_and_link_take_three_seconds_whatever_is_dead(tmp_path: Path, network: str) -> None:
    """Faults row 29: connected within 3 s; back within the backoff after the primary restarts."""
    hosts, typed, first = NETWORKS[network]
    took = json.loads(run_isolated(tmp_path, hosts, "tests.secondary.reaching", str(tmp_path), typed))
    assert took["first"].partition("%")[0] == first
    assert took["checks"] < 3
    assert took["link"] < 3
    assert took["back"] < IN_FLIGHT + LONGEST_PAUSE
