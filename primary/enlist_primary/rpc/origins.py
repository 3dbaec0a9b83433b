"""HierarchyService: what is remembered of the primaries above."""

from __future__ import annotations

from typing import Any

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime.threads import shielded
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc
from enlist_primary.federation.ancestors import Upper
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context


class Origins(hierarchy_pb2_grpc.HierarchyServiceServicer):
    """Lists and clears it: an affair of the primary itself, of no account."""

    _context: Context

    async def ListOrigins(self, request: pb.ListOriginsRequest, context: Any) -> pb.ListOriginsResponse:
        caller().require_all()
        return pb.ListOriginsResponse(origins=remembered(self._context.upper))

    async def ClearOrigin(self, request: pb.ClearOriginRequest, context: Any) -> pb.ClearOriginResponse:
        who, own = caller(), self._context
        who.require_all()
        if request.all and request.primary_id:
            raise Refused(Reason.INVALID_ARGUMENT, "Give either a primary id, or all.")
        primary_id = "" if request.all else names.fingerprint(request.primary_id)
        await shielded(own.upper.clear_origin(primary_id, who.actor, own.now()))  # a caller that hangs up leaves no half of it
        return pb.ClearOriginResponse()


def remembered(upper: Upper) -> list[pb.RememberedOrigin]:
    """The primaries that are remembered, besides this one. Refused with ORIGINS_UNREADABLE."""
    snapshot = upper.snapshot
    if snapshot.row is None:
        return []
    names_of = {each.origin.primary_id: each.name for each in snapshot.above}
    return [
        pb.RememberedOrigin(primary_id=each, primary_name=names_of.get(each, ""), above=each in names_of)
        for each in snapshot.row.memory.primaries
        if each != upper.own_id
    ]
