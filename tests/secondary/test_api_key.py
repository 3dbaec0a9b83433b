"""The API key between wizard and authorization: attacks rows 44 and 45."""

import stat
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist_secondary import api_key

SECRET = "enl_abcdefghij_" + "k" * 32


def test_an_api_key_is_kept_0600_and_erased(tmp_path: Path) -> None:
    api_key.keep(tmp_path, SECRET)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert api_key.load(tmp_path) == SECRET
    api_key.erase(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert api_key.load(tmp_path) == ""
    api_key.erase(tmp_path)


def test_an_empty_one_takes_the_old_one_away(tmp_path: Path) -> None:
    api_key.keep(tmp_path, SECRET)
    api_key.keep(tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def test_one_that_others_could_read_is_refused_without_being_shown(tmp_path: Path) -> None:
    api_key.keep(tmp_path, SECRET)
    (tmp_path / "api-key").chmod(0o644)
    with pytest.raises(Refused) as caught:
        api_key.load(tmp_path)
    assert caught.value.reason is Reason.FILE_UNSAFE
    assert SECRET not in caught.value.message
