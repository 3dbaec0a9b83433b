"""The way up as a server keeps it: whole, never older, and never taken for an empty one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from enlist.documents import Origin
from enlist.reasons import Reason, Refused
from enlist_primary.authority.signer import Signer
from enlist_secondary.ancestors import Ancestors
from tests.attacks.above import Above, way_up
from tests.support.pretender import new_signer

OWN = new_signer()


def loaded(folder: Path, own: Signer = OWN) -> Ancestors:
    """What a daemon that starts knows."""
    origin = Origin(own.authority.public_key, "acme.example", "a" * 10)
    ancestors = Ancestors(folder / "ancestry", own.authority, origin)
    ancestors.load()
    return ancestors


def kept(folder: Path, *above: Above) -> Ancestors:
    """These are above, and that is written down."""
    ancestors = loaded(folder)
    ancestors.take(way_up(*(each.step() for each in above)), {})
    ancestors.save(ancestors.ascent)
    return ancestors


def test_way_up_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    ancestors = kept(tmp_path, Above(OWN))
    assert loaded(tmp_path).ascent == ancestors.ascent


def test_what_is_written_is_what_held_at_one_moment(tmp_path: Path) -> None:
    """The thread that writes is given a value: another way up may come meanwhile."""
    first = Above(OWN)
    ancestors = loaded(tmp_path)
    ancestors.take(way_up(first.step()), {})
    before = ancestors.ascent
    ancestors.take(way_up(Above(OWN).step(2)), {})
    ancestors.save(before)
    assert loaded(tmp_path).ascent == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"ancestry": ""}', b"\xff\xfe", b'{"ancestry": "", "memory": "{}"}'])
def test_unreadable_file_takes_nothing_from_above(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Attacks row 51: else older consents, steps and sets would count again."""
    above = Above(OWN)
    kept(tmp_path, above)
    (tmp_path / "ancestry").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        ancestors = loaded(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    with pytest.raises(Refused) as caught:
        ancestors.take(way_up(above.step()), {})
    assert caught.value.reason is Reason.ORIGINS_UNREADABLE
    assert [each.primary_id for each in ancestors.origins] == [OWN.authority.primary_id]
    assert (tmp_path / "ancestry").read_bytes() == content


def test_file_that_others_may_write_takes_nothing_from_above(tmp_path: Path) -> None:
    above = Above(OWN)
    kept(tmp_path, above)
    (tmp_path / "ancestry").chmod(0o666)
    with pytest.raises(Refused) as caught:
        loaded(tmp_path).take(way_up(above.step()), {})
    assert caught.value.reason is Reason.ORIGINS_UNREADABLE


def test_clearing_all_makes_an_unreadable_file_good_again(tmp_path: Path) -> None:
    above = Above(OWN)
    kept(tmp_path, above)
    (tmp_path / "ancestry").write_bytes(b"{")
    ancestors = loaded(tmp_path)
    ancestors.clear("")
    ancestors.save(ancestors.ascent)
    assert loaded(tmp_path).take(way_up(above.step()), {})


def test_what_is_above_cannot_be_cleared(tmp_path: Path) -> None:
    above, gone = Above(OWN), Above(OWN)
    kept(tmp_path, gone)
    ancestors = loaded(tmp_path)
    ancestors.take(way_up(above.step(2)), {})
    with pytest.raises(Refused) as caught:
        ancestors.clear(above.signer.authority.primary_id)
    assert caught.value.reason is Reason.STATE_FORBIDS
    ancestors.clear(gone.signer.authority.primary_id)
    assert gone.signer.authority.primary_id not in ancestors.ascent.memory.primaries
