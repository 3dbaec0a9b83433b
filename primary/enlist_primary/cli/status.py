"""`status`: how the primary fares."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output

if TYPE_CHECKING:
    from enlist.v1.hierarchy_pb2 import PrimaryStatus, UpperPrimary


def add_commands(commands: Any) -> None:
    """Adds the command of this file."""
    status = commands.add_parser("status", help="show the primary's fingerprint, ports, and how it fares")
    output.add_json(status)
    status.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc
    from enlist_primary.cli.client import call

    request = hierarchy_pb2.GetStatusRequest()
    status = call(arguments, lambda channel: hierarchy_pb2_grpc.HierarchyServiceStub(channel).GetStatus(request))
    if arguments.json:
        output.print_json(as_json(status))
        return 0
    output.say(
        f"{status.primary_name}, Enlist {status.version}\n"
        f"  primary's fingerprint  {status.fingerprint}\n"
        f"  goes by                {', '.join(status.addresses)}\n"
        f"  SSL port               {status.ssl_port} (certificate until {output.time_of(status, 'certificate_expire_time')})\n"
        f"  API port               {status.api_port}\n"
        f"  serving since          {output.time_of(status, 'start_time')}\n"
        f"  links open             {status.connected}" + (f" ({status.stalled} stalled)" if status.stalled else "")
    )
    counts = ", ".join(f"{count} {state}" for state, count in _servers(status).items())
    output.say(f"  servers                {counts or 'none'}")
    for upper in status.above:
        output.say(f"  above                  {_upper(upper)}")
    for each in status.refusals:
        output.say(f"  refused                {each.count} x {each.reason} ({each.account}), last from {each.last_source}")
    return 0


def _upper(upper: UpperPrimary) -> str:
    """A primary above, in a line; of the nearest also whether it is reached."""
    left = {"kept": "; gone, what it set stays", "frozen": "; gone, what it set stays locked"}.get(_state(upper) or "", "")
    reached = f"; {'connected' if upper.connected else 'NOT connected'}" if upper.HasField("connected_time") else ""
    since = f" since {output.time_of(upper, 'connected_time')}" if reached else ""
    refusal = f"; it refuses: {upper.refusal}" if upper.refusal else ""
    return f"{upper.primary_name}, {upper.fingerprint}{left}{reached}{since}{refusal}"


def _state(upper: UpperPrimary) -> str | None:
    from enlist.v1 import document_pb2

    return output.name_of_enum(document_pb2.AncestorState.Name(upper.state), "ANCESTOR_STATE_") if upper.state else None


def _servers(status: PrimaryStatus) -> dict[str, int]:
    from enlist.v1 import server_pb2

    return {output.name_of_enum(server_pb2.ServerState.Name(each.state), "SERVER_STATE_"): each.count for each in status.servers}


def as_json(status: PrimaryStatus) -> dict[str, object]:
    """The status as `--json` shows it."""
    return {
        "name": status.primary_name,
        "fingerprint": status.fingerprint,
        "ssl_port": status.ssl_port,
        "api_port": status.api_port,
        "addresses": list(status.addresses),
        "version": status.version,
        "started": output.time_of(status, "start_time"),
        "certificate_expires": output.time_of(status, "certificate_expire_time"),
        "connected": status.connected,
        "stalled": status.stalled,
        "servers": _servers(status),
        "refusals": [
            {
                "account": each.account,
                "reason": each.reason,
                "count": each.count,
                "last": output.time_of(each, "last_time"),
                "last_source": each.last_source or None,
            }
            for each in status.refusals
        ],
        "above": [
            {
                "name": each.primary_name,
                "fingerprint": each.fingerprint,
                "state": _state(each),
                "connected": each.connected,
                "connected_changed": output.time_of(each, "connected_time"),
                "refusal": each.refusal or None,
            }
            for each in status.above
        ],
    }
