"""Attacks rows 24 and 37: a secondary that plays a middle server without leave, and one that has leave and lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2, hierarchy_pb2, server_pb2
from enlist_primary.federation import descendants as links_below
from enlist_primary.rpc.listeners import MESSAGE_LIMIT
from tests.attacks.above import KEPT, Above, policy, stand_under, way_up
from tests.attacks.hostile import Speaker, Yard, below, linked, made_up, speaking, yard
from tests.attacks.world import World, populated
from tests.support import upward
from tests.support.inprocess import ACCOUNT
from tests.support.pretender import new_signer
from tests.support.waiting import eventually

_numbers = count(1)
NOBODY = "a" * 10
ALL = hierarchy_pb2.ListBelowRequest(parent=f"accounts/{ACCOUNT}")


@pytest.fixture
async def ground(world: World) -> AsyncIterator[Yard]:
    """A group with a hostile server and an honest one."""
    async with yard(world, f"Middle {next(_numbers)}") as made:
        yield made


async def listed(ground: Yard, via: str) -> list[Any]:
    """What is shown to stand below a server."""
    pages = [page async for page in ground.world.running.admin.hierarchy.ListBelow(ALL)]
    return [each.server for page in pages for each in page.servers if each.via == via]


async def kept(ground: Yard) -> list[Any]:
    """What is written down of servers below the hostile one."""
    return [row for row in (await ground.said())["below_server"] if row["via"] == ground.hostile.id]


async def answered(speaker: Speaker, number: int = 1) -> Any:
    """The newest answer to whether a primary may stand below it."""
    await eventually(lambda: len(speaker.answers()) >= number, what="an answer")
    return speaker.answers()[-1]


async def accepted(ground: Yard) -> Any:
    """Lets the hostile server have secondaries; the authority below it."""
    await ground.allow(ground.hostile)
    signer = new_signer()
    await ground.hostile.say_lower(signer)
    assert (await answered(ground.hostile)).cross_certificate
    return signer


# --- Without leave --------------------------------------------------------------------------------------------------------------


async def test_without_leave_nothing_stands_below(ground: Yard) -> None:
    """Neither a primary on its host nor the servers it invents; asking is written in the log, and in no journal."""
    hostile, head, before = ground.hostile, await ground.world.head(), await ground.said()
    await hostile.say_below(below(NOBODY), below(ground.sibling.id), whole=True)
    await hostile.say_lower(new_signer())
    refused = await answered(hostile)
    assert (refused.cross_certificate, refused.reason) == (b"", Reason.NOT_ALLOWED)
    await hostile.say_below(below(NOBODY), gone=[ground.sibling.id], whole=True)
    await hostile.through()
    assert await ground.said() == before
    assert await listed(ground, hostile.id) == []
    assert await ground.world.head() == head
    assert "child primary refused" in [record.getMessage() for record in ground.world.logged]
    assert not (await ground.world.running.server(hostile.id)).lower_primary


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("consent to another", Reason.SET_INVALID),
        ("a state that is over", Reason.SET_INVALID),
        ("another one's signature", Reason.SET_INVALID),
        ("no certificate", Reason.IDENTITY_CHANGED),
        ("the primary itself", Reason.SET_INVALID),
        ("the honest one's", Reason.SET_INVALID),
    ],
)
async def test_a_forged_consent_makes_no_primary_below(ground: Yard, lie: str, reason: Reason) -> None:
    """Row 24: with leave to have secondaries, it still needs the word of the authority that shall stand below."""
    await ground.allow(ground.hostile)
    head, signer, own = await ground.world.head(), new_signer(), ground.world.running.authority
    changes: dict[str, Any] = {
        "consent to another": {"parent_primary_id": new_signer().authority.primary_id},
        "a state that is over": {"state": document_pb2.ANCESTOR_STATE_KEPT},
    }
    if lie in changes:
        await ground.hostile.say_lower(signer, **changes[lie])
    else:
        consent = document_pb2.Consent(
            parent_primary_id=own.primary_id, epoch=1, number=1, state=document_pb2.ANCESTOR_STATE_PRESENT
        ).SerializeToString()
        authority = {
            "no certificate": b"\x30\x03\x02\x01\x01",
            "the primary itself": certificates.der(own.certificate),
            "the honest one's": certificates.der(certificates.load(ground.sibling.asker.certificate)),
        }.get(lie, certificates.der(signer.authority.certificate))
        signature = new_signer().sign_consent(consent)
        lower = hierarchy_pb2.LowerPrimary(authority_certificate=authority, consent=consent, consent_signature=signature)
        await ground.hostile.link.send(lower=lower)
    refused = await answered(ground.hostile)
    assert not refused.cross_certificate
    assert refused.reason in {reason, Reason.CERTIFICATE_INVALID, Reason.INVALID_ARGUMENT}
    assert await ground.world.head() == head


# --- With leave -----------------------------------------------------------------------------------------------------------------


async def test_ids_of_others_below_it_are_below_it_only(ground: Yard) -> None:
    """It says that the honest server, the victim and itself stand below it, revoked: those themselves are as they were."""
    await accepted(ground)
    hostile, sibling = ground.hostile, ground.sibling
    before = await ground.of("task_result", sibling.id)
    ids = (sibling.id, ground.world.victim_id, hostile.id)
    lies = [hostile.policy(hostile.desired()), hostile.run(ground.run)]
    revoked = server_pb2.SERVER_STATE_REVOKED
    await hostile.say_below(*(below(id, display_name="victim", state=revoked, reports=lies) for id in ids))
    await eventually(lambda: listed(ground, hostile.id), what="what it says")
    await hostile.say_below(gone=[*ids, f"../{sibling.id}"], whole=True)
    await hostile.through()
    assert await listed(ground, hostile.id) == []
    for id in ids:
        assert (await ground.world.running.server(id)).state == server_pb2.SERVER_STATE_TRUSTED
    assert await ground.of("policy_report", sibling.id) == []
    assert await ground.of("task_result", sibling.id) == before
    assert (await ground.counts()).applied == 0


async def test_what_it_says_below_is_bounded_and_printable(ground: Yard) -> None:
    """Row 41 besides: names, places and kinds from below end up on an administrator's terminal."""
    await accepted(ground)
    hostile, text = ground.hostile, "\x1b[2J\u202e" + "x" * 100_000
    fields: dict[str, Any] = {"display_name": text, "place": text, "comparison_code": text}
    kinds = ["policy/x; reboot", "../x", *(f"policy/k{n}" for n in range(2000))]
    await hostile.say_below(below(NOBODY, **fields, kinds=kinds, connected_time={"seconds": -5}, unknown_since={"seconds": 2**60}))
    (found,) = await eventually(lambda: listed(ground, hostile.id), what="the server below")
    assert all(value.isprintable() and len(value) < 1000 for value in (found.display_name, found.place, found.comparison_code))
    assert len(found.kinds) <= 256
    assert all(kind.startswith("policy/k") for kind in found.kinds)


async def test_paths_that_make_no_sense_are_passed_over_and_fill_no_memory(ground: Yard) -> None:
    await accepted(ground)
    hostile, words = ground.hostile, ground.world.running.primary.context.subtree.reports
    known = len(words)
    senseless = ["", "/", "..", f"../{NOBODY}", f"{NOBODY}/", "A" * 10, "x" * 10_000, "\0", "/".join([NOBODY] * 17), f"{NOBODY}\n"]
    await hostile.say_below(*(below(path) for path in senseless), below(NOBODY, state=99))
    await hostile.say_below(*(below(f"not an id {n}", reports=[hostile.policy(made_up(n))]) for n in range(3000)))
    await hostile.through()
    assert await listed(ground, hostile.id) == []
    assert len(words) <= known + 2  # the hostile server's own, and the honest one's


async def test_servers_it_invents_are_as_many_as_there_may_be_and_no_more(ground: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_below, "SERVERS", 40)
    await accepted(ground)
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    ids = [f"{'b' * 8}{first}{second}" for first in letters[:8] for second in letters]
    for begin in range(0, len(ids), 64):
        await ground.hostile.say_below(*map(below, ids[begin : begin + 64]))
    await ground.hostile.through()
    assert len(await kept(ground)) == 40
    assert len(await listed(ground, ground.hostile.id)) == 40


async def test_leave_that_was_taken_back_is_taken_back_on_the_open_link(ground: Yard) -> None:
    await accepted(ground)
    hostile = ground.hostile
    await hostile.say_below(below(NOBODY), whole=True)
    await eventually(lambda: listed(ground, hostile.id), what="the server below")
    await ground.allow(hostile, may=False)
    refused = await answered(hostile, 2)
    assert refused.reason == Reason.NOT_ALLOWED
    await hostile.say_below(below(NOBODY), below("b" * 10), whole=True)
    await hostile.through()
    assert await listed(ground, hostile.id) == []
    assert await kept(ground) == []


async def test_primaries_that_take_turns_below_it_fill_no_journal(ground: Yard) -> None:
    """The one that stands below stays the one; a hostile server makes up others as it likes, and new words of the same one."""
    first = await accepted(ground)
    head, signers = await ground.world.head(), [first, new_signer(), new_signer()]
    for turn in range(12):
        await ground.hostile.say_lower(signers[turn % 3], number=turn + 2)
    await ground.hostile.through()
    assert await ground.world.head() == head
    assert (await ground.world.running.server(ground.hostile.id)).lower_primary == first.authority.fingerprint


async def test_an_authority_that_stands_above_already_does_not_stand_below(ground: Yard) -> None:
    """A loop: the consent is real, for whoever runs both ends; the primary itself cannot be below itself."""
    await ground.allow(ground.hostile)
    await ground.hostile.say_lower(ground.world.running.primary.context.signer)
    assert (await answered(ground.hostile)).reason == Reason.WOULD_LOOP


# --- Upward ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Middle:
    """A primary that stands under another one, which wants two policies and twenty runs of every server."""

    world: World
    above: Above


@pytest.fixture
async def middle(tmp_path: Path) -> AsyncIterator[Middle]:
    """One of its own."""
    async with populated(tmp_path) as world:
        above = await stand_under(world.running.primary.context)
        item, body = policy("a", 1, {})
        items = [replace(item, kind=kind) for kind in KINDS] + [replace(item, kind="task/restart", name=run) for run in RUNS]
        await world.running.primary.context.upper.take(above.set(2, *items), {item.digest: body})
        yield Middle(world, above)
        await world.assert_unharmed()
        world.assert_nothing_leaked()


KINDS = ("policy/a", "policy/b")
RUNS = tuple(f"{'c' * 8}{first}{second}" for first in "abcd" for second in "abcde")


@pytest.mark.parametrize("what", ["sentences", "items", "outputs"])
async def test_what_one_server_says_of_documents_from_above_fits_into_what_goes_up(middle: Middle, what: str) -> None:
    """Else one server below would end, again and again, the link through which all others are seen from above."""
    async with speaking(middle.world, "hostile", "/") as hostile:
        words = {
            "sentences": [hostile.policy(made_up(1), kind=kind, message="x" * 1_000_000) for kind in KINDS],
            "items": [hostile.policy(made_up(*[1] * 20_000), kind=kind, applied_items=[]) for kind in KINDS],
            "outputs": [hostile.run(run, output=b"x" * 65_536) for run in RUNS],  # this one is even honest
        }[what]
        for word in words:
            await hostile.say(word)
        await hostile.through()
        said = await upward.whole(middle.world.running.primary.context.subtree.open())
    assert {server.path for message in said for server in message.servers} >= {hostile.id}
    assert max(hierarchy_pb2.FromSecondary(below=message).ByteSize() for message in said) <= MESSAGE_LIMIT


async def test_a_server_that_forges_words_of_others_upward_is_not_heard(middle: Middle) -> None:
    """Without leave, nothing that it says of servers below reaches the primary above."""
    async with (
        speaking(middle.world, "hostile", "/") as hostile,
        linked(middle.world, *(await middle.world.trusted("honest"))) as honest,
    ):
        lie = hostile.policy(made_up(1), kind="policy/a")
        await hostile.say_below(below(honest.id, reports=[lie]), below(middle.world.victim_id, reports=[lie]), whole=True)
        await hostile.through()
        said = await upward.whole(middle.world.running.primary.context.subtree.open())
    servers = {server.path: server for message in said for server in message.servers}
    assert all("/" not in path for path in servers)
    assert not any(server.reports for server in servers.values())


async def test_what_the_one_above_says_of_those_above_it_brings_nothing_older_back(middle: Middle) -> None:
    """Row 38 at a primary: the upper one drops the top-most one, names it again, and hands down what that wanted before."""
    own = middle.world.running.primary.context.upper
    (near,) = own.snapshot.message.ancestors
    top = Above(middle.above.signer, "top", "holding.example", "t" * 10)
    item, body = policy("a", 6, {"above": "six"}, "/above")
    await own.ascend(way_up(near, top.step()))
    await own.take(top.set(6, item), {item.digest: body})
    older = top.set(5)
    with pytest.raises(Refused, match="number 5 came after"):
        await own.take(older, {})
    await own.ascend(way_up(near))
    await own.ascend(way_up(near, top.step()))
    with pytest.raises(Refused, match="number 5 came after"):
        await own.take(older, {})


async def test_what_the_one_above_says_of_whom_it_stands_under_is_not_replayed(middle: Middle) -> None:
    """Row 38 for the way up: "it stands above" counts no more after the newer "what it set stays, unlocked"."""
    own = middle.world.running.primary.context.upper
    (near,) = own.snapshot.message.ancestors
    top = Above(middle.above.signer, "top", "holding.example", "t" * 10)
    await own.ascend(way_up(near, top.step(3, KEPT)))
    with pytest.raises(Refused) as refused:
        await own.ascend(way_up(near, top.step(2)))
    assert refused.value.reason is Reason.SET_STALE
