"""What every servicer needs, made once by the app and passed in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from enlist import names
from enlist.v1 import server_pb2
from enlist_primary.authority.signer import Signer
from enlist_primary.changes.publisher import ChangePublisher
from enlist_primary.config import Config
from enlist_primary.federation.ancestors import Upper
from enlist_primary.federation.descendants import Descendants
from enlist_primary.federation.reachability import Reachability
from enlist_primary.federation.subtree import Subtree
from enlist_primary.ingest.observations import Observations
from enlist_primary.ingest.reports import StatusReports
from enlist_primary.links.publisher import Desires
from enlist_primary.links.registry import Hub
from enlist_primary.links.waiters import WaitingRoom
from enlist_primary.messages import servers as render
from enlist_primary.model.servers import Server, State
from enlist_primary.rpc.attempts import Attempts
from enlist_primary.store.database import Database


@dataclass
class Ports:
    """The ports that were really bound (a configured 0 lets the system choose)."""

    ssl: int = 0
    api: int = 0


@dataclass
class Served:
    """What is served at the API port now, DER, with the authority's statement over it, and when the SSL port's ends."""

    statement: bytes = b""
    ssl_certificate_ends: int = 0


@dataclass(frozen=True)
class Context:
    """The primary as its servicers see it. `clock` is Unix seconds."""

    config: Config
    addresses: tuple[str, ...]
    certificate_lifetime: int
    signer: Signer
    database: Database
    changes: ChangePublisher
    hub: Hub
    waiting: WaitingRoom
    observations: Observations
    desires: Desires
    reports: StatusReports
    upper: Upper
    below: Descendants
    subtree: Subtree
    reach: Reachability
    attempts: Attempts
    ports: Ports
    served: Served
    started: int
    clock: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = field(default=secrets.token_bytes, repr=False)

    def now(self) -> int:
        """Unix seconds, whole."""
        return int(self.clock())

    def new_id(self) -> str:
        """A fresh id."""
        return names.new_id(self.random_bytes)

    def server(self, row: Server) -> server_pb2.Server:
        """A server's message with what is seen of it now."""
        seen = self.observations.seen(row.account, row.id)
        # Of a decision just made the links have yet to hear.
        link = self.hub.find(row.account, row.id) if row.state is State.TRUSTED else None
        if link is None:
            return render.server(row, self.signer.authority, seen, False, {}, "")
        return render.server(row, self.signer.authority, seen, True, link.remaining, link.refusal)
