"""`init` and `serve`."""

from __future__ import annotations

import argparse
from typing import Any

from enlist.names import API_PORT, SSL_PORT
from enlist_primary.cli import output


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    init = commands.add_parser("init", help="make a new primary in the data folder")
    init.add_argument("--name", required=True, help="the primary's own name, shown to whoever connects")
    init.add_argument("--listen", default="::", metavar="HOST", help="address to listen at (default: every address)")
    init.add_argument("--advertise", action="append", default=[], metavar="HOST", help="an address it goes by; may be repeated")
    init.add_argument("--ssl-port", type=int, default=SSL_PORT, metavar="N", help="where servers stay connected (%(default)s)")
    init.add_argument("--api-port", type=int, default=API_PORT, metavar="N", help="where servers ask to join (%(default)s)")
    output.add_json(init)
    init.set_defaults(run=_init)
    serve = commands.add_parser("serve", help="run the primary until it is told to stop")
    serve.set_defaults(run=_serve)


def _init(arguments: argparse.Namespace) -> int:
    import asyncio
    import time

    from enlist_primary.config import Config
    from enlist_primary.datafolder import DataFolder
    from enlist_primary.founding import found

    config = Config(
        name=arguments.name,
        listen=arguments.listen,
        advertise=tuple(arguments.advertise),
        ssl_port=arguments.ssl_port,
        api_port=arguments.api_port,
    )
    folder = DataFolder(arguments.data)
    signer = asyncio.run(found(folder, config, int(time.time())))
    fingerprint = signer.authority.fingerprint
    if arguments.json:
        output.print_json({"name": config.name, "fingerprint": fingerprint, "owner_token_file": str(folder.owner_token)})
        return 0
    output.say(f"The primary {config.name} stands in {folder.path}.")
    output.say(f"Primary's fingerprint: {fingerprint}")
    output.say(f"The owner's token is in {folder.owner_token}: keep it in a safe place, and remove the file.")
    output.say(f"Start it with: enlist-primary --data {folder.path} serve")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from enlist_primary.datafolder import DataFolder
    from enlist_primary.serving import run

    return run(DataFolder(arguments.data))
