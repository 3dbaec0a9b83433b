"""A primary with tenants, and with a victim that every attack must leave unharmed."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from enlist import names
from enlist.v1 import account_pb2, hierarchy_pb2, journal_pb2, server_pb2, trust_pb2
from enlist_primary.authority.keys import private_pem
from enlist_primary.config import Limits
from enlist_primary.model import api_keys, users
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.users import Role, User
from enlist_primary.store import observations
from enlist_primary.store import users as user_rows
from enlist_primary.store.database import Row, Transaction
from tests.support.inprocess import ACCOUNT, Asker, Running, running_primary
from tests.support.links import LinkClient, open_link

OTHER = "other.example"
"""The account of somebody who has no business in `acme.example`."""

DECIDED = (
    *("account", "server_group", "server", "server_label", "api_key", "user_account", "journal"),
    *("policy", "policy_revision", "body", "rollout", "task", "task_run", "task_result", "upper", "upper_set"),
)
"""The tables that hold decisions and what follows from them; the others hold what was seen."""

LOGGERS = (
    *("primary", "rpc", "link", "changes", "ingest", "controller", "rollouts", "scheduler", "upper", "upstream"),
    "enlist.secondary",
)


class Records(logging.Handler):
    """Everything that was logged, as it was before any redaction or escaping."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self.records.append(record)

    def text(self, begin: int = 0) -> str:
        """Messages, fields and tracebacks, from record `begin` on."""
        parts = []
        for record in self.records[begin:]:
            parts += [self.format(record), repr(getattr(record, "fields", {}))]
        return "\n".join(parts)


@contextmanager
def recorded() -> Iterator[Records]:
    """Keeps what any logger says, and what Enlist's own say from their debugging up."""
    records, root = Records(), logging.getLogger()
    before = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    root.addHandler(records)
    for logger in before:
        logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(records)
        for logger, level in before.items():
            logger.setLevel(level)


@dataclass
class World:
    """A primary with two accounts, a trusted server whose link is open, and all the secrets that were made."""

    running: Running
    victim: Asker
    victim_id: str
    link: LinkClient | None
    records: Records
    secrets: list[str] = field(default_factory=list)
    mark: int = 0

    # --- What there is ------------------------------------------------------------------------------------------------------

    @property
    def logged(self) -> list[logging.LogRecord]:
        """What was logged since this test began."""
        return self.records.records[self.mark :]

    async def tables(self) -> dict[str, list[Row]]:
        """Every decided row there is."""
        return await self.running.primary.context.database.read(_tables)

    async def head(self, account: str = ACCOUNT) -> int:
        """The newest number of an account's journal."""
        request = account_pb2.GetAccountRequest(name=f"accounts/{account}")
        return (await self.running.admin.accounts.GetAccount(request)).head

    async def entries(self, account: str = ACCOUNT, after: int = 0) -> list[journal_pb2.JournalEntry]:
        """The journal's entries numbered above `after`."""
        request = journal_pb2.ListEntriesRequest(parent=f"accounts/{account}", after=after)
        return list((await self.running.admin.journal.ListEntries(request)).entries)

    async def servers(self, account: str = ACCOUNT) -> list[server_pb2.Server]:
        """The account's servers, whatever their state."""
        request = hierarchy_pb2.ListServersRequest(parent=f"accounts/{account}")
        return list((await self.running.admin.hierarchy.ListServers(request)).servers)

    async def refusals(self, account: str, reason: str) -> int:
        """How many refused attempts are counted."""
        own = self.running.primary.context
        await own.observations.flush()
        await own.database.write(PRIMARY, lambda tx: None)  # stands in line behind what was on its way already
        counted = await own.database.read(observations.refusals)
        return sum(each.count for each in counted if (each.account, each.reason) == (account, reason))

    # --- What can be made ---------------------------------------------------------------------------------------------------

    async def api_key(self, account: str = ACCOUNT, **fields: Any) -> str:
        """A fresh API key, restricted unless said otherwise; it must never show up in a log."""
        api_key = await self.running.api_key(parent=f"accounts/{account}", **fields)
        self.secrets.append(api_key.rpartition("_")[2])
        return api_key

    async def full_api_key(self, account: str = ACCOUNT) -> str:
        """A full API key."""
        return await self.api_key(account, kind=account_pb2.API_KEY_KIND_FULL)

    async def user(self, role: Role, account: str = PRIMARY) -> tuple[tuple[str, str], ...]:
        """The metadata of a new user's calls."""
        id = names.new_id(secrets.token_bytes)
        token = users.make_token(id, secrets.token_bytes)
        self.secrets.append(token.rpartition("_")[2])
        row = User(id, f"{role} {id}", role, account, api_keys.hash_of(token.rpartition("_")[2]), 0)
        await self.running.primary.context.database.write(PRIMARY, user_rows.insert, row)
        return bearer(token)

    def asker(self, name: str = "asker", account: str = ACCOUNT) -> Asker:
        """A server with a key of its own; the key must never show up in a log."""
        asker = Asker(self.running, name, account)
        self.secrets.append(_inner(private_pem(asker.key)))
        return asker

    async def trusted(self, name: str = "asker", account: str = ACCOUNT) -> tuple[Asker, str]:
        """A trusted server with its certificate, and its id."""
        asker, api_key = self.asker(name, account), await self.full_api_key(account)
        async with self.running.stranger() as stub:
            enrolment = await asker.register(stub, api_key)
        return asker, enrolment.server_id

    async def pending(self, name: str = "asker", account: str = ACCOUNT) -> tuple[Asker, str]:
        """A server that waits for a decision, and its id."""
        asker = self.asker(name, account)
        async with self.running.stranger() as stub:
            enrolment = await asker.register(stub)
        return asker, enrolment.server_id

    async def decide(self, rpc: str, id: str, account: str = ACCOUNT) -> server_pb2.Server:
        """What an administrator decides: `Suspend`, `Revoke` and so on."""
        request = getattr(trust_pb2, f"{rpc}ServerRequest")(name=server_name(id, account))
        decided: server_pb2.Server = await getattr(self.running.admin.trust, f"{rpc}Server")(request)
        return decided

    # --- What must hold after every attack ----------------------------------------------------------------------------------

    async def assert_unharmed(self) -> None:
        """The victim is trusted and its link open, the journals are sound, and the primary goes on."""
        server = await self.running.server(self.victim_id)
        assert (server.state, server.revision, server.connected) == (server_pb2.SERVER_STATE_TRUSTED, 2, True)
        assert server.display_name == "victim"
        assert self.link is not None
        assert not self.link.stream.done()
        assert not self.running.primary.broken.is_set()
        for account in (PRIMARY, ACCOUNT, OTHER):
            await self.running.admin.journal.VerifyJournal(journal_pb2.VerifyJournalRequest(parent=f"accounts/{account}"))

    def assert_nothing_leaked(self) -> None:
        """No secret reached a log."""
        text = self.records.text(self.mark)
        leaked = [secret for secret in self.secrets if secret in text]
        assert not leaked, f"in the log: {leaked}"


def _tables(tx: Transaction) -> dict[str, list[Row]]:
    """Of an account not how many changes were noted: what was merely seen counts there too."""
    found = {table: tx.rows(f"SELECT * FROM {table}") for table in DECIDED}
    found["account"] = [{name: value for name, value in row.items() if name != "change"} for row in found["account"]]
    return found


def _inner(pem: bytes) -> str:
    """The middle of a PEM file: what cannot be in a log by chance."""
    return pem.decode().splitlines()[1]


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a token."""
    return (("authorization", f"Bearer {token}"),)


def server_name(id: str, account: str = ACCOUNT) -> str:
    """A server's resource name."""
    return names.resource("accounts", account, "servers", id)


@asynccontextmanager
async def populated(path: Path, **config: Any) -> AsyncIterator[World]:
    """A primary whose limits hinder no test, with the victim's link open."""
    limits = Limits(pending_per_account=5000, pending_per_address=5000, attempts_per_minute=1_000_000)
    with recorded() as records:
        async with running_primary(path, **{"limits": limits, "reflection": True, **config}) as running:
            await running.admin.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain=OTHER))
            world = World(running, Asker(running, "victim"), "", None, records)
            world.secrets += [running.owner_token, _inner(running.folder.authority_key.read_bytes()), _inner(_pem(world.victim))]
            async with running.stranger() as stub:
                world.victim_id = (await world.victim.register(stub)).server_id
                await running.authorize(world.victim_id)
                await world.victim.register(stub)
            async with world.victim.at_ssl_port() as stub:
                world.link = link = await open_link(stub, world.victim)
                yield world
                link.cancel()
                await asyncio.gather(link.stream.code(), return_exceptions=True)


def _pem(asker: Asker) -> bytes:
    return asker.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
