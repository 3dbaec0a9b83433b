"""The way up as a server keeps it: whole, never older, and never taken for an empty one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from enlist.documents import Origin
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary.authority.signer import Signer
from enlist_secondary.ancestors import Ancestors
from enlist_secondary.cli import main
from tests.attacks.above import Above, way_up
from tests.support.pretender import new_signer
from tests.support.secondaries import Secondary, written

OWN = new_signer()
HERE, GONE = Above(OWN), Above(OWN)


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


# --- The commands ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secondary(tmp_path: Path) -> Secondary:
    """A server whose primary was below `GONE` and is below `HERE` now."""
    secondary = written(tmp_path, Address("127.0.0.1", 1), OWN.authority)
    kept(secondary.config.folder, GONE)
    ancestors = loaded(secondary.config.folder)
    ancestors.take(way_up(HERE.step(2)), {})
    ancestors.save(ancestors.ascent)
    return secondary


def listed(secondary: Secondary, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, bool]]:
    """What `origins list` shows."""
    assert main(["--config", str(secondary.path), "origins", "list", "--json"]) == 0
    return {each["primary_id"]: (each["primary_name"], each["above"]) for each in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("which", [GONE.fingerprint, "--all"])
def test_what_is_not_above_is_listed_and_cleared(secondary: Secondary, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    here, gone = {HERE.fingerprint: ("upper", True)}, {GONE.fingerprint: ("", False)}
    assert listed(secondary, capsys) == here | gone
    assert main(["--config", str(secondary.path), "origins", "clear", which]) == 0
    capsys.readouterr()
    assert listed(secondary, capsys) == here


@pytest.mark.parametrize(
    ("which", "reason"),
    [(HERE.fingerprint, "STATE_FORBIDS"), ("ab" * 32, "NOT_FOUND"), ("ab", "INVALID_ARGUMENT")],
)
def test_clearing_names_why_it_is_refused(
    secondary: Secondary, which: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(secondary.path), "origins", "clear", which]) == 1
    assert capsys.readouterr().err.startswith(f"{reason}: ")


def test_clearing_waits_until_the_daemon_is_stopped(secondary: Secondary, capsys: pytest.CaptureFixture[str]) -> None:
    with files.lock(secondary.config.lock, Reason.ALREADY_RUNNING, "It runs."):
        assert main(["--config", str(secondary.path), "origins", "clear", GONE.fingerprint]) == 1
    assert capsys.readouterr().err.startswith("ALREADY_RUNNING: ")
