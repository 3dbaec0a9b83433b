"""A primary's decisions on a real database, one after the other, under a clock that the test moves."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import pytest

from enlist.names import new_id
from enlist.reasons import Reason, Refused
from enlist.runtime.schedules import Window
from enlist_primary.model import api_keys as keys
from enlist_primary.model.accounts import PRIMARY, Account
from enlist_primary.model.api_keys import ApiKey, Kind
from enlist_primary.model.journal import JournalEntry
from enlist_primary.model.levels import BelowServer
from enlist_primary.model.servers import Event, Server, State
from enlist_primary.model.users import Actor, Role, User
from enlist_primary.operations import accounts, api_keys, enrolment, groups, servers
from enlist_primary.operations.api_keys import Wanted
from enlist_primary.operations.enrolment import Asked, Caps, Place
from enlist_primary.store import accounts as account_rows
from enlist_primary.store import api_keys as key_rows
from enlist_primary.store import groups as group_rows
from enlist_primary.store import journal, levels
from enlist_primary.store import servers as server_rows
from enlist_primary.store.database import Row, Transaction
from enlist_primary.store.groups import Group
from tests.primary.refusals import refused
from tests.primary.store.helpers import verify

P = ParamSpec("P")
T = TypeVar("T")

ACME, BETA = "acme.example", "beta.example"
START = 1_800_000_000
DAY = 86400
HOME, AWAY = "192.0.2.7", "198.51.100.7"
ANN = Actor("ann (aaaaaaaaaa)", "token", "203.0.113.9")
CAPS = Caps(per_account=20, per_address=10)
TABLES = (
    *("account", "server_group", "server", "server_label", "api_key", "user_account", "journal", "server_observation", "counter"),
    *("change", "body", "policy", "policy_revision", "rollout", "policy_report", "task", "task_run", "task_result"),
)


class Desk:
    """The reserved account and two more, and everything that may be decided there."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.now = START
        self.secrets: list[str] = []
        self._counter = itertools.count(1)
        owner = User(self.new_id(), "owner", Role.ADMINISTRATOR, PRIMARY, self.random_bytes(32), START)
        self.do(accounts.found_primary, owner, "main", "f" * 64, self.new_id, START)
        self.account(ACME)
        self.account(BETA)

    # --- How ----------------------------------------------------------------------------------------------------------------

    def do(self, operation: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a decision in a savepoint, as the group commit does: what is refused changes nothing, what it changes is noted."""
        self.tx.run("SAVEPOINT operation")
        before, noted = self._servers(), self._noted()
        try:
            result = operation(self.tx, *args, **kwargs)
            self._check_noted(before, noted)
            return result
        except Refused:
            self.tx.run("ROLLBACK TO SAVEPOINT operation")
            raise
        finally:
            self.tx.run("RELEASE SAVEPOINT operation")

    def _servers(self) -> dict[tuple[str, str], Row]:
        return {(row["account"], row["id"]): row for row in self.tx.rows("SELECT * FROM server")}

    def _noted(self) -> list[tuple[str, str]]:
        rows = self.tx.rows("SELECT account, subject FROM change ORDER BY account, number")
        return [(row["account"], row["subject"]) for row in rows]

    def _check_noted(self, before: Mapping[tuple[str, str], Row], noted: Sequence[tuple[str, str]]) -> None:
        """Whatever keeps a server in memory hears of every change of its row; of a past one that lost its group, by that group."""
        fresh = set((Counter(self._noted()) - Counter(noted)).elements())
        for key, row in self._servers().items():
            if row == before.get(key):
                continue
            moved = key in before and row == {**before[key], "group_id": row["group_id"]}
            about = {(key[0], f"servers/{key[1]}")}
            assert fresh & about or (moved and any(subject.startswith("groups/") for _, subject in fresh)), key

    def random_bytes(self, count: int) -> bytes:
        """Bytes that look random, and are the same in every run."""
        return hashlib.shake_128(str(next(self._counter)).encode()).digest(count)

    def new_id(self) -> str:
        """A fresh id."""
        return new_id(self.random_bytes)

    def later(self, seconds: int) -> None:
        """Lets time pass."""
        self.now += seconds

    # --- What ---------------------------------------------------------------------------------------------------------------

    def account(self, domain: str, contact: str = "") -> Account:
        """A new account."""
        return self.do(accounts.create, domain, contact, ANN, self.new_id, self.now)

    def set_account(
        self,
        domain: str = ACME,
        contact: str | None = None,
        default_api_key: bool | None = None,
        landing_group: str | None = None,
    ) -> Account:
        """Changes an account."""
        return self.do(accounts.update, domain, contact, default_api_key, ANN, self.now, landing_group)

    def below(self, middle: Server, path: str, name: str, state: State = State.TRUSTED) -> BelowServer:
        """A server below a middle server, as that says."""
        self.tx.run("UPDATE server SET may_have_secondaries = 1 WHERE id = $1", middle.id)
        below = BelowServer(middle.account, middle.id, path, name, "low.example", state, True, self.now, None, "", ())
        levels.save_below(self.tx, [below])
        return below

    def add_group(self, path: str, account: str = ACME) -> Group:
        """Makes a group."""
        return self.do(groups.add, account, path, ANN, self.new_id, self.now)

    def remove_group(self, path: str, account: str = ACME) -> None:
        """Ends a group."""
        self.do(groups.remove, account, path, ANN, self.now)

    def move_group(self, path: str, new_path: str, account: str = ACME) -> Group:
        """Gives a group another place."""
        return self.do(groups.move, account, path, new_path, ANN, self.now)

    def set_window(self, path: str, window: Window | None, account: str = ACME) -> Group:
        """Sets or ends a group's maintenance window."""
        return self.do(groups.set_window, account, path, window, ANN, self.now)

    def _fresh_key(self) -> tuple[str, tuple[str, str]]:
        text = keys.make(self.new_id(), self.random_bytes)
        id, secret = keys.parse(text)
        self.secrets.append(secret)
        return text, (id, secret)

    def api_key(self, kind: Kind = Kind.RESTRICTED, account: str = ACME, **wanted: Any) -> str:
        """A new API key, as it is shown once."""
        text, (id, secret) = self._fresh_key()
        self.do(api_keys.create, account, Wanted(kind, **wanted), id, secret, ANN, self.new_id, self.now)
        return text

    def revoke_api_key(self, text: str, account: str = ACME, by: Actor = ANN) -> ApiKey:
        """Ends an API key."""
        return self.do(api_keys.revoke, account, keys.parse(text).id, by, self.now)

    def invite(self, name: str | None = None, group: str = "/", account: str = ACME) -> tuple[Server, str]:
        """An invitation, and the API key of its join line."""
        text, secret = self._fresh_key()
        return self.do(enrolment.invite, account, name, group, secret, ANN, self.new_id, self.now), text

    def validate(self, api_key: str = "", account: str = ACME, source: str = HOME) -> Place:
        """What registering would lead to."""
        return self.do(enrolment.validate, account, api_key, source, self.now)

    def ask(
        self,
        key: str = "one",
        account: str = ACME,
        name: str = "paris-1",
        api_key: str = "",
        source: str = HOME,
        caps: Caps = CAPS,
        server_address: str = "",
        version: str = "1.0",
    ) -> Server:
        """A server registers; its key goes by a word here."""
        asked = Asked(name, api_key, fingerprint(key), key.encode(), server_address, version, source)
        return self.do(enrolment.register, account, asked, caps, self.new_id, self.now)[0]

    def leave(self, key: str = "one", account: str = ACME, source: str = HOME) -> Server:
        """A server leaves, or takes its request back."""
        return self.do(enrolment.leave, account, fingerprint(key), source, self.now)

    def decide(self, server: Server, event: Event, reason: str = "", by: Actor = ANN) -> Server:
        """Somebody decides about a server."""
        if event is Event.AUTHORIZE:
            return self.authorize(server, by=by)
        return self.do(servers.decide, server.account, server.id, event, by, self.now, "", reason)

    def authorize(self, server: Server, code_matches: bool | None = None, by: Actor = ANN, group: str = "") -> Server:
        """Somebody trusts a pending server."""
        return self.do(servers.authorize, server.account, server.id, code_matches, by, self.now, group)

    def move(self, server: Server, group: str) -> Server:
        """Somebody puts a server in another group."""
        return self.do(servers.move, server.account, server.id, group, ANN, self.now)

    def label(self, server: Server, *add: str, remove: Collection[str] = ()) -> Server:
        """Somebody adds labels to a server, and takes labels away."""
        return self.do(servers.label, server.account, server.id, add, remove, ANN, self.now)

    def rename(self, server: Server, name: str) -> Server:
        """Somebody gives a server another name."""
        return self.do(servers.rename, server.account, server.id, name, ANN, self.now)

    def sweep(self) -> list[str]:
        """What the primary does every minute."""
        return [id for account in server_rows.accounts_to_sweep(self.tx, self.now) for id in self.expire(account)]

    def expire(self, account: str = ACME, limit: int = 1000) -> list[str]:
        """The same for one account."""
        return self.do(servers.expire, account, self.now, limit)

    # --- What there is ------------------------------------------------------------------------------------------------------

    def load(self, server: Server) -> Server:
        """The row of a server as it stands."""
        return server_rows.load(self.tx, server.account, server.id)

    def row(self, key: str = "one", account: str = ACME) -> Server | None:
        """The row of a key, judged now."""
        found = server_rows.by_key(self.tx, account, fingerprint(key))
        return found.at(self.now) if found else None

    def paths(self, account: str = ACME) -> list[str]:
        """The paths of the account's groups."""
        return [group.path for group in group_rows.listed(self.tx, account)]

    def desired(self, account: str = ACME) -> int:
        """The last decision that changed what servers of the account shall get."""
        return account_rows.load(self.tx, account).desired

    def uses(self, text: str, account: str = ACME) -> int:
        """How often an API key has been used."""
        return key_rows.load(self.tx, account, keys.parse(text).id).uses

    def head(self, account: str = ACME) -> int:
        """How many decisions the account's journal holds."""
        return account_rows.load(self.tx, account).head

    def journal(self, account: str = ACME, after: int = 0) -> list[JournalEntry]:
        """The account's decisions."""
        return journal.entries(self.tx, account, after, 10_000)

    def newest(self, account: str = ACME) -> JournalEntry:
        """The account's newest decision."""
        return self.journal(account)[-1]

    def rows(self, *but: str) -> dict[str, list[Row]]:
        """Everything in the database, but what belongs to these accounts."""
        found = {table: self.tx.rows(f"SELECT * FROM {table}") for table in TABLES}
        return {
            table: sorted((row for row in rows if row.get("account", row.get("domain")) not in but), key=repr)
            for table, rows in found.items()
        }

    # --- What must hold -----------------------------------------------------------------------------------------------------

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What stands inside writes nothing at all."""
        before = self.rows()
        yield
        assert self.rows() == before

    @contextmanager
    def touching_only(self, *accounts: str) -> Iterator[None]:
        """What stands inside writes in these accounts only."""
        before = self.rows(*accounts)
        yield
        assert self.rows(*accounts) == before

    @contextmanager
    def refuses(self, reason: Reason) -> Iterator[pytest.ExceptionInfo[Refused]]:
        """What stands inside is refused for this reason, and changes nothing."""
        with self.unchanged(), refused(reason) as no:
            yield no

    def check(self) -> None:
        """What holds at the end of every test."""
        self.check_rows()
        self._check_secrets()

    def check_rows(self) -> None:
        """What holds after every step."""
        accounts = [row["domain"] for row in self.tx.rows("SELECT domain FROM account")]
        for account in accounts:
            assert verify(self.tx, account) == self.head(account)
        assert self.tx.rows("PRAGMA foreign_key_check") == []
        assert not self.tx.rows("SELECT 1 FROM server WHERE key IS NOT NULL GROUP BY account, key HAVING count(*) > 1")
        assert not self.tx.rows("SELECT 1 FROM api_key WHERE uses > max_uses")

    def _check_secrets(self) -> None:
        """Attacks row 44: no secret, and no hash of one, stands where it does not belong."""
        rows = self.rows()
        where_hashes_are = repr(rows.pop("api_key"))
        elsewhere = repr(rows)
        for secret in self.secrets:
            assert secret not in where_hashes_are + elsewhere
            assert keys.hash_of(secret).hex() not in elsewhere
            assert repr(keys.hash_of(secret)) not in elsewhere


def fingerprint(key: str) -> str:
    """What a key that goes by this word is named."""
    return hashlib.sha256(key.encode()).hexdigest()


def bring(desk: Desk, state: State, key: str = "one", account: str = ACME, name: str = "old", source: str = HOME) -> Server:
    """A server in this state, brought there by what brings servers there; one without a key for `invited`."""
    if state is State.INVITED:
        return desk.invite(name, "Old", account)[0]
    server = desk.ask(key, account, name, desk.api_key(account=account, group="Old"), source)
    match state:
        case State.EXPIRED:
            desk.later(7 * DAY)
            desk.sweep()
        case State.TRUSTED | State.SUSPENDED | State.REVOKED | State.DEPARTED:
            desk.authorize(server)
    event = _LAST.get(state)
    if event is Event.LEAVE:
        desk.leave(key, account, source)
    elif event is not None:
        desk.decide(server, event, "an old reason")
    server = desk.load(server)
    assert server.state is state
    return server


_LAST = {
    State.DENIED: Event.DENY,
    State.SUSPENDED: Event.SUSPEND,
    State.REVOKED: Event.REVOKE,
    State.WITHDRAWN: Event.WITHDRAW,
    State.DEPARTED: Event.LEAVE,
    State.REMOVED: Event.REMOVE,
}
