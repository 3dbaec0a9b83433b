"""`scripts/soak`: a storm of so many seconds with a seed, and whether everything held."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from scripts.soaking.soak import Plan, soak


def main() -> int:
    """Returns the exit status: 1 if something did not hold."""
    arguments = _parser().parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Processes are started while gRPC is at work here; they only execute another program, so it has nothing to save for them.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # A soak that is told to end takes its processes with it, also one that a shell started in the background, without Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    plan = Plan(arguments.seed, arguments.seconds, arguments.leaves, arguments.direct, arguments.settle, arguments.pause)
    print(f"seed {plan.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="enlist-soak-"))
    begun = time.monotonic()
    with ExitStack() as stack:
        violations = asyncio.run(
            soak(folder, stack, plan, lambda text: print(f"{time.monotonic() - begun:6.1f} {text}", flush=True))
        )
    for violation in violations:
        print(f"VIOLATION: {violation}")
    if violations:
        print(f"seed {plan.seed}: {len(violations)} violations. Logs and data are in {folder}.")
        return 1
    shutil.rmtree(folder)
    print(f"seed {plan.seed}: everything held.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Kills processes over three levels while decisions go on, and says what was lost or doubled.",
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the plan (default: a random one)")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the storm lasts (default: 300)")
    parser.add_argument(
        "--settle", type=float, default=90.0, metavar="SECONDS", help="how long all may take to arrive afterwards (default: 90)"
    )
    parser.add_argument(
        "--pause", type=float, default=0.5, metavar="SECONDS", help="between two decisions of one decider (default: 0.5)"
    )
    parser.add_argument("--leaves", type=int, default=4, metavar="N", help="servers at the lowest primary (default: 4)")
    parser.add_argument(
        "--direct", type=int, default=2, metavar="N", help="servers directly at the top, besides its host (default: 2)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
