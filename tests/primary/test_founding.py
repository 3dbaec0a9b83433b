"""`init`, as far as its command's tests do not show it: all of a primary, or nothing that looks like one: `founding`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.v1 import account_pb2, hierarchy_pb2, journal_pb2
from enlist_primary import config as configuration
from enlist_primary.authority import keys
from enlist_primary.config import Config
from enlist_primary.datafolder import DataFolder
from enlist_primary.founding import found
from enlist_primary.model import users
from tests.support.inprocess import running_primary, serving

CONFIG = Config("Primary", "127.0.0.1", ssl_port=0, api_port=0)


class Crash(Exception):
    """The power went."""


async def test_the_owner_s_token_stands_over_all_accounts(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running, running.stranger() as stub:
        owner = (("authorization", f"Bearer {running.owner_token}"),)
        made = await stub.accounts.CreateAccount(account_pb2.CreateAccountRequest(domain="new.example"), metadata=owner)
        assert made.domain == "new.example"
        listed = await stub.accounts.ListAccounts(account_pb2.ListAccountsRequest(), metadata=owner)
        assert [account.domain for account in listed.accounts] == ["acme.example", "new.example"]


async def test_the_journal_of_the_primary_begins_with_its_founding(tmp_path: Path) -> None:
    async with running_primary(tmp_path) as running:
        listed = await running.admin.journal.ListEntries(journal_pb2.ListEntriesRequest(parent="accounts/."))
        (entry,) = listed.entries
        assert (entry.number, entry.actor, entry.method, entry.action) == (1, "primary", "itself", "primary.init")
        token = users.parse_token(running.owner_token)
        assert token is not None
        detail = {"name": "Test Primary", "fingerprint": running.authority.fingerprint, "owner": token.user_id}
        assert dict(entry.detail) == detail
        request = journal_pb2.VerifyJournalRequest(parent="accounts/.")
        assert (await running.admin.journal.VerifyJournal(request)).entries == 1


@pytest.mark.parametrize("written", range(4))
async def test_a_crash_at_any_step_leaves_no_primary_and_the_next_init_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The authority's key, its certificate, the database, the owner's token; the configuration comes last and makes it one."""
    folder, write, count = DataFolder(tmp_path / "primary"), files.write, 0

    def crashing(path: Path, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > written:
            raise Crash
        write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", crashing)
        with pytest.raises(Crash):
            await found(folder, CONFIG, int(time.time()))
    with pytest.raises(Refused) as raised:
        configuration.load(folder.config)
    assert raised.value.reason is Reason.CONFIG_MISSING
    first = folder.authority_key.read_bytes() if folder.authority_key.exists() else b""
    await found(folder, CONFIG, int(time.time()))
    assert folder.authority_key.read_bytes() != first
    async with serving(folder, CONFIG) as running:
        assert (await running.admin.hierarchy.GetStatus(hierarchy_pb2.GetStatusRequest())).primary_name == "Primary"


async def test_a_folder_that_another_process_works_in_is_not_touched(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "primary")
    files.make_folder(folder.path)
    with folder.lock():
        with pytest.raises(Refused) as raised:
            await found(folder, CONFIG, int(time.time()))
        assert raised.value.reason is Reason.FOLDER_IN_USE
        assert [path.name for path in folder.path.iterdir()] == ["lock"]


async def test_two_primaries_have_nothing_in_common(tmp_path: Path) -> None:
    made = [await found(DataFolder(tmp_path / name), CONFIG, int(time.time())) for name in ("one", "two")]
    assert made[0].authority.fingerprint != made[1].authority.fingerprint
    assert made[0].challenge_secret != made[1].challenge_secret
    assert (tmp_path / "one/owner.token").read_text() != (tmp_path / "two/owner.token").read_text()


async def test_the_authority_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "primary")
    made = await found(folder, CONFIG, int(time.time()))
    assert keys.load(folder).authority == made.authority
    assert certificates.read_authority(certificates.der(made.authority.certificate)) == made.authority
    assert made.authority.fingerprint in repr(made)
    assert str(made._key.private_numbers().private_value) not in repr(made)
