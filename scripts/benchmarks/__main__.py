"""`scripts/bench`: runs the benchmarks named, or all, and says whether a target is missed."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
from pathlib import Path

from scripts.benchmarks import report

BENCHMARKS = {
    "enrolment": "enrolment_cpu",
    "register": "register_latency",
    "idle": "idle_links",
    "secondary": "secondary_size",
    "help": "help_time",
    "decisions": "decisions",
    "documents": "documents",
    "levels": "levels",
    "plan": "planning",
    "slow-line": "slow_line",
}


def main() -> int:
    """Returns the exit status: 1 if a target is missed."""
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    figures: list[report.Figure] = []
    for name in arguments.names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        module = importlib.import_module(f"scripts.benchmarks.{BENCHMARKS[name]}")
        figures += asyncio.run(module.measure(arguments.quick))
    print(report.show(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(figures), indent=2) + "\n")
    return 1 if any(figure.missed for figure in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures Enlist against a bare gRPC server in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes become seconds, and the spread wider")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
