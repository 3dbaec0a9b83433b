"""What is remembered of primaries above: nothing older counts again, and nothing is evicted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

import pytest

from enlist import certificates, origins
from enlist.ancestry import Above
from enlist.certificates import Authority
from enlist.documents import DesiredSet, Origin, Place, SetVersion
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2 as pb
from enlist_primary.authority.signer import new_authority

NOW = 1_795_000_000
ONE, OTHER = "one.example", "other.example"


def authority() -> Authority:
    key = certificates.new_key()
    return Authority(new_authority(key, NOW), certificates.spki(key.public_key()))


@dataclass(frozen=True)
class Parent:
    """A primary above, by one step."""

    authority: Authority
    account: str = ONE
    target: str = "aaaaaaaaaa"
    step: int = 10
    consent: int = 1

    @cached_property
    def above(self) -> Above:
        """As the step to it was verified."""
        origin = Origin(self.authority.public_key, self.account, self.target)
        state, version = pb.ANCESTOR_STATE_PRESENT, SetVersion(1, self.consent)
        return Above("Head office", self.authority, origin, version, state, self.step)

    def set(self, number: int, epoch: int = 1) -> DesiredSet:
        """A set that it signed for the server of this step."""
        return DesiredSet(self.authority.primary_id, self.account, self.target, SetVersion(epoch, number), ())


OWN, PARENT, TOP = authority(), Parent(authority()), Parent(authority(), "top.example", "tttttttttt")


def after(memory: Memory, *parents: Parent, held: tuple[DesiredSet, ...] = ()) -> Memory:
    """Once these are above, the nearest first, and these sets were held."""
    return memory.after([each.above for each in parents], OWN, {each.place: each.version for each in held})


def reason(memory: Memory, *parents: Parent) -> Reason:
    with pytest.raises(Refused) as caught:
        after(memory, *parents)
    return caught.value.reason


def stale(memory: Memory, new: DesiredSet) -> bool:
    try:
        memory.check(new)
    except Refused as refused:
        return refused.reason is Reason.SET_STALE
    return False


def test_older_step_of_an_intermediate_that_moved_is_stale() -> None:
    moved = replace(PARENT, account=OTHER, target="bbbbbbbbbb", step=11)
    memory = after(after(Memory(), PARENT), moved)
    assert reason(memory, PARENT) is Reason.SET_STALE
    assert after(memory, moved) == memory


def test_older_step_stays_stale_after_its_origin_was_gone() -> None:
    memory = after(after(after(Memory(), PARENT), replace(PARENT, step=11)))
    assert reason(memory, PARENT) is Reason.SET_STALE


def test_versions_are_compared_within_an_account_and_server_only() -> None:
    moved = replace(PARENT, account=OTHER, target="bbbbbbbbbb", step=11)
    memory = after(after(Memory(), PARENT), moved, held=(PARENT.set(1000),))
    assert not stale(memory, moved.set(1))
    assert stale(memory, PARENT.set(999))


def test_set_of_an_account_that_was_left_and_joined_again_is_not_replayed() -> None:
    moved, back = replace(PARENT, account=OTHER, step=11), replace(PARENT, step=12)
    memory = after(after(after(Memory(), PARENT), moved, held=(PARENT.set(7),)), back, held=(moved.set(3),))
    assert [stale(memory, back.set(number)) for number in (6, 7, 8)] == [True, False, False]
    assert not stale(memory, back.set(1, epoch=2))


def test_two_children_of_one_origin_have_steps_of_their_own() -> None:
    """A primary that moves below a sibling of its parent was certified there earlier than its parent was."""
    aunt = Parent(authority())
    memory = after(Memory(), PARENT, replace(TOP, step=20))
    moved = after(memory, replace(aunt, consent=2), replace(TOP, step=5, target="uuuuuuuuuu"))
    assert reason(moved, PARENT) is Reason.SET_STALE  # the older consent to the parent before


def test_older_consent_is_stale_at_every_step() -> None:
    memory = after(Memory(), replace(PARENT, consent=5), replace(TOP, consent=5))
    assert reason(memory, replace(PARENT, consent=4), replace(TOP, consent=5)) is Reason.SET_STALE
    assert reason(memory, replace(PARENT, consent=5), replace(TOP, consent=4)) is Reason.SET_STALE


def test_full_memory_refuses_new_origins_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks row 51: primaries that an intermediate invents do not push out what is remembered of honest ones."""
    monkeypatch.setattr(origins, "REMEMBERED", 8)
    memory = after(Memory(), PARENT, TOP)
    memory = after(memory, PARENT, held=(TOP.set(50),))
    for _ in range(6):
        memory = after(memory, PARENT, Parent(authority()))
    with pytest.raises(Refused) as caught:
        after(memory, PARENT, Parent(authority()))
    assert caught.value.reason is Reason.ORIGINS_FULL
    assert "enlist-secondary origins clear" in caught.value.message
    assert "enlist-primary origins clear" in caught.value.message
    assert stale(after(memory, PARENT, TOP), TOP.set(49))


def test_clearing_what_is_not_above_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "REMEMBERED", 2)
    gone = Parent(authority())
    memory = after(after(Memory(), gone), PARENT)
    assert reason(memory, TOP) is Reason.ORIGINS_FULL
    present = {OWN.primary_id, PARENT.authority.primary_id}
    assert gone.authority.primary_id in memory.primaries
    cleared = memory.cleared(gone.authority.primary_id, present)
    assert cleared == memory.cleared("", present)
    assert after(cleared, TOP).primaries == sorted({*present, TOP.authority.primary_id})


def test_what_is_above_now_is_not_cleared() -> None:
    memory = after(Memory(), PARENT)
    present = {OWN.primary_id, PARENT.authority.primary_id}
    for primary_id, expected in ((PARENT.authority.primary_id, Reason.STATE_FORBIDS), ("ab" * 32, Reason.NOT_FOUND)):
        with pytest.raises(Refused) as caught:
            memory.cleared(primary_id, present)
        assert caught.value.reason is expected
    assert memory.cleared("", present) == memory


def test_memory_is_kept_as_it_was() -> None:
    memory = after(after(Memory(), PARENT, TOP), PARENT, held=(TOP.set(50),))
    assert Memory.from_json(memory.to_json()) == memory


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[]", "{", '{"consents": {}, "steps": {}}', '{"consents": {"a": 1}, "steps": {}, "sets": {}}']
)
def test_unreadable_memory_takes_nothing_from_above(text: str) -> None:
    """Attacks row 51: an empty memory in its place would let everything older count again."""
    memory = Memory.from_json(text)
    assert reason(memory, PARENT) is Reason.ORIGINS_UNREADABLE
    with pytest.raises(Refused) as caught:
        memory.check(PARENT.set(1))
    assert caught.value.reason is Reason.ORIGINS_UNREADABLE
    assert Memory.from_json(memory.leaving({Place("a", "b", "c"): SetVersion(1, 1)}).to_json()).damaged
    with pytest.raises(Refused):
        memory.cleared(PARENT.authority.primary_id, ())
    assert after(memory.cleared("", ()), PARENT).primaries


def test_memory_stays_small() -> None:
    """A full one is written whole with each change."""
    memory = Memory()
    for number in range(origins.REMEMBERED):
        memory = after(memory, replace(Parent(PARENT.authority), target=f"{number:010}"))
    assert len(memory.sets) == origins.REMEMBERED
    assert len(json.dumps(memory.to_json())) < 100_000
