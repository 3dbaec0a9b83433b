"""What this server last heard of its enrolment: observations, rewritten as they come, of which a crash may lose the last.

A secondary has no states of its own. It keeps the last one its primary told it, and when. Several programs write it: the daemon,
`enlist-secondary leave`, and the wizard. Each change is made to what is kept at that moment, and touches only what it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from enlist.names import Address
from enlist.reasons import Refused
from enlist.runtime import files, formats
from enlist.runtime.logs import Log
from enlist.runtime.threads import to_the_end
from enlist.v1 import registration_pb2, server_pb2, trust_pb2

FILE = "state.json"

NEW = "new"
"""The state before the primary has told one."""

PENDING = "pending"

TRUSTED = "trusted"

ALARM_LIMIT = 16

BEQUESTS = {trust_pb2.BEQUEST_KEEP: "keep", trust_pb2.BEQUEST_FREEZE: "freeze", trust_pb2.BEQUEST_DELETE: "delete"}

_LOG = Log("enlist.secondary")


@dataclass(frozen=True)
class Alarm:
    """Somebody else answered where the primary should have been; `fingerprint` is empty if it showed no authority."""

    time: int
    address: str
    fingerprint: str


@dataclass(frozen=True)
class Problem:
    """Why the last attempt failed: a reason code and its sentence."""

    reason: str
    message: str
    at: int


@dataclass(frozen=True)
class State:
    """`state.json`. Times are Unix seconds."""

    requests: int = 0
    """Requests to join that the primary may know of. Each counts before it goes out, and not any more if it gets a plain no."""
    state: str = NEW
    """The lower-case name of a `ServerState`, or `new`."""
    since: int | None = None
    reason: str = ""
    """What the administrator who decided gave as the reason."""
    server_id: str = ""
    display_name: str = ""
    """The name this server bears at the primary."""
    contact: str = ""
    expires_at: int | None = None
    bequest: str = ""
    """Of a server that was removed, or left: what becomes of what was set for those below it, "keep", "freeze" or "delete"."""
    on_leave: str = ""
    """The same, as the person wants it who runs `enlist-secondary leave`. It counts once the primary says that this server left."""
    told_at: int | None = None
    """When the primary last told the state."""
    primary_name: str = ""
    met_at: str = ""
    """The configured address at which the primary last described itself: name and SSL port were learnt there."""
    ssl_port: int = 0
    connected: bool = False
    """Whether the daemon's link is open; means something only while it runs, and nobody else writes it."""
    connected_at: int | None = None
    """When the link was last opened or closed."""
    last_problem: Problem | None = None
    alarms: tuple[Alarm, ...] = ()
    alarms_told_at: int = 0
    """Up to when the primary has been told of alarms."""

    @property
    def asked(self) -> bool:
        """Whether the primary may know of a request."""
        return self.requests > 0

    def told(self, enrolment: registration_pb2.Enrolment, now: int) -> State:
        """After the primary told this server where it stands."""
        return replace(
            self,
            state=state_name(enrolment.state),
            since=enrolment.state_time.seconds,
            reason=enrolment.reason,
            server_id=enrolment.server_id,
            display_name=enrolment.display_name,
            contact=enrolment.contact,
            expires_at=enrolment.expire_time.seconds if enrolment.HasField("expire_time") else None,
            bequest=BEQUESTS.get(enrolment.bequest, self.on_leave if enrolment.state == server_pb2.SERVER_STATE_DEPARTED else ""),
            told_at=now,
            last_problem=None,
        )

    def met(self, address: Address, primary_name: str, ssl_port: int) -> State:
        """After the primary described itself at the configured address."""
        return replace(self, met_at=str(address), primary_name=primary_name, ssl_port=ssl_port)

    def admitted(self, primary_name: str, display_name: str, server_id: str, now: int) -> State:
        """After a link could be opened: nothing is wrong any more. `now` is when its hello was made up.

        The id is the certificate's: the primary's word of it may be lost.
        """
        named = replace(self, primary_name=primary_name, display_name=display_name, server_id=server_id)
        trusted = named if named.state == TRUSTED else replace(named, state=TRUSTED, since=now)
        return replace(trusted, last_problem=None, alarms_told_at=now)

    def linked(self, primary_name: str, display_name: str, server_id: str, now: int) -> State:
        """After the daemon's link opened."""
        return replace(self.admitted(primary_name, display_name, server_id, now), connected=True, connected_at=now)

    def unlinked(self, now: int) -> State:
        """After the link closed."""
        return replace(self, connected=False, connected_at=now) if self.connected else self

    def alarmed(self, address: str, fingerprint: str, now: int) -> State:
        """After a stranger was met; one met before only gets the new time, and the newest sixteen are kept."""
        others = [alarm for alarm in self.alarms if (alarm.address, alarm.fingerprint) != (address, fingerprint)]
        return replace(self, alarms=(*others, Alarm(now, address, fingerprint))[-ALARM_LIMIT:])

    def failed(self, refused: Refused, now: int) -> State:
        """After an attempt failed."""
        return replace(self, last_problem=Problem(refused.reason, refused.message, now))


class _Marker(msgspec.Struct):
    """What tells the format of `state.json`."""

    format: int | None = None


def state_name(state: server_pb2.ServerState.ValueType) -> str:
    """`pending` for SERVER_STATE_PENDING; a state this version does not know is `unspecified`."""
    known = state in server_pb2.ServerState.values()
    return server_pb2.ServerState.Name(state if known else server_pb2.SERVER_STATE_UNSPECIFIED)[13:].lower()


def load(folder: Path) -> State:
    """The state kept in an enrolment's folder; a fresh one if there is none or it cannot be read: it only holds observations.

    Refuses with FORMAT_OLD or VERSION_INCOMPATIBLE what another release wrote.
    """
    path = folder / FILE
    try:
        content = files.read(path)
        kept = msgspec.json.decode(content, type=State)
        found = msgspec.json.decode(content, type=_Marker).format
    except FileNotFoundError:
        return State()
    except (msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        _LOG.warning("state ignored: it cannot be read", path=path, problem=error)
        return State()
    formats.check(found, path)
    return kept


def _encode(state: State) -> bytes:
    content = {"format": formats.FORMAT, **msgspec.to_builtins(state)}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def change(folder: Path, change: Callable[[State], State], strict: bool = False) -> State:
    """Keeps what `change`, a pure function, makes of the state kept; other programs that change it take turns.

    If that fails it is only said in the log: a full disk must not cost the link. With `strict` the failure is raised, for what
    comes next counts on it. Blocks until the disk has it: in an event loop, `update` is called.
    """
    try:
        with files.turn(folder / FILE):
            return _write(folder, change)
    except Refused as refused:
        if strict:
            raise
        _LOG.warning("state not kept", reason=refused.reason, problem=refused.message)
        return change(load(folder))


def _write(folder: Path, change: Callable[[State], State]) -> State:
    before = load(folder)
    after = change(before)
    if after != before:
        files.write(folder / FILE, _encode(after))
    return after


async def update(folder: Path, change_it: Callable[[State], State], strict: bool = False) -> State:
    """`change` in a thread. It is done once this returns, also by being cancelled: whoever awaits each keeps their order."""
    return await to_the_end(change, folder, change_it, strict)
