"""Servers below middle servers: how commands find and show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enlist.reasons import Reason, Refused
from enlist_primary.cli import output

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.hierarchy_pb2 import BelowServer, ListedBelow
    from enlist.v1.server_pb2 import Server


LISTED = 20
"""Servers of one name that a refusal lists at most."""


@dataclass(frozen=True)
class Found:
    """A server below, and what the middle server of this primary that it stands below is called."""

    listed: ListedBelow
    middle: str

    @property
    def name(self) -> str:
        """What it may be called from here."""
        return f"{self.middle}/{self.listed.server.display_name}"


async def fetch(channel: grpc.aio.Channel, account: str = "-", name_or_id: str = "") -> list[ListedBelow]:
    """All servers below the intermediates of an account, or of every account.

    With a name or an id, only those that it names, and those on the way to them.
    """
    from enlist.names import resource
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc

    stub: hierarchy_pb2_grpc.HierarchyServiceAsyncStub = hierarchy_pb2_grpc.HierarchyServiceStub(channel)
    request = hierarchy_pb2.ListBelowRequest(parent=resource("accounts", account), display_name_or_id=name_or_id)
    return [server async for page in stub.ListBelow(request) for server in page.servers]


def id_of(each: ListedBelow) -> str:
    """What this primary calls it: the ids on the way down."""
    return f"{each.via}/{each.server.path}"


def state_of(server: BelowServer) -> str:
    """Its state there, as people write it."""
    from enlist.v1 import server_pb2

    return output.name_of_enum(server_pb2.ServerState.Name(server.state), "SERVER_STATE_")


def choose(intermediates: Sequence[Server], below: Sequence[ListedBelow], wanted: str) -> Found | None:
    """The one that is meant by the ids or the names on the way down, by MIDDLE/NAME or by its name; None if nobody is.

    Servers that cannot be meant may be missing from `intermediates` and `below`.
    An id goes before a name, and where several could be meant none is: a primary below calls its servers what it likes.
    """
    wanted = "/".join(part.strip() for part in wanted.split("/"))
    called = {(each.account, each.id): each.display_name or each.id for each in intermediates}
    called |= {(each.account, id_of(each)): each.server.display_name for each in below}
    found = [each for each in below if id_of(each) == wanted] or [each for each in below if wanted in _spellings(each, called)]
    if len(found) > 1:
        raise ambiguous(wanted, [f"{id_of(each)}  {state_of(each.server)}  {each.server.place}" for each in found])
    return Found(found[0], called.get((found[0].account, found[0].via), found[0].via)) if found else None


def _spellings(each: ListedBelow, called: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """How a server may be called; `called` has the names of servers on the way down, by account and ids."""
    ids = id_of(each).split("/")
    names = [called.get((each.account, "/".join(ids[: depth + 1])), "") for depth in range(len(ids))]
    yield names[-1]
    if names[0]:
        yield f"{names[0]}/{names[-1]}"
    if all(names):
        yield "/".join(names)


def ambiguous(wanted: str, lines: Sequence[str]) -> Refused:
    """The refusal of a name that several servers bear, with a line for each; of many, the first ones."""
    listed = "".join(f"\n  {line}" for line in lines[:LISTED])
    more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return Refused(Reason.AMBIGUOUS_NAME, f'Several servers are called "{wanted}"; nothing was done. Name an id:{listed}{more}')


def elsewhere(found: Found) -> Refused:
    """The answer where only the primary right above a server can say or decide."""
    sentence = (
        f"{found.listed.server.display_name} stands below {found.middle}: its own primary decides about it and knows all layers of "
        f'what it gets. Ask there. From here: server show "{found.name}", task run "{found.name}".'
    )
    return Refused(Reason.NOT_ALLOWED, sentence)


def as_json(server: BelowServer) -> dict[str, object]:
    """One of them as `--json` shows it. Of one that is cut off from here nothing is known since then."""
    return {
        "path": server.path,
        "name": server.display_name,
        "place": server.place,
        "state": state_of(server),
        "connected": server.connected and not server.HasField("unknown_since"),
        "connected_changed": output.time_of(server, "connected_time"),
        "unknown_since": output.time_of(server, "unknown_since"),
        "comparison_code": server.comparison_code or None,
        "kinds": list(server.kinds),
    }


def whole_as_json(each: ListedBelow) -> dict[str, object]:
    """The same with what this primary calls it, and the server of this primary that it stands below."""
    whole = {"id": id_of(each), "account": each.account, "via": each.via, **as_json(each.server)}
    return whole | {"set_refusal": each.set_refusal or None}
