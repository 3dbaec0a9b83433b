"""The sets that a server holds: verified, complete, on the disk. Attacks rows 24, 38, 46; faults rows 2, 7, 9."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from enlist import documents
from enlist.documents import SetVersion
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_secondary.documents import Document, Documents, versions
from tests.secondary.disks import Crash, Disk
from tests.secondary.origins import Primary, Wish, bodies, policy, run, run_id, wish
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


async def test_a_set_counts_once_it_is_saved_and_is_there_after_a_restart(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    assert await contents(held) == []
    assert await held.save()
    assert await contents(held) == expected(MOTD, NTP)
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD, NTP)
    assert not await held.save()


async def test_a_set_counts_only_with_all_its_bodies(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38: whoever hands sets down may leave bodies out."""
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD, NTP]), [MOTD.body])
    assert not await held.save()
    assert await contents(held) == []
    held.receive(None, [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(MOTD, NTP)


async def test_bodies_may_come_in_any_order_and_more_than_once(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD, NTP]), [])
    for body in (NTP.body, NTP.body, b"nobody's", MOTD.body, MOTD.body):
        held.receive(None, [body])
        await held.save()
    assert await contents(held) == expected(MOTD, NTP)


async def test_a_body_that_nobody_asked_for_is_not_kept(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 37."""
    held = loaded(tmp_path, primary)
    held.receive(None, [MOTD.body])
    held.receive(primary.sign([MOTD]), [])
    assert not await held.save()
    assert stored(tmp_path) == set()


async def test_a_body_over_the_limit_is_not_kept_even_if_it_was_signed(tmp_path: Path, primary: Primary) -> None:
    """It could not be read back."""
    huge = wish("policy/motd", "/", 1, b"x" * (documents.BODY_LIMIT + 1))
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([huge]), [huge.body])
    assert not await held.save()
    assert held._loose == {}


async def test_bodies_in_memory_have_a_bound(tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 37."""
    monkeypatch.setattr(documents, "BODIES_LIMIT", len(MOTD.body) + 1)
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD, NTP]), [MOTD.body, NTP.body])
    assert list(held._loose) == [MOTD.item.digest]
    assert not await held.save()


async def test_what_a_newer_set_leaves_out_is_gone_and_so_is_its_body(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    for wishes in ([MOTD, NTP], [NTP], []):
        held.receive(primary.sign(wishes), bodies(wishes))
        await held.save()
        assert await contents(held) == expected(*wishes)
        assert stored(tmp_path) == {wish.item.digest.hex() for wish in wishes}


async def test_only_bodies_that_are_not_here_need_to_travel(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
    await held.save()
    again = loaded(tmp_path, primary)
    assert [list(each.digests) for each in again.held()] == [[MOTD.item.digest]]
    again.receive(primary.sign([MOTD, NTP]), [NTP.body])
    assert await again.save()
    assert await contents(again) == expected(MOTD, NTP)


async def test_the_hello_names_what_is_held(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    assert held.held() == []
    signed = primary.sign([MOTD])
    held.receive(signed, [MOTD.body])
    assert held.held() == [], "what is not on the disk is not held"
    await held.save()
    (named,) = held.held()
    assert (named.origin, named.epoch, named.number) == (primary.name, 1, 1)
    assert named.content == documents.verify(signed, primary.origin).content


# --- Lies ---------------------------------------------------------------------------------------------------------------------


async def test_sets_that_lie_are_refused_and_change_nothing(tmp_path: Path, primary: Primary) -> None:
    """Attacks rows 24, 38 and 46."""
    held, sibling = loaded(tmp_path, primary), Primary()
    old = primary.sign([NTP])
    held.receive(primary.sign([MOTD]), [MOTD.body])
    await held.save()
    retargeted = primary.sign([NTP], target="bbbbbbbbbb")
    forged = primary.sign([NTP])
    forged.signature = sibling.sign([NTP]).signature
    renamed = sibling.sign([NTP])
    renamed.origin = primary.name
    conflict = primary.sign([NTP], version=SetVersion(1, 2))
    lies = {old.signature: Reason.SET_STALE, conflict.signature: Reason.SET_CONFLICT}
    for lie in (old, retargeted, forged, renamed, sibling.sign([NTP]), conflict):
        found = reason(lambda lie=lie: held.receive(lie, [NTP.body]))  # type: ignore[misc]  # a default argument binds the loop's variable
        assert found is lies.get(lie.signature, Reason.SET_INVALID)
        assert not await held.save()
        assert await contents(held) == expected(MOTD)


async def test_a_set_that_is_refused_takes_no_bodies_from_others(tmp_path: Path, primary: Primary) -> None:
    """In one message a relay may put a lie before what another set waits for."""
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [])
    assert reason(lambda: held.receive(Primary().sign([]), [MOTD.body])) is Reason.SET_INVALID
    assert await held.save()
    assert await contents(held) == expected(MOTD)


async def test_a_newer_set_without_bodies_keeps_an_older_whole_one_out(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38: of two that may count, only the newest does; whoever withholds its bodies gains nothing by an older one."""
    held = loaded(tmp_path, primary)
    older, newer = primary.sign([MOTD]), primary.sign([NTP])
    held.receive(newer, [])
    assert reason(lambda: held.receive(older, [MOTD.body])) is Reason.SET_STALE
    held.receive(None, [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(NTP)


async def test_a_restored_primary_with_few_decisions_is_heard(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD], version=SetVersion(1, 1000)), [MOTD.body])
    await held.save()
    held.receive(primary.sign([NTP], version=SetVersion(2, 3)), [NTP.body])
    assert await held.save()
    assert reason(lambda: held.receive(primary.sign([MOTD], version=SetVersion(1, 1001)), [MOTD.body])) is Reason.SET_STALE


async def test_bodies_that_came_for_a_set_are_there_for_the_one_that_replaces_it(tmp_path: Path, primary: Primary) -> None:
    """The primary sends a body once over a link. Before, the second of two quick sets waited for it until the link ended."""
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
    held.receive(primary.sign([MOTD, NTP]), [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(MOTD, NTP)


async def test_a_link_that_ended_leaves_nothing_half_received(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    newest = primary.sign([MOTD, NTP])
    held.receive(newest, [MOTD.body])
    held.forget_incoming()
    held.receive(None, [NTP.body])
    assert not await held.save()
    held.receive(newest, [MOTD.body, NTP.body])
    assert await held.save()


async def test_a_body_named_in_the_hello_stays_until_the_next_hello(tmp_path: Path, primary: Primary) -> None:
    """While a certificate is renewed two links are open: the one may replace a set of which the other knows from its hello."""
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
    await held.save()
    held.held()
    held.receive(primary.sign([NTP]), [NTP.body])
    await held.save()
    held.receive(primary.sign([MOTD]), [])  # whoever heard that hello sends no body
    assert await held.save()
    assert await contents(held) == expected(MOTD)
    held.held()
    held.receive(primary.sign([]), [])
    await held.save()
    held.held()
    held.receive(primary.sign([NTP]), [NTP.body])
    await held.save()
    assert stored(tmp_path) == {NTP.item.digest.hex()}


# --- Several origins ----------------------------------------------------------------------------------------------------------


async def test_the_upper_origins_documents_come_first(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    low, high = policy(9, {"text": "low"}), policy(4, {"text": "high"})
    held.receive(lower.sign([low]), [low.body])
    held.receive(upper.sign([high]), [high.body])
    assert await held.save()
    found = await held.all("policy/")
    assert [(each.origin, each.item.revision) for each in found] == [(upper.name, 4), (lower.name, 9)]
    named = versions((each.origin, each.item) for each in found)
    assert named == {upper.name: (high.item.version,), lower.name: (low.item.version,)}


async def test_an_origins_newer_set_removes_only_its_own(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(lower.sign([MOTD]), [MOTD.body])
    held.receive(upper.sign([MOTD, NTP]), [NTP.body])
    await held.save()
    held.receive(upper.sign([]), [])
    await held.save()
    assert [(each.origin, each.body) for each in await held.all("")] == [(lower.name, MOTD.body)]


async def test_one_origins_set_need_not_wait_for_anothers(tmp_path: Path, disk: Disk) -> None:
    """Faults row 7."""
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(upper.sign([MOTD]), [MOTD.body])
    held.receive(lower.sign([NTP]), [NTP.body])
    disk.full = lambda path: path.name == f"{upper.name}.set"
    with pytest.raises(Refused):
        await held.save()
    assert await contents(held) == expected(NTP)


async def test_an_origin_that_stands_above_no_more_takes_its_documents_with_it(tmp_path: Path) -> None:
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(lower.sign([MOTD]), [MOTD.body])
    held.receive(upper.sign([NTP]), [NTP.body])
    await held.save()
    held.stand([lower.origin])
    assert await contents(held) == expected(MOTD)
    assert reason(lambda: held.receive(upper.sign([NTP]), [])) is Reason.SET_INVALID
    assert await held.save()
    assert await contents(loaded(tmp_path, upper, lower)) == expected(MOTD)
    assert [each.origin for each in held.held()] == [lower.name]


async def test_an_origin_that_leaves_and_comes_back_keeps_its_newest_set(tmp_path: Path, disk: Disk) -> None:
    """Faults row 7: what could not be removed in time must not be removed too late."""
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(upper.sign([NTP]), [NTP.body])
    await held.save()
    held.stand([lower.origin])
    held.stand([upper.origin, lower.origin])
    held.receive(upper.sign([MOTD]), [MOTD.body])
    assert await held.save()
    assert await contents(loaded(tmp_path, upper, lower)) == expected(MOTD)


async def test_set_of_an_older_step_of_its_origin_does_not_count(tmp_path: Path) -> None:
    """The parent moved to another account of its own parent: what was wanted there is neither in force nor in the way."""
    upper, lower = Primary(number=1000), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(upper.sign([NTP]), [NTP.body])
    await held.save()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    held.stand([moved.origin, lower.origin])
    assert await contents(held) == []
    assert reason(lambda: held.receive(upper.sign([NTP]), [])) is Reason.SET_INVALID
    held.receive(moved.sign([MOTD]), [MOTD.body])
    assert await held.save()
    assert await contents(held) == expected(MOTD)
    assert await contents(loaded(tmp_path, moved, lower)) == expected(MOTD)
    assert [each.target for each in held.held()] == ["bbbbbbbbbb"]


async def test_set_of_an_older_step_is_no_damage_after_a_crash(tmp_path: Path) -> None:
    """The way up was written down, and the old set not yet removed: what others want is worked on all the same."""
    upper, lower = Primary(), Primary()
    held = loaded(tmp_path, upper, lower)
    held.receive(upper.sign([NTP]), [NTP.body])
    held.receive(lower.sign([MOTD]), [MOTD.body])
    await held.save()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    held = loaded(tmp_path, moved, lower)
    assert await contents(held) == expected(MOTD)
    assert [each.origin for each in held.held()] == [lower.name]
    assert await held.save()
    assert not (tmp_path / "documents" / f"{upper.name}.set").exists()


async def test_set_that_is_written_as_its_step_ends_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upper, lower = Primary(), Primary()
    moved = Primary("other.example", "bbbbbbbbbb", upper.key)
    slow, held = Slow(monkeypatch), loaded(tmp_path, upper, lower)
    held.receive(upper.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.stand([moved.origin, lower.origin])
    slow.go.set()
    await saving
    await held.save()
    assert held.held() == []
    assert await contents(loaded(tmp_path, moved, lower)) == []


async def test_a_set_that_is_written_as_its_origin_leaves_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upper, lower = Primary(), Primary()
    slow, held = Slow(monkeypatch), loaded(tmp_path, upper, lower)
    held.receive(upper.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.stand([lower.origin])
    slow.go.set()
    await saving
    await held.save()
    assert held.held() == []
    assert await contents(loaded(tmp_path, upper, lower)) == []


# --- The disk -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", range(3))
async def test_a_full_disk_leaves_the_set_before_and_the_next_attempt_succeeds(
    tmp_path: Path, primary: Primary, disk: Disk, write: int
) -> None:
    """Faults row 7, at each write."""
    old = policy(1, {"text": "old"})
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([old]), [old.body])
    await held.save()
    held.receive(primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    disk.done.clear()
    disk.full = lambda _: len(disk.done) > write
    with pytest.raises(Refused) as caught:
        await held.save()
    assert caught.value.reason is Reason.STORAGE_FULL
    for there in (held, loaded(tmp_path, primary)):
        assert await contents(there) == expected(old)
        assert [each.number for each in there.held()] == [1]
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
    held = loaded(tmp_path, primary)
    held.receive(primary.sign(old), bodies(old))
    await held.save()
    held.receive(newest := primary.sign([MOTD, NTP]), bodies([MOTD, NTP]))
    disk.dies_at, disk.after = operation, after
    with pytest.raises(Crash):
        await held.save()
    disk.live()
    again = loaded(tmp_path, primary)
    counts = operation > 2 or (operation == 2 and after)
    assert await contents(again) == (expected(MOTD, NTP) if counts else expected(*old))
    again.receive(newest, bodies([MOTD, NTP]))
    await again.save()
    assert await contents(again) == expected(MOTD, NTP)
    last = policy(5, {"text": "last"})
    again.receive(primary.sign([last]), [last.body])
    await again.save()
    assert stored(tmp_path) == {last.item.digest.hex()}, "what the crash left over is removed"


async def test_a_body_that_cannot_be_removed_holds_nothing_up(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
    await held.save()

    def refuse(path: Path) -> None:
        raise Refused(Reason.FILE_FAILED, f"{path}: read-only file system.")

    monkeypatch.setattr(files, "remove", refuse)
    held.receive(primary.sign([NTP]), [NTP.body])
    assert await held.save()
    assert await contents(held) == expected(NTP)


@pytest.mark.parametrize("damage", ["set", "body", "body gone"])
async def test_a_damaged_set_is_asked_for_again_and_counts_as_unknown_not_as_empty(
    tmp_path: Path, primary: Primary, damage: str
) -> None:
    """Faults row 9: what is in force stays. An empty set would take everything back."""
    signed = primary.sign([MOTD])
    held = loaded(tmp_path, primary)
    held.receive(signed, [MOTD.body])
    await held.save()
    body = tmp_path / "documents" / "bodies" / MOTD.item.digest.hex()
    if damage == "set":
        (tmp_path / "documents" / f"{primary.name}.set").write_bytes(b"\xff" * 50)
    elif damage == "body":
        body.write_bytes(b"something else")
    else:
        body.unlink()
    again = loaded(tmp_path, primary)
    assert reason(lambda: again.items("")) is Reason.FILE_FAILED
    with pytest.raises(Refused):
        await again.all("")
    (named,) = again.held()
    assert named.content not in (b"", documents.content([]), documents.content([MOTD.item]))
    assert list(named.digests) == []
    again.receive(signed, [MOTD.body])
    assert await again.save()
    assert await contents(again) == expected(MOTD)


async def test_a_damaged_body_does_not_let_an_older_set_in(tmp_path: Path, primary: Primary) -> None:
    """Attacks row 38."""
    older, newer = primary.sign([NTP]), primary.sign([MOTD])
    held = loaded(tmp_path, primary)
    held.receive(newer, [MOTD.body])
    await held.save()
    (tmp_path / "documents" / "bodies" / MOTD.item.digest.hex()).unlink()
    again = loaded(tmp_path, primary)
    assert reason(lambda: again.receive(older, [NTP.body])) is Reason.SET_STALE


async def test_a_body_damaged_while_we_run_is_never_handed_out(tmp_path: Path, primary: Primary) -> None:
    held = loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
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
    slow, held = Slow(monkeypatch), loaded(tmp_path, primary)
    older, newer = primary.sign([NTP]), primary.sign([MOTD])
    held.receive(newer, [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.forget_incoming()
    held.receive(older, [NTP.body])
    slow.go.set()
    assert await saving
    assert not await held.save()
    assert await contents(held) == await contents(loaded(tmp_path, primary)) == expected(MOTD)


async def test_a_newer_set_that_comes_while_one_is_written_is_written_next(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, held = Slow(monkeypatch), loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
    saving = asyncio.create_task(held.save())
    await eventually(slow.begun.is_set)
    held.receive(primary.sign([MOTD, NTP]), [NTP.body])
    slow.go.set()
    assert await saving
    assert await held.save()
    assert await contents(loaded(tmp_path, primary)) == expected(MOTD, NTP)


async def test_a_stop_in_the_middle_of_writing_waits_for_the_disk(
    tmp_path: Path, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, the thread that writes could replace what a later one wrote."""
    slow, held = Slow(monkeypatch), loaded(tmp_path, primary)
    held.receive(primary.sign([MOTD]), [MOTD.body])
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
    held = loaded(tmp_path, primary)
    threads: set[int] = set()
    for name in ("write", "remove", "read"):
        original = getattr(files, name)

        def noted(*arguments: object, original: Callable[..., object] = original) -> object:
            threads.add(threading.get_ident())
            return original(*arguments)

        monkeypatch.setattr(files, name, noted)
    for wishes in ([MOTD], [NTP]):
        held.receive(primary.sign(wishes), bodies(wishes))
        await held.save()
        await held.all("")
    assert threads
    assert threading.get_ident() not in threads


# --- Reading ------------------------------------------------------------------------------------------------------------------


async def test_documents_are_found_by_the_beginning_of_their_kind(tmp_path: Path, primary: Primary) -> None:
    task, strange = run(run_id(1), 3), wish("password/admin", "x", 4, b"secret")
    wishes = [NTP, strange, MOTD, task]
    held = loaded(tmp_path, primary)
    held.receive(primary.sign(wishes), bodies(wishes))
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
