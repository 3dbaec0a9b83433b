"""Groups, places and labels over the wire: `rpc.groups`, `rpc.hierarchy`, `rpc.trust`. The rules are tested with the operations."""

from __future__ import annotations

import itertools

from enlist.reasons import Reason
from enlist.v1 import account_pb2, journal_pb2, registration_pb2, server_pb2, trust_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.store import servers as server_rows
from tests.support.inprocess import ACCOUNT, Asker, Running, refused_by
from tests.support.links import linked
from tests.support.waiting import eventually

PARENT = f"accounts/{ACCOUNT}"
WINDOW = pb.MaintenanceWindow(start="0 2 * * sat", duration_seconds=7200, time_zone="Europe/Paris")


async def add(running: Running, path: str) -> pb.Group:
    """The administrator makes a group."""
    return await running.admin.hierarchy.CreateGroup(pb.CreateGroupRequest(parent=PARENT, path=path))


async def listed(running: Running) -> list[pb.Group]:
    """All groups of the account."""
    return list((await running.admin.hierarchy.ListGroups(pb.ListGroupsRequest(parent=PARENT))).groups)


async def pending(running: Running, name: str = "asker") -> tuple[Asker, str]:
    """A server that waits for a decision, and its resource name."""
    asker = Asker(running, name)
    async with running.stranger() as stub:
        return asker, f"{PARENT}/servers/{(await asker.register(stub)).server_id}"


async def head(running: Running) -> int:
    """How many decisions the account's journal holds."""
    return (await running.admin.accounts.GetAccount(account_pb2.GetAccountRequest(name=PARENT))).head


async def test_a_tree_is_made_changed_and_ended(running: Running) -> None:
    hierarchy = running.admin.hierarchy
    paris = await add(running, "Sites/Paris")
    assert (paris.account, paris.path, paris.HasField("window")) == (ACCOUNT, "Sites/Paris", False)
    before = await head(running)
    assert await add(running, "/Sites/Paris/") == paris
    assert await head(running) == before

    sleepy = await hierarchy.UpdateGroup(pb.UpdateGroupRequest(parent=PARENT, path="Sites/Paris", window=WINDOW))
    assert sleepy == pb.Group(account=ACCOUNT, id=paris.id, path="Sites/Paris", window=WINDOW)
    moved = await hierarchy.MoveGroup(pb.MoveGroupRequest(parent=PARENT, path="Sites/Paris", new_path="Paris"))
    assert moved == pb.Group(account=ACCOUNT, id=paris.id, path="Paris", window=WINDOW)
    assert [group.path for group in await listed(running)] == ["/", "Paris", "Sites"]
    assert (await listed(running))[1] == moved
    assert not (await hierarchy.UpdateGroup(pb.UpdateGroupRequest(parent=PARENT, path="Paris"))).HasField("window")
    await hierarchy.RemoveGroup(pb.RemoveGroupRequest(parent=PARENT, path="Paris"))
    assert [group.path for group in await listed(running)] == ["/", "Sites"]


async def test_refusals_come_with_their_reasons(running: Running) -> None:
    hierarchy = running.admin.hierarchy
    await add(running, "A/B")
    before = await head(running)
    calls = {
        Reason.GROUP_NOT_EMPTY: hierarchy.RemoveGroup(pb.RemoveGroupRequest(parent=PARENT, path="A")),
        Reason.WOULD_LOOP: hierarchy.MoveGroup(pb.MoveGroupRequest(parent=PARENT, path="A", new_path="A/B/A")),
        Reason.ALREADY_EXISTS: hierarchy.MoveGroup(pb.MoveGroupRequest(parent=PARENT, path="A/B", new_path="A")),
        Reason.NOT_FOUND: hierarchy.RemoveGroup(pb.RemoveGroupRequest(parent=PARENT, path="B")),
        Reason.INVALID_ARGUMENT: hierarchy.RemoveGroup(pb.RemoveGroupRequest(parent=PARENT)),
        Reason.ACCOUNT_UNKNOWN: hierarchy.CreateGroup(pb.CreateGroupRequest(parent="accounts/nowhere.example", path="A")),
        Reason.SCHEDULE_INVALID: hierarchy.UpdateGroup(
            pb.UpdateGroupRequest(parent=PARENT, path="A", window=pb.MaintenanceWindow(start="0 2 31 2 *", duration_seconds=60))
        ),
    }
    for reason, call in calls.items():
        assert (await refused_by(call)).reason is reason
    assert await head(running) == before


async def test_of_an_account_that_is_not_there_nothing_is_listed(running: Running) -> None:
    hierarchy, parent = running.admin.hierarchy, "accounts/nowhere.example"
    for call in (
        hierarchy.ListGroups(pb.ListGroupsRequest(parent=parent)),
        hierarchy.ListServers(pb.ListServersRequest(parent=parent)),
        hierarchy.ListBelow(pb.ListBelowRequest(parent=parent)).read(),
    ):
        assert (await refused_by(call)).reason is Reason.ACCOUNT_UNKNOWN


async def test_a_server_is_authorized_into_a_group_in_one_decision(running: Running) -> None:
    await add(running, "Sites/Paris")
    _, name = await pending(running)
    request = trust_pb2.AuthorizeServerRequest(name=name, group="Sites/Pariss")
    refused = await refused_by(running.admin.trust.AuthorizeServer(request))
    assert refused.reason is Reason.NOT_FOUND
    assert "group add acme.example/Sites/Pariss" in refused.message
    before = await head(running)
    made = await running.admin.trust.AuthorizeServer(trust_pb2.AuthorizeServerRequest(name=name, group="Sites/Paris"))
    assert (made.state, made.group, made.revision) == (server_pb2.SERVER_STATE_TRUSTED, "Sites/Paris", before + 1)
    entries = (await running.admin.journal.ListEntries(journal_pb2.ListEntriesRequest(parent=PARENT, after=before))).entries
    assert [(entry.action, entry.detail["group"]) for entry in entries] == [("server.authorize", "Sites/Paris")]


async def test_a_server_is_moved_and_labelled_while_its_link_stays_open(running: Running) -> None:
    """The directory knows its new place, so that whoever holds the link can tell what it shall get there."""
    paris = await add(running, "Sites/Paris")
    asker, name = await pending(running)
    id = name.rpartition("/")[2]
    await running.authorize(id)
    async with running.stranger() as stub:
        await asker.fetch(stub)
    async with linked(asker, kinds=["policy/chrony", "task/reboot"]) as link:
        assert link.welcome.group == "/"
        moved = await running.admin.hierarchy.MoveServer(pb.MoveServerRequest(name=name, group="Sites/Paris"))
        assert (moved.group, moved.connected) == ("Sites/Paris", True)
        request = pb.LabelServerRequest(name=name, add=["printer", "laser"])
        assert list((await running.admin.hierarchy.LabelServer(request)).labels) == ["laser", "printer"]
        request = pb.LabelServerRequest(name=name, remove=["laser"])
        assert list((await running.admin.hierarchy.LabelServer(request)).labels) == ["printer"]

        own = running.primary
        known = await own.context.database.read(lambda tx: server_rows.standings(tx, ACCOUNT, (id,)))

        async def heard() -> bool:
            return await own._directory.find(ACCOUNT, id, known[0].key) == known[0]

        await eventually(heard)
        assert known[0].group_id == paris.id
        server = await running.server(id)
        assert (server.connected, server.group, list(server.labels)) == (True, "Sites/Paris", ["printer"])
        assert list(server.kinds) == ["policy/chrony", "task/reboot"]
        assert not link.stream.done()


async def test_servers_land_where_the_account_says_and_are_told_so_before(running: Running) -> None:
    assert (await running.admin.accounts.GetAccount(account_pb2.GetAccountRequest(name=PARENT))).landing_group == "/"
    request = account_pb2.UpdateAccountRequest(name=PARENT, landing_group="New")
    assert (await refused_by(running.admin.accounts.UpdateAccount(request))).reason is Reason.NOT_FOUND
    await add(running, "New")
    changed = await running.admin.accounts.UpdateAccount(request)
    assert (changed.landing_group, changed.contact) == ("New", "ops@acme.example")
    everything = await running.admin.accounts.ListAccounts(account_pb2.ListAccountsRequest())
    assert [account.landing_group for account in everything.accounts] == ["New"]
    async with running.stranger() as stub:
        validated = await stub.registration.Validate(registration_pb2.ValidateRequest(account_domain=ACCOUNT))
        assert validated.group == "New"
    _, name = await pending(running)
    assert (await running.server(name.rpartition("/")[2])).group == "New"
    back = account_pb2.UpdateAccountRequest(name=PARENT, landing_group="/")
    assert (await running.admin.accounts.UpdateAccount(back)).landing_group == "/"


async def test_servers_are_listed_by_their_name_or_their_id(running: Running) -> None:
    asker, name = await pending(running)
    await pending(running)
    id = name.rpartition("/")[2]
    for wanted, parent in itertools.product((asker.name, id), (PARENT, "accounts/-")):
        request = pb.ListServersRequest(parent=parent, display_name_or_id=wanted)
        found = (await running.admin.hierarchy.ListServers(request)).servers
        assert id in [server.id for server in found]
        assert all(wanted in (server.display_name, server.id) for server in found)
    nobody = pb.ListServersRequest(parent=PARENT, display_name_or_id=f"{id}x")
    assert not (await running.admin.hierarchy.ListServers(nobody)).servers
