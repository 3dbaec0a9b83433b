"""The known primaries: attacks row 22 (an allowlist entry used for another host), and a file that people read and edit."""

from pathlib import Path

import pytest

from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist_secondary.known_primaries import FILE, KnownPrimaries
from tests.support.pretender import new_signer

FIRST, SECOND = new_signer().authority, new_signer().authority
HERE, THERE = Address("primary.example", 13299), Address("10.0.0.3", 13299)


def test_a_missing_file_is_an_empty_list(tmp_path: Path) -> None:
    known = KnownPrimaries.load(tmp_path)
    assert known.accepted(HERE) is None
    assert not known.holds(FIRST.primary_id)


def test_an_accepted_authority_is_known_at_its_address(tmp_path: Path) -> None:
    returned = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    assert returned == KnownPrimaries.load(tmp_path)
    accepted = returned.accepted(HERE)
    assert accepted is not None
    assert accepted.fingerprint == FIRST.fingerprint


def test_an_entry_says_nothing_about_another_address(tmp_path: Path) -> None:
    """Attacks row 22."""
    known = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    assert known.accepted(THERE) is None
    assert known.accepted(Address(HERE.host, 443)) is None
    assert known.holds(FIRST.primary_id)


def test_an_address_is_the_same_in_capitals(tmp_path: Path) -> None:
    known = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    assert known.accepted(Address("PRIMARY.Example", 13299)) is not None


def test_an_address_belongs_to_one_authority(tmp_path: Path) -> None:
    """Attacks row 22: a changed identity is a hard stop here too."""
    known = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    with pytest.raises(Refused) as caught:
        known.accept(SECOND, HERE, "compared", "jo", 0)
    assert caught.value.reason is Reason.IDENTITY_CHANGED
    assert KnownPrimaries.load(tmp_path) == known


def test_a_new_address_of_a_known_authority_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0).accept(FIRST, THERE, "known", "", 99)
    KnownPrimaries.load(tmp_path).accept(SECOND, Address("b", 1), "fingerprint", "", 100)
    text = (tmp_path / FILE).read_text()
    assert 'addresses = ["primary.example:13299", "10.0.0.3:13299"]' in text
    assert (text.count("[[primary]]"), text.count('way = "compared"'), text.count('person = "jo"')) == (2, 1, 1)
    assert 'accepted_at = "1970-01-01T00:00:00Z"' in text


def test_an_entry_that_a_person_deleted_is_forgotten(tmp_path: Path) -> None:
    KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0).accept(SECOND, THERE, "compared", "jo", 0)
    path = tmp_path / FILE
    heading, _, second = path.read_text().split("[[primary]]")
    path.write_text(f"{heading}[[primary]]{second}")
    known = KnownPrimaries.load(tmp_path)
    assert not known.holds(FIRST.primary_id)
    assert known.holds(SECOND.primary_id)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f'fingerprint = "{FIRST.fingerprint}"', f'fingerprint = "{SECOND.fingerprint}"'),
        (f'primary_id = "{FIRST.primary_id}"', f'primary_id = "{SECOND.primary_id}"'),
        ("primary_id =", "primary ="),
        ("BEGIN CERTIFICATE", "BEGIN NOTHING"),
        ("way =", "weg ="),
        ("[[primary]]", "[primary]"),
        ("[[primary]]", "[[primary"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(Refused) as caught:
        KnownPrimaries.load(tmp_path)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert str(path) in caught.value.message


def test_the_person_who_accepted_cannot_break_the_file(tmp_path: Path) -> None:
    """Attacks row 41."""
    known = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", 'jo"\n[[primary]]\x1b', 0)
    assert KnownPrimaries.load(tmp_path) == known
    assert "\x1b" not in (tmp_path / FILE).read_text()


def test_a_planted_file_is_refused(tmp_path: Path) -> None:
    """Attacks row 45."""
    KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    (tmp_path / FILE).chmod(0o666)
    with pytest.raises(Refused) as caught:
        KnownPrimaries.load(tmp_path)
    assert caught.value.reason is Reason.FILE_UNSAFE


def test_what_another_program_accepted_meanwhile_stays(tmp_path: Path) -> None:
    """Daemon and wizard have both read the list before either of them writes it."""
    daemons, wizards = KnownPrimaries.load(tmp_path), KnownPrimaries.load(tmp_path)
    daemons.accept(FIRST, HERE, "company_ca", "", 0)
    wizards.accept(SECOND, THERE, "compared", "jo", 0)
    known = KnownPrimaries.load(tmp_path)
    assert (known.accepted(HERE), known.accepted(THERE)) == (FIRST, SECOND)
    with pytest.raises(Refused):
        wizards.accept(SECOND, HERE, "compared", "jo", 0)


def test_taking_back_undoes_one_authority_only(tmp_path: Path) -> None:
    before = KnownPrimaries.load(tmp_path)
    before.accept(FIRST, HERE, "compared", "jo", 0)
    before.accept(SECOND, THERE, "compared", "jo", 0)
    before.take_back(FIRST.fingerprint)
    assert [entry.fingerprint for entry in KnownPrimaries.load(tmp_path).entries] == [SECOND.fingerprint]
    before.take_back(SECOND.fingerprint)
    assert list(tmp_path.iterdir()) == []


def test_taking_back_leaves_what_was_known_before(tmp_path: Path) -> None:
    before = KnownPrimaries.load(tmp_path).accept(FIRST, HERE, "compared", "jo", 0)
    before.accept(FIRST, THERE, "compared", "jo", 0)
    before.take_back(FIRST.fingerprint)
    assert KnownPrimaries.load(tmp_path) == before
