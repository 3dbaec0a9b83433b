"""What this server last heard of its enrolment: observations, rewritten as they come, of which a crash may lose the last.

A secondary has no states of its own. It keeps the last one its primary told it, and when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from enlist.names import Address
from enlist.reasons import Refused
from enlist.runtime import files
from enlist.runtime.logs import Log
from enlist.v1 import registration_pb2, server_pb2, trust_pb2

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

    asked: bool = False
    """Whether the primary may know of a request: set before one goes out, and unset again where that one got a plain no."""
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
    told_at: int | None = None
    """When the primary last told the state."""
    primary_name: str = ""
    met_at: str = ""
    """The configured address at which the primary last described itself: name and SSL port were learnt there."""
    ssl_port: int = 0
    connected: bool = False
    """Whether the link is open; means something only while the daemon runs."""
    connected_at: int | None = None
    """When the link was last opened or closed."""
    last_problem: Problem | None = None
    alarms: tuple[Alarm, ...] = ()

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
            bequest=BEQUESTS.get(enrolment.bequest, self.bequest if enrolment.state == server_pb2.SERVER_STATE_DEPARTED else ""),
            told_at=now,
            last_problem=None,
        )

    def met(self, address: Address, primary_name: str, ssl_port: int) -> State:
        """After the primary described itself at the configured address."""
        return replace(self, met_at=str(address), primary_name=primary_name, ssl_port=ssl_port)

    def linked(self, primary_name: str, display_name: str, server_id: str, now: int) -> State:
        """After the link opened: nothing is wrong any more. The id is the certificate's: the primary's word of it may be lost."""
        named = replace(self, primary_name=primary_name, display_name=display_name, server_id=server_id)
        link = replace(named, connected=True, connected_at=now)
        trusted = link if link.state == TRUSTED else replace(link, state=TRUSTED, since=now)
        return replace(trusted, last_problem=None)

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


def state_name(state: server_pb2.ServerState.ValueType) -> str:
    """`pending` for SERVER_STATE_PENDING; a state this version does not know is `unspecified`."""
    known = state in server_pb2.ServerState.values()
    return server_pb2.ServerState.Name(state if known else server_pb2.SERVER_STATE_UNSPECIFIED)[13:].lower()


def load(folder: Path) -> State:
    """The state kept in an enrolment's folder; a fresh one if there is none or it cannot be read: it only holds observations."""
    path = folder / "state.json"
    try:
        return msgspec.json.decode(files.read(path), type=State)
    except FileNotFoundError:
        return State()
    except (msgspec.DecodeError, UnicodeDecodeError, Refused) as error:
        _LOG.warning("state ignored: it cannot be read", path=path, problem=error)
        return State()


def change(folder: Path, change: Callable[[State], State], strict: bool = False) -> State:
    """Keeps what `change` makes of the state kept. If that fails it is only said in the log: a full disk must not cost the link.

    With `strict` the failure is raised, for what comes next counts on it.
    """
    before = load(folder)
    after = change(before)
    try:
        if after != before:
            files.write(folder / "state.json", msgspec.json.format(msgspec.json.encode(after), indent=2) + b"\n")
    except Refused as refused:
        if strict:
            raise
        _LOG.warning("state not kept", reason=refused.reason, problem=refused.message)
    return after
