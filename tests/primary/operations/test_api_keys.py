"""Making and ending API keys."""

from __future__ import annotations

from typing import Any

import pytest

from enlist.reasons import Reason
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.api_keys import Kind, hash_of, parse
from enlist_primary.model.servers import State
from enlist_primary.operations import api_keys
from enlist_primary.store import api_keys as rows
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, Desk, bring


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("account", [ACME, PRIMARY])
@pytest.mark.parametrize("max_uses", [0, 1, 200])
@pytest.mark.parametrize("lifetime", [0, 1, 7 * DAY, 100 * 365 * DAY])
@pytest.mark.parametrize("networks", [(), ("10.1.2.3/8",), ("192.0.2.7", "2001:DB8::/32")])
def test_an_api_key_is_kept_as_it_was_wanted(
    desk: Desk, kind: Kind, account: str, max_uses: int, lifetime: int, networks: tuple[str, ...]
) -> None:
    with desk.touching_only(account):
        text = desk.api_key(kind, account, max_uses=max_uses, lifetime=lifetime, networks=networks)
    id, secret = parse(text)
    key = rows.load(desk.tx, account, id)
    assert (key.account, key.kind, key.uses, key.max_uses) == (account, kind, 0, max_uses or None)
    assert (key.created_at, key.expires_at, key.revoked_at) == (desk.now, desk.now + lifetime if lifetime else None, None)
    forms = {"10.1.2.3/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "2001:DB8::/32": "2001:db8::/32"}
    assert key.networks == tuple(forms[each] for each in networks)
    assert (key.secret_hash, key.group, key.server_id) == (hash_of(secret), "/", None)
    entry = desk.newest(account)
    assert (entry.action, entry.subject, entry.detail) == ("api-key.create", f"apiKeys/{id}", {"kind": kind, "group": "/"})


@pytest.mark.parametrize(
    "wanted",
    [
        {"max_uses": -1},
        {"lifetime": -1},
        {"lifetime": 100 * 365 * DAY + 1},
        {"lifetime": 2**63 - 1},
        {"networks": ("10.0.0.0/33",)},
        {"networks": ("10.0.0.0/8", "")},
        {"networks": ("10.0.0.0/8,::/0",)},
        {"networks": ("fe80::%a,b/64",)},
        {"group": "a//b"},
        {"group": "a/-b"},
        {"group": "a/\x1b"},
    ],
    ids=str,
)
@pytest.mark.parametrize("account", [ACME, PRIMARY])
def test_what_makes_no_sense_is_refused(desk: Desk, account: str, wanted: dict[str, Any]) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.api_key(account=account, **wanted)


def test_a_group_that_is_missing_is_made_with_the_api_key(desk: Desk) -> None:
    text = desk.api_key(group="Sites/Paris")
    assert rows.load(desk.tx, ACME, parse(text).id).group == "Sites/Paris"
    assert [entry.action for entry in desk.journal()[-3:]] == ["group.create", "group.create", "api-key.create"]


def test_a_vendor_s_api_key_names_no_group(desk: Desk) -> None:
    with desk.refuses(Reason.INVALID_ARGUMENT):
        desk.api_key(account=PRIMARY, group="Sites")


@pytest.mark.parametrize("account", [ACME, PRIMARY])
def test_revoking_ends_it_once_and_for_all(desk: Desk, account: str) -> None:
    text = desk.api_key(Kind.FULL, account)
    desk.later(60)
    with desk.touching_only(account):
        key = desk.revoke_api_key(text, account)
    assert key.revoked_at == desk.now
    assert desk.newest(account).action == "api-key.revoke"
    desk.later(60)
    with desk.unchanged():
        assert desk.revoke_api_key(text, account) == key


def test_servers_that_joined_with_it_stay(desk: Desk) -> None:
    text = desk.api_key(Kind.FULL)
    server = desk.ask(api_key=text)
    desk.revoke_api_key(text)
    assert desk.load(server) == server


@pytest.mark.parametrize("owner", [BETA, PRIMARY])
def test_another_account_s_api_key_is_not_there(desk: Desk, owner: str) -> None:
    """Attacks row 15: the vendor's counts in the account, and is not the account's to end."""
    text = desk.api_key(account=owner)
    with desk.refuses(Reason.NOT_FOUND) as no:
        desk.revoke_api_key(text, ACME)
    assert no.value.message == f'There is no API key "{parse(text).id}" in this account.'


@pytest.mark.parametrize("id", ["", "%", "aaaaaaaaaa", "' OR 1=1 --"])
def test_an_api_key_that_is_not_there_is_not_ended(desk: Desk, id: str) -> None:
    desk.api_key()
    with desk.refuses(Reason.NOT_FOUND):
        desk.do(api_keys.revoke, ACME, id, ANN, desk.now)


def test_api_keys_are_listed_in_the_order_they_were_made_each_account_its_own(desk: Desk) -> None:
    made = []
    for _ in range(5):
        made.append(parse(desk.api_key()).id)
        desk.api_key(account=BETA)
        desk.later(1)
    assert [key.id for key in rows.listed(desk.tx, ACME)] == made


def test_uses_are_counted_for_whoever_it_let_ask(desk: Desk) -> None:
    text = desk.api_key(max_uses=3)
    for number in range(3):
        assert desk.ask(f"{number}", api_key=text).state is State.PENDING
    assert desk.uses(text) == 3
    with desk.refuses(Reason.API_KEY_USED_UP):
        desk.ask("one too many", api_key=text)


def test_a_revoked_server_uses_nothing_up(desk: Desk) -> None:
    bring(desk, State.REVOKED)
    text = desk.api_key(max_uses=1)
    with desk.refuses(Reason.SERVER_REVOKED):
        desk.ask(api_key=text)
    assert desk.uses(text) == 0
