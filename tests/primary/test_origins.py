"""The command by which a person clears what a primary remembers of the primaries above."""

from __future__ import annotations

import pytest

from enlist import certificates, origins
from enlist.reasons import Reason, Refused
from enlist.v1 import hierarchy_pb2 as pb
from enlist.v1 import journal_pb2
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import UpperState
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc.context import Context
from enlist_primary.store import levels as rows
from enlist_primary.store.database import Transaction
from tests.attacks.above import Above, stand_under, way_up
from tests.support.inprocess import Running, refused_by
from tests.support.waiting import eventually


async def left(own: Context) -> Above:
    """A primary that was above once."""
    above = await stand_under(own)
    authority = certificates.der(above.signer.authority.certificate)
    await own.upper.join(authority, above.name, UpperState.GONE, own.now())
    return above


async def test_what_was_above_is_listed_and_cleared_by_a_journalled_decision(running: Running, own: Context) -> None:
    stub = running.admin.hierarchy
    gone = (await left(own)).signer.authority.primary_id
    here = await stand_under(own)
    listed = (await stub.ListOrigins(pb.ListOriginsRequest())).origins
    assert {each.primary_id: (each.primary_name, each.above) for each in listed} == {
        gone: ("", False),
        here.signer.authority.primary_id: ("upper", True),
    }
    await stub.ClearOrigin(pb.ClearOriginRequest(primary_id=gone))
    assert [each.primary_id for each in (await stub.ListOrigins(pb.ListOriginsRequest())).origins] == [here.fingerprint]
    request = journal_pb2.ListEntriesRequest(parent=f"accounts/{PRIMARY}")
    entry = (await running.admin.journal.ListEntries(request)).entries[-1]
    assert (entry.action, dict(entry.detail)) == ("origin.clear", {"primary id": gone})
    assert entry.actor.startswith("local:")


async def test_clearing_refuses_what_is_above_unknown_or_not_said(running: Running, own: Context) -> None:
    stub = running.admin.hierarchy
    here = (await stand_under(own)).signer.authority.primary_id
    for request, reason in (
        (pb.ClearOriginRequest(primary_id=here), Reason.STATE_FORBIDS),
        (pb.ClearOriginRequest(primary_id="ab" * 32), Reason.NOT_FOUND),
        (pb.ClearOriginRequest(primary_id="ab"), Reason.INVALID_ARGUMENT),
        (pb.ClearOriginRequest(primary_id="ab" * 32, all=True), Reason.INVALID_ARGUMENT),
        (pb.ClearOriginRequest(), Reason.INVALID_ARGUMENT),
    ):
        assert (await refused_by(stub.ClearOrigin(request))).reason is reason


async def test_full_memory_takes_another_parent_once_it_is_cleared(
    running: Running, own: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks row 51. The secondary on this host is told that it must say again what was refused."""
    stub = running.admin.hierarchy
    await left(own)
    monkeypatch.setattr(origins, "REMEMBERED", 1)
    with pytest.raises(Refused) as caught:
        await stand_under(own)
    assert caught.value.reason is Reason.ORIGINS_FULL
    said_again = own.upper.cleared
    await stub.ClearOrigin(pb.ClearOriginRequest(all=True))
    await eventually(said_again.is_set, what="the streams to be told")
    assert not own.upper.cleared.is_set()
    await stand_under(own)


async def test_whoever_clears_what_is_remembered_streams_are_told(own: Context) -> None:
    """It is a row: the change log says that it changed."""
    gone = (await left(own)).signer.authority.primary_id
    said_again = own.upper.cleared
    await own.database.write(PRIMARY, levels.clear_origin, gone, [], PRIMARY_ITSELF, own.now())
    await eventually(said_again.is_set, what="the streams to be told")
    assert own.upper.row is not None
    assert gone not in own.upper.row.memory.primaries


async def test_damaged_memory_takes_nothing_until_it_is_cleared(running: Running, own: Context) -> None:
    stub = running.admin.hierarchy
    above = await stand_under(own)
    await own.upper.take(above.set(3), {})

    def damage(tx: Transaction) -> None:
        tx.run("UPDATE upper SET memory = $1 WHERE account = $2", "{", PRIMARY)

    await own.database.write(PRIMARY, damage)
    await own.upper.load()
    for attempt in (own.upper.ascend(way_up(above.step(2))), own.upper.take(above.set(4), {})):
        with pytest.raises(Refused) as caught:
            await attempt
        assert caught.value.reason is Reason.ORIGINS_UNREADABLE
    assert [kept.verified.version.number for kept in own.upper.snapshot.sets] == [3]
    assert (await refused_by(stub.ListOrigins(pb.ListOriginsRequest()))).reason is Reason.ORIGINS_UNREADABLE
    await stub.ClearOrigin(pb.ClearOriginRequest(all=True))
    await own.upper.take(above.set(4), {})
    row = await own.database.read(rows.upper)
    assert row is not None
    assert not row.memory.damaged


async def test_reader_keeps_one_consistent_view_while_another_step_comes(own: Context) -> None:
    above = await stand_under(own)
    await own.upper.take(above.set(3), {})
    before = own.upper.snapshot
    moved = Above(own.signer, account="other.example", server="n" * 10, signer=above.signer, begins=above.begins + 1)
    step = moved.step()
    step.consent, step.consent_signature = before.message.ancestors[0].consent, before.message.ancestors[0].consent_signature
    await own.upper.ascend(way_up(step))
    assert (before.above[0].origin.account, len(before.sets)) == ("corp.example", 1)
    assert (own.upper.above[0].origin.account, len(own.upper.snapshot.sets)) == ("other.example", 0)
    await own.upper.take(moved.set(1), {})
    assert [kept.verified.version.number for kept in own.upper.snapshot.sets] == [1]


async def test_status_names_this_primary_and_those_above_by_primary_id(running: Running, own: Context) -> None:
    above = await stand_under(own)
    status = await running.admin.hierarchy.GetStatus(pb.GetStatusRequest())
    assert status.primary_id == running.authority.primary_id
    assert [each.primary_id for each in status.above] == [above.signer.authority.primary_id]
