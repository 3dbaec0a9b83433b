"""Long random histories of two accounts, three keys and whatever API keys come, against a model of a few lines.

The model knows the design's table (tests/primary/design.py) and counts; it knows neither SQL nor the operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind, parse
from enlist_primary.model.servers import DECISIONS, Event, Server, State
from enlist_primary.operations.enrolment import Caps
from enlist_primary.store.sqlite import SqliteEngine
from tests.primary.design import leads_to
from tests.primary.operations.desk import ACME, AWAY, BETA, DAY, HOME, Desk
from tests.primary.refusals import attempt

ACCOUNTS = st.sampled_from([ACME, BETA])
KEYS = st.sampled_from(["one", "two", "three"])
SOURCES = st.sampled_from([HOME, AWAY])
CHOICE = st.integers(0, 10**6)
CAPS = Caps(per_account=2, per_address=1)  # so that three keys crowd an account
MOVES = [
    "ask",
    "ask as before",
    "ask with a good API key",
    "ask with any API key",
    "decide what is possible",
    "decide anything",
    "leave",
    "wait",
]
LIFE = st.lists(st.tuples(st.sampled_from(MOVES), CHOICE, SOURCES), min_size=4, max_size=10)
BY_PEOPLE = sorted(DECISIONS - {Event.LEAVE})
INTO_TRUST = {"server.authorize", "server.resume", "server.register"}
OF_A_STATE = INTO_TRUST | {f"server.{event}" for event in DECISIONS} | {"server.expire"}


@dataclass
class Key:
    """What the model knows of an API key. Times are Unix seconds, None for never."""

    text: str
    owner: str
    kind: Kind
    left: int | None
    end: int | None
    place: Place | None = None
    revoked: bool = False


@dataclass
class Place:
    """What the model knows of a server: one with a key, or an invitation."""

    account: str
    id: str
    state: State
    since: int
    end: int | None = None
    asked_with: Key | None = None
    source: str = ""
    decided: bool = False

    def at(self, now: int) -> Place:
        over = self.end is not None and now >= self.end
        return replace(self, state=State.EXPIRED, since=self.end or 0, end=None) if over else self


class Enrolment(RuleBasedStateMachine):
    """Every operation, in any order."""

    engine: SqliteEngine

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.engine.begin())
        self.keys: list[Key] = []
        self.servers: dict[tuple[str, str], Place] = {}
        self.invited: list[Place] = []
        self.read = {ACME: 0, BETA: 0}
        self.last: dict[str, str] = {}
        self.default = {ACME: True, BETA: True}
        for owner in (ACME, PRIMARY):
            for kind in Kind:
                self.make_api_key(owner, kind, 0, 0)

    def teardown(self) -> None:
        self.desk.check()
        self.engine.rollback()

    # --- What a server does, and people with it ------------------------------------------------------------------------------

    @rule(account=ACCOUNTS, key=KEYS, moves=LIFE)
    def live(self, account: str, key: str, moves: list[tuple[str, int, str]]) -> None:
        for move, choice, source in moves:
            server = self.servers.get((account, key))
            if move == "leave":
                self._leave(account, key)
            elif move == "wait":
                self.desk.later([60, DAY, 7 * DAY][choice % 3])
            elif move.startswith("ask"):
                self._ask(account, key, self._api_key(move, choice, account, server), source)
            elif server:
                self._decide(server, self._event(move, choice, server))

    @rule(account=ACCOUNTS, key=KEYS, moves=LIFE)
    def live_on(self, account: str, key: str, moves: list[tuple[str, int, str]]) -> None:
        self.live(account, key, moves)  # a second rule, so that half of a history is lives

    def _api_key(self, move: str, choice: int, account: str, server: Place | None) -> Key | None:
        if move == "ask as before":
            return server.asked_with if server else None
        good = [each for each in self.keys if self._presented(account, each) is None]
        some = {"ask": [], "ask with a good API key": good, "ask with any API key": self.keys}[move]
        return some[choice % len(some)] if some else None

    def _event(self, move: str, choice: int, server: Place) -> Event:
        state = server.at(self.desk.now).state
        possible = [event for event in BY_PEOPLE if leads_to(state, event) not in (None, state)]
        events = possible if possible and move == "decide what is possible" else BY_PEOPLE
        return events[choice % len(events)]

    def _ask(self, account: str, key: str, api_key: Key | None, source: str) -> None:
        expected = self._register(account, key, api_key, source)
        outcome = attempt(self.desk.ask, key, account, key, api_key.text if api_key else "", source, CAPS)
        if isinstance(outcome, Refused):
            assert outcome.reason is expected
            return
        assert isinstance(expected, Place), expected
        expected.id = expected.id or outcome.id
        self._agree(outcome, expected)

    @rule(account=ACCOUNTS, choice=CHOICE)
    def validate(self, account: str, choice: int) -> None:
        api_key = [None, *self.keys][choice % (len(self.keys) + 1)]
        reason = self._presented(account, api_key)
        with self.desk.unchanged():
            outcome = attempt(self.desk.validate, api_key.text if api_key else "", account)
        assert (outcome.reason if isinstance(outcome, Refused) else None) is reason
        if not isinstance(outcome, Refused):
            assert outcome.state is (State.TRUSTED if api_key and api_key.kind is Kind.FULL else State.PENDING)

    def _leave(self, account: str, key: str) -> None:
        server = self.servers.get((account, key))
        outcome = attempt(self.desk.leave, key, account)
        if server is None:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.SERVER_UNKNOWN
            return
        stranger = server.at(self.desk.now).state is State.PENDING
        self._decided(server, Event.LEAVE, outcome, decided=not stranger)

    # --- What people do -----------------------------------------------------------------------------------------------------

    @rule(choice=CHOICE, move=st.sampled_from(["decide what is possible", "decide anything"]))
    @precondition(lambda self: self.servers or self.invited)
    def decide(self, choice: int, move: str) -> None:
        server = self._one(choice)
        self._decide(server, self._event(move, choice, server))

    def _decide(self, server: Place, event: Event) -> None:
        outcome = attempt(self.desk.decide, self._row(server), event)
        self._decided(server, event, outcome, decided=True)

    @rule(choice=CHOICE)
    @precondition(lambda self: self.servers or self.invited)
    def rename(self, choice: int) -> None:
        server = self._one(choice)
        self.desk.rename(self._row(server), f"name {choice}")
        server.decided = True

    @rule(account=ACCOUNTS)
    def invite(self, account: str) -> None:
        made, text = self.desk.invite(account=account)
        place = Place(account, made.id, State.INVITED, self.desk.now, self.desk.now + 7 * DAY, decided=True)
        self.invited.append(place)
        self.keys.append(Key(text, account, Kind.FULL, 1, place.end, place))
        self._agree(made, place)

    @rule(
        owner=st.sampled_from([ACME, BETA, PRIMARY]),
        kind=st.sampled_from(Kind),
        uses=st.sampled_from([0, 0, 1, 2]),
        lifetime=st.sampled_from([0, 0, DAY, 7 * DAY]),
    )
    def make_api_key(self, owner: str, kind: Kind, uses: int, lifetime: int) -> None:
        text = self.desk.api_key(kind, owner, max_uses=uses, lifetime=lifetime)
        self.keys.append(Key(text, owner, kind, uses or None, self.desk.now + lifetime if lifetime else None))

    @rule(choice=CHOICE)
    @precondition(lambda self: self.keys)
    def revoke_api_key(self, choice: int) -> None:
        key = self.keys[choice % len(self.keys)]
        self.desk.revoke_api_key(key.text, key.owner)
        if not key.revoked and key.place and key.place.at(self.desk.now).state is State.INVITED:
            key.place.state, key.place.since, key.place.end = State.WITHDRAWN, self.desk.now, None
        key.revoked = True

    @rule(account=ACCOUNTS, on=st.booleans())
    def switch(self, account: str, on: bool) -> None:
        self.desk.set_account(account, default_api_key=on)
        self.default[account] = on

    # --- What time does -----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([60, DAY, 7 * DAY - 1, 7 * DAY, 30 * DAY]), swept=st.booleans())
    def time_passes(self, seconds: int, swept: bool) -> None:
        self.desk.later(seconds)
        if swept:
            self._sweep()

    def _sweep(self) -> None:
        now = self.desk.now
        late = [server for server in self._all() if server.at(now) != server]
        assert sorted(self.desk.sweep()) == sorted(server.id for server in late)
        for server in late:
            server.state, server.since, server.end = State.EXPIRED, server.end or 0, None
        for which, server in list(self.servers.items()):
            undecided = server.state in (State.EXPIRED, State.WITHDRAWN) and not server.decided
            if undecided and server.since <= now - 30 * DAY:
                del self.servers[which]

    # --- What must hold -----------------------------------------------------------------------------------------------------

    @invariant()
    def rows_are_the_model_s(self) -> None:
        ids = self.desk.tx.rows("SELECT id FROM server")
        assert sorted(row["id"] for row in ids) == sorted(server.id for server in self._all())
        for (account, key), server in self.servers.items():
            row = self.desk.row(key, account)
            assert row is not None
            self._agree(row, server.at(self.desk.now))
        for place in self.invited:
            self._agree(self._row(place).at(self.desk.now), place.at(self.desk.now))

    @invariant()
    def api_keys_are_the_model_s(self) -> None:
        rows = self.desk.tx.rows("SELECT id, max_uses - uses AS uses_left, revoked_at FROM api_key")
        found = {row["id"]: (row["uses_left"], row["revoked_at"] is not None) for row in rows}
        assert found == {parse(key.text).id: (key.left, key.revoked) for key in self.keys}

    @invariant()
    def trust_was_always_decided(self) -> None:
        for account in (ACME, BETA):
            for entry in self.desk.journal(account, after=self.read[account]):
                self.read[account] = entry.number
                if entry.action in OF_A_STATE:
                    self.last[entry.subject] = entry.action
        for server in self._all():
            if server.state is State.TRUSTED:
                assert self.last[f"servers/{server.id}"] in INTO_TRUST

    @invariant()
    def the_caps_hold(self) -> None:
        now = self.desk.now
        for account in (ACME, BETA):
            waiting = [s for s in self._all() if s.account == account and s.at(now).state is State.PENDING]
            assert len(waiting) <= CAPS.per_account
            for source in (HOME, AWAY):
                assert sum(s.source == source and s.asked_with is None for s in waiting) <= CAPS.per_address

    @invariant()
    def the_database_is_sound(self) -> None:
        self.desk.check_rows()

    # --- The model ----------------------------------------------------------------------------------------------------------

    def _register(self, account: str, key: str, api_key: Key | None, source: str) -> Place | Reason:
        """What a registration leads to: the server as it is from now on, or the reason of the refusal."""
        now = self.desk.now
        known = self.servers.get((account, key))
        judged = known.at(now) if known else None
        state = judged.state if judged else None
        full = api_key is not None and api_key.kind is Kind.FULL
        if judged and state in (State.TRUSTED, State.SUSPENDED):
            return judged
        if judged and state is State.PENDING:
            if api_key and api_key.owner not in (account, PRIMARY):
                return Reason.API_KEY_INVALID
            if not full or judged.asked_with is api_key:
                return judged
        reason = self._presented(account, api_key)
        if reason is not None:
            return reason
        place = api_key.place if api_key and api_key.place and api_key.place.state is State.INVITED else None
        rested = judged is not None and state is State.DENIED and now >= judged.since + 7 * DAY
        event = Event.ENROL if full else Event.ASK_AGAIN if api_key or rested else Event.ASK
        to = leads_to(state if known else State.INVITED if place else None, event)
        if to is None:
            assert state is not None
            return standings.not_trusted(state, 0).reason
        if to is State.PENDING and self._crowded(account, key, api_key, source):
            return Reason.TOO_MANY_PENDING
        return self._admit(account, key, api_key, source, to, known, place)

    def _admit(
        self, account: str, key: str, api_key: Key | None, source: str, to: State, known: Place | None, place: Place | None
    ) -> Place:
        now = self.desk.now
        if api_key and api_key.left is not None:
            api_key.left -= 1
        if place and known:
            place.state, place.since, place.end = State.WITHDRAWN, now, None
        elif place:
            self.invited.remove(place)
        before = known or place
        decided = to is State.TRUSTED or (before is not None and before.decided)
        end = now + 7 * DAY if to is State.PENDING else None
        server = Place(account, before.id if before else "", to, now, end, api_key, source, decided)
        self.servers[account, key] = server
        return server

    def _presented(self, account: str, api_key: Key | None) -> Reason | None:
        """Why an API key is refused, or None."""
        if api_key is None:
            return None if self.default[account] else Reason.API_KEY_REQUIRED
        if api_key.owner not in (account, PRIMARY):
            return Reason.API_KEY_INVALID
        if api_key.revoked or (api_key.end is not None and self.desk.now >= api_key.end):
            return Reason.API_KEY_EXPIRED
        return Reason.API_KEY_USED_UP if api_key.left == 0 else None

    def _crowded(self, account: str, key: str, api_key: Key | None, source: str) -> bool:
        now = self.desk.now
        others = [s.at(now) for (owner, each), s in self.servers.items() if owner == account and each != key]
        counted = [
            s
            for s in others
            if s.state is State.PENDING or (s.state is State.WITHDRAWN and not s.decided and s.since > now - 7 * DAY)
        ]
        from_here = sum(s.source == source for s in counted)
        return len(counted) >= CAPS.per_account or (api_key is None and from_here >= CAPS.per_address)

    def _decided(self, server: Place, event: Event, outcome: Server | Refused, decided: bool) -> None:
        judged = server.at(self.desk.now)
        to = leads_to(judged.state, event)
        if to is None:
            assert isinstance(outcome, Refused)
            assert outcome.reason is Reason.STATE_FORBIDS
            return
        assert isinstance(outcome, Server)
        if to is not judged.state:
            if server.state is State.INVITED:
                next(key for key in self.keys if key.place is server).revoked = True
            server.state, server.since, server.end = to, self.desk.now, None
            server.decided |= decided
        self._agree(outcome, server)

    def _all(self) -> list[Place]:
        return [*self.servers.values(), *self.invited]

    def _one(self, choice: int) -> Place:
        return self._all()[choice % len(self._all())]

    def _row(self, place: Place) -> Server:
        return self.desk.load(Server(place.account, place.id, None, "", "", place.state, 0, 0))

    def _agree(self, row: Server, place: Place) -> None:
        assert (row.account, row.id, row.state, row.since) == (place.account, place.id, place.state, place.since)
        assert row.expires_at == place.end
        assert (row.revision > 0) == place.decided


def test_no_history_leads_anywhere_but_where_the_design_says(engine: SqliteEngine) -> None:
    machine = type("OnThisFile", (Enrolment,), {"engine": engine})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40))
