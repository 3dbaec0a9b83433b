"""The identity: faults row 2 (killed between any two writes), attacks row 45 (planted keys), and the copied machine."""

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist_primary.authority.signer import Signer
from enlist_secondary import api_key, identity
from enlist_secondary.identity import Identity
from tests.support.pretender import new_signer

SIGNER, STRANGER = new_signer(), new_signer()
AUTHORITY = SIGNER.authority
DAY = 86400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "main"


def certificate_for(made: Identity, signer: Signer = SIGNER, account: str = "acme.example") -> x509.Certificate:
    der = signer.issue_secondary(made.key.public_key(), account, "abcdefghij", DAY, int(time.time()))
    return certificates.load(der)


def loaded(folder: Path) -> Identity:
    found = identity.load(folder)
    assert found is not None
    return found


def test_an_identity_is_kept_and_read_again(folder: Path) -> None:
    made = identity.make(folder, AUTHORITY)
    found = loaded(folder)
    assert (found.fingerprint, found.authority.fingerprint) == (made.fingerprint, AUTHORITY.fingerprint)
    assert found.certificate is None
    assert not found.usable(0)
    assert found.comparison_code("a.example") == certificates.comparison_code(AUTHORITY.primary_id, made.public_key, "a.example")


def test_everything_is_0600_in_a_0700_folder(folder: Path) -> None:
    """Attacks row 45."""
    identity.make(folder, AUTHORITY)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_making_it_again_keeps_the_key(folder: Path) -> None:
    assert identity.make(folder, AUTHORITY).fingerprint == identity.make(folder, AUTHORITY).fingerprint


def test_a_key_is_never_used_with_another_authority(folder: Path) -> None:
    """Else the comparison code could be ground out."""
    made = identity.make(folder, AUTHORITY)
    with pytest.raises(Refused) as caught:
        identity.make(folder, STRANGER.authority)
    assert caught.value.reason is Reason.IDENTITY_CHANGED
    assert loaded(folder).fingerprint == made.fingerprint


@pytest.mark.parametrize("survivors", [[], ["authority.pem"], ["authority.pem", "machine-id"], ["certificate.pem"]])
def test_killed_before_the_key_was_written_it_starts_again(folder: Path, survivors: list[str]) -> None:
    """Faults row 2."""
    old = identity.make(folder, STRANGER.authority)
    old.keep(certificate_for(old, STRANGER), "acme.example")
    for path in folder.iterdir():
        if path.name not in survivors:
            path.unlink()
    assert identity.load(folder) is None
    made = identity.make(folder, AUTHORITY)
    assert loaded(folder).certificate is None
    assert loaded(folder).fingerprint == made.fingerprint != old.fingerprint


def test_a_certificate_is_kept_and_used(folder: Path) -> None:
    made = identity.make(folder, AUTHORITY)
    certificate = certificate_for(made)
    kept = made.keep(certificate, "acme.example")
    assert loaded(folder).certificate == kept.certificate == certificate
    assert kept.client().certificate_pem == certificates.pem(certificate)
    assert b"PRIVATE KEY" in kept.client().key_pem
    assert kept.usable(certificates.ends_at(certificate))
    assert not kept.usable(certificates.ends_at(certificate) + 1)


def test_a_certificate_of_another_key_issuer_or_account_is_not_kept(folder: Path, tmp_path: Path) -> None:
    """Attacks row 47."""
    made, other = identity.make(folder, AUTHORITY), identity.make(tmp_path / "other" / "main", AUTHORITY)
    good = certificate_for(made)
    made.keep(good, "acme.example")
    for bad in (certificate_for(other), certificate_for(made, STRANGER), certificate_for(made, account="other.example")):
        with pytest.raises(Refused) as caught:
            made.keep(bad, "acme.example")
        assert caught.value.reason is Reason.CERTIFICATE_INVALID
    assert loaded(folder).certificate == good


@pytest.mark.parametrize("planted", ["another key", "another issuer", "garbage"])
def test_a_certificate_that_does_not_fit_the_key_is_not_used_and_not_deleted(folder: Path, tmp_path: Path, planted: str) -> None:
    """Faults row 2: key and certificate never mismatch; row 17: nothing is deleted."""
    made, other = identity.make(folder, AUTHORITY), identity.make(tmp_path / "other" / "main", AUTHORITY)
    content = {
        "another key": certificates.pem(certificate_for(other)),
        "another issuer": certificates.pem(certificate_for(made, STRANGER)),
        "garbage": b"garbage",
    }[planted]
    files.write(folder / "certificate.pem", content)
    assert loaded(folder).certificate is None
    assert (folder / "certificate.pem").read_bytes() == content


def test_without_a_certificate_there_is_nothing_to_connect_with(folder: Path) -> None:
    with pytest.raises(Refused) as caught:
        identity.make(folder, AUTHORITY).client()
    assert caught.value.reason is Reason.SERVER_PENDING


@pytest.mark.parametrize("name", ["server.key", "authority.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", certificates.pem(AUTHORITY.certificate)[:-40]])
def test_a_damaged_file_is_refused(folder: Path, name: str, content: bytes) -> None:
    identity.make(folder, AUTHORITY)
    files.write(folder / name, content)
    with pytest.raises(Refused) as caught:
        identity.load(folder)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert str(folder / name) in caught.value.message


def test_a_missing_authority_is_refused(folder: Path) -> None:
    identity.make(folder, AUTHORITY)
    (folder / "authority.pem").unlink()
    with pytest.raises(Refused) as caught:
        identity.load(folder)
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o666])
def test_a_key_that_others_could_read_is_refused(folder: Path, bits: int) -> None:
    """Attacks row 45."""
    identity.make(folder, AUTHORITY)
    (folder / "server.key").chmod(bits)
    with pytest.raises(Refused) as caught:
        identity.load(folder)
    assert caught.value.reason is Reason.FILE_UNSAFE


@pytest.mark.parametrize("name", ["authority.pem", "certificate.pem"])
def test_a_planted_certificate_is_refused(folder: Path, name: str) -> None:
    """Attacks row 45."""
    made = identity.make(folder, AUTHORITY)
    made.keep(certificate_for(made), "acme.example")
    (folder / name).chmod(0o666)
    with pytest.raises(Refused) as caught:
        identity.load(folder)
    assert caught.value.reason is Reason.FILE_UNSAFE


def test_the_key_is_in_no_repr(folder: Path) -> None:
    """Attacks row 44."""
    made = identity.make(folder, AUTHORITY)
    assert repr(made) == f"Identity(fingerprint={made.fingerprint})"


def test_a_reset_leaves_nothing_of_the_old_identity(folder: Path) -> None:
    made = identity.make(folder, AUTHORITY)
    made.keep(certificate_for(made), "acme.example")
    api_key.keep(folder, "enl_secret")
    files.write(folder / "state.json", b"{}")
    identity.reset(folder)
    assert list(folder.iterdir()) == []
    identity.reset(folder)


# --- The machine --------------------------------------------------------------------------------------------------------------


def machine(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.write_text(f"{name}\n")
    return path


def test_a_copied_folder_is_noticed(folder: Path, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    identity.make(folder, AUTHORITY, here)
    identity.check_machine(folder, here)
    with pytest.raises(Refused) as caught:
        identity.check_machine(folder, there)
    assert caught.value.reason is Reason.IDENTITY_COPIED
    assert "reset-identity" in caught.value.message


def test_after_a_reset_the_copy_is_a_server_of_its_own(folder: Path, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    old = identity.make(folder, AUTHORITY, here)
    identity.reset(folder)
    identity.check_machine(folder, there)
    assert identity.make(folder, AUTHORITY, there).fingerprint != old.fingerprint
    identity.check_machine(folder, there)


def test_the_machines_id_itself_is_not_written_down(folder: Path, tmp_path: Path) -> None:
    """machine-id(5) asks for it to be kept to the machine."""
    identity.make(folder, AUTHORITY, machine(tmp_path, "here"))
    assert "here" not in (folder / "machine-id").read_text()


def test_where_a_machine_has_no_id_nothing_is_compared(folder: Path, tmp_path: Path) -> None:
    here, none = machine(tmp_path, "here"), tmp_path / "none"
    identity.check_machine(folder, here)
    identity.make(folder, AUTHORITY, none)
    identity.check_machine(folder, here)
    identity.reset(folder)
    identity.make(folder, AUTHORITY, here)
    identity.check_machine(folder, none)


def test_two_that_make_the_key_at_once_get_the_same(folder: Path) -> None:
    """The daemon and the wizard: one of them would ask to join under a key that is gone."""
    together = threading.Barrier(2, timeout=20)

    def make() -> str:
        together.wait()
        return identity.make(folder, AUTHORITY).fingerprint

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(make), pool.submit(make)
        fingerprints = {one.result(20), other.result(20)}
    kept = identity.load(folder)
    assert kept is not None
    assert fingerprints == {kept.fingerprint}
