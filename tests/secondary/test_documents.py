"""The sets that a server holds: verified, complete, on the disk. Attacks rows 24, 38, 46; faults rows 2, 7, 9."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from enlist import documents
from enlist.documents import SetVersion
from enlist.link.pace import PIECE
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.v1 import document_pb2 as pb
from enlist.v1.hierarchy_pb2 import Hello, SetAck, SetRefused
from enlist_secondary.documents import Document, Documents, versions
from tests.secondary.disks import Crash, Disk
from tests.secondary.origins import START, Line, Primary, Wish, bodies, pieces, policy, run, run_id, window, wish
from tests.support.waiting import eventually

MOTD, NTP = policy(1, {"text": "hello"}), policy(2, {"server": "a"}, kind="ntp")


@pytest.fixture
def primary() -> Primary:
    return Primary()


def loaded(folder: Path, *origins: Primary) -> Documents:
    """What a start makes of a folder."""
    held = Documents(folder / "documents", [each.origin for each in origins])
    held.load()
    return held


async def contents(held: Documents, prefix: str = "") -> list[tuple[str, bytes]]:
    return [(document.item.kind, document.body) for document in await held.all(prefix)]


def expected(*wishes: Wish) -> list[tuple[str, bytes]]:
    return [(wish.item.kind, wish.body) for wish in wishes]


def stored(folder: Path) -> set[str]:
    return {path.name for path in (folder / "documents" / "bodies").iterdir()}


def reason(call: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.reason


def linked(folder: Path, *origins: Primary) -> tuple[Documents, Line]:
    """What a start makes of a folder, and a link over it."""
    held = loaded(folder, *origins)
    return held, Line(held)


async def holding(folder: Path, primary: Primary, *wishes: Wish) -> tuple[Documents, Line]:
    """A server that holds these, and the link over which they came."""
    held, line = linked(folder, primary)
    line.bring(primary.sign(wishes), bodies(wishes))
    await held.save()
    return held, line


def introduced(held: Documents) -> Hello:
    """What the hello of the next link says."""
    hello = Hello()
    held.introduce(hello)
    return hello


def versions_of(replies: Iterable[SetAck | SetRefused]) -> list[int]:
    return [each.number for each in replies]


def refusal(refused: Refused | None) -> Reason | None:
    """Why a set was refused."""
    return refused.reason if refused is not None else None


async def test_set_counts_once_it_is_saved_and_after_a_restart(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    assert await contents(held) == []
    assert await held.save()
    assert await contents(held) == expected(MOTD, NTP)
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD, NTP)
    assert not await held.save()


async def test_set_is_acknowledged_once_it_is_on_the_disk(tmp_path: Path, primary: Primary, disk: Disk) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]), [MOTD.body])
    await held.save()
    assert versions_of(line.answers().set_acks) == [], "it is not complete"
    line.bring(whole=[NTP.body])
    disk.full = lambda _: True
    with pytest.raises(Refused):
        await held.save()
    assert versions_of(line.answers().set_acks) == []
    disk.full = lambda _: False
    await held.save()
    assert versions_of(line.answers().set_acks) == [1]


async def test_bodies_may_come_in_any_order_and_more_than_once(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]))
    for body in (NTP.body, NTP.body, b"nobody's", MOTD.body, MOTD.body):
        line.bring(whole=[body])
        await held.save()
    assert await contents(held) == expected(MOTD, NTP)


async def test_body_that_nobody_asked_for_is_not_kept(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 37."""
    held, line = linked(tmp_path, primary)
    line.bring(whole=[MOTD.body])
    (told,) = line.answers().body_acks
    assert (told.received, told.whole, told.again) == (0, False, True)
    line.bring(primary.sign([MOTD]))
    await held.save()
    assert stored(tmp_path) == set()


async def test_body_over_the_limit_ends_the_link_even_if_it_was_signed(tmp_path: Path, primary: Primary) -> None:
    """It could not be read back."""
    huge = wish("policy/motd", "/", 1, b"x" * (documents.BODY_LIMIT + 1))
    held, line = linked(tmp_path, primary)
    assert reason(lambda: line.bring(primary.sign([huge]), [huge.body])) is Reason.LINK_VIOLATION
    await held.save()
    assert stored(tmp_path) == set()


async def test_bodies_in_memory_have_a_bound(tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 37. What the disk does not take is not gathered without end."""
    monkeypatch.setattr(documents, "BODIES_LIMIT", len(MOTD.body) + 1)
    _, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]), [MOTD.body])
    assert reason(lambda: line.bring(whole=[NTP.body])) is Reason.LINK_VIOLATION


async def test_each_origin_has_a_bound_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults row 7: two honest primaries bring as much as they may while the disk is slow."""
    upper, lower = Primary(), Primary()
    monkeypatch.setattr(documents, "BODIES_LIMIT", max(len(MOTD.body), len(NTP.body)))
    held, line = linked(tmp_path, upper, lower)
    line.bring(upper.sign([NTP]))
    line.bring(lower.sign([MOTD]), [MOTD.body])
    line.bring(whole=[NTP.body])
    assert await held.save()
    assert await contents(held) == expected(NTP, MOTD)


async def test_what_a_newer_set_leaves_out_is_gone_and_so_is_its_body(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    for wishes in ([MOTD, NTP], [NTP], []):
        line.bring(primary.sign(wishes), bodies(wishes))
        await held.save()
        assert await contents(held) == expected(*wishes)
        assert stored(tmp_path) == {wish.item.digest.hex() for wish in wishes}


async def test_body_that_cannot_be_written_holds_up_no_other(tmp_path: Path, primary: Primary, disk: Disk) -> None:
    """Faults row 7: a policy that would make room comes behind a large one."""
    held, line = linked(tmp_path, primary)
    large = MOTD.item.digest.hex()
    disk.full = lambda path: large in path.name
    line.bring(primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    with pytest.raises(Refused):
        await held.save()
    assert stored(tmp_path) == {NTP.item.digest.hex()}
    disk.full = lambda _: False
    await held.save()
    assert await contents(held) == expected(MOTD, NTP)


async def test_set_that_names_one_body_too_often_is_refused(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks row 55: each of its items has to be worked on."""
    monkeypatch.setattr(documents, "BODIES_LIMIT", 4 * len(MOTD.body))
    held, line = await holding(tmp_path, primary, NTP)
    items = [Wish(replace(MOTD.item, name=f"Group {number}"), MOTD.body) for number in range(5)]
    line.bring(primary.sign(items), [MOTD.body])
    await held.save()
    (refused,) = line.answers().set_refusals
    assert refused.reason == Reason.DOCUMENT_TOO_LARGE
    assert await contents(held) == expected(NTP)
    assert await contents(loaded(tmp_path, primary)) == expected(NTP)
    line.bring(primary.sign(items[:4]), [MOTD.body])
    await held.save()
    assert len(await contents(held)) == 4


async def test_only_bodies_that_are_not_here_need_to_travel(tmp_path: Path, primary: Primary) -> None:
    await holding(tmp_path, primary, MOTD)
    again, line = linked(tmp_path, primary)
    assert [list(each.digests) for each in line.hello.held] == [[MOTD.item.digest]]
    line.bring(primary.sign([MOTD, NTP]), [NTP.body])
    assert await again.save()
    assert await contents(again) == expected(MOTD, NTP)


async def test_hello_names_what_is_held(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    assert list(line.hello.held) == []
    signed = primary.sign([MOTD])
    line.bring(signed, [MOTD.body])
    assert list(Line(held).hello.held) == [], "what is not on the disk is not held"
    await held.save()
    (named,) = Line(held).hello.held
    assert (named.origin, named.epoch, named.number) == (primary.name, 1, 1)
    assert named.content == documents.verify(signed, primary.origin).content


# --- A newer set that still travels -------------------------------------------------------------------------------------------


NEWER_NTP = policy(7, {"server": "b"}, kind="ntp")


async def test_newer_set_counts_for_complete_kinds_only(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38: whoever hands sets down may leave bodies out, and gains nothing: each kind counts as a whole."""
    held, line = await holding(tmp_path, primary, MOTD, NTP)
    lower = policy(6, {"text": "for Paris"}, name="Paris")
    line.bring(primary.sign([MOTD, lower, NEWER_NTP]), [NEWER_NTP.body])
    assert await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(NEWER_NTP, MOTD)
    line.bring(whole=[lower.body])
    assert await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(MOTD, lower, NEWER_NTP)


async def test_newer_set_ends_nothing_of_a_kind_that_still_travels(tmp_path: Path, primary: Primary) -> None:
    held, line = await holding(tmp_path, primary, MOTD, NTP)
    line.bring(primary.sign([NEWER_NTP]))
    await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(NTP), "motd is not wanted any more, ntp is in another version"


async def test_first_set_counts_for_complete_kinds_before_the_rest_is_here(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]), [MOTD.body])
    assert await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(MOTD)


async def test_runs_count_each_for_itself(tmp_path: Path, primary: Primary) -> None:
    first, second, third = (run(run_id(number), number) for number in (1, 2, 3))
    held, line = await holding(tmp_path, primary, first)
    line.bring(primary.sign([second, first, third]), [third.body])
    await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(first, third)


async def test_run_whose_new_document_still_travels_is_not_ended(tmp_path: Path, primary: Primary) -> None:
    first, changed = run(run_id(1), 1), run(run_id(1), 2, deadline=START + 900)
    held, line = await holding(tmp_path, primary, first)
    line.bring(primary.sign([changed]))
    await held.save()
    assert await contents(held) == expected(first)
    line.bring(whole=[changed.body])
    await held.save()
    assert await contents(held) == expected(changed)


async def test_no_policy_counts_before_its_maintenance_window(tmp_path: Path, primary: Primary) -> None:
    """Or it would be put in force outside of it."""
    night = window(8, "0 3 * * *")
    held, line = await holding(tmp_path, primary, MOTD)
    line.bring(primary.sign([NEWER_NTP, night]), [NEWER_NTP.body])
    await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(MOTD)
    line.bring(whole=[night.body])
    await held.save()
    assert await contents(held) == expected(NEWER_NTP, night)


async def test_kind_that_changes_while_another_one_travels_does_not_go_back(tmp_path: Path, primary: Primary) -> None:
    """What the set between the two brought counts on, and not what the complete one says."""
    large, second, third = policy(2, {"x": 1}, kind="large"), policy(3, {"text": "second"}), policy(4, {"text": "third"})
    held, line = await holding(tmp_path, primary, MOTD)
    for wishes, carried, expect in (
        ([second, large], [second.body], [second]),
        ([third, large], [], [second]),
        ([third, NTP, large], [NTP.body], [NTP, second]),
        ([third, NEWER_NTP, large], [], [NTP, second]),
        ([third, NEWER_NTP, large], [third.body], [third, NTP]),
        ([third, NEWER_NTP, large], bodies([NEWER_NTP, large]), [third, NEWER_NTP, large]),
    ):
        line.bring(primary.sign(wishes), carried)
        await held.save()
        for there in (held, loaded(tmp_path, primary)):
            assert await contents(there) == expected(*expect)
    assert not (tmp_path / "documents" / f"{primary.name}.coming").exists()


async def test_kind_that_no_complete_set_has_is_not_ended_while_it_changes(tmp_path: Path, primary: Primary) -> None:
    large = policy(2, {"x": 1}, kind="large")
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, large]), [MOTD.body])
    await held.save()
    line.bring(primary.sign([policy(4, {"text": "other"}), large]))
    await held.save()
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(MOTD)


async def test_newer_set_that_the_disk_does_not_take_does_not_count(tmp_path: Path, primary: Primary, disk: Disk) -> None:
    """Or a crash would take back what it put in force."""
    held, line = await holding(tmp_path, primary, MOTD)
    disk.full = lambda path: path.suffix == ".coming"
    line.bring(primary.sign([NEWER_NTP, policy(9, {"text": "other"})]), [NEWER_NTP.body])
    with pytest.raises(Refused):
        await held.save()
    assert await contents(held) == expected(MOTD)
    disk.full = lambda _: False
    await held.save()
    assert await contents(held) == expected(NEWER_NTP, MOTD)


async def test_newer_set_goes_on_after_a_restart(tmp_path: Path, primary: Primary) -> None:
    held, line = await holding(tmp_path, primary, MOTD)
    newer = primary.sign([MOTD, NTP, NEWER_NTP])
    line.bring(newer, [NTP.body])
    await held.save()
    again, line = linked(tmp_path, primary)
    (named,) = line.hello.held
    assert (named.number, sorted(named.digests)) == (1, [MOTD.item.digest])
    assert named.content != documents.content([MOTD.item]), "what is wanted differs from what is here"
    assert [(each.digest, each.received) for each in line.hello.bodies] == [(NTP.item.digest, len(NTP.body))]
    line.bring(newer, [NEWER_NTP.body])
    assert await again.save()
    assert await contents(again) == expected(MOTD, NTP, NEWER_NTP)
    assert versions_of(line.answers().set_acks) == [2]


async def test_older_set_is_refused_while_a_newer_one_travels_also_after_a_restart(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38: whoever withholds the bodies of the newest set gains nothing by an older one."""
    older, newer = primary.sign([MOTD]), primary.sign([NTP])
    held, line = linked(tmp_path, primary)
    line.bring(newer)
    await held.save()
    for line in (line, linked(tmp_path, primary)[1]):  # noqa: B020 - the second one is over what the first one left
        assert refusal(line.bring(older, [MOTD.body])) is Reason.SET_STALE


async def test_damaged_body_of_a_newer_set_travels_again(tmp_path: Path, primary: Primary) -> None:
    """And lets no older set in."""
    older, newer = primary.sign([MOTD]), primary.sign([NTP, MOTD])
    held, line = linked(tmp_path, primary)
    line.bring(newer, [NTP.body])
    await held.save()
    (tmp_path / "documents" / "bodies" / NTP.item.digest.hex()).write_bytes(b"something else")
    again, line = linked(tmp_path, primary)
    assert await contents(again) == []
    assert refusal(line.bring(older, [MOTD.body])) is Reason.SET_STALE
    line.bring(newer, bodies([NTP, MOTD]))
    await again.save()
    assert await contents(again) == expected(NTP, MOTD)


async def test_set_that_a_crash_left_behind_does_not_replace_a_damaged_newer_one(
    tmp_path: Path, primary: Primary, disk: Disk
) -> None:
    """The process dies after it wrote the newest set, and before it removed one that had been on its way before."""
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD, NTP]), [MOTD.body])
    await held.save()
    line.bring(primary.sign([NEWER_NTP]), [NEWER_NTP.body])
    disk.dies_at = 2
    with pytest.raises(Crash):
        await held.save()
    disk.live()
    body = tmp_path / "documents" / "bodies" / NEWER_NTP.item.digest.hex()
    assert (tmp_path / "documents" / f"{primary.name}.coming").exists()
    body.write_bytes(b"something else")
    again, line = linked(tmp_path, primary)
    line.bring(whole=[NTP.body])
    await again.save()
    assert reason(lambda: again.items("")) is Reason.FILE_FAILED


async def test_newer_set_that_cannot_be_read_comes_again(
    tmp_path: Path, primary: Primary, caplog: pytest.LogCaptureFixture
) -> None:
    held, line = await holding(tmp_path, primary, MOTD)
    newer = primary.sign([MOTD, NTP])
    line.bring(newer)
    await held.save()
    (tmp_path / "documents" / f"{primary.name}.coming").write_bytes(b"\xff" * 50)
    again, line = linked(tmp_path, primary)
    assert "a desired set that was on its way cannot be read" in caplog.text
    assert await contents(again) == expected(MOTD)
    line.bring(newer, [NTP.body])
    await again.save()
    assert await contents(again) == expected(MOTD, NTP)


# --- Parts --------------------------------------------------------------------------------------------------------------------


LARGE = policy(3, {"text": "x" * (3 * PIECE)})


async def test_body_goes_on_where_a_lost_link_stopped(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    signed, parts = primary.sign([LARGE]), pieces(LARGE.body)
    line.take(line.message(signed, parts[:2]))
    await held.save()
    line = Line(held)
    assert [(each.digest, each.received) for each in line.hello.bodies] == [(LARGE.item.digest, 2 * PIECE)]
    line.take(line.message(signed, parts[2:]))
    await held.save()
    assert await contents(held) == expected(LARGE)
    assert versions_of(line.answers().set_acks) == [1]


async def test_pieces_are_answered_with_how_much_is_here(tmp_path: Path, primary: Primary) -> None:
    _, line = linked(tmp_path, primary)
    parts = pieces(LARGE.body)
    answers = []
    for carried in (parts[:1], parts[:1], parts[2:3], parts[1:]):
        line.take(line.message(primary.sign([LARGE]), carried))
        answers.append([(each.received, each.whole, each.again) for each in line.answers().body_acks])
    size = len(LARGE.body)
    assert answers == [[(PIECE, False, False)], [(PIECE, False, False)], [(PIECE, False, True)], [(size, True, False)]]


async def test_message_that_comes_twice_is_taken_once(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    older = line.message(primary.sign([MOTD]), pieces(MOTD.body))
    line.take(older)
    line.bring(primary.sign([NTP]), [NTP.body])
    assert line.take(older) is None, "it is passed over, not refused"
    await held.save()
    assert await contents(held) == expected(NTP)


async def test_large_set_comes_in_pieces(tmp_path: Path, primary: Primary) -> None:
    wishes = [policy(number, {"text": str(number)}, name=f"group {number}") for number in range(1, 400)]
    whole = primary.sign(wishes).SerializeToString()
    assert len(whole) > 2 * PIECE
    held, line = linked(tmp_path, primary)
    message = line.message(None, pieces(whole))
    message.large_set.origin, message.large_set.digest = primary.name, documents.digest(whole)
    assert line.take(message) is None
    line.bring(whole=bodies(wishes))
    await held.save()
    assert await contents(held) == expected(*wishes)
    assert versions_of(line.answers().set_acks) == [1]


# --- Lies ---------------------------------------------------------------------------------------------------------------------


async def test_sets_that_lie_are_refused_answered_and_change_nothing(tmp_path: Path, primary: Primary) -> None:
    """Attacks rows 24, 38 and 46."""
    (held, line), sibling = await holding(tmp_path, primary), Primary()
    old = primary.sign([NTP])
    line.bring(primary.sign([MOTD]), [MOTD.body])
    await held.save()
    retargeted = primary.sign([NTP], target="bbbbbbbbbb")
    forged = primary.sign([NTP])
    forged.signature = sibling.sign([NTP]).signature
    renamed = sibling.sign([NTP])
    renamed.origin = primary.name
    conflict = primary.sign([NTP], version=SetVersion(1, 3))
    lies = {old.signature: Reason.SET_STALE, conflict.signature: Reason.SET_CONFLICT}
    line.answers()
    for lie in (old, retargeted, forged, renamed, sibling.sign([NTP]), conflict):
        refused, due = line.bring(lie, [NTP.body]), lies.get(lie.signature, Reason.SET_INVALID)
        assert refused is not None
        assert refused.reason is due
        (told,) = line.answers().set_refusals
        number = pb.DesiredSet.FromString(lie.desired_set).number
        assert (told.origin, told.epoch, told.number, told.reason, told.below) == (lie.origin, 1, number, due, False)
        assert told.message == refused.message
        assert not await held.save()
        assert await contents(held) == expected(MOTD)


async def test_set_that_cannot_be_read_is_answered_without_a_version(tmp_path: Path, primary: Primary) -> None:
    _, line = linked(tmp_path, primary)
    assert line.bring(pb.SignedSet(origin=primary.name, desired_set=b"\xff", signature=b"x", size=1)) is not None
    (told,) = line.answers().set_refusals
    assert (told.origin, told.epoch, told.number, told.reason) == (primary.name, 0, 0, Reason.SET_INVALID)


async def test_refused_set_takes_no_bodies_from_others(tmp_path: Path, primary: Primary) -> None:
    """In one message a relay may put a lie before what another set waits for."""
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]))
    assert refusal(line.bring(Primary().sign([]), [MOTD.body])) is Reason.SET_INVALID
    assert await held.save()
    assert await contents(held) == expected(MOTD)


async def test_restored_primary_with_few_decisions_is_heard(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD], version=SetVersion(1, 1000)), [MOTD.body])
    await held.save()
    line.bring(primary.sign([NTP], version=SetVersion(2, 3)), [NTP.body])
    assert await held.save()
    assert refusal(line.bring(primary.sign([MOTD], version=SetVersion(1, 1001)), [MOTD.body])) is Reason.SET_STALE


async def test_bodies_that_came_for_a_set_are_there_for_the_one_that_replaces_it(tmp_path: Path, primary: Primary) -> None:
    """The primary sends a body once over a link."""
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    line.bring(primary.sign([MOTD, NTP]), [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(MOTD, NTP)
    assert versions_of(line.answers().set_acks) == [2]


# --- Two links at once --------------------------------------------------------------------------------------------------------


async def test_body_that_a_hello_named_stays_while_its_link_is_open(tmp_path: Path, primary: Primary) -> None:
    """The link before it may replace the set that the hello spoke of; whoever heard that hello sends no body again."""
    held, older = await holding(tmp_path, primary, MOTD)
    hello = introduced(held)
    older.bring(primary.sign([NTP]), [NTP.body])
    await held.save()
    newer = Line(held, hello)
    changed = policy(9, {"server": "c"}, kind="ntp")
    newer.bring(primary.sign([changed]), [changed.body])
    await held.save()
    newer.bring(primary.sign([MOTD]))
    await held.save()
    assert await contents(held) == expected(MOTD)
    last = Line(held)
    last.bring(primary.sign([NTP]), [NTP.body])
    await held.save()
    Line(held).bring(primary.sign([changed]), [changed.body])
    await held.save()
    Line(held).bring(primary.sign([NTP]), [NTP.body])
    await held.save()
    assert MOTD.item.digest.hex() not in stored(tmp_path)


async def test_body_that_waits_for_the_disk_and_was_named_in_a_hello_stays(tmp_path: Path, primary: Primary) -> None:
    """Its size is a multiple of a piece's: then nothing of it travels again."""
    whole = wish("task/update", run_id(1), 1, bytes(PIECE))
    held, older = linked(tmp_path, primary)
    older.bring(primary.sign([whole]), [whole.body])
    hello = introduced(held)
    assert [(each.digest, each.received) for each in hello.bodies] == [(whole.item.digest, PIECE)]
    older.bring(primary.sign([NTP]), [NTP.body])
    newer = Line(held, hello)
    newer.bring(primary.sign([whole]))
    await held.save()
    assert await contents(held) == expected(whole)


async def test_set_that_came_over_the_older_link_is_acknowledged_by_the_newer_when_it_comes_again(
    tmp_path: Path, primary: Primary
) -> None:
    held, older = linked(tmp_path, primary)
    hello = introduced(held)
    signed = primary.sign([MOTD])
    older.bring(signed, [MOTD.body])
    newer = Line(held, hello)
    await held.save()
    assert versions_of(newer.answers().set_acks) == []
    newer.bring(signed)
    assert versions_of(newer.answers().set_acks) == [1]


# --- Several origins ----------------------------------------------------------------------------------------------------------


async def test_the_upper_origins_documents_come_first(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    low, high = policy(9, {"text": "low"}), policy(4, {"text": "high"})
    line.bring(lower.sign([low]), [low.body])
    line.bring(upper.sign([high]), [high.body])
    assert await held.save()
    found = await held.all("policy/")
    assert [(each.origin, each.item.revision) for each in found] == [(upper.name, 4), (lower.name, 9)]
    named = versions((each.origin, each.item) for each in found)
    assert named == {upper.name: (high.item.version,), lower.name: (low.item.version,)}


async def test_an_origins_newer_set_removes_only_its_own(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(lower.sign([MOTD]), [MOTD.body])
    line.bring(upper.sign([MOTD, NTP]), [NTP.body])
    await held.save()
    line.bring(upper.sign([]))
    await held.save()
    assert [(each.origin, each.body) for each in await held.all("")] == [(lower.name, MOTD.body)]


async def test_one_origins_set_need_not_wait_for_anothers(tmp_path: Path, disk: Disk) -> None:
    """Faults row 7."""
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(upper.sign([MOTD]), [MOTD.body])
    line.bring(lower.sign([NTP]), [NTP.body])
    disk.full = lambda path: path.name == f"{upper.name}.set"
    with pytest.raises(Refused):
        await held.save()
    assert await contents(held) == expected(NTP)


async def test_an_origin_that_stands_above_no_more_takes_its_documents_with_it(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(lower.sign([MOTD]), [MOTD.body])
    line.bring(upper.sign([NTP]), [NTP.body])
    await held.save()
    held.stand([lower.origin])
    assert await contents(held) == expected(MOTD)
    assert refusal(line.bring(upper.sign([NTP]))) is Reason.SET_INVALID
    assert await held.save()
    assert await contents(loaded(tmp_path, upper, lower)) == expected(MOTD)
    assert [each.origin for each in introduced(held).held] == [lower.name]


async def test_ancestry_that_changes_while_sets_are_read_breaks_nothing(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(lower.sign([MOTD]), [MOTD.body])
    line.bring(upper.sign([NTP]), [NTP.body])
    await held.save()
    reading = asyncio.create_task(held.complete())
    await asyncio.sleep(0)  # it has begun
    held.stand([upper.origin])
    assert [each.held.origin for each in await reading] == [upper.name, lower.name]
    assert [each.held.origin for each in await held.complete()] == [upper.name]


async def test_an_origin_that_leaves_and_comes_back_keeps_its_newest_set(tmp_path: Path, disk: Disk) -> None:
    """Faults row 7: what could not be removed in time must not be removed too late."""
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(upper.sign([NTP]), [NTP.body])
    await held.save()
    held.stand([lower.origin])
    held.stand([upper.origin, lower.origin])
    line.bring(upper.sign([MOTD]), [MOTD.body])
    assert await held.save()
    assert await contents(loaded(tmp_path, upper, lower)) == expected(MOTD)


async def test_set_of_an_older_step_of_its_origin_does_not_count(tmp_path: Path) -> None:
    """The parent moved to another account of its own parent: what was wanted there is neither in force nor in the way."""
    upper, lower = Primary(number=1000), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(upper.sign([NTP]), [NTP.body])
    await held.save()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    held.stand([moved.origin, lower.origin])
    assert await contents(held) == []
    assert refusal(line.bring(upper.sign([NTP]))) is Reason.SET_INVALID
    line.bring(moved.sign([MOTD]), [MOTD.body])
    assert await held.save()
    assert await contents(held) == expected(MOTD)
    assert await contents(loaded(tmp_path, moved, lower)) == expected(MOTD)
    assert [each.target for each in introduced(held).held] == ["bbbbbbbbbb"]


async def test_set_of_an_older_step_is_no_damage_after_a_crash(tmp_path: Path) -> None:
    """The way up was written down, and the old set not yet removed: what others want is worked on all the same."""
    upper, lower = Primary(), Primary()
    held, line = linked(tmp_path, upper, lower)
    line.bring(upper.sign([NTP]), [NTP.body])
    line.bring(lower.sign([MOTD]), [MOTD.body])
    await held.save()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    held = loaded(tmp_path, moved, lower)
    assert await contents(held) == expected(MOTD)
    assert [each.origin for each in introduced(held).held] == [lower.name]
    assert await held.save()
    assert not (tmp_path / "documents" / f"{upper.name}.set").exists()


async def test_set_that_is_written_as_its_step_ends_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upper, lower = Primary(), Primary()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    slow, (held, line) = Slow(monkeypatch), linked(tmp_path, upper, lower)
    line.bring(upper.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.stand([moved.origin, lower.origin])
    slow.go.set()
    await saving
    await held.save()
    assert list(introduced(held).held) == []
    assert await contents(loaded(tmp_path, moved, lower)) == []


async def test_a_set_that_is_written_as_its_origin_leaves_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upper, lower = Primary(), Primary()
    slow, (held, line) = Slow(monkeypatch), linked(tmp_path, upper, lower)
    line.bring(upper.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.stand([lower.origin])
    slow.go.set()
    await saving
    await held.save()
    assert list(introduced(held).held) == []
    assert await contents(loaded(tmp_path, upper, lower)) == []


# --- The disk -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", range(3))
async def test_a_full_disk_leaves_the_set_before_and_the_next_attempt_succeeds(
    tmp_path: Path, primary: Primary, disk: Disk, write: int
) -> None:
    """Faults row 7, at each write."""
    old = policy(1, {"text": "old"})
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([old]), [old.body])
    await held.save()
    line.bring(primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    disk.done.clear()
    disk.full = lambda _: len(disk.done) > write
    with pytest.raises(Refused) as caught:
        await held.save()
    assert caught.value.reason is Reason.STORAGE_FULL
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(old)
        assert [each.number for each in introduced(there).held] == [1]
    disk.full = lambda _: False
    assert await held.save()
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD, NTP)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("operation", range(5))
async def test_a_crash_at_any_operation_leaves_the_set_before_or_the_new_one(
    tmp_path: Path, primary: Primary, disk: Disk, operation: int, after: bool
) -> None:
    """Faults row 2: two bodies, the set, then the removal of what the set before had."""
    old = [policy(1, {"text": "old"}), policy(1, {"text": "older"}, kind="ntp")]
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign(old), bodies(old))
    await held.save()
    line.bring(newest := primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    disk.dies_at, disk.after = operation, after
    with pytest.raises(Crash):
        await held.save()
    disk.live()
    again, line = linked(tmp_path, primary)
    counts = operation > 2 or (operation == 2 and after)
    assert await contents(again) == (expected(MOTD, NTP) if counts else expected(*old))
    line.bring(newest, bodies([MOTD, NTP]))
    await again.save()
    assert await contents(again) == expected(MOTD, NTP)
    last = policy(5, {"text": "last"})
    Line(again).bring(primary.sign([last]), [last.body])
    await again.save()
    Line(again).bring(primary.sign([]))
    await again.save()
    assert stored(tmp_path) == {last.item.digest.hex()}, "what the crash left over is removed"


async def test_a_body_that_cannot_be_removed_holds_nothing_up(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    await held.save()

    def refuse(path: Path) -> None:
        raise Refused(Reason.FILE_FAILED, f"{path}: read-only file system.")

    monkeypatch.setattr(files, "remove", refuse)
    line.bring(primary.sign([NTP]), [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(NTP)


@pytest.mark.parametrize("damage", ["set", "body", "body gone"])
async def test_a_damaged_set_is_asked_for_again_and_counts_as_unknown_not_as_empty(
    tmp_path: Path, primary: Primary, damage: str
) -> None:
    """Faults row 9: what is in force stays. An empty set would take everything back."""
    signed = primary.sign([MOTD])
    held, line = linked(tmp_path, primary)
    line.bring(signed, [MOTD.body])
    await held.save()
    body = tmp_path / "documents" / "bodies" / MOTD.item.digest.hex()
    if damage == "set":
        (tmp_path / "documents" / f"{primary.name}.set").write_bytes(b"\xff" * 50)
    elif damage == "body":
        body.write_bytes(b"something else")
    else:
        body.unlink()
    again, line = linked(tmp_path, primary)
    assert reason(lambda: again.items("")) is Reason.FILE_FAILED
    with pytest.raises(Refused):
        await again.all("")
    (named,) = introduced(again).held
    assert named.content not in (b"", documents.content([]), documents.content([MOTD.item]))
    assert list(named.digests) == []
    line.bring(signed, [MOTD.body])
    assert await again.save()
    assert await contents(again) == expected(MOTD)


async def test_set_for_another_id_counts_as_unknown_until_one_for_the_new_id_is_here(tmp_path: Path, primary: Primary) -> None:
    """Faults row 9: whatever lies between the new certificate and the next link, what is in force stays."""
    above = Primary(target="m" * 10)
    held, line = linked(tmp_path, above, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    line.bring(above.sign([NTP]), [NTP.body])
    await held.save()
    renamed = replace(primary, target="z" * 10)
    again, line = linked(tmp_path, above, renamed)
    assert reason(lambda: again.items("")) is Reason.FILE_FAILED
    assert not await again.save()
    assert {named.origin: list(named.digests) for named in introduced(again).held} == {
        above.name: [NTP.item.digest],
        primary.name: [],
    }
    again, line = linked(tmp_path, above, renamed)
    line.bring(renamed.sign([MOTD]), [MOTD.body])
    assert await again.save()
    assert await contents(again) == expected(NTP, MOTD)


async def test_a_damaged_body_does_not_let_an_older_set_in(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38."""
    older, newer = primary.sign([NTP]), primary.sign([MOTD])
    held, line = linked(tmp_path, primary)
    line.bring(newer, [MOTD.body])
    await held.save()
    (tmp_path / "documents" / "bodies" / MOTD.item.digest.hex()).unlink()
    _, line = linked(tmp_path, primary)
    assert refusal(line.bring(older, [NTP.body])) is Reason.SET_STALE


async def test_a_body_damaged_while_we_run_is_never_handed_out(tmp_path: Path, primary: Primary) -> None:
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    await held.save()
    (tmp_path / "documents" / "bodies" / MOTD.item.digest.hex()).write_bytes(b"something else")
    with pytest.raises(Refused) as caught:
        await held.all("")
    assert caught.value.reason is Reason.FILE_FAILED


# --- At the same time ---------------------------------------------------------------------------------------------------------


class Slow:
    """Holds up the first write of a set until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        write = files.write

        def slow(path: Path, data: bytes) -> None:
            if path.suffix == ".set" and not self.begun.is_set():
                self.begun.set()
                assert self.go.wait(20)
            write(path, data)

        monkeypatch.setattr(files, "write", slow)


async def test_an_older_set_over_a_new_link_does_not_replace_the_one_being_written(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks row 38: versions never go backwards, whatever comes at whatever moment."""
    slow, (held, line) = Slow(monkeypatch), linked(tmp_path, primary)
    older, newer = primary.sign([NTP]), primary.sign([MOTD])
    line.bring(newer, [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    assert refusal(Line(held).bring(older, [NTP.body])) is Reason.SET_STALE
    slow.go.set()
    assert await saving
    assert not await held.save()
    assert await contents(held) == await contents(loaded(tmp_path, primary)) == expected(MOTD)


async def test_a_newer_set_that_comes_while_one_is_written_is_written_next(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, (held, line) = Slow(monkeypatch), linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    line.bring(primary.sign([MOTD, NTP]), [NTP.body])
    slow.go.set()
    assert await saving
    assert await held.save()
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD, NTP)


async def test_a_stop_in_the_middle_of_writing_waits_for_the_disk(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, the thread that writes could replace what a later one wrote."""
    slow, (held, line) = Slow(monkeypatch), linked(tmp_path, primary)
    line.bring(primary.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    saving.cancel()
    done, _ = await asyncio.wait({saving}, timeout=0.1)
    assert not done
    slow.go.set()
    await asyncio.wait({saving})
    assert saving.cancelled()
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD)


async def test_files_are_read_and_written_beside_the_event_loop(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, line = linked(tmp_path, primary)
    threads: set[int] = set()
    for name in ("write", "remove", "read"):
        original = getattr(files, name)

        def noted(*arguments: object, original: Callable[..., object] = original) -> object:
            threads.add(threading.get_ident())
            return original(*arguments)

        monkeypatch.setattr(files, name, noted)
    for wishes in ([MOTD], [NTP]):
        line.bring(primary.sign(wishes), bodies(wishes))
        await held.save()
        await held.all("")
    assert threads
    assert threading.get_ident() not in threads


# --- Reading ------------------------------------------------------------------------------------------------------------------


async def test_documents_are_found_by_the_beginning_of_their_kind(tmp_path: Path, primary: Primary) -> None:
    task, strange = run(run_id(1), 3), wish("password/admin", "x", 4, b"secret")
    wishes = [NTP, strange, MOTD, task]
    held, line = linked(tmp_path, primary)
    line.bring(primary.sign(wishes), bodies(wishes))
    await held.save()
    assert await contents(held, "policy/") == expected(NTP, MOTD)
    assert [item.kind for _, item in held.items(("task/", "password/"))] == ["password/admin", "task/update"]
    only = await held.all("policy/", lambda item: item.revision == 1)
    assert only == [Document(primary.name, MOTD.item, MOTD.body)]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, primary: Primary) -> None:
    planted = tmp_path / "documents"
    planted.symlink_to(tmp_path)
    assert reason(lambda: loaded(tmp_path, primary)) is Reason.FILE_UNSAFE


async def test_a_damaged_set_is_said(tmp_path: Path, primary: Primary, caplog: pytest.LogCaptureFixture) -> None:
    loaded(tmp_path, primary)
    (tmp_path / "documents" / f"{primary.name}.set").write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING):
        loaded(tmp_path, primary)
    assert "a desired set is damaged" in caplog.text
