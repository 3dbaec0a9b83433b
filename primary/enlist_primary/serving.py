"""`serve`: a primary as a process, from its data folder to the signal that ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from enlist.reasons import Refused
from enlist.runtime import files, logs, readiness
from enlist.runtime.logs import Log
from enlist_primary import config as configuration
from enlist_primary.app import Primary
from enlist_primary.authority import keys
from enlist_primary.datafolder import DataFolder
from enlist_primary.store.sqlite import open_sqlite

ALLOCATIONS = 50_000
"""Objects made, less those gone, after which Python looks for cycles; seven times its own number.

A thousand sets on their way are tens of thousands of objects that live for a moment: each look would walk most of them, and every
few the whole heap with all links.
"""

log = Log("primary")


def run(folder: DataFolder) -> int:
    """Serves until SIGTERM or SIGINT; SIGHUP renews the server certificates. Returns the exit status."""
    os.umask(0o077)
    gc.set_threshold(ALLOCATIONS)
    logs.set_up()
    config = configuration.load(folder.config)
    files.check_safe(folder.path, folder=True, secret=True)
    return asyncio.run(_run(folder, config))


async def _run(folder: DataFolder, config: configuration.Config) -> int:
    with folder.lock():
        signer = keys.load(folder)
        async with open_sqlite(folder.database) as database:
            primary = Primary(folder, config, signer, database)
            stop = asyncio.Event()
            _on_signals(stop.set, primary.reload)
            async with primary.serving():
                ports = primary.context.ports
                fingerprint = signer.authority.fingerprint
                log.info("ready", name=config.name, ssl_port=ports.ssl, api_port=ports.api, fingerprint=fingerprint)
                readiness.notify("READY=1")
                failure = await _until(stop, primary.broken, database.failed())
                readiness.notify("STOPPING=1")
                log.info("stopping")
    if failure is not None:
        log.alarm("the primary stopped because it cannot go on", reason=failure.reason, cause=repr(failure.__cause__))
        raise failure
    return 1 if primary.broken.is_set() else 0


async def _until(stop: asyncio.Event, broken: asyncio.Event, failed: Coroutine[Any, Any, Refused]) -> Refused | None:
    """Waits for whatever ends the process first; the refusal if it was the storage."""
    failing = asyncio.create_task(failed)
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait()), asyncio.create_task(broken.wait()), failing]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return failing.result() if failing.done() else None
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
