"""The part of HierarchyService that is about groups."""

from __future__ import annotations

from typing import Any

from enlist.runtime.schedules import Window
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import hierarchy_pb2_grpc
from enlist_primary.messages import servers as render
from enlist_primary.model import accounts
from enlist_primary.operations import groups
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import accounts as account_rows
from enlist_primary.store import groups as rows
from enlist_primary.store.database import Transaction


class Groups(hierarchy_pb2_grpc.HierarchyServiceServicer):
    """Arranges the tree."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Any) -> pb.Group:
        account, own = caller().require(accounts.from_resource(request.parent)), self._context
        actor = caller().actor
        made = await own.database.write(account, groups.add, account, request.path, actor, own.new_id, own.now())
        return render.group(made)

    async def RemoveGroup(self, request: pb.RemoveGroupRequest, context: Any) -> pb.RemoveGroupResponse:
        account, own = caller().require(accounts.from_resource(request.parent)), self._context
        await own.database.write(account, groups.remove, account, request.path, caller().actor, own.now())
        return pb.RemoveGroupResponse()

    async def MoveGroup(self, request: pb.MoveGroupRequest, context: Any) -> pb.Group:
        account, own = caller().require(accounts.from_resource(request.parent)), self._context
        path, new_path = request.path, request.new_path
        return render.group(await own.database.write(account, groups.move, account, path, new_path, caller().actor, own.now()))

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Any) -> pb.Group:
        account, own = caller().require(accounts.from_resource(request.parent)), self._context
        given = request.window
        window = Window(given.start, given.duration_seconds, given.time_zone) if request.HasField("window") else None
        actor = caller().actor
        return render.group(await own.database.write(account, groups.set_window, account, request.path, window, actor, own.now()))

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        account = caller().require(accounts.from_resource(request.parent))
        listed = await self._context.database.read(_listed, account)
        return pb.ListGroupsResponse(groups=[render.group(each) for each in listed])


def _listed(tx: Transaction, account: str) -> list[rows.Group]:
    account_rows.load(tx, account)
    return rows.listed(tx, account)
