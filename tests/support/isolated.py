"""A network of a test's own: a namespace with addresses that swallow everything, a dead DNS server, and a hosts file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.means import need

ROOT = Path(__file__).resolve().parents[2]

HERE = "192.0.2.10"
HERE_LINK_LOCAL = "fe80::1%v0"
DEAD_IPV4 = "198.51.100.9"
DEAD_IPV6 = "2001:db8::9"

_DEAD_DNS = "198.51.100.53"
_PREPARE = f"""
set -e
ip link set lo up
ip address add {HERE}/32 dev lo
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip address add 198.51.100.1/24 dev v0
ip address add 2001:db8::1/64 dev v0 nodad
ip address add fe80::1/64 dev v0 nodad
for dead in {DEAD_IPV4} {DEAD_IPV6} {_DEAD_DNS}; do  # a neighbour that is known and not there: packets go out, nothing comes back
    ip neighbour add "$dead" lladdr 02:00:00:00:00:99 dev v0
done
mount --bind "$1" /etc/hosts
mount --bind "$2" /etc/resolv.conf
shift 2
exec "$@"
"""


def run_isolated(folder: Path, hosts: str, module: str, *arguments: str) -> str:
    """Runs a module of the tests in such a network; what it printed. Everything of it ends with the process."""
    need(os.geteuid() == 0, "a network namespace needs root")
    need(all(map(shutil.which, ("ip", "unshare", "mount"))), "ip, unshare or mount is missing")
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}\n")
    (folder / "resolv.conf").write_text(f"nameserver {_DEAD_DNS}\n")
    prepare = ["bash", "-c", _PREPARE, "prepare", str(folder / "hosts"), str(folder / "resolv.conf")]
    argv = ["unshare", "--net", "--mount", *prepare, sys.executable, "-m", module, *arguments]
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
